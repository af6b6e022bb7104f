"""The data sets of a training, and their weights: `--data a=2 --data b=1`, or one directory. Imports no numpy.

A mixture is one text, `a=2,b=1`, wherever one data set is named by its directory, and `HASH=2,HASH=1` where one is
identified by its manifest's SHA-256.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from shard_tools.base.errors import UserError
from shard_tools.base.options import expand
from shard_tools.manifest import MANIFEST, Manifest, read_manifest

_PART = re.compile(r"(.+)=(\d+(?:\.\d+)?|\.\d+)")
MOST = 10**9
"""Largest sum of the weights as whole numbers, with which positions are still counted exactly."""


@dataclass(frozen=True)
class Place:
    """Where one of the data sets of a training lies, and its weight."""

    root: Path
    weight: int = 1


@dataclass(frozen=True)
class Pack:
    """One of the data sets of a training."""

    manifest: Manifest
    weight: int = 1
    """Its images in a batch are to those of another as their weights, the smallest whole numbers that do."""

    @property
    def name(self) -> str:
        """The name of its directory."""
        return self.manifest.root.resolve().name


def places_of(data: Path) -> tuple[Place, ...]:
    """The data sets that `--data` names; UserError for weights that cannot be."""
    parts = [_PART.fullmatch(part) for part in str(data).split(",")]
    if not all(parts) or (data / MANIFEST).exists():
        return (Place(data),)
    weights = [Fraction(part[2]) for part in parts if part]
    if not all(weights):
        raise UserError(f"--data {data}: each weight must be positive")
    scale = math.lcm(*(weight.denominator for weight in weights))
    whole = [int(weight * scale) for weight in weights]
    whole = [weight // math.gcd(*whole) for weight in whole]
    if sum(whole) > MOST:
        raise UserError(f"--data {data}: give rounder weights, e.g. {' '.join(f'{float(w):.2g}' for w in weights)}")
    roots = [expand(Path(part[1])) for part in parts if part]
    for root in roots:
        if roots.count(root) > 1:
            raise UserError(f"--data {data} names {root} twice: give it once, with the sum of the weights")
    return tuple(Place(root, weight) for root, weight in zip(roots, whole, strict=True))


def only_one(data: Path) -> Path | None:
    """The data set that `--data` names; None if it names several."""
    places = places_of(data)
    return places[0].root if len(places) == 1 else None


def read_packs(data: Path) -> tuple[Pack, ...]:
    """The data sets that `--data` names. UserError if one is missing, twice there, or of other classes than another."""
    packs = tuple(Pack(read_manifest(place.root), place.weight) for place in places_of(data))
    check_classes(packs)
    for number, pack in enumerate(packs[1:], 1):
        for other in packs[:number]:
            if pack.manifest.sha256 == other.manifest.sha256:
                raise UserError(f"{pack.manifest.root} and {other.manifest.root} are one data set: name it once")
    return packs


def validation_packs(packs: Sequence[Pack], val_data: Path | None, val_split: str) -> tuple[Pack, ...]:
    """What epochs are validated on: the split of `val_data`, else those of the data sets that are trained on.

    Empty without validation. UserError if it would be on the images of the training, or is of other classes.
    """
    if val_split == "none":
        if val_data:
            raise UserError(f"--val-split none does not validate on --val-data {val_data}: give one of both")
        return ()
    found = (Pack(read_manifest(val_data)),) if val_data else tuple(packs)
    for pack in packs:
        if val_split == "train" and any(one.manifest.sha256 == pack.manifest.sha256 for one in found):
            raise UserError(
                f"--val-split train of {pack.manifest.root} is what is trained on: give another split, another "
                "--val-data, or none"
            )
    check_classes([*packs, *found])
    return found


def check_classes(packs: Sequence[Pack]) -> None:
    """Raises UserError unless all data sets have the classes of the first."""
    first = packs[0].manifest
    for pack in packs[1:]:
        if pack.manifest.classes != first.classes:
            raise UserError(
                f"{pack.manifest.root} has the classes {', '.join(pack.manifest.classes)}, and {first.root} "
                f"{', '.join(first.classes)}: pack them with the same classes, in this order"
            )


def identity(packs: Sequence[Pack]) -> str:
    """What identifies the images and weights of a training: the manifest's SHA-256, or of a mixture all of them."""
    if len(packs) == 1:
        return packs[0].manifest.sha256
    return ",".join(f"{pack.manifest.sha256}={pack.weight}" for pack in packs)


def manifests_in(identified: str) -> list[str]:
    """The SHA-256 of each manifest in what `identity` returned."""
    return [part.partition("=")[0] for part in identified.split(",")]


def names_of(packs: Sequence[Pack]) -> list[str]:
    """A name for each data set that no other has."""
    names = [pack.name for pack in packs]
    return [name if names.count(name) == 1 else f"{name}-{number}" for number, name in enumerate(names, 1)]


def joined(arguments: Sequence[str], option: str = "--data") -> list[str]:
    """Arguments of a command line with one `option` instead of several, whose values are joined by commas.

    UserError if there are several, and one has no weight.
    """
    rest: list[str] = []
    values: list[str] = []
    given = iter(arguments)
    for word in given:
        if word == option:
            values.append(next(given, ""))
        elif word.startswith(f"{option}="):
            values.append(word.removeprefix(f"{option}="))
        else:
            rest.append(word)
    if len(values) < 2:
        return list(arguments)
    for value in values:
        if not _PART.fullmatch(value):
            raise UserError(f"{option} {value}: of several data sets each needs a weight, as in {option} {value}=1")
    return [option, ",".join(values), *rest]
