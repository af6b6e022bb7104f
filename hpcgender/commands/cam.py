"""`hpcgender cam`: its options, and what is true of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from hpcgender.commands.evaluate import MeasureCommand, SplitConfig
from shard_tools.base.errors import UserError
from shard_tools.manifest import read_manifest


@dataclass(frozen=True, kw_only=True)
class CamConfig(SplitConfig):
    """Computes the heat map of every image of a split, averages of them, and whether they tell the truth.

    Under torchrun, the processes share the images. What was killed or stopped goes on where it was when the same
    command is given again.
    """

    results: ClassVar[str] = "cams"

    examples: int = 6
    """Single images of each class on the sheet."""
    overlays: int = 0
    """Random images to write as JPEG with their maps over them."""
    keys: tuple[str, ...] = ()
    """Further images to write so, by their keys."""
    deletion: int = 1000
    """Random images of the deletion check: their hottest and random cells are masked, and how what is said of them
    changes tells whether the maps tell the truth. 0: no check."""
    fractions: tuple[float, ...] = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7)
    """Parts of an image's cells that the check masks, one after the other."""
    seed: int = 0
    """Draws the random images and cells."""
    regions: Path | None = None
    """Directory of masks of parts of the face: for each image KEY.png, a gray or palette image of the same view whose
    values are numbers of parts, and names.txt with a line `NUMBER NAME` for each part. For a table by parts."""
    stop_after: float = 0.0
    """Minutes after which to keep what is done and exit with code 99, to be started again. 0: never."""

    def check(self) -> None:
        super().check()
        if self.examples < 1:
            raise UserError(f"--examples {self.examples} must be positive")
        for name in ("overlays", "deletion", "stop_after"):
            if getattr(self, name) < 0:
                raise UserError(f"--{name.replace('_', '-')} {getattr(self, name)} must be at least 0")
        if not self.fractions or list(self.fractions) != sorted(set(self.fractions)):
            raise UserError(f"--fractions {' '.join(map(str, self.fractions))}: give some, ascending")
        if self.fractions[0] <= 0 or self.fractions[-1] > 1:
            raise UserError(f"--fractions {' '.join(map(str, self.fractions))}: give parts above 0, of at most 1")
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
        summary="heat maps: where the network looks, and averages",
        options=CamConfig,
        work="hpcgender.cam.heat_maps:cam",
        distributed=True,
    ),
)
