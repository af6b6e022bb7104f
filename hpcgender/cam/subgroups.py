"""Subgroups of images: by gender, group, and whether the gender was classified correctly, as one number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from hpcgender.data.order import Samples
from shard_tools.index import Index

Chosen = npt.NDArray[np.bool_]
Outcome = Literal["", "correct", "wrong"]


@dataclass(frozen=True)
class Subset:
    """Images by gender, group, and whether they were classified correctly; empty for any."""

    gender: str
    group: str = ""
    outcome: Outcome = ""

    @property
    def name(self) -> str:
        if self.group:
            return f"{self.gender} x {self.group}"
        return f"{self.gender} {self.outcome}" if self.outcome else self.gender


class Subgroups:
    """The finest subgroups, numbered: gender, within it group (first images without one), within it wrong and correct.

    Every other subset is a union of some of them, so sums over each of them are all that is needed.
    """

    def __init__(self, index: Index, classes: tuple[str, ...]) -> None:
        self.classes = classes
        self.gender = index["gender"].astype(np.int64)
        names, codes = np.unique(index["group"], return_inverse=True)
        known = [name for name in names.tolist() if name]
        self.groups = tuple(name.decode() for name in known)
        self.group = codes + 1 - (len(names) - len(known))
        """Of each image, int64: 0 unknown, else 1 more than its place in `groups`."""
        self.shape = (len(classes), len(known) + 1, 2)
        self.count = int(np.prod(self.shape))

    def codes(self, samples: Samples, log_odds: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
        """The subgroups of images with predicted `log_odds` of male, int64 (n,); -1 if the gender is unknown or the
        image does not decode. Log-odds of 0 are predicted female, as in predictions.parquet."""
        gender = self.gender[samples]
        correct = (log_odds > 0) == (gender == 1)
        codes = (gender * self.shape[1] + self.group[samples]) * 2 + correct
        return np.where((gender < 0) | np.isnan(log_odds), -1, codes)

    def chosen(self, subset: Subset, *, rest: bool = False) -> Chosen:
        """The subgroups that a subset consists of, bool (count,); `rest`: those of its gender in other known groups."""
        chosen = np.zeros(self.shape, dtype=np.bool_)
        gender = self.classes.index(subset.gender)
        groups: slice | list[int] = slice(None)
        if subset.group:
            groups = [self.groups.index(subset.group) + 1]
            if rest:
                groups = sorted({*range(1, self.shape[1])} - {*groups})
        outcome = {"": slice(None), "wrong": slice(0, 1), "correct": slice(1, 2)}[subset.outcome]
        chosen[gender, groups, outcome] = True
        return chosen.ravel()

    def subsets(self) -> list[Subset]:
        """All averages that there may be: of each gender, in each group, and classified correctly and wrongly."""
        return [
            subset
            for gender in self.classes
            for subset in (
                Subset(gender),
                *(Subset(gender, group=group) for group in self.groups),
                Subset(gender, outcome="correct"),
                Subset(gender, outcome="wrong"),
            )
        ]
