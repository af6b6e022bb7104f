"""The numbers of an evaluation, `evaluation.json`: what every one of them is, and how they are written and read.

An evaluation is a directory:

    evaluation.json       all numbers; written last, so its presence means that the evaluation is complete
    predictions.parquet   a row for each image, sorted by key (predictions.py), and
    predictions.csv       the same
    errors.csv, errors.png   with --errors: the mistakes, the surest first, and a sheet of the first of them

Everything but the part `run` is the same to the last bit whatever the number of processes. What no image tells is nan
here and null in the file. Parts are of 1; intervals are of 95 %.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from shard_tools.base.documents import document, read_document, write_document

FORMAT = "hpcgender-evaluation-1"
FILE = "evaluation.json"

Method = Literal["wilson", "bootstrap"]
"""How an interval was found: Wilson's score interval of a proportion, or 1,000 draws of subjects with all of their
images, where images without a subject are drawn one by one."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """A number and its interval, whose ends are nan where there is none."""

    value: float
    low: float
    high: float
    method: Method = "bootstrap"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """The model that was evaluated."""

    path: str
    """Absolute."""
    digest: str
    """The checksum of its content, which tells it from others wherever it lies."""
    model: str
    image_size: int
    """Height and width of its input, pixels."""
    tasks: tuple[str, ...]
    """gender, age, or both."""
    epoch: int
    step: int
    revision: str
    """The git revision that trained it, with + if the code was changed since; empty if not known."""
    manifest: str
    """SHA-256 of the manifest of the data that it was trained on; empty if not known."""
    options: dict[str, Any]
    """The resolved configuration of its training."""


@dataclass(frozen=True, kw_only=True)
class Data:
    """The images that it was evaluated on."""

    path: str
    """Absolute."""
    source: str
    """What was packed, such as morph."""
    manifest: str
    """SHA-256 of its manifest.json."""
    split: str
    images: int
    left_out: int
    """Of these, those that do not decode. They have no prediction and count nowhere else."""
    classes: tuple[str, ...]
    """The names of labels 0 and 1: female, male."""
    labelled: dict[str, int]
    """Images that decode, of each class; the others' gender is unknown."""
    aged: int
    """Images that decode whose age is known."""
    subjects: int
    """Different subjects among the images that decode; 0 if none is known."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What decides the predictions besides checkpoint and data."""

    batch_size: int
    """Images in a batch, per process: sums within the network round otherwise in batches of another size."""
    backend: str
    """Who decoded the images: dali or torchvision."""
    flip: bool
    """Whether predictions are means of each image's and its mirror image's."""


@dataclass(frozen=True, kw_only=True)
class ClassScores:
    """What is said of one class. Precision is nan if it was said of no image, recall if it has none."""

    name: str
    images: int
    predicted: int
    precision: Score
    recall: Score
    f1: Score


@dataclass(frozen=True, kw_only=True)
class RocPoint:
    """Calling male what has log-odds of at least `threshold`: the parts of women and of men who are then called so."""

    threshold: float
    """nan at the curve's beginning, where nobody is called male."""
    false_positive: float
    true_positive: float


@dataclass(frozen=True, kw_only=True)
class EqualError:
    """Where the part of women called male is as near as can be to the part of men called female."""

    threshold: float
    """Log-odds above which an image is called male; 0 is how predictions are made."""
    probability: float
    """The same as a probability of male."""
    rate: float
    """The mean of both parts."""
    accuracy: float
    """Of all labelled images with this threshold."""


