"""The log of each epoch: a line on stdout, a record in metrics.jsonl, and the trackers' curves."""

from __future__ import annotations

import json
import resource
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from hpcgender.distributed import Ranks
from hpcgender.log_lines import EpochLine, SplitLosses
from hpcgender.metrics import Scores
from hpcgender.run_directory import METRICS, read_epochs, resume_command
from hpcgender.trackers.following import Following, close_all, open_tracker
from hpcgender.trackers.names import TrackerName
from hpcgender.trackers.tensorboard import TensorBoard
from hpcgender.trackers.tracker import Point, TrackedRun, run_id
from shard_tools.base.documents import without_nan
from shard_tools.base.files import sync, write_whole
from shard_tools.base.storage import unwritable


@dataclass(frozen=True, kw_only=True)
class EpochRecord:
    """The measurements of an epoch; times in seconds."""

    epoch: int
    epochs: int
    step: int
    """Optimizer steps since the start of training."""
    train: Scores
    val: Scores
    """Of all images that are validated on, of all data sets; of none without validation."""
    lr: float
    """Learning rate at the last step, the largest of the parameter groups."""
    gradient_norm: float
    """L2 norm over all parameters before clipping, mean over the epoch's steps."""
    gradient_norm_max: float
    images_per_s: float
    data_wait: float
    """Fraction of the training time that ranks waited for images."""
    bad_images: int
    """Number of images that did not decode, over all ranks; others replaced them."""
    peak_memory_mb: float
    """Largest peak of any rank since it started: GPU memory allocated by PyTorch, or resident memory on a CPU."""
    seconds: float
    eta: float
    val_of: Mapping[str, Scores] = field(default_factory=dict)
    """The same of each data set of a mixture, by its name; empty of one data set."""


def epoch_line(record: EpochRecord) -> str:
    """The epoch's line in the log, without what the model does not predict."""
    return EpochLine(
        epoch=record.epoch,
        epochs=record.epochs,
        train=split_losses(record.train),
        val=replace(split_losses(record.val), class_accuracy=record.val.class_accuracy) if record.val.images else None,
        age_mae=record.val.age_mae if record.val.age_images else None,
        lr=record.lr,
        images_per_s=record.images_per_s,
        data_wait=record.data_wait,
        eta=record.eta,
    ).text()


def split_losses(scores: Scores) -> SplitLosses:
    """Loss and accuracy of a split for the epoch's line."""
    return SplitLosses(loss=scores.loss, accuracy=scores.accuracy if scores.class_accuracy else None)


def parts_line(record: EpochRecord) -> str:
    """The line below the epoch's on the validation of each data set of a mixture."""
    parts = (split_losses(scores).text(name) for name, scores in record.val_of.items())
    return f"val of each: {' | '.join(parts)}"


def record_line(record: EpochRecord) -> str:
    """The epoch's line in metrics.jsonl; what is not known is null."""
    content = asdict(record)
    if not record.val_of:
        del content["val_of"]
    return json.dumps(without_nan(content), allow_nan=False) + "\n"


def peak_memory_mb(ranks: Ranks) -> float:
    """The peak memory of `EpochRecord`, in MB. Collective: every rank must call it."""
    if ranks.device.type == "cuda":
        held = torch.cuda.max_memory_allocated(ranks.device) / 1e6
    else:
        held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6  # Linux counts in KiB
    of_ranks = torch.zeros(ranks.world_size, dtype=torch.float64, device=ranks.device)
    of_ranks[ranks.rank] = held
    return float(ranks.sum(of_ranks).max())


def flattened(content: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """The values in a record or in options with names such as `val/f1/female`; without null."""
    for name, value in content.items():
        if isinstance(value, Mapping):
            yield from flattened(value, f"{path}{name}/")
        elif value is not None:
            yield f"{path}{name}", value


def point(record: Mapping[str, Any]) -> Point:
    """What trackers get of a record of metrics.jsonl."""
    values = {name: value for name, value in flattened(record) if name not in ("epochs", "step")}
    return Point(record["step"], values)


class RunLog:
    """Rank 0's log in a run directory, for a run that starts or resumes after `epoch` epochs and `step` steps.

    Records of later epochs, from an earlier attempt, are dropped. UserError if the log cannot be read or written.
    `track` names trackers besides TensorBoard, which get the `options`: whatever these do, the run goes on.
    """

    def __init__(
        self,
        run_dir: Path,
        epoch: int,
        step: int,
        *,
        track: Sequence[TrackerName] = (),
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self.path = run_dir / METRICS
        kept = [record for record in read_epochs(run_dir) if record["epoch"] <= epoch]
        try:
            write_whole(self.path, "".join(f"{json.dumps(record)}\n" for record in kept).encode())
            run = TrackedRun(
                directory=run_dir,
                id=run_id(run_dir) if track else "",
                options=dict(flattened(options or {})),
                step=step,
                past=[point(record) for record in kept],
            )
        except OSError as error:
            raise self.refused(error) from None
        self.followings = [Following("TensorBoard", partial(TensorBoard, run))]
        self.followings += [Following(name, partial(open_tracker, name, run)) for name in track]

    def write(self, record: EpochRecord) -> None:
        """Appends the record to metrics.jsonl, and has the trackers take it."""
        line = record_line(record)
        try:
            with self.path.open("a") as file:
                file.write(line)
                sync(file, self.path)  # a checkpoint follows, with which this epoch is not recorded again
        except OSError as error:
            raise self.refused(error) from None
        for following in self.followings:
            following.write(point(json.loads(line)))

    def refused(self, error: OSError) -> Exception:
        again = resume_command(self.path.parent)
        return unwritable(error, error.filename or self.path, f"free space, then resume: {again}")

    def close(self, *, finished: bool = False) -> None:
        """Closes the trackers; the run is finished, or may resume."""
        close_all(self.followings, finished=finished)
