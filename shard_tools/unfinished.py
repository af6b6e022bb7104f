"""The directory of a pack that is not finished: what is being packed, so that it can go on where it was killed."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from shard_tools.base.commands import attribute
from shard_tools.base.contracts import SUBMISSIONS
from shard_tools.base.errors import UserError
from shard_tools.base.files import check_empty, write_whole
from shard_tools.manifest import MANIFEST, UNFINISHED
from shard_tools.sources import Source

TRANSIENT = frozenset({"workers", "task", "dry_run", "out"})
"""Options that do not matter to what is packed."""


def begin(source: Source, parts: int) -> Path:
    """The directory `<out>/.packing`, new or of the same pack; UserError if `out` holds anything else."""
    work = source.out / UNFINISHED
    note = work / "source.json"
    mine = describe(source, parts)
    if not note.exists():
        check_empty(source.out, besides=(UNFINISHED, SUBMISSIONS))
        work.mkdir(parents=True, exist_ok=True)
        write_whole(note, json.dumps(mine, indent=1).encode())
    theirs = json.loads(note.read_bytes())
    if theirs != mine:
        different = sorted(
            name.replace("_", "-")
            for name in mine["options"].keys() | theirs["options"].keys()
            if mine["options"].get(name) != theirs["options"].get(name)
        )
        if theirs["class"] != mine["class"]:
            different = ["source"]
        raise UserError(
            f"{source.out} holds an unfinished pack with another {', '.join(different) or 'number of tasks'}:"
            " give the same options to go on with it, or remove the directory"
        )
    return work


def describe(source: Source, parts: int) -> dict[str, Any]:
    """What is being packed, as JSON has it: paths are absolute."""
    kind = type(source)
    options = {
        field.name: _plain(getattr(source, field.name))
        for field in dataclasses.fields(source)
        if field.name not in TRANSIENT
    }
    return json.loads(json.dumps({"class": f"{kind.__module__}:{kind.__name__}", "parts": parts, "options": options}))  # type: ignore[no-any-return]


def restore(out: Path, workers: int) -> tuple[Source, int]:
    """The source whose parts were packed into `out`, and how many parts there are; UserError if there are none."""
    try:
        note = json.loads((out / UNFINISHED / "source.json").read_bytes())
    except OSError:
        what = "is packed already" if (out / MANIFEST).exists() else "holds no parts: pack them with --task K/N first"
        raise UserError(f"{out} {what}") from None
    kind = attribute(note["class"])
    hints = get_type_hints(kind)
    options = {name: _typed(value, hints[name]) for name, value in note["options"].items()}
    return kind(**options, out=out, workers=workers), note["parts"]


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value.absolute() if value.exists() else value)  # a ready mapping's name is no path
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value


def _typed(value: Any, hint: Any) -> Any:
    """A JSON value as the type that a field has."""
    arguments = get_args(hint)
    if isinstance(value, list):
        items = [_typed(item, arguments[0] if arguments else None) for item in value]
        return tuple(items) if get_origin(hint) is tuple else items
    return Path(value) if isinstance(value, str) and (hint is Path or Path in arguments) else value


def finish(work: Path) -> None:
    """Removes the directory of a pack that is finished."""
    shutil.rmtree(work)


def abandon(out: Path) -> None:
    """Removes the directory of a pack that cannot succeed, and `out` if nothing else is in it."""
    shutil.rmtree(out / UNFINISHED)
    if not any(out.iterdir()):
        out.rmdir()
