"""`hpcgender cam`: its options, and what is true of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from hpcgender.commands.evaluate import MeasureCommand
from hpcgender.inference.config import SplitConfig
from shard_tools.base.commands import default_is
from shard_tools.base.errors import UserError
from shard_tools.manifest import read_manifest

MAPS = "maps"
"""The pass that computes the maps, and the directory of the maps."""


@dataclass(frozen=True, kw_only=True)
class CamConfig(SplitConfig):
    """Computes the heat map of every image of a split, their averages, and how faithful they are.

    Under the launcher the processes share the images. Killed or stopped, the same command resumes.
    """

    results: ClassVar[str] = "cams"
    kept: ClassVar[str] = "maps"

    examples: int = 6
    """Images of each class on the sheet."""
    overlays: int = 0
    """Random images to write as JPEG with their heat maps overlaid."""
    keys: Annotated[tuple[str, ...], default_is("none", "KEY ...")] = ()
    """Keys of further images to write with their heat maps overlaid."""
    deletion: int = 1000
    """Random images of the deletion check, which masks the hottest cells of an image and as many random ones: if the
    maps are faithful, the hottest change the prediction more; 0: no check."""
    fractions: tuple[float, ...] = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7)
    """Fractions of an image's cells that the deletion check masks, ascending."""
    seed: int = 0
    """Seed of the random images and cells."""
    regions: Annotated[Path | None, default_is("none", "DIR")] = None
    """Directory of masks of face regions, for a table by region: per image KEY.png, a gray or palette image of the same
    view whose values are region numbers, and names.txt with a line NUMBER NAME per region."""

    @property
    def passes(self) -> dict[str, str]:
        return {MAPS: self.split}

    def check(self) -> None:
        super().check()
        if self.examples < 1:
            raise UserError(f"--examples {self.examples} must be positive")
        for name in ("overlays", "deletion"):
            if getattr(self, name) < 0:
                raise UserError(f"--{name.replace('_', '-')} {getattr(self, name)} must be at least 0")
        if not self.fractions or list(self.fractions) != sorted(set(self.fractions)):
            raise UserError(f"--fractions {' '.join(map(str, self.fractions))}: give some, ascending")
        if self.fractions[0] <= 0 or self.fractions[-1] > 1:
            raise UserError(f"--fractions {' '.join(map(str, self.fractions))}: give fractions above 0, at most 1")
        if self.regions:
            from hpcgender.cam.regions import read_names  # and numpy, for which a submission need not wait

            read_names(self.regions)
        if self.keys:
            known = set(read_manifest(self.data).index(self.split)["key"].tolist())
            missing = [key for key in self.keys if key.encode() not in known]
            if missing:
                raise UserError(f"no image {missing[0]} in {self.split} of {self.data}: --keys has keys as in maps.csv")


class Cam(MeasureCommand[CamConfig]):
    """Heat maps. Stopped or killed, the same command resumes."""


COMMANDS = (
    Cam(
        name="cam",
        kind=CamConfig.results,
        summary="heat maps: where the network looks, and averages",
        options=CamConfig,
        work="hpcgender.cam.heat_maps:cam",
        without_gender=False,
        distributed=True,
    ),
)
