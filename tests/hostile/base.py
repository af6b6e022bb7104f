"""Real small files, made by the program itself, that the campaign damages: faces, packs, runs, exports."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from hpcgender.commands import HPCGENDER
from shard_tools.commands import SHARD_TOOLS
from tests.conftest import REAL_DATA
from tests.hostile.workers import Done, command
from tests.shard_tools.others_tars import face, write
from tests.shard_tools.record_file import write_ms1mv2
from tests.violations import ViolationError

REAL_FACES = 40


class Base:
    """What lies in the directory of base files."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.canary = root / "canary" / "sings"
        """A file that only code in an input could make."""
        self.work = root / "work"
        self.faces = root / "faces"
        self.shards = root / "shards"
        self.runs = root / "runs"
        self.run = self.runs / "tiny"
        self.checkpoint = self.run / "checkpoints" / "best.pt"
        self.last = self.run / "checkpoints" / "last.pt"
        self.exports = root / "exports"
        self.rec = root / "rec"
        self.tar = root / "tars" / "a.tar"

    @cached_property
    def photos(self) -> list[Path]:
        """Drawn faces, and real ones where there are any."""
        found = sorted((REAL_DATA / "utkface" / "images").glob("*.jpg"))[::200][:REAL_FACES]
        return [*sorted(self.faces.iterdir()), *found]

    def check_canary(self) -> None:
        """ViolationError if code in an input has run, or an input has led out of its directory."""
        if any(self.canary.parent.iterdir()):
            self.canary.unlink(missing_ok=True)
            raise ViolationError("the canary sings: code of the input was run")
        strange = {path.name for path in self.root.iterdir()} - KNOWN
        if strange:
            for name in strange:
                path = self.root / name
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            raise ViolationError(f"files were written outside the directory of the input: {sorted(strange)}")


KNOWN = {"canary", "work", "faces", "shards", "runs", "exports", "rec", "tars"}
TINY = ("--model", "compact", "--image-size", 32, "--batch-size", 16, "--epochs", 1, "--backend", "torchvision")


def make(root: Path) -> Base:
    """Draws, packs, trains, evaluates and exports into a new directory; what fails is a ViolationError."""
    base = Base(root)
    for directory in (base.canary.parent, base.work, base.tar.parent, base.exports):
        directory.mkdir(parents=True)

    def tools(*words: object) -> None:
        _well(command(SHARD_TOOLS, *words), words)

    def suite(*words: object) -> None:
        _well(command(HPCGENDER, *words), words)

    tools("synthetic", "--out", base.faces, "--count", 90, "--size", 40, "--seed", 3)
    pack = ("pack", "morph", "--images", base.faces, "--out", base.shards, "--shard-mb", 0.05, "--workers", 1)
    tools(*pack, "--val", 0.2, "--test", 0.2)
    suite("train", "--data", base.shards, "--runs", base.runs, "--name", "tiny", *TINY, "--tasks", "gender", "age")
    on = ("--checkpoint", base.checkpoint, "--data", base.shards, "--split", "val", "--backend", "torchvision")
    suite("evaluate", *on, "--temperature-from", "train")
    suite("cam", *on)
    for form, name in (("onnx", "tiny.onnx"), ("safetensors", "tiny.safetensors")):
        suite("export", "--checkpoint", base.checkpoint, "--format", form, "--data", base.shards, "--split", "val",
              "--out", base.exports / name)  # fmt: skip
    write_ms1mv2(base.rec)
    write(base.tar, [face(number) for number in range(8)])
    return base


def _well(done: Done, words: Sequence[object]) -> None:
    if done.code:
        raise ViolationError(f"{' '.join(map(str, words))}: {done.out[-500:]} {done.err[-2000:]}")
