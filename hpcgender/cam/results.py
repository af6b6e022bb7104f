"""The numbers of heat maps, `cam.json` and `averages.npz`: what each of them is, and how they are written and read.

Heat maps are a directory:

    cam.json              all numbers; written last, so its presence means that everything else is there
    averages.npz          mean maps, standard errors, mean faces and significance masks: see Cam.arrays
    maps/                 every image's raw map, in shards (inference/blocks.py) with the keys, and
    maps.csv              a row for each image: shard and row of its map, log-odds and prediction
    sheet.png             look at it first; averages.png, differences.png and deletion.png have the rest
    overlays/             with --overlays or --keys: the maps of single images over them, and overlays.csv
    regions.csv           with --regions: the evidence by face region
    deletion/, work/      each image's log-odds with cells masked, and the state of the work: both are kept, so the
                          same command resumes, and computes only what it is asked for anew

Maps are evidence, in units of log-odds: negative for female, positive for male. Those of a network whose gender logits
are linear in the means of its feature maps are class activation maps (Zhou et al., arXiv 1512.04150), whose mean plus a
constant is the log-odds; others are Grad-CAM's (Selvaraju et al., arXiv 1610.02391) of the log-odds, without its ReLU
and its scaling of each image, its weights summed over the cells instead of averaged, so that both are the same where
both are defined.

Everything but the part `run` is the same to the last bit for any number of processes, and however often they were
killed. What is not defined is nan here and null in the file. Proportions are fractions.
"""

from __future__ import annotations

import io
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from hpcgender.inference.facts import CheckpointFacts, ComputeFacts, SplitFacts
from shard_tools.base.documents import read_document, restored, write_document
from shard_tools.base.errors import UserError, one_line
from shard_tools.base.files import write_whole

FORMAT = "hpcgender-cam-1"
FILE = "cam.json"
ARRAYS = "averages.npz"

SMALL = 30
"""Images, below which a subgroup is marked as small and nothing in it is called significant."""
FALSE_DISCOVERIES = 0.05
"""False discovery rate of the places called significant in a difference."""

Array = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Data(SplitFacts):
    """The images that maps are of; maps of those that do not decode are nan and count nowhere."""

    groups: tuple[str, ...]
    """Known groups, sorted."""


@dataclass(frozen=True, kw_only=True)
class Average:
    """The images of known gender that one average is of. In Cam.arrays: NAME/mean, NAME/standard_error, NAME/face."""

    name: str
    """female; female x White; female correct; female wrong."""
    gender: str
    group: str
    """Empty for all."""
    outcome: Literal["", "correct", "wrong"]
    """Whether their gender was classified correctly; empty for both."""
    images: int
    """At least 1."""
    small: bool
    """Fewer than 30 images."""
    evidence: float
    """Mean over the cells of the mean map."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One average minus another. In Cam.arrays: NAME/difference, NAME/standard_error, NAME/significant, NAME/face.

    A place is significant by Welch's test of unequal variances (normal approximation, two-sided, images taken as
    independent), with Benjamini and Hochberg's correction (1995) over the places of the difference, at a false
    discovery rate of 5 %; never where one of the averages is small.
    """

    name: str
    """male minus female; male minus female, White; female: White minus the rest; female: wrong minus correct."""
    kind: Literal["gender", "gender in group", "group", "outcome"]
    gender: str
    """Of both averages; empty where it is what differs."""
    group: str
    """That it is of; empty for all."""
    images: tuple[int, ...]
    """Of both averages."""
    small: bool
    """Whether one of both is."""
    significant: int
    """Significant places."""


@dataclass(frozen=True, kw_only=True)
class Masked:
    """Predictions for images some of whose cells are masked."""

    accuracy: float
    log_odds: float
    """Mean log-odds of the labelled class against the other."""
    standard_error: float
    """Of log_odds."""


@dataclass(frozen=True, kw_only=True)
class DeletionStep:
    """A number of cells masked in each image: those with most evidence for its label, or as many random ones."""

    fraction: float
    """That was asked for."""
    cells: int
    """That were masked in each image: at least one."""
    hottest: Masked
    random: Masked
    gap: float
    """Mean over the images of the log-odds with random cells masked minus with the hottest: above 0 if the maps show
    where the evidence is."""
    gap_standard_error: float


@dataclass(frozen=True, kw_only=True)
class Deletion:
    """The deletion check (after RISE, Petsiuk et al., arXiv 1806.07421): masked cells get their image's mean colour."""

    images: int
    """Random images of known gender that decode."""
    seed: int
    unmasked: Masked
    steps: tuple[DeletionStep, ...]


@dataclass(frozen=True, kw_only=True)
class Region:
    """A face region, over the images of one average."""

    average: str
    region: str
    images: int
    """Of the average, those that have a mask with this region."""
    area: float
    """Mean fraction of the image."""
    evidence: float
    """Mean over the images of the mean evidence within the region."""
    standard_error: float
    """Of evidence; nan for one image."""
    share: float
    """Fraction of the absolute evidence of these images that lies in it."""


@dataclass(frozen=True, kw_only=True)
class Cam:
    """All numbers of heat maps."""

    checkpoint: CheckpointFacts
    data: Data
    method: Literal["cam", "grad-cam"]
    batch_size: int
    backend: str
    precision: str
    """The precision of the forward pass: fp32, tf32, bf16 or fp16."""
    cells: tuple[int, ...]
    """Cells of a map, down and across."""
    limit: float
    """The evidence at both ends of the colour scale that all averages and differences are drawn with."""
    averages: tuple[Average, ...]
    differences: tuple[Difference, ...]
    deletion: Deletion | None
    """None if it was not asked for, or no image of known gender decodes."""
    regions: tuple[Region, ...]
    masks: int
    """Images with a mask, if --regions was given."""
    run: ComputeFacts
    """Of the last start, if it was stopped in between."""
    arrays: dict[str, Array]
    """By NAME/what: mean, standard_error and difference are float64 maps (cells down, across), significant a bool one,
    face the mean face of the same images (of a difference, the mean of both), float32 (size, size, 3) in [0, 255]."""

    def write(self, directory: Path) -> None:
        """Writes averages.npz and cam.json, each whole or not at all."""
        buffer = io.BytesIO()
        np.savez(buffer, **self.arrays)  # type: ignore[arg-type]
        write_whole(directory / ARRAYS, buffer.getvalue())
        content = asdict(self)
        del content["arrays"]
        write_document(directory / FILE, FORMAT, content)


def read_cam(directory: Path) -> Cam:
    """The heat maps in a directory; UserError if there are none, or they are of another format."""
    path, again = directory / FILE, "give the same hpcgender cam again"
    none = "name heat maps such as runs/<name>/cams/<data>-test, or make some: hpcgender cam --help"
    content = read_document(path, FORMAT, none, again)
    try:
        with np.load(directory / ARRAYS) as arrays:
            content["arrays"] = dict(arrays)
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        raise UserError(f"{directory / ARRAYS} is damaged ({one_line(error)}): {again}") from None
    return restored(Cam, content, path, again)
