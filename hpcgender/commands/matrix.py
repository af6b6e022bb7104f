"""`hpcgender matrix`: its options, and what is true of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from hpcgender.run_directory import runs_named
from shard_tools.base.commands import Command
from shard_tools.base.errors import UserError
from shard_tools.base.files import check_file


@dataclass(frozen=True, kw_only=True)
class MatrixConfig:
    """Shows models against test sets: accuracy, balanced accuracy, largest gap between groups, and calibration.

    There is a row for each model, its seeds together, and a column for each data set and split that one was evaluated
    on. Threshold and temperature of a model are those of its evaluation on val, if it has one.
    """

    evaluated: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN|STUDY|EVALUATION")]
    """Runs, by directory or by name in runs, with all of their evaluations, studies with all of their runs, and single
    evaluations."""
    json: bool = False
    """Print one JSON object instead of tables."""
    csv: Path | None = None
    """CSV file to write: a row for each cell."""
    picture: Path | None = None
    """PNG file to write: accuracy as a heat map."""
    html: Path | None = None
    """HTML file to write: one page with all tables, which needs no other file."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "evaluated", runs_named(self.evaluated))

    def check(self) -> None:
        """Raises UserError for what cannot work."""
        if not self.evaluated:
            raise UserError("no run to show: hpcgender matrix runs/a runs/b")
        for path in self.evaluated:
            if not path.is_dir():
                raise UserError(
                    f"no directory {path}: name a run, a study, or an evaluation as runs/<name>/evaluations/<data>-test"
                )
        for file, suffix in ((self.csv, ".csv"), (self.picture, ".png"), (self.html, ".html")):
            if file:
                check_file(file, suffix)


COMMANDS = (
    Command(
        name="matrix",
        summary="show models against test sets",
        options=MatrixConfig,
        work="hpcgender.matrix.command:matrix",
    ),
)
