"""The trackers that --track names, and whether their packages are installed. Imports none of them."""

from __future__ import annotations

from collections.abc import Collection
from importlib.util import find_spec
from typing import Literal

from shard_tools.base.errors import UserError
from shard_tools.base.extras import pip_install

TrackerName = Literal["mlflow", "wandb"]
"""Each is also the name of its package and of the extra that installs it."""


def check_installed(names: Collection[TrackerName]) -> None:
    """Raises UserError unless the packages of these trackers are there."""
    for name in names:
        if find_spec(name) is None:
            raise UserError(f"--track {name} needs the extra {name}: {pip_install(name)}")