@dataclass(frozen=True, kw_only=True)
class Bin:
    """A part of the reliability curve: images whose probability of male is in [low, high), in the last one up to 1."""

    low: float
    high: float
    images: int
    probability: float
    """Mean over them; nan if there are none."""
    male: float
    """Part of them who are male; nan if there are none."""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Whether probabilities of male are true."""

    log_loss: float
    """Mean negative log-likelihood of the labels, nats."""
    ece: float
    """Expected calibration error: mean over the images of |probability - male| of their bins."""
    bins: tuple[Bin, ...]


@dataclass(frozen=True, kw_only=True)
class Temperature:
    """Temperature scaling (Guo et al., ICML 2017): log-odds divided by a number that was fitted on other images."""

    value: float
    fitted_on: str
    """A split such as val, or the directory of another evaluation."""
    images: int
    """Labelled images that it was fitted on."""
    calibration: Calibration
    """With it."""


@dataclass(frozen=True, kw_only=True)
class Gender:
    """How gender is told, over the labelled images that decode."""

    images: int
    accuracy: Score
    balanced_accuracy: Score
    """The mean of the classes' recalls."""
    roc_auc: Score
    """How often the log-odds of a man are above those of a woman, ties counting half."""
    d_prime: Score
    """Distance of the means of men's and women's log-odds, in root mean squares of both standard deviations."""
    classes: tuple[ClassScores, ...]
    confusion: tuple[tuple[int, ...], ...]
    """Images by label (rows) and prediction (columns)."""
    roc: tuple[RocPoint, ...]
    """At most 500 points of the curve, from (0, 0) to (1, 1); empty without both classes."""
    equal_error: EqualError | None
    """None without both classes."""
    calibration: Calibration
    temperature: Temperature | None
    """None if it was not asked for, or if no temperature is best because all or none are told right."""


@dataclass(frozen=True, kw_only=True)
class Age:
    """How age is told, over the images that decode whose age is known; years."""

    images: int
    mae: Score
    """Mean absolute error."""
    mean_error: Score
    """Mean of prediction minus age."""
    cumulative: tuple[float, ...]
    """Cumulative score: item t is the part of the images whose error is at most t years, from 0 to 20."""


@dataclass(frozen=True, kw_only=True)
class Group:
    """The images with one value of a column."""

    value: str
    images: int
    subjects: int
    """0 if none is known."""
    score: Score
    small: bool
    """Fewer than 30 subjects, or images where no subject is known: too few to say much, and left out of the gap."""


@dataclass(frozen=True, kw_only=True)
class Gap:
    """The largest difference between two groups that are not small.

    Its interval holds for all pairs of groups at once, because the pair was chosen for its difference.
    """

    best: str
    worst: str
    score: Score
    """Of the better minus of the worse, for ages their errors the other way round: 0 or more. Its ends may be below."""
    excludes_zero: bool


@dataclass(frozen=True, kw_only=True)
class GroupTable:
    """A score by the values of a column."""

    column: str
    """gender, group, age decade, gender x group, or a column of --by."""
    measure: Literal["accuracy", "age_mae"]
    """The part whose gender is told right, or the mean absolute error of the age, years."""
    groups: tuple[Group, ...]
    unknown: int
    """Images without a value."""
    gap: Gap | None
    """None with fewer than two groups that are not small."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """What differs from one run to the next."""

    began: str
    """UTC, as 2025-01-31T12:00:00Z."""
    seconds: float
    """From the first image to the last, temperature's images too."""
    images_per_s: float
    world_size: int
    device: str
    """Such as cpu, or the GPU's name."""
    threads: int
    """That PyTorch computes with in each process, without a GPU."""
    versions: dict[str, str]
    """Of hpcgender, torch and numpy, by their names."""
    revision: str
    """The git revision that evaluated; empty if not known."""
    job: str
    """The job's id, of Slurm or Grid Engine; empty outside of one."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """All numbers of an evaluation."""

    checkpoint: Checkpoint
    data: Data
    options: Options
    gender: Gender | None
    """None if the model does not tell it, or no image that decodes has such a label."""
    age: Age | None
    tables: tuple[GroupTable, ...]
    run: Run

    def table(self, column: str, measure: str = "accuracy") -> GroupTable | None:
        """The table of a score by a column, or None if there is none."""
        return next((table for table in self.tables if (table.column, table.measure) == (column, measure)), None)

    def write(self, directory: Path) -> None:
        """Writes evaluation.json, whole or not at all."""
        write_document(directory / FILE, FORMAT, asdict(self))


def read_evaluation(directory: Path) -> Evaluation:
    """The evaluation in a directory; UserError if there is none, or it is of another format."""
    path, again = directory / FILE, "evaluate again"
    none = "name an evaluation such as runs/<name>/evaluations/<data>-test, or make one: hpcgender evaluate --help"
    return document(Evaluation, read_document(path, FORMAT, none, again), path, again)
