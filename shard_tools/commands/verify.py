"""`shard-tools verify`: its options, and what is true of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from shard_tools.base.commands import Command
from shard_tools.base.errors import UserError
from shard_tools.manifest import MANIFEST, UNFINISHED


@dataclass(frozen=True, kw_only=True)
class VerifyConfig:
    """Checks packed data sets: every byte, sample and label, and that no image or subject is in two splits.

    Prints a line for each problem and exits with 1 if there are any.
    """

    directories: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Directories of packed data sets."""
    fast: bool = False
    """Check the manifest, the sizes of all files and the index only; no shard is read."""
    leaks: bool = False
    """Search only for what several data sets share, or the splits of one: equal bytes, equal subjects, and pictures
    with the same difference hash of small gray pixels. Other crops of the same photograph are not found."""
    workers: int = 2
    """Processes that read and decode."""

    def check(self) -> None:
        """Raises UserError for what cannot work."""
        if not self.directories:
            raise UserError("no data set given: shard-tools verify DIRECTORY")
        if self.fast and self.leaks:
            raise UserError("--fast searches for no leaks: give --fast or --leaks")
        if self.workers < 1:
            raise UserError(f"--workers {self.workers}: give 1 or more")
        for root in self.directories:
            require_data_set(root)


def require_data_set(root: Path) -> None:
    """Raises UserError if there is nothing of a data set in `root`, not even a damaged one."""
    signs = (MANIFEST, UNFINISHED, "*/index.npy", "*/*.tar")
    if not root.is_dir() or not any(any(root.glob(sign)) for sign in signs):
        raise UserError(f"no data set in {root}: name a directory that shard-tools pack has written")


COMMANDS = (
    Command(
        name="verify",
        summary="check packed data sets, every byte of them",
        options=VerifyConfig,
        work="shard_tools.verify:verify",
    ),
)
