"""The directory of an unfinished pack: what is being packed, so that a killed pack can be resumed."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from xxhash import xxh3_64_hexdigest

from shard_tools.base.commands import attribute
from shard_tools.base.contracts import SUBMISSIONS
from shard_tools.base.documents import read_json, restored, restored_part
from shard_tools.base.errors import UserError
from shard_tools.base.files import check_empty, write_whole
from shard_tools.base.lock import PATIENCE, locked
from shard_tools.manifest import MANIFEST, UNFINISHED
from shard_tools.sources import Source
from shard_tools.sources import __name__ as SOURCES

TRANSIENT = frozenset({"workers", "task", "dry_run", "out"})
"""Options that do not matter to what is packed."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Note:
    """What is being packed, as a file says it."""

    source: str
    """The class, as `module:name`."""
    options: dict[str, Any]
    parts: int


@contextmanager
def held(
    out: Path, part: int = 0, parts: int = 1, patience: float = PATIENCE, name: str = UNFINISHED
) -> Iterator[None]:
    """Holds the lock of what is packed into `out`; as one of several `parts` beside the others, but alone in its own.

    Makes the directory `name` in it if that is missing. Raises UserError if `out` holds anything else, or another
    process is at it.
    """
    work = out / name
    if not work.exists():
        check_empty(out, besides=(SUBMISSIONS,))
        work.mkdir(parents=True, exist_ok=True)
    advice = "wait until it has ended, or give another --out"
    own = locked(work / f"lock-{part + 1}", out, advice, patience=patience) if parts > 1 else nullcontext()
    with locked(work / "lock", out, advice, shared=parts > 1, patience=patience), own:
        yield


def begin(source: Source, parts: int) -> Path:
    """The directory `<out>/.packing`, of this pack from now on; UserError if `out` holds anything else.

    The lock is held.
    """
    work = source.out / UNFINISHED
    note = work / "source.json"
    mine = describe(source, parts)
    if not note.exists():
        check_empty(source.out, besides=(UNFINISHED, SUBMISSIONS))
        write_whole(note, json.dumps(mine, indent=1).encode())
    again = "remove the directory and pack again"
    theirs = read_json(note, again, again)
    restored_part(_Note, theirs, note, again)
    if theirs != mine:
        different = sorted(
            name.replace("_", "-")
            for name in mine["options"].keys() | theirs["options"].keys()
            if mine["options"].get(name) != theirs["options"].get(name)
        )
        if theirs["source"] != mine["source"]:
            different = ["source"]
        if not different and theirs.get("crop") != mine["crop"]:
            different = ["detector or content of --landmarks"]
        raise UserError(
            f"{source.out} holds an unfinished pack with another {', '.join(different) or 'number of tasks'}:"
            " give the same options to resume it, or remove the directory"
        )
    return work


def describe(source: Source, parts: int) -> dict[str, Any]:
    """What is being packed, as JSON: paths are absolute."""
    kind = type(source)
    options = {
        field.name: _plain(getattr(source, field.name))
        for field in dataclasses.fields(source)
        if field.name not in TRANSIENT
    }
    recipe = source.recipe()
    crop = {
        "recipe": recipe and dataclasses.asdict(recipe),
        "landmarks": xxh3_64_hexdigest(source.landmarks.read_bytes()) if source.landmarks else "",
    }
    note = {"source": f"{kind.__module__}:{kind.__name__}", "parts": parts, "options": options, "crop": crop}
    return json.loads(json.dumps(note))  # type: ignore[no-any-return]


def restore(out: Path, workers: int) -> tuple[Source, int]:
    """The source whose parts were packed into `out`, and how many parts there are; UserError if there are none."""
    path = out / UNFINISHED / "source.json"
    again = "remove the directory and pack again"
    if not path.exists():
        what = "is packed already" if (out / MANIFEST).exists() else "holds no parts: pack them with --task K/N first"
        raise UserError(f"{out} {what}")
    note = restored_part(_Note, read_json(path, again, again), path, again)
    if not re.fullmatch(rf"{re.escape(SOURCES)}\.\w+:\w+", note.source):  # nothing else is imported
        raise UserError(f"{path} is damaged (there is no source {note.source}): {again}")
    content = {**note.options, "out": str(out), "workers": workers}
    source: Source = restored(attribute(note.source), content, path, again)
    return source, note.parts


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value.absolute() if value.exists() else value)  # a ready mapping's name is no path
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value


def is_fresh(work: Path) -> bool:
    """Whether no image was looked at."""
    return not any(work.glob("looked/*.rows"))


def finish(work: Path) -> None:
    """Removes the directory of a pack that is finished."""
    shutil.rmtree(work)


def abandon(out: Path, parts: int = 1) -> None:
    """Removes the directory of a pack that cannot succeed, and `out` if nothing else is in it.

    Unless another process is at it, or a task of several has looked at images. The lock is not held.
    """
    with suppress(UserError), held(out, patience=0):
        if parts == 1 or is_fresh(out / UNFINISHED):
            shutil.rmtree(out / UNFINISHED)
    with suppress(OSError):  # something else is in it
        out.rmdir()
