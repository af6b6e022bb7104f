"""`hpcgender models`: its options, and what is true of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro

from hpcgender.models.config import ModelConfig
from hpcgender.models.registry import matching
from shard_tools.base.commands import Command, default_is
from shard_tools.base.errors import UserError

SMALLEST = 32


@dataclass(frozen=True, kw_only=True)
class ModelsConfig:
    """Lists the models with their parameters, multiply-accumulates and memory for one image, and their papers."""

    filter: Annotated[str, default_is("all but timm's", "GLOB")] = ""
    """Only the models whose names match, e.g. 'se_*'; those of timm if it begins with timm:, e.g. 'timm:convnext*'."""
    width: Annotated[float, tyro.conf.arg(metavar="FACTOR")] = 1.0
    """Width of the models, as in hpcgender train."""
    image_size: int = 112
    """Height and width of the network's input, pixels."""
    json: bool = False
    """Print a JSON list instead of a table."""

    def check(self) -> None:
        """Raises UserError for what cannot work."""
        if self.image_size < SMALLEST:
            raise UserError(f"--image-size {self.image_size}: the models take images of {SMALLEST} pixels or more")
        if self.filter and not matching(self.filter):
            raise UserError(f"--filter {self.filter}: no model has such a name: 'timm:*' lists all of timm's")
        first, *_ = matching(self.filter or "*")
        ModelConfig(model=first, width=self.width).check_width()


COMMANDS = (
    Command(
        name="models",
        summary="list the models and their cost",
        options=ModelsConfig,
        work="hpcgender.models.table:list_models",
    ),
)
