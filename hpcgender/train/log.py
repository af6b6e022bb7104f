"""What a run says of each epoch: a line on stdout, a record in metrics.jsonl, TensorBoard's curves."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from hpcgender.metrics import Scores


@dataclass(frozen=True, kw_only=True)
class EpochRecord:
    """What is known at the end of an epoch; times in seconds."""

    epoch: int
    epochs: int
    step: int
    train: Scores
    val: Scores
    lr: float
    images_per_s: float
    data_wait: float
    """Part of the training time that ranks waited for images."""
    bad_images: int
    """Times that an image did not decode, on all ranks; another took its place."""
    seconds: float
    eta: float


def epoch_line(record: EpochRecord) -> str:
    """The epoch's line in the log."""
    classes = " ".join(f"{name} {accuracy:.2%}" for name, accuracy in record.val.class_accuracy.items())
    return " | ".join(
        (
            f"epoch {record.epoch}/{record.epochs}",
            f"train loss {record.train.loss:.4f} acc {record.train.accuracy:.2%}",
            f"val loss {record.val.loss:.4f} acc {record.val.accuracy:.2%} ({classes})",
            f"lr {record.lr:.1e}",
            f"{record.images_per_s:.0f} img/s",
            f"data wait {record.data_wait:.1%}",
            f"eta {duration(record.eta)}",
        )
    )


def duration(seconds: float) -> str:
    """A time as people say it: 45s, 12m05s, 3h12m."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


def read_lines(path: Path) -> list[str]:
    """The whole lines of a file, without one that a kill cut short at its end; none if there is no file."""
    return path.read_text().split("\n")[:-1] if path.exists() else []


class RunLog:
    """Rank 0's log of a run directory. Records of epochs after `epoch`, from an earlier attempt, are dropped."""

    def __init__(self, run_dir: Path, epoch: int, step: int) -> None:
        self.path = run_dir / "metrics.jsonl"
        kept = [line for line in read_lines(self.path) if json.loads(line)["epoch"] <= epoch]
        partial = run_dir / ".metrics.jsonl.partial"
        partial.write_text("".join(f"{line}\n" for line in kept))
        partial.replace(self.path)
        self.board = SummaryWriter(str(run_dir / "tensorboard"), purge_step=step if epoch else None)

    def write(self, record: EpochRecord) -> None:
        """Appends the record to metrics.jsonl and TensorBoard's curves."""
        content: dict[str, Any] = asdict(record)
        with self.path.open("a") as file:
            file.write(json.dumps(content) + "\n")
        for split in ("train", "val"):
            for measure in ("loss", "accuracy", "balanced_accuracy"):
                self.board.add_scalar(f"{split}/{measure}", content[split][measure], record.step)
            for name, accuracy in content[split]["class_accuracy"].items():
                self.board.add_scalar(f"{split}/accuracy_{name}", accuracy, record.step)
        for measure in ("lr", "images_per_s", "data_wait"):
            self.board.add_scalar(measure, content[measure], record.step)
        self.board.flush()

    def close(self) -> None:
        """Closes TensorBoard's file."""
        self.board.close()
