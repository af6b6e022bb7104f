"""The numbers of an evaluation, `evaluation.json`: what each of them is, and how they are written and read.

An evaluation is a directory:

    evaluation.json       all numbers; written last, so its presence means that the evaluation is complete
    predictions.parquet   a row for each image, sorted by key (predictions.py), and
    predictions.csv       the same
    errors.csv, errors.png   with --errors: the mistakes, the most confident first, and a sheet of the first of them
    work/                 the state of an unfinished evaluation, from which the same command resumes; removed when
                          evaluation.json is written, so a finished evaluation is computed anew if asked for again,
                          and stays as it is until all of its images are; another one is refused

Everything but the part `run` is the same to the last bit for any number of processes, and however often they were
killed. What is not defined, e.g. the recall of a class without images, is nan here and null in the file. Proportions
are fractions; intervals are of 95 %.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from hpcgender.data.packs import manifests_in
from hpcgender.inference.facts import CheckpointFacts, ComputeFacts, SplitFacts
from shard_tools.base.documents import read_document, restored, write_document

FORMAT = "hpcgender-evaluation-3"
FILE = "evaluation.json"

COLUMNS = ("gender", "group", "age decade", "gender x group")
"""What tables are by without a table of the user's."""

Method = Literal["wilson", "bootstrap", "seeds"]
"""How an interval was computed: Wilson's score interval of a proportion; 1,000 bootstrap draws of subjects with all
of their images, where images without a subject are drawn one by one; or Student's t over seeds and images, see
`hpcgender.compare.seeds`."""

Measure = Literal["accuracy", "age_mae", "accuracy_lost", "age_mae_added"]
"""What a table has of each group: accuracy of gender, or mean absolute error of age, years; in `robustness.json` what
corrupted images lost of the first, or added to the second."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """A number and its interval, whose ends are nan if there is none."""

    value: float
    low: float
    high: float
    method: Method = "bootstrap"


@dataclass(frozen=True, kw_only=True)
class TrainedOn:
    """The images of the split that lie in the training split of the checkpoint's run, byte for byte."""

    images: int | None
    """None: that could not be checked."""
    of: int
    """Images of the split."""
    why: str
    """Why it could not be checked; empty if it was."""
    left_out: bool
    """Whether they are left out of predictions and scores, by --without-trained."""


@dataclass(frozen=True, kw_only=True)
class Data(SplitFacts):
    """The evaluated images; `images` counts those alone that are not left out because they were trained on."""

    trained_on: TrainedOn

    labelled: dict[str, int]
    """Decoded images of each class; the gender of the others is unknown."""
    aged: int
    """Decoded images of known age."""
    subjects: int
    """Different subjects of the decoded images; 0 if none is known."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What decides the predictions besides checkpoint and data."""

    batch_size: int
    """Images in a batch, per process: sums in a network round differently in batches of another size."""
    backend: str
    """The image decoder: dali, dali-mixed or torchvision."""
    precision: str
    """The precision of the forward pass: fp32, tf32, bf16 or fp16."""
    flip: bool
    """Whether predictions are averages over each image and its mirror image."""


@dataclass(frozen=True, kw_only=True)
class ClassScores:
    """Scores of one class. Precision is nan if it was predicted for no image, recall if it has none."""

    name: str
    images: int
    predicted: int
    precision: Score
    recall: Score
    f1: Score


@dataclass(frozen=True, kw_only=True)
class RocPoint:
    """Male predicted from log-odds of `threshold` on: the fractions of women and of men who are then predicted male."""

    threshold: float
    """nan at the curve's beginning, where nobody is predicted male."""
    false_positive: float
    true_positive: float


@dataclass(frozen=True, kw_only=True)
class EqualError:
    """Where the fraction of women predicted male is nearest to the fraction of men predicted female."""

    threshold: float
    """Log-odds above which an image is predicted male; 0 in `prediction`."""
    probability: float
    """The same as a probability of male."""
    rate: float
    """The mean of both fractions."""
    accuracy: float
    """Of all labelled images with this threshold."""


@dataclass(frozen=True, kw_only=True)
class Bin:
    """A bin of the reliability curve: images whose probability of male is in [low, high), in the last one up to 1."""

    low: float
    high: float
    images: int
    probability: float
    """Mean over them; nan if there are none."""
    male: float
    """Fraction of them who are male; nan if there are none."""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """How well probabilities of male are calibrated."""

    log_loss: float
    """Mean negative log-likelihood of the labels, nats."""
    ece: float
    """Expected calibration error: mean over the images of |probability - male| of their bins."""
    bins: tuple[Bin, ...]


