"""Predictions for every image of a split: `predictions.parquet` and `predictions.csv`, a row for each image.

Columns: `key`, `shard` (its file), `subject`, `group`, `age` (years), `label` (female or male), `logit` (log-odds of
male, so logit of male minus logit of female), `probability` (of male), `prediction` (male if the logit is above 0),
`age_prediction` (years), then the columns of the user's own table, if one was given. What is not known, not predicted
by the model, or of an image that does not decode, is null in Parquet and empty in CSV. Rows are sorted by key, and
equal predictions give equal bytes.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shard_tools.base.errors import UserError, one_line
from shard_tools.base.files import whole_file, whole_text
from shard_tools.index import Index
from shard_tools.manifest import CLASSES

PARQUET, CSV = "predictions.parquet", "predictions.csv"
COLUMNS = (
    "key",
    "shard",
    "subject",
    "group",
    "age",
    "label",
    "logit",
    "probability",
    "prediction",
    "age_prediction",
)

Texts = npt.NDArray[np.object_]
Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """The columns of n images, arrays (n,), sorted by key. Texts are str, and empty where nothing is known."""

    key: Texts
    shard: Texts
    subject: Texts
    group: Texts
    age: Floats
    """Years; nan unknown."""
    label: Labels
    """0 female, 1 male, -1 unknown."""
    logit: npt.NDArray[np.float32]
    """nan: the image does not decode, or the model does not predict gender."""
    age_prediction: npt.NDArray[np.float32]
    """Years; nan as above."""
    more: Mapping[str, Texts] = field(default_factory=dict)
    """The columns of the user's table, by their names."""

    def __len__(self) -> int:
        return len(self.key)

    @property
    def probability(self) -> Floats:
        """Of male; nan as the logit is."""
        return sigmoid(self.logit)

    @property
    def prediction(self) -> Labels:
        """0 female, 1 male, -1 none."""
        return np.where(np.isnan(self.logit), -1, self.logit > 0).astype(np.int64)

    @property
    def decoded(self) -> Mask:
        return ~(np.isnan(self.logit) & np.isnan(self.age_prediction))

    @property
    def gender_known(self) -> Mask:
        """Where both the label and a prediction are."""
        return (self.label >= 0) & ~np.isnan(self.logit)

    @property
    def age_known(self) -> Mask:
        """Where both the age and a prediction of it are."""
        return ~np.isnan(self.age) & ~np.isnan(self.age_prediction)

    def rows(self, chosen: Mask | npt.NDArray[np.integer]) -> Predictions:
        """The predictions of some images: by a mask, or by their places."""
        arrays = {name: value[chosen] for name, value in vars(self).items() if name != "more"}
        return Predictions(**arrays, more={name: values[chosen] for name, values in self.more.items()})


def sigmoid(logit: npt.NDArray[np.floating]) -> Floats:
    """1 / (1 + exp(-logit)), float64, without overflow."""
    x = np.asarray(logit, dtype=np.float64)
    small = np.exp(-np.abs(x))
    result: Floats = np.where(x >= 0, 1.0, small) / (1 + small)
    return result


def keys_of(index: Index) -> Texts:
    """The keys of a split in the order of its predictions."""
    return np.sort(_texts(index["key"]))


def from_index(index: Index, shards: list[str], values: npt.NDArray[np.float32]) -> Predictions:
    """The predictions of a split: its index, its shards' files, and float32 (n, 2) of log-odds and age for each row."""
    keys = _texts(index["key"])
    order = np.argsort(keys, kind="stable")
    rows = index[order]
    age = rows["age"].astype(np.float64)
    return Predictions(
        key=keys[order],
        shard=np.array(shards, dtype=object)[rows["shard"]],
        subject=_texts(rows["subject"]),
        group=_texts(rows["group"]),
        age=np.where(age >= 0, age, np.nan),
        label=rows["gender"].astype(np.int64),
        logit=values[order, 0],
        age_prediction=values[order, 1],
    )


