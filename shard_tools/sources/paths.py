"""Finds the images below --images that a table's paths mean: those of Windows, of another machine, through a link."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from shard_tools.base.errors import UserError

SAMPLE = 200
"""Paths of a table, its first, that show how all are meant."""
DRIVE = re.compile(r"[A-Za-z]:/")


@dataclass(frozen=True)
class Paths:
    """How the paths of a table are meant."""

    images: Path
    roots: tuple[str, ...]
    """What --images is called where they are absolute."""
    windows: bool
    """Whether \\ separates directories."""
    elsewhere: str = ""
    """The directory they begin with in place of --images, if they are those of another machine."""

    def below(self, path: str) -> str:
        """The path below --images that is meant; as it stands if it is none, which `outside` finds."""
        if self.windows:
            path = path.replace("\\", "/")
        if path[:1] == "/":
            for root in self.roots:
                path = path.removeprefix(root)
        return path.removeprefix(self.elsewhere).removeprefix("./")

    def has(self, path: str) -> bool:
        """Whether there is such a file below --images."""
        return not outside(path) and _is_there(self.images / path)

    def none_found(self, table: str, path: str) -> UserError:
        """The error where no image of a table is there; `path` is the first, as the table has it."""
        below = self.below(path)
        found = [suffix for _, suffix in _suffixes(below) if self.has(suffix)]
        if found:
            advice = (
                f"{self.images / found[-1]} may be another image of that name; if it is not, take the names alone: "
                "--pattern '(?P<file>[^/]+)$' --path '{file}'"
            )
        else:
            advice = self._nearer(below) or "give the directory that its paths begin in as --images"
        looked = "is not below --images" if outside(below) else f"looked for {self.images / below}"
        return UserError(f"no image of {table} is there, the first, {path!r}, {looked}: {advice}")

    def _nearer(self, path: str) -> str:
        """The directory below --images that has this path, as advice; empty if none has."""
        for directory in sorted(self.images.iterdir()) if not outside(path) else ():
            if _is_there(directory / path):
                return f"did you mean --images {directory}?"
        return ""


def outside(path: str) -> bool:
    """Whether a path is not one below a directory."""
    return (
        path.startswith("/")
        or "\0" in path
        or (".." in path and ".." in PurePosixPath(path).parts)
        or (path[1:2] == ":" and bool(DRIVE.match(path)))
    )


def find_paths(images: Path, paths: Sequence[str]) -> Paths:
    """How the paths of a table are meant, by its first ones.

    They begin in --images, wherever links lead, or all with the same other directory, of another machine for example,
    in whose place --images has the images. What is left of a path then has a directory in it, or --images has the other
    directory's name: 1.jpg of one directory may be someone else than 1.jpg of another.
    """
    separated = [path for path in paths if "\\" in path]
    windows = bool(separated) and not any(_is_there(images / path) for path in separated)
    roots = tuple(dict.fromkeys(f"{root.as_posix()}/" for root in (images.absolute(), images.resolve())))
    as_they_are = Paths(images, roots, windows)
    below = [as_they_are.below(path) for path in paths]
    if any(map(as_they_are.has, below)):
        return as_they_are
    hits = Counter(prefix for path in below for prefix, suffix in _suffixes(path) if as_they_are.has(suffix))
    if len(hits) != 1:
        return as_they_are
    (prefix,) = hits
    flat = all("/" not in path.removeprefix(prefix) for path in below if path.startswith(prefix))
    if flat and PurePosixPath(prefix).name not in (images.absolute().name, images.resolve().name):
        return as_they_are
    return Paths(images, roots, windows, prefix)


def _is_there(path: Path) -> bool:
    """Whether there is such a file, or something that may not be looked at: reading it says so."""
    try:
        return path.exists()
    except PermissionError:
        return True
    except OSError:  # a name that no file can have
        return False


def _suffixes(path: str) -> list[tuple[str, str]]:
    """Each way to cut a path in two between directories."""
    parts = path.split("/")
    cuts = [("/".join(parts[:cut]) + "/", "/".join(parts[cut:])) for cut in range(1, len(parts))]
    return [(prefix, suffix) for prefix, suffix in cuts if suffix and not suffix.startswith("/")]
