"""`hpcgender app`: its options, and what is true of it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

from hpcgender.checkpoint_file import checkpoint_file, newest_checkpoint
from hpcgender.commands.predict import check_model_file
from hpcgender.evaluate.results import read_evaluation
from shard_tools.base.commands import RUNS, Command, default_is
from shard_tools.base.errors import UserError
from shard_tools.base.extras import pip_install

PORTS = (1024, 65535)


@dataclass(frozen=True, kw_only=True)
class AppConfig:
    """Serves a page on this machine alone, where people try models on photos and see what their evaluations found.

    Photos stay in memory and go nowhere. The address that is printed has a secret in it, so that nobody else on this
    machine finds the page. Ctrl-C ends it.
    """

    checkpoint: Annotated[
        tuple[Path, ...], default_is("those of --evaluation, or the newest best one in runs", "FILE|RUN ...")
    ] = ()
    """Checkpoints, e.g. runs/mine/checkpoints/best.pt, or runs, by directory or name, for the best one of each, or
    files of export --format onnx, which have no heat maps. Several models answer side by side."""
    evaluation: Annotated[tuple[Path, ...], default_is("all in the runs of the checkpoints", "DIR ...")] = ()
    """Evaluations of these checkpoints to show, e.g. runs/mine/evaluations/morph-test. The first one of a checkpoint
    says how often its confidence was right. By default the newest that fitted a temperature comes first."""
    cam: Annotated[tuple[Path, ...], default_is("all in the runs of the checkpoints", "DIR ...")] = ()
    """Heat maps of these checkpoints to show, e.g. runs/mine/cams/morph-test."""
    port: int = 8501
    """Port on 127.0.0.1."""

    def check(self) -> None:
        """Raises UserError for what cannot work."""
        if find_spec("streamlit") is None:
            raise UserError(f"the page needs the package streamlit: install the extra app: {pip_install('app')}")
        for path in self.evaluation:
            read_evaluation(path)
        for path in self.checkpoints:
            check_model_file(path, "run")
        low, high = PORTS
        if not low <= self.port <= high:
            raise UserError(f"--port {self.port} is not from {low} to {high}")

    @cached_property  # a training may write a newer one meanwhile
    def checkpoints(self) -> tuple[Path, ...]:
        """The files of the checkpoints, each once; UserError if none is named and no run has one."""
        if self.checkpoint:
            found = [checkpoint_file(path) for path in self.checkpoint]
        elif self.evaluation:
            found = [Path(read_evaluation(path).checkpoint.path) for path in self.evaluation]
        else:
            found = [newest_checkpoint(RUNS)]
        return tuple(dict.fromkeys(found))


COMMANDS = (
    Command(
        name="app",
        summary="a page to try models on photos",
        options=AppConfig,
        work="hpcgender.app.command:app",
        launched=False,
    ),
)
