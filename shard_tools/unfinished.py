"""The directory of an unfinished pack: what is being packed, so that a killed pack can be resumed."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

from shard_tools.base.commands import attribute
from shard_tools.base.contracts import SUBMISSIONS
from shard_tools.base.documents import restored
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
    return json.loads(json.dumps({"class": f"{kind.__module__}:{kind.__name__}", "parts": parts, "options": options}))  # type: ignore[no-any-return]


def restore(out: Path, workers: int) -> tuple[Source, int]:
    """The source whose parts were packed into `out`, and how many parts there are; UserError if there are none."""
    path = out / UNFINISHED / "source.json"
    try:
        note = json.loads(path.read_bytes())
    except OSError:
        what = "is packed already" if (out / MANIFEST).exists() else "holds no parts: pack them with --task K/N first"
        raise UserError(f"{out} {what}") from None
    kind = attribute(note["class"])
    content = {**note["options"], "out": str(out), "workers": workers}
    source: Source = restored(kind, content, path, "remove the directory and pack again")
    return source, note["parts"]


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value.absolute() if value.exists() else value)  # a ready mapping's name is no path
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value


def finish(work: Path) -> None:
    """Removes the directory of a pack that is finished."""
    shutil.rmtree(work)


def abandon(out: Path) -> None:
    """Removes the directory of a pack that cannot succeed, and `out` if nothing else is in it."""
    shutil.rmtree(out / UNFINISHED)
    if not any(out.iterdir()):
        out.rmdir()
