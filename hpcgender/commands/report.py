"""`hpcgender report`: its options, and what is true of it."""

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
class ReportConfig:
    """Writes one HTML page: data and training, accuracy with intervals, accuracy by group, mistakes, heat maps.

    The page needs no other file and no network. For a run it has all evaluations and heat maps; for an evaluation, its
    run and the heat maps of the same images.
    """

    inputs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN|STUDY|EVALUATION")]
    """Runs, by directory or by name in runs, studies with all of their runs, and evaluations, e.g.
    runs/mine/evaluations/morph-test."""
    out: Path = Path("report.html")
    """HTML file to write."""
    title: str = ""
    """Title of the page; default: the names of the runs."""
    faces: int = 24
    """Misclassified images to show of each evaluation that was made with --errors, the most confident first."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "inputs", runs_named(self.inputs))

    def check(self) -> None:
        """Raises UserError for what cannot work."""
        if not self.inputs:
            raise UserError("nothing to report: hpcgender report runs/mine --out report.html")
        for path in self.inputs:
            if not path.is_dir():
                raise UserError(f"no directory {path}: name a run as runs/mine, or one of its evaluations")
        if self.faces < 0:
            raise UserError(f"--faces {self.faces} must not be negative")
        check_file(self.out, ".html")


COMMANDS = (
    Command(
        name="report",
        summary="write one page about runs and evaluations",
        options=ReportConfig,
        work="hpcgender.report.page:report",
    ),
)
