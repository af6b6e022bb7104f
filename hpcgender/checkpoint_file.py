"""The file of a checkpoint, without what is in it: which one a path names, the checksum that identifies it, and the
temperature that may be kept behind that.

A checkpoint is what torch.save wrote, then a line with the checksum of all bytes before it, then, on request, a line
with a temperature. That is no part of what the checksum is of, so results of the checkpoint stay its own.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from shutil import copyfileobj
from typing import BinaryIO, NamedTuple

from xxhash import xxh3_64_hexdigest

from hpcgender.run_directory import BEST, CHECKPOINTS, CONFIG_JSON, directory_named
from shard_tools.base.documents import parse_json, read_json, restored
from shard_tools.base.errors import UserError
from shard_tools.base.files import sync, whole_file
from shard_tools.base.storage import unwritable

FORMAT = "hpcgender-checkpoint-2"
MARK = f"\n{FORMAT} xxh3-128 ".encode()
_DIGEST_BYTES = 32
_TEMPERATURE = b"hpcgender-temperature xxh3-64 "
_MOST_BEHIND = 4096
"""Bytes behind what torch.save wrote, at most."""


class Ending(NamedTuple):
    """What is behind the bytes that torch.save wrote."""

    length: int
    """Of those."""
    checksum: str
    """Of those, as the file states it."""
    behind: bytes
    """After the line with it."""


@dataclass(frozen=True, kw_only=True)
class KeptTemperature:
    """A temperature that was fitted for a checkpoint."""

    value: float
    """What log-odds are divided by for a calibrated probability."""
    fitted_on: str
    """The images, in words."""


def checkpoint_file(path: Path) -> Path:
    """The checkpoint that a path names: itself, or the best one of a run's directory or of its checkpoints.

    A name is that of a run in `runs`, as `mine` or `study/trial`, if there is nothing else of that name.
    """
    path = directory_named(path)
    if not path.is_dir():
        return path
    return path / BEST if path.name == CHECKPOINTS else path / CHECKPOINTS / BEST


def newest_checkpoint(runs: Path, model: str = "") -> Path:
    """The best checkpoint of the run, of a study or not, of that architecture or of any, that wrote its own last.

    A directory whose options cannot be read is passed over with a note. UserError if there is none.
    """
    found: dict[str, list[Path]] = {}
    for path in chain.from_iterable(runs.glob(f"{of_study}*/{CHECKPOINTS}/{BEST}") for of_study in ("", "*/")):
        try:
            config = read_json(path.parent.parent / CONFIG_JSON, "name the directory of a run", "give --checkpoint")
        except UserError as error:
            print(f"passed over {path.parent.parent}: {error}", file=sys.stderr)
            continue
        found.setdefault(str(config.get("model")), []).append(path)
    fitting = found.get(model, []) if model else [path for paths in found.values() for path in paths]
    if not fitting:
        of_others = f" (there are {', '.join(sorted(found))})" if found else ""
        raise UserError(
            f"no run{f' of {model}' if model else ''} in {runs} has a checkpoint{of_others}: give one as --checkpoint"
        )
    return max(fitting, key=lambda path: path.stat().st_mtime)


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
    return _ending(path).checksum


def read_ending(file: BinaryIO) -> Ending | None:
    """The ending of a checkpoint, None if it has none: it is cut short, or something else."""
    size = file.seek(0, os.SEEK_END)
    begin = file.seek(max(0, size - _MOST_BEHIND))
    tail = file.read()
    place = tail.rfind(MARK)
    checksum, end, behind = tail[place + len(MARK) :].partition(b"\n")
    if place < 0 or not end or len(checksum) != _DIGEST_BYTES or (behind and not behind.endswith(b"\n")):
        return None
    return Ending(begin + place, checksum.decode(errors="replace"), behind)  # a damaged one is found by reading all


def _ending(path: Path) -> Ending:
    try:
        with path.open("rb") as file:
            ending = read_ending(file)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    if ending is None:
        raise UserError(f"{path} is cut short, or not a checkpoint of hpcgender; use another checkpoint of the run")
    return ending


def kept_temperature(path: Path) -> KeptTemperature | None:
    """The temperature that is kept in a checkpoint, None if there is none; UserError if it is damaged."""
    behind = _ending(path).behind
    if not behind:
        return None
    checksum, _, content = behind.removeprefix(_TEMPERATURE).rstrip(b"\n").partition(b" ")
    again = "evaluate it with --keep-temperature again"
    if checksum != xxh3_64_hexdigest(content).encode():
        raise UserError(f"the temperature at the end of {path} is damaged: {again}")
    return restored(KeptTemperature, parse_json(content, path, again), path, again)


def keep_temperature(path: Path, checksum: str, temperature: KeptTemperature) -> None:
    """Writes a checkpoint anew, whole or not at all, with a temperature instead of the one it may have.

    Its time stays, by which the newest is found. UserError if it is not the one of that checksum any more, or the disk
    or its permissions refuse.
    """
    path = path.resolve()
    content = json.dumps(asdict(temperature)).encode()
    try:
        with path.open("rb") as file, whole_file(path) as new:
            ending = read_ending(file)
            if ending is None or ending.checksum != checksum:
                raise UserError(f"{path} is another checkpoint than the one that was evaluated: evaluate that")
            times = os.fstat(file.fileno())
            file.seek(0)
            copyfileobj(file, new, 1 << 22)
            new.seek(ending.length + len(MARK) + _DIGEST_BYTES + 1)
            new.truncate()
            new.write(_TEMPERATURE + xxh3_64_hexdigest(content).encode() + b" " + content + b"\n")
            sync(new, path)  # which takes long: only a rename is to follow the look at what is there
            if digest(path) != checksum:  # a training that goes on has written a better one meanwhile
                raise UserError(f"{path} is another checkpoint than the one that was evaluated: evaluate that")
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    except OSError as error:
        raise unwritable(error, path) from None
