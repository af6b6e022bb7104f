"""What a user may set of heat maps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hpcgender.evaluate.config import SplitConfig
from shard_tools.commands import UserError


@dataclass(frozen=True, kw_only=True)
class CamConfig(SplitConfig):
    """Computes the heat map of every image of a split, and averages. Under torchrun, the processes share the images."""

    results: ClassVar[str] = "cams"

    examples: int = 6
    """Single images of each class on the sheet."""

    def check(self) -> None:
        super().check()
        if self.examples < 1:
            raise UserError(f"--examples {self.examples} must be positive")
