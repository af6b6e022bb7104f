"""A run's directory: its checkpoints, whether it holds a run, and the command that resumes it. Imports no torch."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from shard_tools.base.commands import RUNS
from shard_tools.base.documents import parse_json
from shard_tools.base.files import last_record

CHECKPOINTS = "checkpoints"
BEST = "best.pt"
INITIAL = "initial.pt"
"""With --save-initial: the weights before the first step."""
CONFIG_JSON, CONFIG_TOML = "config.json", "config.toml"
LOCK = "train.lock"
"""Held by the process that trains."""
METRICS = "metrics.jsonl"
"""A record per epoch."""
STUDY_TOML = "study.toml"
"""The file of a study as it was submitted last, in the study's directory: what makes it one."""


def directory_named(path: Path) -> Path:
    """The directory that a path names: itself, or else the one of that name in `runs`, as `mine` or `study/trial`."""
    return RUNS / path if not path.exists() and (RUNS / path).is_dir() else path


def runs_named(paths: Iterable[Path]) -> tuple[Path, ...]:
    """The directories that paths name, of a study those of its runs, by name."""
    found: list[Path] = []
    for path in map(directory_named, paths):
        runs = sorted(file.parent for file in path.glob(f"*/{CONFIG_JSON}"))
        found += runs if runs and (path / STUDY_TOML).is_file() else [path]
    return tuple(found)


def newest_first(checkpoints: Path) -> list[Path]:
    """The checkpoints to resume from in a run's directory of checkpoints, that of the last step first."""
    return sorted(checkpoints.glob("step-????????.pt"), reverse=True)


def steps_done(run_dir: Path) -> int:
    """The step of a run's newest checkpoint; 0 if there is none."""
    newest = newest_first(run_dir / CHECKPOINTS)
    return int(newest[0].stem.partition("-")[2]) if newest else 0


def holds_run(run_dir: Path) -> bool:
    """Whether there is a checkpoint. Without one, an attempt that failed early may have left logs and options."""
    checkpoints = run_dir / CHECKPOINTS
    return (checkpoints / BEST).exists() or bool(newest_first(checkpoints))


def is_finished(run_dir: Path) -> bool:
    """Whether all epochs of a run are trained and the last checkpoint of it, if any is kept, is that of the last step.

    The record of an epoch is written before its checkpoint, without which the epoch would be trained again.
    """
    last = last_record(run_dir / METRICS) or {}
    if last.get("epoch") is None or last.get("epoch") != last.get("epochs"):
        return False
    newest = newest_first(run_dir / CHECKPOINTS)
    if not newest:
        return (run_dir / CHECKPOINTS / BEST).exists()
    return newest[0].name == f"step-{last.get('step', 0):08d}.pt"


def read_epochs(run_dir: Path) -> list[dict[str, Any]]:
    """The records of a run's epochs, in their order; none without a file. A last line that a kill has cut is left out.

    UserError, with its number, for a line that is damaged.
    """
    path = run_dir / METRICS
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    again = "remove that line"
    return [parse_json(line, Path(f"{path}, line {number}"), again) for number, line in enumerate(lines, 1)]


def resume_command(run_dir: Path) -> str:
    """The command line that resumes the run, by the options that it was begun with."""
    runs = () if run_dir.parent == RUNS else ("--runs", str(run_dir.parent))
    return shlex.join(("hpcgender", "train", *runs, "--name", run_dir.name, "--resume"))
