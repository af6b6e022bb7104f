"""What is to be predicted: files, all files below directories, globs, what stdin names, and images in memory; and the
bytes of each that a decoder reads, cropped as the training images were."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator
from functools import lru_cache
from glob import glob
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from hpcgender.data.shards import Encoded
from shard_tools.align.crop import align_encoded
from shard_tools.align.recipe import Recipe, recipe_of
from shard_tools.align.warp import Points
from shard_tools.base.errors import UserError, one_line
from shard_tools.base.options import expand
from shard_tools.images import MAX_BYTES, ImageError, extension_of, in_8_bits, readable
from shard_tools.sources.image_files import ImageFiles

Content = Path | bytes | Image.Image | npt.NDArray[np.uint8]
"""A file; an encoded image; or pixels, as Pillow has them or as an array (height, width, 3) of RGB or (height, width)
of gray levels."""
STDIN = "-"


class Named(NamedTuple):
    """An image, and what it is called; without content, why there is none."""

    name: str
    content: Content | None
    error: str = ""


class Readable(NamedTuple):
    """The bytes of an image that every decoder reads, or why there are none."""

    encoded: Encoded | None
    note: str = ""
    """A remark: that it had to be encoded anew and why, or that it is one of several faces."""
    error: str = ""
    faces: int | None = None
    """Faces found in the image; None where none was looked for, or the image cannot be used."""
    landmarks: Points | None = None
    """Of the face that was cropped, (x, y) in pixels of the upright image; shape (5, 2)."""


class Listing:
    """The images that arguments of a command name, in their order; `notes` has a line for what is not taken."""

    def __init__(self, arguments: Iterable[str], stdin: BinaryIO) -> None:
        self.notes: list[str] = []
        self.images = [image for argument in arguments for image in self.named(argument, stdin)]

    def named(self, argument: str, stdin: BinaryIO) -> Iterator[Named]:
        """The images that one argument names."""
        path = Path(argument)
        if argument == STDIN:
            yield from self.from_stdin(stdin)
        elif is_directory(path):
            yield from self.below(path)
        elif any(sign in argument for sign in "*?[") and not os.path.exists(path):  # noqa: PTH110  # as is_directory
            found = sorted(glob(argument, recursive=True))  # noqa: PTH207  # it may be absolute
            if "**" in argument:  # which names what is below a directory, too
                found = [name for name in found if not is_directory(Path(name))]
            for name in found:
                yield from self.named(f"./{name}" if name == STDIN else name, stdin)
            if not found:
                yield Named(argument, None, "no file has such a name")
        else:
            yield Named(argument, path)

    def below(self, directory: Path) -> Iterator[Named]:
        """All image files below a directory, sorted, then what cannot be read there."""
        files = ImageFiles(directory, strict=False)
        if left := files.not_taken():
            self.notes.append(left)
        for name in files.names:
            yield Named(str(directory / name), directory / name)
        for name, reason in files.unreadable:
            yield Named(str(directory / name), None, f"it cannot be read: {reason}")
        if not files.names and not files.unreadable:
            yield Named(str(directory), None, "there is no image in this directory")

    def from_stdin(self, stdin: BinaryIO) -> Iterator[Named]:
        """An image, or the files whose names are on its lines, or between zero bytes as find -print0 writes them."""
        given = stdin.read()
        try:
            extension_of(given)
        except ImageError:
            lines = given.split(b"\0") if b"\0" in given else [line.removesuffix(b"\r") for line in given.split(b"\n")]
            names = [os.fsdecode(line) for line in lines if line.strip()]
            for name in names:
                yield from self.named(f"./{STDIN}" if name == STDIN else name, stdin)
            if not names:
                yield Named("stdin", None, "it is empty: give names of files, or an image")
        else:
            yield Named("stdin", given)


def is_directory(path: Path) -> bool:
    """Whether it is a directory; not where that cannot be known, as of a name too long: reading it says why."""
    return os.path.isdir(path)  # noqa: PTH112  # Path.is_dir raises there


def in_memory(images: Iterable[Content | str]) -> list[Named]:
    """Images of a Python program with their names: of files their paths, of others their numbers from 0.

    UserError for a single one, which would be taken for a list of letters, bytes or rows of pixels.
    """
    if isinstance(images, str | bytes | Path | Image.Image) or getattr(images, "ndim", None) in (2, 3):
        raise UserError("predict takes a list of images: give a single one as [image]")
    return [in_program(number, image) for number, image in enumerate(images)]


def in_program(number: int, image: object) -> Named:
    """What a Python program gives as the image of that number, whatever it is."""
    if isinstance(image, str | Path):
        if "\0" in str(image):
            return Named(str(image), None, "its name has a zero byte, which no file's has")
        return Named(str(image), expand(Path(image)))
    if isinstance(image, bytes | Image.Image | np.ndarray):
        return Named(str(number), image)
    return Named(str(number), None, f"it is {type(image).__name__}, not a path, bytes, a Pillow image, or an array")


def read(image: Named, crop: Recipe | None = None) -> Readable:
    """The bytes of an image, as a decoder can use them; with a recipe, those of the face in it, cropped by that.

    A file that `shard-tools align` made is such a crop already, and stays as it is.
    """
    if image.content is None:
        return Readable(None, error=image.error)
    try:
        if crop and not (isinstance(image.content, Path) and frame_of(image.content) == crop.frame):
            return cropped(encoded_of(image.content), crop)
        encoded, reason = readable(encoded_of(image.content))
    except OSError as error:
        return Readable(None, error=f"it cannot be read: {error.strerror or one_line(error)}")
    except ImageError as error:
        return Readable(None, error=str(error))
    return Readable(np.frombuffer(encoded, dtype=np.uint8), f"encoded anew: {reason}" if reason else "")


def cropped(encoded: bytes, crop: Recipe) -> Readable:
    """The face in an image, with the bytes that `shard-tools align` writes; ImageError if there is none."""
    face = align_encoded(encoded, crop, suffix=f".{extension_of(encoded)}")
    several = {"largest": "the largest", "central": "the most central", "refuse": ""}[crop.faces]
    note = f"{several} of {face.faces} faces" if face.faces > 1 else ""
    return Readable(np.frombuffer(face.encoded, dtype=np.uint8), note, "", face.faces, face.landmarks)


def frame_of(path: Path) -> str:
    """What is seen in a file, as `frame_below`; ImageError if what `shard-tools align` noted is damaged."""
    try:
        return frame_below(path.resolve().parent)
    except UserError as error:
        raise ImageError(str(error)) from None


@lru_cache(maxsize=256)
def frame_below(directory: Path) -> str:
    """What is seen in the crops that lie in a directory, if `shard-tools align` made them; empty for photos."""
    for above in (directory, *directory.parents):
        if recipe := recipe_of(above):
            return recipe.frame
    return ""


def encoded_of(content: Content) -> bytes:
    """The bytes of an encoded image; pixels are encoded without loss."""
    if isinstance(content, Path):
        with content.open("rb") as file:
            return file.read(MAX_BYTES + 1)  # a device may have no end
    if isinstance(content, bytes):
        return content
    if isinstance(content, np.ndarray):
        if content.dtype != np.uint8 or content.ndim not in (2, 3) or (content.ndim == 3 and content.shape[2] != 3):
            raise ImageError(
                f"it is an array {content.shape} of {content.dtype}, not of uint8 with the shape (height, width, 3)"
            )
        content = Image.fromarray(content)
    buffer = io.BytesIO()
    try:
        in_8_bits(content).save(buffer, "PNG", compress_level=1)
    except Exception as error:  # what Pillow cannot decode or encode it tells by exceptions of many kinds
        raise ImageError(f"it does not decode: {one_line(error)}") from None
    return buffer.getvalue()
