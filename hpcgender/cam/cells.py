"""Which averages an image counts in: gender, group, and whether it was told right, as one number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from hpcgender.data.order import Samples
from shard_tools.index import Index

Chosen = npt.NDArray[np.bool_]
Told = Literal["", "correct", "wrong"]


@dataclass(frozen=True)
class Subset:
    """Images by gender, group and how their gender was told; empty for any."""

    gender: str
    group: str = ""
    told: Told = ""

    @property
    def name(self) -> str:
        if self.group:
            return f"{self.gender} x {self.group}"
        return f"{self.gender} {self.told}" if self.told else self.gender


class Cells:
    """The finest cells, numbered: gender, within it group (first those without one), within it wrong and correct.

    Every other set of images is some of them together, so sums over each of them are all that is needed.
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
        """The cells of images of which the model said `log_odds` of male, int64 (n,); -1 if gender is unknown or they
        do not decode. As predictions do, log-odds of 0 count as female."""
        gender = self.gender[samples]
        correct = (log_odds > 0) == (gender == 1)
        codes = (gender * self.shape[1] + self.group[samples]) * 2 + correct
        return np.where((gender < 0) | np.isnan(log_odds), -1, codes)

    def chosen(self, subset: Subset, *, rest: bool = False) -> Chosen:
        """Which cells a subset has, bool (count,); `rest`: those of its gender with another known group."""
        chosen = np.zeros(self.shape, dtype=np.bool_)
        gender = self.classes.index(subset.gender)
        groups: slice | list[int] = slice(None)
        if subset.group:
            groups = [self.groups.index(subset.group) + 1]
            if rest:
                groups = sorted({*range(1, self.shape[1])} - {*groups})
        told = slice(None) if not subset.told else slice(*((1, 2) if subset.told == "correct" else (0, 1)))
        chosen[gender, groups, told] = True
        return chosen.ravel()

    def subsets(self) -> list[Subset]:
        """All averages that there may be: of each gender, with each group, and told right and wrong."""
        return [
            subset
            for gender in self.classes
            for subset in (
                Subset(gender),
                *(Subset(gender, group=group) for group in self.groups),
                Subset(gender, told="correct"),
                Subset(gender, told="wrong"),
            )
        ]
