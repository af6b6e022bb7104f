"""Lists the image files below a directory: follows links, and counts by reason what it does not take."""

from __future__ import annotations

import errno
import os
import stat
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from shard_tools.base.errors import UserError, one_line
from shard_tools.base.text import plural, printable
from shard_tools.images import MAX_BYTES, ImageError, extension_of

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".jfif", ".jpe", ".png", ".webp", ".bmp"})
OTHER_SUFFIXES = frozenset(
    {".csv", ".db", ".gz", ".html", ".ini", ".ipynb", ".json", ".log", ".mat", ".md", ".npy", ".npz", ".pkl", ".pts"}
    | {".py", ".rar", ".tar", ".toml", ".tsv", ".txt", ".xls", ".xlsx", ".xml", ".yaml", ".yml", ".zip"}
)
"""Files that lie beside images. With any other suffix, or none, the first bytes show whether it is an image."""
HIDDEN = frozenset({"__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found"})
"""Directories that operating systems make; and so are names that begin with a dot, such as .ipynb_checkpoints."""
NOWHERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
"""Errors of links that lead to nothing."""
SHOWN = 3
"""Names that the line of what was not taken gives of a reason."""


@dataclass
class ImageFiles:
    """The image files below `root`; `out`, if given, is left out, for what is packed may lie there."""

    root: Path
    out: Path | None = None
    strict: bool = True
    """Whether what cannot be read is an error; otherwise it is listed as `unreadable`, and so are dangling links."""
    names: list[str] = field(default_factory=list)
    """Their paths below `root`, sorted."""
    others: Counter[str] = field(default_factory=Counter)
    """Files of kinds that are not packed, images such as .gif among them, by suffix."""
    hidden: list[str] = field(default_factory=list)
    dangling: list[str] = field(default_factory=list)
    circles: list[str] = field(default_factory=list)
    """Links to a directory that they lie in."""
    special: list[str] = field(default_factory=list)
    """Neither files nor directories, e.g. sockets."""
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    """Paths below `root`, sorted, and why they cannot be read."""

    def __post_init__(self) -> None:
        """Lists them; raises UserError for a directory or a file that cannot be read if it is to be strict."""
        real = self.root.resolve()
        self._above = {_identity(path.stat()) for path in (real, *real.parents)}
        self._out = self.out and self.out.resolve()
        self._directories = [""]
        while self._directories:
            self._list(self._directories.pop())
        self.names.sort()
        self.unreadable.sort()

    def not_taken(self) -> str:
        """One line that counts what is not listed, by reason; empty if there is nothing."""
        ordered = sorted(self.others.items(), key=lambda item: (-item[1], item[0]))
        suffixes = [f"{count} {suffix or 'without suffix'}" for suffix, count in ordered]
        others = plural(self.others.total(), "file of a kind that is", "files of kinds that are")
        reasons = [
            *([f"{others} not packed ({', '.join(suffixes[:10])})"] if suffixes else []),
            *(
                f"{plural(len(names), one, several)} "
                f"({', '.join(sorted(names)[:SHOWN])}{', ...' if len(names) > SHOWN else ''})"
                for one, several, names in (
                    ("dangling link", "dangling links", self.dangling),
                    ("link to a directory around it", "links to a directory around them", self.circles),
                    ("hidden", "hidden", self.hidden),
                    ("neither file nor directory", "neither file nor directory", self.special),
                )
                if names
            ),
        ]
        return printable(f"not taken below {self.root}: {', '.join(reasons)}") if reasons else ""

    def _list(self, below: str) -> None:
        """Lists one directory, a path below `root` that is empty or ends in a slash."""
        try:
            with os.scandir(self.root / below) as entries:
                for entry in entries:
                    self._take(entry, below)
        except OSError as error:
            self._refuse(below, error)

    def _refuse(self, name: str, error: OSError) -> None:
        if self.strict:
            where = error.filename or self.root / name
            raise UserError(f"cannot read {where}: {error.strerror}; make it readable, or move it away") from None
        self.unreadable.append((name, error.strerror or one_line(error)))

    def _take(self, entry: os.DirEntry[str], below: str) -> None:
        """Takes a file, notes a directory, counts anything else."""
        name = below + entry.name
        try:
            self._sort(entry, name)
        except OSError as error:
            self._refuse(name, error)

    def _sort(self, entry: os.DirEntry[str], name: str) -> None:
        if entry.name.startswith(".") or entry.name in HIDDEN:
            self.hidden.append(name)
        elif entry.is_symlink():
            self._follow(entry, name)
        elif entry.is_file(follow_symlinks=False):
            self._take_file(name)
        elif entry.is_dir(follow_symlinks=False):
            if not self._out or entry.name != self._out.name or Path(entry).resolve() != self._out:
                self._directories.append(f"{name}/")
        else:
            self.special.append(name)

    def _follow(self, entry: os.DirEntry[str], name: str) -> None:
        try:
            found = entry.stat()
        except OSError as error:
            if error.errno not in NOWHERE:
                raise
            if self.strict:
                self.dangling.append(name)
            else:
                self.unreadable.append((name, "a dangling link"))
            return
        if stat.S_ISREG(found.st_mode):
            self._take_file(name)
        elif not stat.S_ISDIR(found.st_mode):
            self.special.append(name)
        elif self._is_around(_identity(found), name):
            self.circles.append(name)
        else:
            self._directories.append(f"{name}/")

    def _is_around(self, directory: tuple[int, int], name: str) -> bool:
        """Whether a path lies in a directory, given by device and inode; links may have led to it."""
        parents = name.split("/")[:-1]
        paths = (self.root.joinpath(*parents[:count]) for count in range(len(parents), 0, -1))
        return directory in self._above or any(_identity(path.stat()) == directory for path in paths)

    def _take_file(self, name: str) -> None:
        suffix = os.path.splitext(name)[1].lower()  # noqa: PTH122, it is called for each file
        if suffix in IMAGE_SUFFIXES or (suffix not in OTHER_SUFFIXES and _is_image(self.root / name)):
            self.names.append(name)
        else:
            self.others[suffix] += 1


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


def _is_image(path: Path) -> bool:
    """Whether a file begins as an image does."""
    with path.open("rb") as file:
        start = file.read(16)
    try:
        extension_of(start)
    except ImageError:
        return False
    return True


def read_file(path: Path) -> bytes:
    """The bytes of an image file; raises OSError, or ImageError if it is too large for an image."""
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size > MAX_BYTES:
            raise ImageError(f"it has more than {MAX_BYTES} bytes")
        return file.read()
