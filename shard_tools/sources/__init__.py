"""The data sets that can be packed: one file each, with one class that lists its images and their labels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, ClassVar, Literal, NamedTuple

from shard_tools.align.detector import detector_name
from shard_tools.align.recipe import FROM_FILE, CropOptions, Recipe, recipe_of
from shard_tools.base.commands import default_is
from shard_tools.base.errors import UserError
from shard_tools.base.text import plural
from shard_tools.keys import key_of
from shard_tools.sources.image_files import ImageFiles, read_file

SPLIT_NAMES = ("train", "val", "test")
SHARE = 0.1
"""Of the images for validation, and for testing, unless the options say otherwise."""


class Record(NamedTuple):
    """One image of a source and its labels, in hpcgender's conventions."""

    row: int
    """Number of the image in the source's own order."""
    name: str
    """Where the source has it: a path below its directory, or the key of a record."""
    gender: int = -1
    """0 female, 1 male, -1 unknown."""
    age: float = -1.0
    """Years, -1 unknown."""
    subject: str = ""
    """The person in the image; empty if unknown."""
    group: str = ""
    """The data set's race field as a name; empty if unknown."""
    split: str = ""
    """The source's own split (train, val or test); empty if it has none."""
    rejected: str = ""
    """Why the source cannot label this image; empty if it can."""
    at: int = -1
    """Where `read` finds the image if not by its name, e.g. the offset of a record."""


