"""`hpcgender compare`: its options, and what is true of it."""

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
class CompareConfig:
    """Compares runs that were evaluated on the same images: accuracy, cost, and significance of the differences.

    Costs are parameters, multiply-accumulates, memory, training time, and the time of a forward pass, which is measured
    on this machine.
    """

    evaluated: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN|STUDY|EVALUATION")]
    """Two or more evaluations, e.g. runs/mine/evaluations/morph-test, or runs that have one of the same name, by
    directory or by name in runs; of a study those of its runs that have."""
    on: str | None = None
    """Evaluation to compare, e.g. morph-test, if the runs have several of the same names."""
    batch_size: int = 64
    """Images in the batch whose forward pass is timed."""
    rounds: int = 5
    """Rounds of timing, the models in turn; the median counts."""
    json: bool = False
    """Print one JSON object instead of tables."""
    csv: Path | None = None
    """CSV file to write: a row per run."""
    picture: Path | None = None
    """PNG file to write: accuracy against each cost, and the curves of training and validation with the gap."""
    html: Path | None = None
    """HTML file to write: one page with all tables and charts, which needs no other file."""

    def check(self) -> None:
        """Raises UserError for what cannot work."""
        directories = runs_named(self.evaluated)
        if len(directories) < 2:
            raise UserError("compare needs two evaluated runs or more: hpcgender compare runs/a runs/b")
        for path in directories:
            if not path.is_dir():
                raise UserError(
                    f"no directory {path}: name a run, a study, or an evaluation as runs/<name>/evaluations/<data>-test"
                )
        for name in ("batch_size", "rounds"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name.replace('_', '-')} {getattr(self, name)} must be positive")
        for file, suffix in ((self.csv, ".csv"), (self.picture, ".png"), (self.html, ".html")):
            if file:
                check_file(file, suffix)


COMMANDS = (
    Command(
        name="compare",
        summary="compare runs on the same images: accuracy, cost, significance",
        options=CompareConfig,
        work="hpcgender.compare.comparison:compare",
    ),
)
