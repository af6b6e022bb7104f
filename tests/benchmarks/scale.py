"""What data sets, tables, results, queues and runs of any size cost: CPU time and memory, each in its own process.

    python -m tests.benchmarks.scale [--quick] [--only PART ...] [--count N]

Indexes are sparse files with the rows that matter, answers of schedulers and records of runs are written as they would
be, and predictions are drawn at random.
"""

from __future__ import annotations

import csv
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

MS1MV2 = 5_822_653
SUBJECT_IMAGES = 68
"""Of MS1MV2, in the mean."""
ROWS_WRITTEN = 1 << 20


@dataclass(frozen=True, kw_only=True)
class ScaleBenchmark:
    """What size costs."""

    quick: bool = False
    """A hundredth of each size: to see that it runs."""
    only: tuple[str, ...] = ()
    """Parts, e.g. scores table; default: all."""
    count: int = 0
    """Another size of each part."""


def index(samples: int, root: Path) -> None:
    """Opens and checks the index of so many samples in shards of 8,000: what a rank holds of it, an epoch's order."""
    from hpcgender.data.order import Order, chunk_length
    from hpcgender.data.shards import ShardReader
    from shard_tools.index import check_values, index_dtype, read_index

    path, each = root / "index.npy", 8_000
    shards = -(-samples // each)
    written = np.lib.format.open_memmap(path, "w+", dtype=index_dtype(12, 8, 8), shape=(samples,))
    for begin in range(0, samples, ROWS_WRITTEN):
        rows = np.arange(begin, min(begin + ROWS_WRITTEN, samples))
        written["shard"][begin : begin + len(rows)] = rows // each
        written["length"][begin : begin + len(rows)] = 7_000
        written["offset"][begin : begin + len(rows)] = rows % each * 8_000
    written.flush()
    del written
    began = cpu_seconds()
    found = read_index(path, samples)
    check_values(found, [each * 8_000] * shards, path)
    held = (ShardReader(found, [root] * shards), np.array(found["gender"]), np.array(found["age"]))
    order = Order(samples, chunk_length(samples, 7_900, 256e6), 0, 0)
    order.at(np.arange(256))
    told(cpu_seconds() - began)
    del held


def scores(images: int, root: Path) -> None:
    """Scores of gender and age with their intervals, and the tables of groups, of so many images without subjects."""
    from hpcgender.evaluate.age import age_errors, age_scores
    from hpcgender.evaluate.gender import gender_scores
    from hpcgender.evaluate.groups import columns_of, group_tables
    from tests.hpcgender.evaluate.examples import predictions

    found = predictions(images)
    found = found.rows(found.gender_known & found.age_known)
    before = peak()
    began = cpu_seconds()
    gender_scores(found, None)
    age_scores(found)
    columns = columns_of(found)
    group_tables(found, columns, (found.prediction == found.label).astype(np.float64), "accuracy")
    group_tables(found, columns, np.abs(age_errors(found)), "age_mae")
    told(cpu_seconds() - began, before)


def results(images: int, root: Path) -> None:
    """Writes predictions and scores of so many images of subjects, and the page about them, and prints their MB."""
    from hpcgender.evaluate.gender import gender_scores
    from hpcgender.evaluate.groups import columns_of, group_tables
    from hpcgender.evaluate.predictions import write_predictions
    from hpcgender.evaluate.results import Evaluation
    from hpcgender.report.page import page
    from hpcgender.report.sources import find_parts
    from tests.hpcgender.evaluate.examples import evaluation_facts, predictions

    found = predictions(images, subjects=images // SUBJECT_IMAGES)
    began = cpu_seconds()
    write_predictions(root, found)
    labelled = found.rows(found.gender_known)
    correct = (labelled.prediction == labelled.label).astype(np.float64)
    tables = group_tables(labelled, columns_of(labelled), correct, "accuracy")
    gender = gender_scores(labelled, None)
    losses = {"gender": gender.calibration.log_loss, "age": math.nan}
    Evaluation(**evaluation_facts(), gender=gender, age=None, losses=losses, tables=tables).write(root)
    del found, labelled, correct
    (root / "report.html").write_text(page(find_parts([root]), "scale", 0))
    seconds = cpu_seconds() - began
    told(seconds, 0, {path.name: path.stat().st_size for path in sorted(root.iterdir()) if path.is_file()})


def listed_images(rows: int, root: Path) -> Path:
    """A CSV of so many images, with labels; the first of them are there."""
    from tests.shard_tools.tables import draw

    draw(root / "images", [f"{number:08d}.jpg" for number in range(32)])
    with (root / "labels.csv").open("w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(("file", "gender", "age", "subject"))
        lines.writerows((f"{n:08d}.jpg", n % 2, 20 + n % 60, f"person {n // SUBJECT_IMAGES}") for n in range(rows))
    return root / "labels.csv"


OF_A_TABLE = (
    "--table {root}/labels.csv --images {root}/images --out {root}/out --workers 1 --dry-run"
    " --image file --gender gender --male 1 --female 0 --age age --subject subject"
)


def table(rows: int, root: Path) -> None:
    """Lists the images of a CSV with so many rows, as `shard-tools pack table` does."""
    from tests.shard_tools.tables import command

    listed_images(rows, root)
    source = command(OF_A_TABLE, root=root)
    before = peak()
    began = cpu_seconds()
    assert sum(1 for _ in source.records()) == rows
    told(cpu_seconds() - began, before)


def dry_run(rows: int, root: Path) -> None:
    """`shard-tools pack table --dry-run` of such a CSV, of whose images nearly all are missing."""
    from shard_tools.pack import pack
    from tests.shard_tools.tables import command

    listed_images(rows, root)
    source = command(OF_A_TABLE, root=root)
    before = peak()
    began = cpu_seconds()
    pack(source)
    told(cpu_seconds() - began, before)


def squeue(jobs: int, root: Path) -> None:
    """Reads the answer of squeue with so many jobs."""
    from jobs.slurm.answers import parse_squeue

    states = ("PENDING", "RUNNING", "COMPLETING")
    lines = [
        f"{number}|{states[number % 3]}|1-03:04:05|2026-01-02T03:04:05|node[{number % 90}]|Priority|train_{number}"
        for number in range(jobs)
    ]
    began = cpu_seconds()
    assert len(parse_squeue("\n".join(lines))) == jobs
    told(cpu_seconds() - began)


def qstat(jobs: int, root: Path) -> None:
    """Reads the answer of qstat -xml with so many jobs."""
    from jobs.sge.qstat import parse_qstat

    entry = (
        "<job_list state='running'><JB_job_number>{0}</JB_job_number><JAT_prio>0.5</JAT_prio><JB_name>t{0}</JB_name>"
        "<JB_owner>me</JB_owner><state>r</state><JAT_start_time>2026-01-02T03:04:05</JAT_start_time>"
        "<queue_name>gpu@node{0}</queue_name><slots>16</slots></job_list>"
    )
    body = "".join(entry.format(number) for number in range(1, jobs + 1))
    text = f"<?xml version='1.0'?><job_info><queue_info>{body}</queue_info><job_info></job_info></job_info>"
    began = cpu_seconds()
    assert len(parse_qstat(text)) == jobs
    told(cpu_seconds() - began)


def runs(count: int, root: Path) -> None:
    """Lists so many finished runs, as `hpcgender jobs` does."""
    metrics = json.dumps({"epoch": 3, "epochs": 3, "step": 30, "val": {"accuracy": 0.9}, "images_per_s": 100.0})
    for number in range(count):
        run = root / "runs" / f"run{number}"
        (run / "checkpoints").mkdir(parents=True)
        (run / "checkpoints" / "step-00000030.pt").touch()
        (run / "metrics.jsonl").write_text(f"{metrics}\n" * 3)
        (run / "config.json").write_text(json.dumps({"model": "resnet18", "data": "d", "manifest": "m"}))
    began = cpu_seconds()
    words = (sys.executable, "-m", "hpcgender", "jobs", "--all", "--within", str(root / "runs"))
    done = subprocess.run(words, cwd=root, capture_output=True, text=True, check=True)
    assert len(done.stdout.splitlines()) == count + 1, done.stdout[:300]
    told(cpu_seconds() - began)


def shards(count: int, root: Path) -> None:
    """Reads one image of each of so many shards, of which a process may open 256."""
    from hpcgender.data.shards import ShardReader
    from shard_tools.index import index_dtype

    resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
    rows = np.zeros(count, index_dtype(1, 1, 1))
    rows["shard"], rows["length"] = np.arange(count), 100
    paths = [root / f"{number}.tar" for number in range(count)]
    for path in paths:
        path.write_bytes(bytes(100))
    began = cpu_seconds()
    reader = ShardReader(rows, paths)
    for sample in range(count):
        assert len(reader.read_image(sample)) == 100
    reader.close()
    told(cpu_seconds() - began)


PARTS: dict[str, tuple[Callable[[int, Path], None], tuple[int, ...]]] = {
    "samples in an index: opened, checked, order of an epoch": (index, (MS1MV2, 10_000_000)),
    "images evaluated: scores, intervals, tables": (scores, (1_000_000,)),
    "their predictions, scores and report written, 68 images a subject": (results, (1_000_000,)),
    "rows of a CSV listed": (table, (10_000_000,)),
    "rows of a CSV, pack table --dry-run, images missing": (dry_run, (1_000_000,)),
    "jobs in squeue's answer": (squeue, (10_000,)),
    "jobs in qstat's answer": (qstat, (10_000,)),
    "runs that hpcgender jobs lists": (runs, (1_000,)),
    "shards read, 256 files open at most": (shards, (10_000,)),
}


def cpu_seconds() -> float:
    """That this process and its children took of processors so far: what others do beside them costs none."""
    return sum(os.times()[:4])


def peak() -> int:
    """The most memory that this process held so far, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


def told(seconds: float, before: int = 0, files: Mapping[str, int] | None = None) -> None:
    """Prints what a part took, for the process that started this one, and the bytes of the files that it wrote."""
    written = ", ".join(f"{name} {size / 1e6:.2f}" for name, size in (files or {}).items())
    print(json.dumps([seconds, peak() - before, written]))


def main(config: ScaleBenchmark) -> None:
    table = Table(title="what size costs", title_justify="left")
    for column in ("what", "how many", "CPU s", "peak MB"):
        table.add_column(column, justify="left" if column == "what" else "right")
    notes = []
    for name, (part, sizes) in PARTS.items():
        if config.only and part.__name__ not in config.only:
            continue
        for size in (config.count,) if config.count else sizes:
            count = size // 100 if config.quick else size
            with tempfile.TemporaryDirectory(prefix="benchmark-scale-") as root:
                words = (sys.executable, "-m", __spec__.name, "--part", part.__name__, str(count), root)
                done = subprocess.run(words, check=True, capture_output=True, text=True)
            seconds, megabytes, written = json.loads(done.stdout.splitlines()[-1])
            table.add_row(name, f"{count:,}", f"{seconds:.2f}", f"{megabytes:.0f}")
            notes += [f"{part.__name__} {count:,}, MB: {written}"] * bool(written)
    Console(width=120).print(table, *notes, sep="\n")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--part"]:
        work = {part.__name__: part for part, _ in PARTS.values()}
        work[sys.argv[2]](int(sys.argv[3]), Path(sys.argv[4]))
    else:
        main(tyro.cli(ScaleBenchmark))
