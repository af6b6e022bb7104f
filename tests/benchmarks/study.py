"""What a study costs over its trainings alone, and how long a list of a thousand of them takes.

    python -m tests.benchmarks.study [--seconds 60] [--rounds 2] [--trials 1000]

A study of two seeds on this machine, its result included, and the same two trainings one after the other: by `hpcgender
train` and by the launcher. They take turns. On a shared machine the processors' seconds say more than the clock's.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.console import Console
from rich.table import Table

from shard_tools.base.files import last_record
from tests.benchmarks.ratios import print_ratio
from tests.hpcgender.status_records import end, make_record, metrics, start

BASE = {"model": "resnet18", "image_size": 64, "batch_size": 32, "lr": 0.02, "backend": "torchvision"}
SEEDS = (0, 1)


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a study costs."""

    seconds: float = 60.0
    """How long one training is to take."""
    rounds: int = 2
    trials: int = 1000
    """Runs in the list."""


def command(directory: Path, *words: object) -> tuple[float, float]:
    """Runs a command line; the seconds of the clock and of the processors that it took."""
    used = sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
    began = time.perf_counter()
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    arguments = [sys.executable, "-m", *map(str, words)]
    done = subprocess.run(arguments, cwd=directory, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{words}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return time.perf_counter() - began, sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2]) - used


def options_of(epochs: int, seed: int) -> list[str]:
    """A training's options on a command line."""
    values = {**BASE, "data": "data/faces", "epochs": epochs, "seed": seed, "name": f"seed{seed}"}
    return [word for name, value in values.items() for word in (f"--{name.replace('_', '-')}", str(value))]


def epochs_for(directory: Path, seconds: float) -> int:
    """How many epochs take so long: known from three."""
    command(directory, "hpcgender", "train", *options_of(3, 0))
    record = last_record(directory / "runs" / "seed0" / "metrics.jsonl")
    assert record
    return max(1, round(seconds / float(record["seconds"])))


def one_by_one(directory: Path, epochs: int, *launcher: str) -> tuple[float, float]:
    """The trainings, one after the other."""
    took = [command(directory, *launcher, "train", *options_of(epochs, seed)) for seed in SEEDS]
    return sum(clock for clock, _ in took), sum(used for _, used in took)


def as_a_study(directory: Path, epochs: int) -> tuple[float, float]:
    """The same trainings as a study."""
    values = {**BASE, "data": "data/faces", "epochs": epochs}
    lines = [f"{name} = {json.dumps(value)}" for name, value in values.items()]
    (directory / "mine.toml").write_text("\n".join(["[base]", *lines, "[grid]", f"seed = {list(SEEDS)}", ""]))
    return command(directory, "hpcgender", "study", "mine.toml", "--scheduler", "local")


def cost(directory: Path, options: Options) -> None:
    """Prints what the trainings take in each way."""
    faces = directory / "data" / "faces"
    command(directory, "shard_tools", "synthetic", "--out", "images", "--count", 640, "--size", 64)
    command(directory, "shard_tools", "pack", "morph", "--images", "images", "--out", faces)
    epochs = epochs_for(directory, options.seconds)
    ways: dict[str, Callable[[], tuple[float, float]]] = {
        "hpcgender train": lambda: one_by_one(directory, epochs, "hpcgender"),
        "python -m hpcgender.launch": lambda: one_by_one(directory, epochs, "hpcgender.launch", "--"),
        "hpcgender study": lambda: as_a_study(directory, epochs),
    }
    took: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(options.rounds):
        for name, way in ways.items():
            shutil.rmtree(directory / "runs", ignore_errors=True)
            took[name].append(way())
    table = Table(title=f"{len(SEEDS)} trainings of {epochs} epochs, and all around them", title_justify="left")
    for column in ("", "seconds", "of processors"):
        table.add_column(column, justify="left" if not column else "right")
    for name, pairs in took.items():
        table.add_row(name, *(f"{statistics.median(values):.1f}" for values in zip(*pairs, strict=True)))
    Console(width=120).print(table)
    clocks, used = ({name: [pair[i] for pair in pairs] for name, pairs in took.items()} for i in (0, 1))
    study = "hpcgender study"
    for name in ("hpcgender train", "python -m hpcgender.launch"):
        print_ratio(f"seconds of a study over {name}", clocks[study], clocks[name], "1.03")
        print_ratio(f"processors' seconds of a study over {name}", used[study], used[name], "1.03")


def listing(directory: Path, trials: int, rounds: int) -> None:
    """Prints how long `hpcgender jobs` takes with a study of so many finished runs, as a line and unfolded."""
    study = directory / "runs" / "many"
    for number in range(trials):
        results = study / f"trial-{number:04d}"
        make_record(results, f"12_{number}", "local", [start(), end(0)], age=3600.0, name="many")
        for epoch in range(1, 51):
            metrics(results, epoch, 50, 0.9, 60.0)
    (study / "study.toml").write_text("")
    for what, words in (("a line", ()), ("its runs", ("many",))):
        pairs = [command(directory, "hpcgender", "jobs", *words) for _ in range(max(3, rounds))]
        clock, used = (statistics.median(values) for values in zip(*pairs, strict=True))
        name = " ".join(("hpcgender jobs", *words))
        print(f"{name}: {what} of {trials} runs in {clock:.2f} s, {used:.2f} s of processors, goal 1 s")


def main(arguments: Sequence[str] | None = None) -> None:
    options = tyro.cli(Options, args=arguments, description=__doc__)
    with tempfile.TemporaryDirectory() as place:
        listing(Path(place), options.trials, options.rounds)
    with tempfile.TemporaryDirectory() as place:
        cost(Path(place), options)


if __name__ == "__main__":
    main()
