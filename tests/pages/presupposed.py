"""What the pages presuppose: data sets, packs of them, files of studies, and runs that were trained and evaluated."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tests.conftest import Run
from tests.pages.commands import PAGES, parts
from tests.pages.imitations import copy, faces, make_data_sets

PACKS = {
    "faces": ("mine", "morph", "part", "shards", "train", "utk", "utkface"),
    "other": ("held", "ms1mv2", "test", "val", "web"),
}
"""Under which other names in `data` each of the two packs stands."""
RUNS = {
    "a": ("light", "mine", "multibranch", "se_resnet152", "train", "transfer_resnet18"),
    "b": ("degraded", "multibranch_resnet50"),
    "c": (),
}
"""Under which other names in `runs` each of the three runs stands."""
SMALL = ("--image-size", 32, "--batch-size", 32, "--epochs", 1, "--tasks", "gender", "age", "--save-initial")


def make(run: Run) -> None:
    """Fills the working directory with all that is presupposed."""
    drawn, splits = ("--count", 120, "--size", 48, "--seed"), ("--val", 0.15, "--test", 0.15)
    carry_out(run, "shard_tools", "synthetic", "--out", "MORPH", *drawn, 7)
    carry_out(run, "shard_tools", "synthetic", "--out", "drawn", *drawn, 11)
    carry_out(run, "shard_tools", "pack", "morph", "--images", "MORPH", "--out", "data/faces", *splits)
    carry_out(run, "shard_tools", "pack", "synthetic", *drawn, 11, "--out", "data/other", *splits)
    for name, others in PACKS.items():
        for another in others:
            copy(Path("data", name), Path("data", another))
    make_data_sets(faces(Path("MORPH")), faces(Path("drawn")))
    for name, text in studies():
        Path(f"{name}.toml").write_text(text)
    make_runs(run)


def carry_out(run: Run, *words: object) -> None:
    done = run(*words, cwd=Path.cwd())
    assert done.returncode == 0, done.stderr


def studies() -> Iterator[tuple[str, str]]:
    """The files of studies on the pages, with their names."""
    for page in PAGES:
        for part in parts(page):
            if part.language == "toml" and part.lines[0].startswith("name = "):
                yield part.lines[0].split('"')[1], "\n".join([*part.lines, ""])


def make_runs(run: Run) -> None:
    """Trains three small networks, two of which differ by their seed alone, and evaluates them."""
    runs = Path("runs")
    for name, model, seed in (("a", "resnet18", 0), ("b", "se_resnet18", 0), ("c", "resnet18", 1)):
        options = ("--data", "data/faces", "--model", model, "--seed", seed, *SMALL)
        carry_out(run, "hpcgender", "train", "--name", name, *options)
        measured = ("hpcgender", "evaluate", "--checkpoint", name, "--data", "data/morph")
        carry_out(run, *measured, "--temperature-from", "val")
        for another in RUNS[name]:
            copy(runs / name, runs / another)
    copy(runs / "mine" / "evaluations" / "morph-test", runs / "mine" / "evaluations" / "faces-test")
    for name in ("light", "degraded"):
        measured = ("hpcgender", "evaluate", "--checkpoint", name, "--data", "data/morph")
        carry_out(run, *measured, "--corrupt", "contrast", "--out", f"runs/{name}/evaluations/robust")
