"""A power cut that takes renames back: those of which no fsync of their directory has made sure.

It is stricter than ext4 and XFS, which keep the order of renames and removals: here a removal lasts although a rename
before it is lost, as POSIX and other file systems allow.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

from shard_tools.base import files


def journalled(journal: Path) -> None:
    """From now on this process notes its renames, keeping what they replace, and its fsyncs of directories."""
    journal.mkdir()
    notes = os.open(journal / "notes", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    count = 0

    def noted(rename: Callable[..., None]) -> Callable[..., None]:
        def renamed(old: str | os.PathLike[str], new: str | os.PathLike[str]) -> None:
            nonlocal count
            kept = journal / str(count)
            count += 1
            if os.path.lexists(new) and not os.path.isdir(new):  # noqa: PTH112  # links, too
                os.link(new, kept, follow_symlinks=False)
            paths = [str(Path(path).absolute()) for path in (old, new)]
            os.write(notes, f"{json.dumps([*paths, str(kept)])}\n".encode())
            rename(old, new)

        return renamed

    def synced(number: int, fsync: Callable[[int], None] = os.fsync) -> None:
        fsync(number)
        path = Path(f"/proc/self/fd/{number}").readlink()
        if path.is_dir():
            os.write(notes, f"{json.dumps([str(path)])}\n".encode())

    def all_synced(number: int) -> int:
        os.write(notes, f"{json.dumps(['/'])}\n".encode())
        return 0

    files.SYNCFS = all_synced  # type: ignore[assignment]
    os.rename, os.replace, os.fsync = noted(os.rename), noted(os.replace), synced  # type: ignore[assignment]


def taken_back(journal: Path) -> int:
    """Takes back the renames that may be lost, the last first; how many there were."""
    notes = journal / "notes"
    lost: list[tuple[Path, Path, Path]] = []
    for line in notes.read_text().splitlines() if notes.exists() else ():
        old, *more = map(Path, json.loads(line))
        if more:
            lost.append((old, *more))  # type: ignore[arg-type]
        else:
            lost = [each for each in lost if old not in (Path("/"), each[1].parent)]
    for old, new, kept in reversed(lost):
        if os.path.lexists(new) and old.parent.is_dir() and not old.is_dir():
            new.rename(old)
        if os.path.lexists(kept) and new.parent.is_dir():
            kept.rename(new)
    return len(lost)
