"""The five projects of docs/projects.md, each by its commands on real faces, with fewer images, epochs and pixels.

    python -m tests.benchmarks.projects [--projects 4 5] [--limit 1000] [--epochs 5] [--image-size 64]
        [--precision bf16] [--data DIR]

Prints the rows of the table there. ImageNet's weights are not downloaded: their substitute is a network that is trained
first, as long as the others, on faces from the web.
"""

from __future__ import annotations

import csv
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from hpcgender.evaluate.results import Evaluation, read_evaluation
from hpcgender.run_directory import read_epochs
from shard_tools.base.text import percent
from shard_tools.manifest import read_manifest
from tests.conftest import REAL_DATA

Project = Literal[1, 2, 3, 4, 5]
THEIRS = {
    1: "96.69 % in training, 95.97 % in validation",
    2: "not stated",
    3: "age MAE 6.33 years, gender MAE 0.41",
    4: "86 %, age MAE 6.93 years (ResNet-50)",
    5: "not stated",
}


@dataclass(frozen=True, kw_only=True)
class Options:
    """The five projects, by their commands, cut to what fits."""

    projects: tuple[Project, ...] = (1, 2, 3, 4, 5)
    """Which of them."""
    data: Path = REAL_DATA
    """Directory with utkface/images and gender_dataset_face."""
    limit: int = 1000
    """Images to train on."""
    epochs: int = 5
    image_size: int = 64
    """Pixels; multibranch needs 64."""
    precision: str = "auto"
    """Of training: bf16 is faster on some CPUs."""


