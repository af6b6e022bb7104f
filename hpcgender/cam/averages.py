"""Averages of raw maps and their differences, exact: sums in double precision, always in the same order."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hpcgender.cam.results import FALSE_DISCOVERIES, SMALL, Array, Average, Difference
from hpcgender.cam.subgroups import Chosen, Subgroups, Subset
from hpcgender.distributed import Ranks
from hpcgender.inference.blocks import Blocks, read_shard

Map = npt.NDArray[np.float64]

PARTS = 64
"""Parts of the shards whose sums are added at the end; a fixed number, so that ranks do not matter."""


@dataclass
class MapSums:
    """Of each subgroup: the number of its images, the sums of their maps and of the maps' squares."""

    images: npt.NDArray[np.int64]
    maps: Map
    squares: Map

    @classmethod
    def zeros(cls, subgroups: int, shape: tuple[int, int]) -> MapSums:
        return cls(np.zeros(subgroups, dtype=np.int64), np.zeros((subgroups, *shape)), np.zeros((subgroups, *shape)))

    def add_maps(self, maps: npt.NDArray[np.float32], codes: npt.NDArray[np.int64]) -> None:
        """Counts maps (n, h, w) of the subgroups `codes` (n,), -1 for none."""
        for code in np.unique(codes[codes >= 0]).tolist():
            of_subgroup = maps[codes == code].astype(np.float64)
            self.images[code] += len(of_subgroup)
            self.maps[code] += of_subgroup.sum(0)
            self.squares[code] += np.square(of_subgroup).sum(0)

    def add(self, other: MapSums) -> None:
        self.images += other.images
        self.maps += other.maps
        self.squares += other.squares

    def over(self, chosen: Chosen) -> Mean:
        """The mean over the images of some subgroups."""
        return Mean.of_sums(int(self.images[chosen].sum()), self.maps[chosen].sum(0), self.squares[chosen].sum(0))


@dataclass(frozen=True)
class Mean:
    """A mean over images, and its standard error: nan without an image, and without two."""

    images: int
    mean: Map
    standard_error: Map

    @classmethod
    def of_sums(cls, images: int, sums: Map, squares: Map) -> Mean:
        mean = sums / images if images else np.full_like(sums, np.nan)
        if images < 2:
            return cls(images, mean, np.full_like(sums, np.nan))
        variance = np.maximum(squares - sums * mean, 0) / (images - 1)
        return cls(images, mean, np.sqrt(variance / images))


def sum_maps(directory: Path, blocks: Blocks, subgroups: Subgroups, ranks: Ranks, shape: tuple[int, int]) -> MapSums:
    """The sums over all images, on rank 0; on the others over a part of them. Every rank must call it."""
    own: dict[int, MapSums] = {}
    parts = np.array_split(np.arange(blocks.shards), min(PARTS, blocks.shards))
    for number in range(ranks.rank, len(parts), ranks.world_size):
        own[number] = MapSums.zeros(subgroups.count, shape)
        for shard in parts[number].tolist():
            log_odds = read_shard(directory, "log_odds", shard)
            codes = subgroups.codes(blocks.samples[blocks.images_of(shard)], log_odds)
            own[number].add_maps(read_shard(directory, "maps", shard), codes)
    sums = {number: part for of_rank in ranks.gather(own) for number, part in of_rank.items()}
    total = MapSums.zeros(subgroups.count, shape)
    for number in sorted(sums):
        total.add(sums[number])
    return total


def significant(difference: Map, standard_error: Map) -> npt.NDArray[np.bool_]:
    """Where a difference is not 0: two-sided by the normal distribution, corrected over the places.

    That is Benjamini and Hochberg's step-up procedure (J. R. Statist. Soc. B 57, 1995), so that of the places called
    significant a part of FALSE_DISCOVERIES is so by chance, on average. Nowhere if there is no standard error.
    """
    from scipy.special import erfc  # 1 s with scipy.stats, only where heat maps are averaged
    from scipy.stats import false_discovery_control

    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.abs(difference / standard_error)
    p = np.where(np.isnan(z), 1.0, erfc(z / np.sqrt(2)))
    found: npt.NDArray[np.bool_] = false_discovery_control(p, axis=None) <= FALSE_DISCOVERIES
    return found.reshape(p.shape)


