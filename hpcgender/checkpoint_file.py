"""The file of a checkpoint, without what is in it: which one a path names, and the checksum that identifies it."""

from __future__ import annotations

import os
from pathlib import Path

from hpcgender.run_directory import BEST, CHECKPOINTS, CONFIG_JSON
from shard_tools.base.commands import RUNS
from shard_tools.base.documents import read_json
from shard_tools.base.errors import UserError

FORMAT = "hpcgender-checkpoint-2"
MARK = f"\n{FORMAT} xxh3-128 ".encode()
TRAILER_BYTES = len(MARK) + 33


def checkpoint_file(path: Path) -> Path:
    """The checkpoint that a path names: itself, or the best one of a run's directory or of its checkpoints.

    A name alone is that of a run in `runs`, if there is nothing else of that name.
    """
    if not path.exists() and len(path.parts) == 1 and (RUNS / path).is_dir():
        path = RUNS / path
    if not path.is_dir():
        return path
    return path / BEST if path.name == CHECKPOINTS else path / CHECKPOINTS / BEST


def newest_of_model(runs: Path, model: str) -> Path:
    """The best checkpoint of the run of that architecture that wrote its own last; UserError if there is none."""
    found: dict[str, list[Path]] = {}
    for path in runs.glob(f"*/{CHECKPOINTS}/{BEST}"):
        config = read_json(path.parent.parent / CONFIG_JSON, "name the directory of a run", "give --checkpoint")
        found.setdefault(str(config.get("model")), []).append(path)
    if model not in found:
        of_others = f" (there are {', '.join(sorted(found))})" if found else ""
        raise UserError(f"no run of {model} in {runs} has a checkpoint{of_others}: give one as --checkpoint")
    return max(found[model], key=lambda path: path.stat().st_mtime)


def check_checkpoint(path: Path) -> None:
    """Raises UserError if there is no such file, or it does not end as a checkpoint does."""
    if not path.is_file():
        raise UserError(
            f"no checkpoint {path}: give one as --checkpoint, such as runs/<name>/checkpoints/best.pt, or a run that "
            "has one"
        )
    digest(path)


def digest(path: Path) -> str:
    """The checksum in the last line of a checkpoint, which identifies it; UserError if it has none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - TRAILER_BYTES))
            mark, _, checksum = file.read().rpartition(b" ")
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    if mark + b" " != MARK:
        raise UserError(f"{path} is cut short, or not a checkpoint of hpcgender; use another checkpoint of the run")
    return checksum.strip().decode(errors="replace")  # a damaged one is found when the file is read
