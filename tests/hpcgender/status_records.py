"""Records of submissions as the launcher writes them, for tests and measurements of `hpcgender jobs`."""

from __future__ import annotations

import getpass
import json
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from hpcgender.metrics import Scores
from hpcgender.train.log import EpochRecord, record_line
from jobs.records import Resources, Submission, append_event, stamp
from shard_tools.base.contracts import SUBMISSIONS

NAN = float("nan")


def scores(loss: float, accuracy: float, of_class: dict[str, float], *, age_mae: float = NAN) -> Scores:
    """What an epoch found on a split of 1,000 images."""
    return Scores(
        images=1000,
        loss=loss,
        losses={"gender": loss} if of_class else {},
        accuracy=accuracy,
        class_images={"female": 500, "male": 500},
        class_accuracy=of_class,
        balanced_accuracy=accuracy,
        precision=of_class,
        recall=of_class,
        f1=of_class,
        macro_f1=accuracy,
        roc_auc=NAN,
        age_images=0 if age_mae != age_mae else 900,
        age_mae=age_mae,
    )


EPOCH = EpochRecord(
    epoch=12,
    epochs=50,
    step=1200,
    train=scores(0.1023, 0.9669, {"female": 0.96, "male": 0.97}),
    val=scores(0.1201, 0.9597, {"female": 0.9375, "male": 0.9684}),
    lr=0.01,
    gradient_norm=1.5,
    gradient_norm_max=7.25,
    images_per_s=11832.4,
    data_wait=0.004,
    bad_images=0,
    peak_memory_mb=2048.5,
    seconds=300.0,
    eta=3 * 3600 + 12 * 60 + 20,
)


def make_record(
    results: Path,
    job_id: str = "12",
    scheduler: str = "slurm",
    events: Sequence[Mapping[str, Any]] = (),
    *,
    age: float = 0.0,
    **changed: Any,
) -> Submission:
    """A record of a training in `results`, submitted `age` seconds ago, with the events of its attempts."""
    submitted = time.time() - age
    fields: dict[str, Any] = {
        "name": f"train_{results.name}",
        "command": ("train", "--data", "data/shards", "--name", results.name),
        "argv": ("python", "-m", "hpcgender.launch", "--", "train", "--name", results.name),
        "script": "",
        "scheduler": scheduler,
        "job_id": job_id,
        "site": {"name": scheduler, "scheduler": scheduler},
        "resources": Resources(nodes=1, time_min=60.0),
        "after": (),
        "log": str(results.parent / f"{results.name}.o{job_id}"),
        "cwd": str(results.parent.parent),
        "user": getpass.getuser(),
        "host": socket.gethostname(),
        "submitted": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(submitted)),
        "revision": "0" * 40,
        "manifest": "",
        "directory": results / SUBMISSIONS / f"{stamp(submitted)}-{job_id}",
    }
    submission = Submission(**{**fields, **changed})
    submission.directory.mkdir(parents=True)
    content = {name: value for name, value in asdict(submission).items() if name != "directory"}
    (submission.directory / "submission.json").write_text(json.dumps(content))
    for event in events:
        append_event(submission.directory, **event)
    return submission


def start(attempt: int = 1, *hosts: str) -> dict[str, Any]:
    """The event with which an attempt begins."""
    return {"event": "start", "attempt": attempt, "job_id": "12", "restart": attempt - 1, "hosts": hosts or ("node1",)}


def end(code: int, attempt: int = 1, *, requeued: bool = False, stopped_by: str | None = None) -> dict[str, Any]:
    """The event with which an attempt ends."""
    return {"event": "end", "attempt": attempt, "code": code, "requeued": requeued, "stopped_by": stopped_by}


def ended_run(root: Path, text: str, code: int = 1) -> Submission:
    """The record of a local run `mine` that has ended with a log of that text, on two hosts."""
    submission = make_record(root / "runs" / "mine", "999999999", "local", [start(1, "node1", "node2"), end(code)])
    Path(submission.log).write_text(text)
    return submission


def metrics(results: Path, epoch: int, epochs: int, accuracy: float, eta: float) -> None:
    """Appends an epoch to a run's metrics.jsonl, as training writes it."""
    val = replace(EPOCH.val, accuracy=accuracy)
    line = record_line(replace(EPOCH, epoch=epoch, epochs=epochs, val=val, eta=eta))
    with (results / "metrics.jsonl").open("a") as file:
        file.write(line)


def many(runs: Path, scheduler: str, job_ids: Sequence[str]) -> None:
    """A run for each job: every third has ended, the others have not begun or are at work."""
    for number, job_id in enumerate(job_ids):
        results = runs / f"run{number:04d}"
        events = ((), (start(),), (start(), end(0)))[number % 3]
        make_record(results, job_id, scheduler, events, age=3600.0)
        if number % 3:
            for epoch in range(1, 51):
                metrics(results, epoch, 50, 0.9, 60.0)


if __name__ == "__main__":  # python -m tests.hpcgender.status_records RUNS slurm|sge FIRST_JOB COUNT
    place, kind, first, count = sys.argv[1:]
    many(Path(place), kind, [str(int(first) + number) for number in range(int(count))])
