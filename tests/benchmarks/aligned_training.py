"""What alignment is worth: a model of photos as they are and one of aligned photos, each tested on photos and on crops.

    python -m tests.benchmarks.aligned_training [--epochs 15] [--limit N] [--data DIR]

Trains the preset utkface_multitask on UTKFace twice, by the commands that anybody would type, and evaluates both models
on faces from the web and on LFW-a, as they are and aligned. `--limit` takes that many images of each set.
"""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.console import Console
from rich.table import Table

from hpcgender.evaluate.results import read_evaluation
from shard_tools.base.text import percent
from shard_tools.manifest import read_manifest
from shard_tools.sources.image_files import ImageFiles
from tests.conftest import REAL_DATA

WAYS = {"as they are": (), "aligned": ("--align",)}


@dataclass(frozen=True, kw_only=True)
class Options:
    """What alignment is worth: two models, each tested on photos as they are and aligned."""

    data: Path = REAL_DATA
    """Directory with utkface/images, gender_dataset_face and lfw_a."""
    epochs: int = 15
    limit: int | None = None
    """Images of each set, spread over it; all by default."""
    crop_margin: float = 0.0
    """Margin of the crops, as a fraction of their side."""


def command(*words: object) -> None:
    """A command line; its output is shown if it fails."""
    done = subprocess.run([sys.executable, "-m", *map(str, words)], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{words}: {done.stdout[-2000:]}{done.stderr[-2000:]}")


def some(images: Path, limit: int | None, out: Path) -> Path:
    """A directory of links to images that are spread over another one; that itself without a limit."""
    names = ImageFiles(images, out).names
    if limit is None or limit >= len(names):
        return images
    for name in names[:: len(names) // limit][:limit]:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).symlink_to((images / name).resolve())
    return out


def listed(labels: Path, images: Path, out: Path) -> Path:
    """The lines of a table whose images are there."""
    with labels.open(newline="") as file, out.open("w", newline="") as new:
        rows = list(csv.DictReader(file))
        writer = csv.DictWriter(new, list(rows[0]))
        writer.writeheader()
        writer.writerows(row for row in rows if (images / row["file"]).exists())
    return out


def pack(root: Path, options: Options) -> dict[tuple[str, str], Path]:
    """The data sets by name and way."""
    sets = ("utkface/images", "gender_dataset_face", "lfw_a/images")
    utk, web, lfw = (some(options.data / name, options.limit, root / name) for name in sets)
    table = listed(options.data / "lfw_a" / "labels.csv", lfw, root / "lfw.csv")
    columns = ("--image", "file", "--gender", "gender", "--male", "male", "--female", "female", "--subject", "identity")
    words: dict[str, Sequence[object]] = {
        "UTKFace": ("utkface", "--images", utk),
        "web": ("folders", "--images", web, "--val", 0, "--test", 1),
        "LFW-a": ("table", "--table", table, "--images", lfw, *columns, "--val", 0, "--test", 1),
    }
    packed = {}
    for name, source in words.items():
        for way, align in WAYS.items():
            out = packed[name, way] = root / "data" / f"{name} {way}".replace(" ", "-")
            margin = ("--crop-margin", options.crop_margin) if align else ()
            command("shard_tools", "pack", *source, *align, *margin, "--out", out, "--workers", os.cpu_count() or 1)
            print(f"packed {name} {way}", flush=True)
    return packed


def main(options: Options) -> None:
    with tempfile.TemporaryDirectory(prefix="benchmark-aligned-") as name:
        root = Path(name)
        packed = pack(root, options)
        table = Table(title=f"accuracy of gender, {options.epochs} epochs, crop margin {options.crop_margin:g}")
        for column in ("trained on", "images", "tested on", "images", "accuracy", "95 % interval"):
            table.add_column(column)
        for way in WAYS:
            data, run = packed["UTKFace", way], f"utk-{way.replace(' ', '-')}"
            train = ("hpcgender", "train", "--data", data, "--preset", "utkface_multitask", "--epochs", options.epochs)
            command(*train, "--runs", root, "--name", run)
            print(f"trained on UTKFace {way}", flush=True)
            for (tested, how), shards in packed.items():
                if tested == "UTKFace" and how != way:
                    continue
                out = root / f"{run} {tested} {how}"
                command("hpcgender", "evaluate", "--checkpoint", root / run, "--data", shards, "--out", out)
                gender = read_evaluation(out).gender
                assert gender
                found = gender.accuracy
                table.add_row(
                    f"UTKFace {way}",
                    str(read_manifest(data).split("train").samples),
                    f"{tested} {how}",
                    str(gender.images),
                    percent(found.value, 2),
                    f"{percent(found.low, 2)} to {percent(found.high, 2)}",
                )
        Console(width=120).print(table)


if __name__ == "__main__":
    main(tyro.cli(Options))
