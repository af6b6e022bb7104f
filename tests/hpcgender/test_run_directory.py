"""Which directories people mean by paths and names."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hpcgender.checkpoint_file import checkpoint_file, newest_checkpoint
from hpcgender.commands.compare import CompareConfig
from hpcgender.compare.contenders import runs_of
from hpcgender.run_directory import directory_named, runs_named
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
    assert directory_named(Path("sizes/small")) == small
    assert checkpoint_file(Path("sizes/small")) == small / "checkpoints" / "best.pt"
    Path("mine").mkdir()
    assert directory_named(Path("mine")) == Path("mine")  # what is there goes first
    with pytest.raises(UserError, match="no directory nowhere: name a run, a study, or an evaluation"):
        CompareConfig(evaluated=(Path("sizes"), Path("nowhere"))).check()


def test_of_a_study_the_evaluated_runs_are_compared(
    trials: tuple[Path, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    large, small, mine = trials
    CompareConfig(evaluated=(Path("sizes"),)).check()
    assert runs_of((Path("sizes"), mine), None) == [large, small, mine]  # none has one: the error names the first
    assert capsys.readouterr().err == ""
    for run, name in ((large, "web-test"), (small, "web-val")):
        (run / "evaluations" / name).mkdir(parents=True)
        (run / "evaluations" / name / "evaluation.json").touch()
    assert runs_of((Path("sizes"),), None) == [large, small]
    assert runs_of((Path("sizes"),), "web-test") == [large]
    assert capsys.readouterr().err == "sizes: 1 run without web-test left out: evaluate to compare\n"


def test_the_newest_checkpoint_may_be_one_of_a_study(trials: tuple[Path, ...]) -> None:
    for newest in trials:
        for run in trials:
            os.utime(run / "checkpoints" / "best.pt", (2, 2) if run == newest else (1, 1))
        assert newest_checkpoint(Path("runs"), "resnet18") == newest_checkpoint(Path("runs"))
        assert newest_checkpoint(Path("runs")) == newest / "checkpoints" / "best.pt"


def test_a_directory_without_options_is_passed_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("copied", "mine"):
        (tmp_path / name / "checkpoints").mkdir(parents=True)
        (tmp_path / name / "checkpoints" / "best.pt").touch()
    (tmp_path / "mine" / "config.json").write_text('{"model": "resnet50"}')
    for model in ("", "resnet50"):
        assert newest_checkpoint(tmp_path, model) == tmp_path / "mine" / "checkpoints" / "best.pt"
    assert capsys.readouterr().err.startswith(f"passed over {tmp_path / 'copied'}: no config.json in ")