class Bench:
    """A scratch directory with the packed data sets, and the commands of the projects on them."""

    def __init__(self, root: Path, options: Options) -> None:
        self.root, self.options = root, options

    def command(self, *words: object) -> None:
        """A command line, which is printed; its output is shown if it fails."""
        line = [str(word) for word in words]
        print(f"$ {' '.join(line).replace(f'{self.root}/', '')}", flush=True)
        done = subprocess.run([sys.executable, "-m", *line], capture_output=True, text=True, cwd=self.root, check=False)
        if done.returncode:
            sys.exit(done.stdout[-2000:] + done.stderr[-2000:])

    def pack(self, name: str, source: str, images: Path, *more: object) -> Path:
        """A packed data set; it is packed once."""
        out = self.root / name
        if not out.exists():
            self.command("shard_tools", "pack", source, "--images", images, "--out", out, *more)
        return out

    @property
    def utk(self) -> Path:
        return self.options.data / "utkface" / "images"

    @property
    def small(self) -> tuple[object, ...]:
        o = self.options
        cut = ("--limit", o.limit, "--epochs", o.epochs, "--image-size", o.image_size, "--batch-size", 32)
        return (*cut, "--precision", o.precision)

    def train(self, name: str, data: Path, *more: object) -> Path:
        """A run."""
        self.command(
            "hpcgender", "train", "--data", data, "--name", name, "--runs", self.root / "runs", *self.small, *more
        )
        return self.root / "runs" / name

    def evaluate(self, run: Path, data: Path, split: str = "test") -> Evaluation:
        out = run / "evaluations" / "measured"
        self.command("hpcgender", "evaluate", "--checkpoint", run, "--data", data, "--split", split, "--out", out)
        return read_evaluation(out)

    def pretrained(self, model: str) -> tuple[object, ...]:
        """Initial weights for an architecture: those of a network that is trained here on faces from the web."""
        name = f"web-{model}"
        if not (self.root / "runs" / name).exists():
            web = self.pack("web", "folders", self.options.data / "gender_dataset_face")
            self.train(name, web, "--model", model, "--optimizer", "adam", "--lr", 1e-3, "--warmup-epochs", 0.5)
        return ("--pretrained", self.root / "runs" / name)

    def cut(self, data: Path) -> str:
        """What was cut, in words."""
        o = self.options
        images = min(o.limit, read_manifest(data).split("train").samples)
        precision = "" if o.precision == "auto" else f", {o.precision}"
        return f"{images} images, {o.epochs} epochs, {o.image_size} px, batches of 32{precision}, one seed"

    def splits(self) -> Path:
        """The splits of UTKFace as a CSV file."""
        out = self.root / "splits.csv"
        if not out.exists():
            self.command("shard_tools", "inspect", self.pack("utk", "utkface", self.utk), "--csv", out)
        return out

    def first(self) -> tuple[str, str]:
        """ResNet-50 from scratch, on two directories of men and women that share no copy of an image."""
        with self.splits().open(newline="") as file:
            for row in csv.DictReader(file):
                if directory := {"train": "Training", "val": "Validation"}.get(row["split"]):
                    link = self.root / directory / row["gender"] / Path(row["file"]).name
                    link.parent.mkdir(parents=True, exist_ok=True)
                    link.symlink_to((self.utk / row["file"]).resolve())
        data = self.pack("training", "folders", self.root / "Training", "--val", 0, "--test", 0)
        val = self.pack("validation", "folders", self.root / "Validation", "--val", 1, "--test", 0)
        run = self.train("resnet50", data, "--val-data", val, "--preset", "resnet50")
        best = max(read_epochs(run), key=lambda record: record["val"]["accuracy"])
        found = (
            f"{percent(best['train']['accuracy'], 2)} in training, {percent(best['val']['accuracy'], 2)} in validation"
        )
        return found, self.cut(data)

    def second(self) -> tuple[str, str]:
        """VGG-11 on splits from a CSV file."""
        table = ("--table", self.splits(), "--mapping", "packed")
        again = self.pack("again", "table", self.utk, *table)
        more = ("--preset", "vgg16", "--model", "vgg11", "--save-initial", "--augment", "none")
        run = self.train("vgg11", again, *more)
        gender = self.evaluate(run, again).gender
        assert gender
        return f"{percent(gender.accuracy.value, 2)}, VGG-11", self.cut(again)

    def third(self) -> tuple[str, str]:
        """ResNet-18 with two heads, 80/20 without validation images."""
        data = self.pack("eighty", "utkface", self.utk, "--val", 0, "--test", 0.2)
        run = self.train("multitask", data, "--preset", "multitask_resnet18", *self.pretrained("resnet18"))
        found = self.evaluate(run, data)
        assert found.gender
        assert found.age
        losses = ", ".join(f"{task} {loss:.3f}" for task, loss in found.losses.items())
        gender = f"{percent(found.gender.accuracy.value, 2)}, gender MAE {found.gender.probability_mae.value:.3f}"
        return f"age MAE {found.age.mae.value:.2f} years, {gender}, mean losses {losses}", self.substituted(data)

    def fourth(self) -> tuple[str, str]:
        """A small multi-branch network against a ResNet-50."""
        data = self.pack("utk", "utkface", self.utk)
        runs = [
            self.train("multibranch", data, "--preset", "multibranch"),
            self.train("resnet50-branches", data, "--preset", "multibranch_resnet50", *self.pretrained("resnet50")),
        ]
        found = []
        for run in runs:
            one = self.evaluate(run, data)
            assert one.gender
            assert one.age
            found.append(f"{run.name} {percent(one.gender.accuracy.value, 2)}, age MAE {one.age.mae.value:.2f} years")
        self.command("hpcgender", "compare", *runs, "--picture", self.root / "compared.png")
        return "; ".join(found), self.substituted(data)

    def fifth(self) -> tuple[str, str]:
        """A frozen ResNet-18 with one logit."""
        data = self.pack("utk", "utkface", self.utk)
        run = self.train("transfer", data, "--preset", "transfer_resnet18", *self.pretrained("resnet18"))
        gender = self.evaluate(run, data).gender
        assert gender
        classes = "; ".join(
            f"{one.name} P {percent(one.precision.value)} R {percent(one.recall.value)} F1 {percent(one.f1.value)}"
            for one in gender.classes
        )
        return f"{percent(gender.accuracy.value, 2)}, {classes}", self.substituted(data)

    def substituted(self, data: Path) -> str:
        return f"{self.cut(data)}; for ImageNet's weights, those of a run of as much on faces from the web"


def main(options: Options) -> None:
    with tempfile.TemporaryDirectory(prefix="benchmark-projects-") as name:
        bench = Bench(Path(name), options)
        steps = {1: bench.first, 2: bench.second, 3: bench.third, 4: bench.fourth, 5: bench.fifth}
        for project in options.projects:
            found, cut = steps[project]()
            print(f"| {project} | {THEIRS[project]} | {found} | {cut} |", flush=True)


if __name__ == "__main__":
    main(tyro.cli(Options))
