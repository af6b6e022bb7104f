"""A run's directory: its checkpoints, whether it holds a run, and the command that resumes it. Imports no torch."""

from __future__ import annotations

import shlex
from pathlib import Path

from shard_tools.base.commands import RUNS

CHECKPOINTS = "checkpoints"
BEST = "best.pt"
CONFIG_JSON, CONFIG_TOML = "config.json", "config.toml"
LOCK = "train.lock"
"""Held by the process that trains."""
METRICS = "metrics.jsonl"
"""A record per epoch."""


def newest_first(checkpoints: Path) -> list[Path]:
    """The checkpoints to resume from in a run's directory of checkpoints, that of the last step first."""
    return sorted(checkpoints.glob("step-????????.pt"), reverse=True)


def holds_run(run_dir: Path) -> bool:
    """Whether there is a checkpoint. Without one, an attempt that failed early may have left logs and options."""
    checkpoints = run_dir / CHECKPOINTS
    return (checkpoints / BEST).exists() or bool(newest_first(checkpoints))


def resume_command(run_dir: Path) -> str:
    """The command line that resumes the run, by the options that it was begun with."""
    runs = () if run_dir.parent == RUNS else ("--runs", str(run_dir.parent))
    return shlex.join(("hpcgender", "train", *runs, "--name", run_dir.name, "--resume"))