def _texts(values: npt.NDArray[np.bytes_]) -> Texts:
    return np.array([value.decode() for value in values.tolist()], dtype=object)


def write_predictions(directory: Path, predictions: Predictions) -> None:
    """Writes both files."""
    import pyarrow as pa
    from pyarrow import parquet

    def texts(values: Texts) -> Any:
        return pa.array([value or None for value in values.tolist()], pa.string())

    def numbers(values: npt.NDArray[np.floating]) -> Any:
        return pa.array(values, from_pandas=True)  # nan is null

    def classes(values: Labels) -> Any:
        return pa.array([CLASSES[value] if value >= 0 else None for value in values.tolist()], pa.string())

    columns = {
        "key": texts(predictions.key),
        "shard": texts(predictions.shard),
        "subject": texts(predictions.subject),
        "group": texts(predictions.group),
        "age": numbers(predictions.age.astype(np.float32)),
        "label": classes(predictions.label),
        "logit": numbers(predictions.logit),
        "probability": numbers(predictions.probability),
        "prediction": classes(predictions.prediction),
        "age_prediction": numbers(predictions.age_prediction),
        **{name: texts(values) for name, values in predictions.more.items()},
    }
    with whole_file(directory / PARQUET) as file:
        parquet.write_table(pa.table(columns), file)
    write_csv(directory / CSV, predictions)


def write_csv(path: Path, predictions: Predictions) -> None:
    """Writes the rows as CSV, in their order."""
    columns = (
        predictions.key,
        predictions.shard,
        predictions.subject,
        predictions.group,
        _numbers(predictions.age, "g"),
        _classes(predictions.label),
        _numbers(predictions.logit, ".9g"),  # enough to distinguish any two float32
        _numbers(predictions.probability, ".7g"),
        _classes(predictions.prediction),
        _numbers(predictions.age_prediction, ".3f"),
        *predictions.more.values(),
    )
    with whole_text(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow((*COLUMNS, *predictions.more))
        writer.writerows(zip(*columns, strict=True))


def _numbers(values: npt.NDArray[np.floating], form: str) -> list[str]:
    return ["" if value != value else format(value, form) for value in values.tolist()]


def _classes(values: Labels) -> list[str]:
    return [CLASSES[value] if value >= 0 else "" for value in values.tolist()]


def read_predictions(directory: Path) -> Predictions:
    """The predictions of an evaluation, from predictions.parquet; UserError if they cannot be read."""
    from pyarrow import ArrowException
    from pyarrow.parquet import read_table

    path = directory / PARQUET
    try:
        table = read_table(path)
        columns = {name: table.column(name) for name in table.column_names}
        for name in COLUMNS:
            columns[name]
    except FileNotFoundError:
        raise UserError(f"no {PARQUET} in {directory}: evaluate again") from None
    except KeyError as error:
        raise UserError(f"{path} has no column {error}: evaluate again") from None
    except (OSError, ArrowException) as error:
        raise UserError(f"{path} is damaged ({one_line(error)[:200]}): evaluate again") from None

    def texts(name: str) -> Texts:
        return np.array([value or "" for value in columns[name].to_pylist()], dtype=object)

    def numbers(name: str, kind: type[np.floating]) -> npt.NDArray[Any]:
        return np.array([np.nan if value is None else value for value in columns[name].to_pylist()], dtype=kind)

    codes = {name: code for code, name in enumerate(CLASSES)}
    return Predictions(
        key=texts("key"),
        shard=texts("shard"),
        subject=texts("subject"),
        group=texts("group"),
        age=numbers("age", np.float64),
        label=np.array([codes.get(name, -1) for name in texts("label").tolist()], dtype=np.int64),
        logit=numbers("logit", np.float32),
        age_prediction=numbers("age_prediction", np.float32),
        more={name: texts(name) for name in columns if name not in COLUMNS},
    )
