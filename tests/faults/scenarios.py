"""What is disturbed: commands in a directory, how long they take undisturbed, and what they must leave in the end."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.faults.preload import Counts, Shim, counted
from tests.faults.processes import start
from tests.violations import ViolationError

Step = tuple[str, ...]
TINY = ("--model", "compact", "--image-size", "32", "--batch-size", "8", "--backend", "torchvision", "--lr", "0.01")
STATE = ("--ema", "0.9", "--mixup", "0.2", "--augment", "light", "--tasks", "gender", "age", "--optimizer", "adamw")
OFTEN = ("--checkpoint-minutes", "0.0001", "--keep", "2", "--resume", "--timeout", "1")
CLOCK = ("images_per_s", "data_wait", "peak_memory_mb", "seconds", "eta")


@dataclass(frozen=True)
class Scenario:
    """Steps that are given one after the other in a directory; `{data}` in them is the packed data set."""

    name: str
    steps: tuple[Step, ...]
    result: Callable[[Path], Any]
    """What is left in the directory, of which equality is promised."""
    done: Callable[[Path], bool] = lambda cwd: False
    """Whether a step that was disturbed need not, and may not, be given again."""
    splits: tuple[str, ...] = ()
    """Of the data set, whose shards it reads."""
    light: bool = True
    """Whether it is one process, or workers of one, that start within a second."""
    ranks: int = 1


@dataclass(frozen=True)
class Undisturbed:
    """How a scenario ends if nothing happens."""

    result: Any
    seconds: list[float]
    """Of each step: the fewest that are known."""
    printed: tuple[int, ...]
    """Bytes that each step prints."""
    counts: tuple[Counts, ...]
    """Of each step, if the shim was preloaded."""
    bytes: int
    """In its directory at the end."""


def filled(step: Step, data: Path) -> Step:
    return tuple(word.format(data=data) for word in step)


def undisturbed(scenario: Scenario, cwd: Path, data: Path, shim: Shim | None = None) -> Undisturbed:
    """Runs a scenario to its end; with a shim preloaded, that only counts, if there is one."""
    seconds, printed, counts = [], [], []
    for number, step in enumerate(scenario.steps):
        began = time.monotonic()
        state = cwd.parent / f"{cwd.name}-counts-{number}"
        environment = shim.environment(cwd, state) if shim else None
        running = start(filled(step, data), cwd, number, environment=environment)
        if code := running.ended():
            raise ViolationError(f"{scenario.name} ends with {code} undisturbed: {running.text[-3000:]}")
        seconds.append(time.monotonic() - began)
        printed.append(len(running.text.encode()))
        if shim:
            counts.append(counted(state))
    size = sum(path.stat().st_size for path in cwd.rglob("*") if path.is_file())
    return Undisturbed(scenario.result(cwd), seconds, tuple(printed), tuple(counts), size)


def files(root: Path, without: tuple[str, ...] = ()) -> dict[str, str]:
    """The SHA-256 of all files below a directory, but for those that end so."""
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file() and not str(path.relative_to(root)).endswith(without)
    }


def packed(cwd: Path) -> dict[str, str]:
    return files(cwd / "out")


def trained(cwd: Path) -> tuple[str, list[dict[str, Any]], tuple[int, list[str], str]]:
    """The bits of the last checkpoint but for its clock, the records but for theirs, and what lies with the former."""
    import torch

    run = cwd / "runs" / "train"
    content = torch.load(run / "checkpoints" / "last.pt", weights_only=True)
    del content["config"], content["seconds"]
    lines = (run / "metrics.jsonl").read_text().splitlines()
    records = [{name: value for name, value in json.loads(line).items() if name not in CLOCK} for line in lines]
    # Which steps before the last one have a checkpoint depends on the clock.
    names = sorted(path.name for path in (run / "checkpoints").iterdir() if path.name != "last.pt")
    strange = [name for name in names if name != "best.pt" and not (name.startswith("step-") and name.endswith(".pt"))]
    return bits(content), records, (len(names), strange, names[-1])


def bits(content: Any) -> str:
    """A digest of nested content, of tensors with all their bits."""
    import torch

    digest = hashlib.sha256()

    def add(value: Any) -> None:
        if isinstance(value, torch.Tensor):
            digest.update(f"{value.dtype}{tuple(value.shape)}".encode() + value.contiguous().numpy().tobytes())
        elif isinstance(value, dict):
            for key, item in value.items():
                digest.update(repr(key).encode())
                add(item)
        elif isinstance(value, list | tuple):
            for item in value:
                add(item)
        else:
            digest.update(repr(value).encode())

    add(content)
    return digest.hexdigest()


def measured(name: str, kind: str) -> Callable[[Path], Any]:
    """All files of an evaluation or of heat maps, but for the part that says when and how it was made."""

    def result(cwd: Path) -> tuple[dict[str, str], Any]:
        found = json.loads((cwd / name / f"{kind}.json").read_text())
        del found["run"], found["data"]["path"]  # a fault may be done to a copy of the data
        return files(cwd / name, (f"{kind}.json", ".log", "work/lock")), found

    return result


def studied(cwd: Path) -> Any:
    """The records of all runs of a study, and which of them is best."""
    runs = cwd / "runs" / "s"
    found = {}
    for path in sorted(runs.glob("*/metrics.jsonl")):
        lines = path.read_text().splitlines()
        found[path.parent.name] = [
            {name: value for name, value in json.loads(line).items() if name not in CLOCK} for line in lines
        ]
    result = json.loads((runs / "result.json").read_text())
    evaluations = sorted(str(path.relative_to(runs)) for path in runs.glob("*/evaluations/*/evaluation.json"))
    return found, result["best"], evaluations


def scenarios(base: Path) -> list[Scenario]:
    """All of them, on what `make` has left in `base`."""
    faces, checkpoint = str(base / "faces"), str(base / "runs" / "train" / "checkpoints" / "best.pt")
    pack = ("shard_tools", "pack", "morph", "--images", faces, "--out", "out", "--shard-mb", "0.1")
    is_packed = lambda cwd: (cwd / "out" / "manifest.json").exists() and not (cwd / "out" / ".packing").exists()  # noqa: E731
    train = ("train", "--data", "{data}", *TINY, *STATE, *OFTEN, "--epochs", "3")
    on: Step = ("--checkpoint", checkpoint, "--data", "{data}", "--split", "test", "--batch-size", "4")
    on = (*on, "--backend", "torchvision", "--out", "out")
    launch = ("hpcgender.launch", "--nodes", "2", "--")
    align = ("shard_tools", "align", "--images", str(base / "photos"), "--landmarks", str(base / "landmarks.csv"))
    return [
        Scenario("pack, 1 worker", ((*pack, "--workers", "1"),), packed, is_packed),
        Scenario("pack, 2 workers", ((*pack, "--workers", "2"),), packed, is_packed),
        Scenario(
            "pack, 2 tasks",
            (
                *((*pack, "--workers", "1", "--task", f"{number}/2") for number in (1, 2)),
                ("shard_tools", "finalize", "out", "--workers", "1"),
            ),
            packed,
            is_packed,
        ),
        Scenario("align", ((*align, "--out", "out", "--workers", "1"),), packed),
        Scenario("train", (("hpcgender", *train),), trained, splits=("train", "val")),
        Scenario("train, 2 ranks", ((*launch, *train),), trained, splits=("train", "val"), light=False, ranks=2),
        Scenario(
            "evaluate",
            (("hpcgender", "evaluate", *on, "--errors", "--temperature-from", "val"),),
            measured("out", "evaluation"),
            lambda cwd: (cwd / "out" / "evaluation.json").exists() and not (cwd / "out" / "work").exists(),
            splits=("val", "test"),
        ),
        Scenario("cam", (("hpcgender", "cam", *on),), measured("out", "cam"), splits=("test",)),
        Scenario(
            "export",
            (
                (
                    *("hpcgender", "export", "--checkpoint", checkpoint, "--data", "{data}", "--split", "val"),
                    *("--format", "safetensors", "--out", "m.safetensors"),
                ),
            ),
            lambda cwd: files(cwd, (".log",)),
            lambda cwd: (cwd / "m.safetensors").exists(),
            splits=("val",),
        ),
        Scenario(
            "study",
            (("hpcgender", "study", str(base / "s.toml"), "--scheduler", "local"),),
            studied,
            splits=("train", "val", "test"),
            light=False,
        ),
    ]


def make(base: Path) -> None:
    """Draws faces, packs them, and trains a model of which there are evaluations and heat maps to make."""
    base.mkdir()
    pack = ("shard_tools", "pack", "morph", "--images", "faces", "--out", "data", "--shard-mb", "0.1")
    steps: tuple[Step, ...] = (
        ("shard_tools", "synthetic", "--out", "faces", "--count", "200", "--size", "40", "--seed", "5"),
        (*pack, "--val", "0.2", "--test", "0.4", "--workers", "1"),
        ("hpcgender", "train", "--data", "data", *TINY, "--tasks", "gender", "age", "--epochs", "1"),
    )
    for number, step in enumerate(steps):
        running = start(step, base, number)
        if running.ended():
            raise ViolationError(running.text)
    photos = base / "photos"
    photos.mkdir()
    lines = ["image,left_eye_x,left_eye_y,right_eye_x,right_eye_y,nose_x,nose_y,left_mouth_x,left_mouth_y,"
             "right_mouth_x,right_mouth_y"]  # fmt: skip
    for path in sorted((base / "faces").iterdir()):
        os.link(path, photos / path.name)
        lines.append(f"{path.name},14,17,26,17,20,23,15,29,25,29")
    (base / "landmarks.csv").write_text("\n".join(lines) + "\n")
    (base / "s.toml").write_text(
        'name = "s"\n[base]\nmodel = "compact"\nimage_size = 32\nbatch_size = 8\nbackend = "torchvision"\nepochs = 2\n'
        f'checkpoint_minutes = 0.0001\ndata = "{base / "data"}"\n[grid]\nseed = [1, 2]\n'
        f'[evaluate]\ndata = ["{base / "data"}"]\n'
    )