class Averages:
    """All averages and differences, as results.py describes them, from sums over subgroups."""

    def __init__(self, subgroups: Subgroups, sums: MapSums, faces: npt.NDArray[np.int64]) -> None:
        """`faces` are sums of pixels, int64 (subgroups, 3, size, size)."""
        self.subgroups, self.sums, self.faces = subgroups, sums, faces
        self.averages: list[Average] = []
        self.differences: list[Difference] = []
        self.arrays: dict[str, Array] = {}
        for subset in subgroups.subsets():
            self.add_average(subset)
        female, male = subgroups.classes
        self.add_difference(f"{male} minus {female}", "gender", Subset(male), Subset(female))
        for group in subgroups.groups:
            first, second = Subset(male, group=group), Subset(female, group=group)
            self.add_difference(f"{male} minus {female}, {group}", "gender in group", first, second)
        for gender in subgroups.classes:
            for group in subgroups.groups:
                self.add_difference(f"{gender}: {group} minus the rest", "group", Subset(gender, group=group), None)
            wrong, correct = Subset(gender, outcome="wrong"), Subset(gender, outcome="correct")
            self.add_difference(f"{gender}: wrong minus correct", "outcome", wrong, correct)

    def add_average(self, subset: Subset) -> None:
        """Unless it is of no image."""
        chosen = self.subgroups.chosen(subset)
        mean = self.sums.over(chosen)
        if not mean.images:
            return
        name = subset.name
        self.averages.append(
            Average(
                name=name,
                gender=subset.gender,
                group=subset.group,
                outcome=subset.outcome,
                images=mean.images,
                small=mean.images < SMALL,
                evidence=float(mean.mean.mean()),
            )
        )
        self.arrays |= {f"{name}/mean": mean.mean, f"{name}/standard_error": mean.standard_error}
        self.arrays[f"{name}/face"] = self.mean_face(chosen).astype(np.float32)

    def add_difference(self, name: str, kind: str, first: Subset, second: Subset | None) -> None:
        """Unless one of both is of no image; without `second`, it is the first's gender with the other groups."""
        both = self.subgroups.chosen(first), self.subgroups.chosen(second or first, rest=second is None)
        one, other = (self.sums.over(chosen) for chosen in both)
        if not one.images or not other.images:
            return
        difference = one.mean - other.mean
        error = np.sqrt(one.standard_error**2 + other.standard_error**2)
        small = min(one.images, other.images) < SMALL
        mask = np.zeros(difference.shape, dtype=np.bool_) if small else significant(difference, error)
        self.differences.append(
            Difference(
                name=name,
                kind=kind,  # type: ignore[arg-type]
                gender="" if kind.startswith("gender") else first.gender,
                group=first.group,
                images=(one.images, other.images),
                small=small,
                significant=int(mask.sum()),
            )
        )
        face = (self.mean_face(both[0]) + self.mean_face(both[1])) / 2
        self.arrays |= {f"{name}/difference": difference, f"{name}/standard_error": error}
        self.arrays |= {f"{name}/significant": mask, f"{name}/face": face.astype(np.float32)}

    def mean_face(self, chosen: Chosen) -> Map:
        """The mean face of some subgroups, (size, size, 3) in [0, 255]."""
        mean: Map = self.faces[chosen].sum(0) / self.sums.images[chosen].sum()
        return mean.transpose(1, 2, 0)

    @property
    def limit(self) -> float:
        """The strongest evidence in averages and differences that are not small, or in all if all are."""
        names = [average.name + "/mean" for average in self.averages if not average.small]
        names += [difference.name + "/difference" for difference in self.differences if not difference.small]
        names = names or [name for name in self.arrays if name.endswith(("/mean", "/difference"))]
        return max((float(np.abs(self.arrays[name]).max()) for name in names), default=0.0) or 1.0
