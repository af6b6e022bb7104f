"""Which directories people mean by paths and names."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcgender.checkpoint_file import checkpoint_file, newest_checkpoint
from hpcgender.commands.compare import CompareConfig
from hpcgender.run_directory import named, runs_named
from shard_tools.base.errors import UserError


@pytest.fixture
def trials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, ...]:
    """Two runs of a study, among what else a study's directory has, and one that is in none."""
    monkeypatch.chdir(tmp_path)
    found = (Path("runs/sizes/large"), Path("runs/sizes/small"), Path("runs/mine"))
    for run in found:
        (run / "checkpoints").mkdir(parents=True)
        (run / "config.json").write_text('{"model": "resnet18"}')
        (run / "checkpoints" / "best.pt").touch()
    (tmp_path / "runs" / "sizes" / "submissions").mkdir()
    (tmp_path / "runs" / "sizes" / "study.toml").touch()
    return found


def test_a_study_stands_for_its_runs_and_names_for_directories_in_runs(trials: tuple[Path, ...]) -> None:
    large, small, mine = trials
    assert runs_named((Path("sizes"), mine)) == runs_named((Path("runs/sizes"), Path("mine"))) == (large, small, mine)
    assert CompareConfig(evaluated=(Path("sizes"),)).evaluated == (large, small)
    assert named(Path("sizes/small")) == small
    assert checkpoint_file(Path("sizes/small")) == small / "checkpoints" / "best.pt"
    Path("mine").mkdir()
    assert named(Path("mine")) == Path("mine")  # what is there goes first
    with pytest.raises(UserError, match="no directory nowhere: name a run, a study, or an evaluation"):
        CompareConfig(evaluated=(Path("sizes"), Path("nowhere"))).check()


def test_the_newest_checkpoint_may_be_one_of_a_study(trials: tuple[Path, ...]) -> None:
    assert newest_checkpoint(Path("runs"), "resnet18") == max(
        (run / "checkpoints" / "best.pt" for run in trials), key=lambda path: path.stat().st_mtime
    )
    small = trials[1] / "checkpoints" / "best.pt"
    small.unlink()
    small.touch()
    assert newest_checkpoint(Path("runs")) == small