@dataclass(frozen=True, kw_only=True)
class Temperature:
    """Temperature scaling (Guo et al., ICML 2017): log-odds divided by a temperature fitted on other images."""

    value: float
    fitted_on: str
    """A split such as val, or the directory of another evaluation."""
    images: int
    """Labelled images that it was fitted on."""
    calibration: Calibration
    """With the temperature."""


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """The majority-class baseline: predicting, for each of the images, the class that most of them have."""

    name: str
    """That class."""
    accuracy: float
    difference: Score
    """The model's accuracy minus the baseline's, on the same images."""


@dataclass(frozen=True, kw_only=True)
class Gender:
    """Scores of gender, over the labelled images that decode."""

    images: int
    accuracy: Score
    baseline: Baseline | None
    """None without both classes."""
    balanced_accuracy: Score
    """The mean of the classes' recalls."""
    roc_auc: Score
    """How often the log-odds of a man are above those of a woman, ties counting half: the area under the ROC curve."""
    d_prime: Score
    """Distance of the means of men's and women's log-odds, in root mean squares of both standard deviations."""
    probability_mae: Score
    """Mean absolute error of the probability of male: of 1 for men, of 0 for women."""
    classes: tuple[ClassScores, ...]
    confusion: tuple[tuple[int, ...], ...]
    """Images by label (rows) and prediction (columns)."""
    roc: tuple[RocPoint, ...]
    """At most 500 points of the curve, from (0, 0) to (1, 1); empty without both classes."""
    equal_error: EqualError | None
    """None without both classes."""
    calibration: Calibration
    temperature: Temperature | None
    """None if it was not asked for, or if no temperature is best because all or no predictions are correct."""


@dataclass(frozen=True, kw_only=True)
class Age:
    """Scores of age, over the decoded images of known age; years."""

    images: int
    mae: Score
    """Mean absolute error."""
    mean_error: Score
    """Mean of prediction minus age."""
    cumulative: tuple[float, ...]
    """Cumulative score: item t is the fraction of the images whose error is at most t years, from 0 to 20."""


@dataclass(frozen=True, kw_only=True)
class Group:
    """The images with one value of a column."""

    value: str
    images: int
    subjects: int
    """0 if none is known."""
    score: Score
    small: bool
    """Fewer than 30 subjects, or images if no subject is known: too few for a conclusion, and left out of the gap."""


@dataclass(frozen=True, kw_only=True)
class Gap:
    """The largest difference between two groups that are not small.

    Its interval holds for all pairs of groups at once, because the pair was chosen for its difference.
    """

    best: str
    worst: str
    score: Score
    """The better score minus the worse, for ages the worse error minus the better: at least 0; its ends may be less."""
    excludes_zero: bool


@dataclass(frozen=True, kw_only=True)
class GroupTable:
    """A score by the values of a column."""

    column: str
    """One of COLUMNS, or a column of --by."""
    measure: Measure
    groups: tuple[Group, ...]
    unknown: int
    """Images without a value."""
    gap: Gap | None
    """None with fewer than two groups that are not small."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """All numbers of an evaluation."""

    checkpoint: CheckpointFacts
    data: Data
    options: Options
    gender: Gender | None
    """None if the model does not predict it, or no decoded image has such a label."""
    age: Age | None
    losses: dict[str, float]
    """Of each task, the mean of what training minimises, without class weights and label smoothing; nats of gender. nan
    of ages that are the expectation of a distribution, which predictions do not hold."""
    tables: tuple[GroupTable, ...]
    run: ComputeFacts

    @property
    def chose_epoch(self) -> bool:
        """Whether the best epoch was chosen on this split of this data set."""
        known = (
            [self.checkpoint.val_manifest] if self.checkpoint.val_manifest else manifests_in(self.checkpoint.manifest)
        )
        return self.data.manifest in known and self.checkpoint.options.get("val_split") == self.data.split

    def table(self, column: str, measure: str = "accuracy") -> GroupTable | None:
        """The table of a score by a column, or None if there is none."""
        return next((table for table in self.tables if (table.column, table.measure) == (column, measure)), None)

    @property
    def own_columns(self) -> tuple[str, ...]:
        """The columns of the user's table that there are tables by."""
        return tuple(dict.fromkeys(table.column for table in self.tables if table.column not in COLUMNS))

    def write(self, directory: Path) -> None:
        """Writes evaluation.json, whole or not at all."""
        write_document(directory / FILE, FORMAT, asdict(self))


def read_evaluation(directory: Path) -> Evaluation:
    """The evaluation in a directory; UserError if there is none, or it is of another format."""
    path, again = directory / FILE, "remove it and evaluate again"
    none = "name an evaluation such as runs/<name>/evaluations/<data>-test, or make one: hpcgender evaluate --help"
    return restored(Evaluation, read_document(path, FORMAT, none, again), path, again)