@dataclass(kw_only=True)
class Source(CropOptions):
    """What to pack and how: the options of every source. A source adds its own, and how to read it.

    A source is pickled to reach the worker processes: it opens its files at the first read.
    """

    costly: ClassVar[bool] = False
    """Whether to keep each image on disk until it is packed, because reading it again costs more."""
    streamed: ClassVar[bool] = False
    """Whether `records` lists files of many images. Each is a chunk of its own that `expand` reads once, from its
    beginning to its end; its images are numbered from 0 then, and over all files when all were read."""

    out: Path
    """Directory to write: new, empty, or with the same pack unfinished, which is resumed."""
    val: Annotated[float | None, default_is("0.1, or the source's own validation split")] = None
    """Fraction of the images for validation; of a source that has splits but none for validation, of its training
    images."""
    test: Annotated[float | None, default_is("0.1, or the source's own splits alone")] = None
    """Fraction of the images for testing; of a source that has splits but none for testing, of its training images.
    The rest is for training."""
    seed: int = 0
    """Seed of the splits, the balance and the order of the images in the shards."""
    order: Literal["shuffled", "source"] = "shuffled"
    """Order of the images in the shards: shuffled over the whole split, or as in the source."""
    balance: Literal["none", "equal"] = "none"
    """equal: as many women as men in each split, of as many subjects as possible; the rest is left out."""
    near_duplicates: bool = True
    """Whether images that look the same stay in one split, as byte-identical ones always do."""
    contradictions: Literal["keep", "drop"] = "keep"
    """drop: leave out copies of one image that are labelled female and male."""
    resize: int | None = None
    """Shorter side, pixels, to which larger images are shrunk, as JPEG. Default: the original bytes are packed."""
    quality: int | None = None
    """JPEG quality, 1 to 95, to re-encode images with; 95 with --resize or --align alone."""
    align: bool = False
    """Crop the face out of each image first, as `shard-tools align` does; without a crop it is left out."""
    aligned: bool = False
    """State that the images are crops of --template and --crop-margin already, as those of MS1MV2 are: `evaluate` and
    `cam` then warn of images that are cropped otherwise."""
    decode: bool = True
    """Whether to decode every image once and leave out damaged ones."""
    shard_mb: float = 64.0
    """Size of a shard in MB (10^6 bytes)."""
    workers: int = 2
    """Processes that read, decode and write."""
    task: str = ""
    """K/N: look at part K of N only, as a task of an array job; `shard-tools finalize OUT` joins the parts."""
    dry_run: bool = False
    """Print what would be packed and write nothing."""

    def recipe(self) -> Recipe | None:
        """How the images that are packed were cropped; None if they are as they were.

        Raises UserError for options that cannot work, and if --align lacks the detector.
        """
        given = [name for name, value in asdict(CropOptions()).items() if getattr(self, name) != value]
        if given and not (self.align or self.aligned):
            raise UserError(f"--{given[0].replace('_', '-')} is for --align: give that, too")
        if self.align and self.aligned:
            raise UserError("--align crops the images, --aligned states that they are crops: give one of them")
        if self.aligned and self.landmarks:
            raise UserError("--landmarks is for --align, which crops by them: leave it out")
        self.check_crop()
        if self.align:
            if self.resize is not None:
                raise UserError("--align makes images of --crop-size pixels: leave --resize out")
            return self.recipe_by(FROM_FILE if self.landmarks else detector_name())
        return self.recipe_by("") if self.aligned else None

    @property
    def convention(self) -> str:
        """Meaning of the source's labels and how they were converted, for the manifest."""
        raise NotImplementedError

    @property
    def numbering(self) -> str:
        """Whose ids the subjects have; two packs with the same one mean the same person by an id. Empty: not known."""
        return ""

    def records(self) -> Iterator[Record]:
        """Every image of the source in a fixed order, those it cannot label included; raises UserError if none."""
        raise NotImplementedError

    def read(self, record: Record) -> bytes:
        """The encoded image of a record, of which only `row`, `name` and `at` are filled in.

        Raises OSError or ImageError if that cannot be had; then the image goes to quarantine.
        """
        raise NotImplementedError

    def expand(self, listed: Iterable[Record]) -> Iterator[tuple[Record, Callable[[], bytes]]]:
        """The images of a chunk of `records`, each with the function that reads it, to be called before the next."""
        for record in listed:
            yield record, partial(self.read, record)

    def key(self, name: str) -> str:
        """The key of the image that has this name in the source."""
        return key_of(name)

    def shares(self, own: Mapping[str, int]) -> tuple[float, float]:
        """Fractions to take for validation and testing, of the images or, if `own` has any split, of its train.

        `own` counts the images by the source's own splits, those of none as an empty one. Raises UserError if some
        images have a split and others none, or --val or --test cannot do anything.
        """
        known = [f"{own[name]} in {name}" for name in SPLIT_NAMES if own[name]]
        if not known:
            val = min(SHARE, 1 - (self.test or 0)) if self.val is None else self.val
            return val, min(SHARE, 1 - val) if self.test is None else self.test
        if own[""]:
            raise UserError(
                f"{plural(own[''], 'image has', 'images have')} no split, others have one of the source's own "
                f"({', '.join(known)}): give each one, or state what their value means, as in --splits '' train"
            )
        for name, share in (("val", self.val), ("test", self.test)):
            if share and own[name]:
                raise UserError(
                    f"the source has a split {name} of its own, {plural(own[name], 'image')}: leave --{name} {share:g} "
                    "out, or give that split another meaning with --splits"
                )
            if share and not own["train"]:
                raise UserError(
                    f"--{name} {share:g} is taken from training images, and the source has none of them, but "
                    f"{', '.join(known)}: leave it out"
                )
        val = (0.0 if own["val"] else min(SHARE, 1 - (self.test or 0))) if self.val is None else self.val
        return val, self.test or 0.0

    def check_genders(self, female: int, male: int) -> None:
        """Raises UserError if the labels cannot be right, of which so many are female and male."""

    def remarks(self) -> list[str]:
        """Remarks on the listing, a line each: labels that disagree, fixes applied. Called after `records`."""
        return []


@dataclass(kw_only=True)
class ImageDirectory(Source):
    """A source that is a directory of image files."""

    images: Path
    """Directory with the images; searched with its subdirectories and what links lead to, hidden ones aside."""

    def __post_init__(self) -> None:
        self._remarks: list[str] = []

    def files(self) -> list[str]:
        """Paths of the image files below `images`, sorted; remarks what else is there.

        Raises UserError if the directory is missing, has no images, or has something that cannot be read.
        """
        if not self.images.is_dir():
            raise UserError(f"no directory {self.images}: give the one with the images as --images")
        found = ImageFiles(self.images, self.out)
        not_taken = found.not_taken()
        if not found.names:
            raise UserError(f"no images in {self.images}{f': {not_taken}' if not_taken else ''}")
        self._remarks += [not_taken] if not_taken else []
        return found.names

    def remarks(self) -> list[str]:
        return self._remarks

    def recipe(self) -> Recipe | None:
        made, given = recipe_of(self.images), super().recipe()
        if made and given:
            option = "--align" if self.align else "--aligned"
            raise UserError(f"{self.images} was made by shard-tools align, which noted how: leave {option} out")
        return made or given

    def read(self, record: Record) -> bytes:
        return read_file(self.images / record.name)
