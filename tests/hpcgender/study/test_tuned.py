"""Searches through Optuna: what it draws is kept, it knows what came of earlier trials, and it stops what is worse."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from hpcgender.commands.study import StudyConfig
from hpcgender.study.command import study
from shard_tools.base.errors import UserError
from tests.conftest import Run
from tests.hpcgender.study.conftest import Write, epochs, jobs_of

LOCAL = ("--scheduler", "local")


def trials_of(directory: Path) -> list[optuna.trial.FrozenTrial]:
    """What Optuna knows of the trials of a study, in the order in which they began."""
    storage = JournalStorage(JournalFileBackend(str(directory / "optuna.log")))
    return optuna.load_study(study_name="mine", storage=storage).trials


def test_a_search_keeps_what_it_draws_and_goes_on_with_more_trials(
    tmp_path: Path, shards: Path, run: Run, write: Write
) -> None:
    mine = tmp_path / "runs" / "mine"

    def search(trials: int, splits: str = '"test"') -> str:
        ranges = 'lr = { low = 0.001, high = 0.1, log = true }\nmodel = ["compact", "resnet18"]'
        text = f'sampler = "tpe"\ntrials = {trials}\n[search.ranges]\n{ranges}'
        write(text, f'[evaluate]\ndata = ["{shards}"]\ntrials = "best"\nsplits = [{splits}]', table="search", epochs=1)
        done = run("hpcgender", "study", "mine.toml", *LOCAL, cwd=tmp_path)
        assert done.returncode == 0, (
            done.stdout + done.stderr + "".join(path.read_text() for path in (tmp_path / "logs").iterdir())
        )
        return done.stdout

    said = search(2)
    assert "best by validation alone: trial-000" in said
    assert "shards-test was measured for 1 of 2 runs, and chose none\n" in said
    for number, known in enumerate(trials_of(mine)):
        trial = f"trial-{number:04d}"
        config = json.loads((mine / trial / "config.json").read_text())
        drawn = json.loads((mine / trial / "drawn.json").read_text())
        assert (config["lr"], drawn["number"]) == (known.params["lr"], number)
        assert config["model"] == ["compact", "resnet18"][known.params["model"]]
        val = json.loads((mine / trial / "metrics.jsonl").read_text())["val"]["accuracy"]
        assert (known.state, known.value) == (TrialState.COMPLETE, val)
    before = jobs_of(tmp_path / "runs", "trial-0000")
    assert "1/1 study trial runs/mine/trial-0002: done" in search(3)
    assert [trial.state for trial in trials_of(mine)] == [TrialState.COMPLETE] * 3
    assert jobs_of(tmp_path / "runs", "trial-0000") == before
    new = search(3, '"val", "test"')  # of which the result alone is to be made again
    assert "shards-val was measured for 1 of 3 runs, and chose none\n" in new
    assert "train" not in new


def test_a_search_is_refused_where_optuna_is_not_installed(
    tmp_path: Path, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write('sampler = "tpe"\ntrials = 3\n[search.ranges]\nlr = [0.1, 0.2]', table="search")
    monkeypatch.setitem(sys.modules, "optuna", None)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r'^sampler = "tpe" needs Optuna, which is not installed: \.venv/bin/pip '):
        study(StudyConfig(file=file, scheduler="local"))
    assert not (tmp_path / "runs").exists()


def test_values_that_cannot_work_count_as_bad_and_do_not_keep_the_study_from_going_on(
    tmp_path: Path, run: Run, write: Write
) -> None:
    write('sampler = "tpe"\ntrials = 1\n[search.ranges]\nbatch_size = [100000]', table="search")
    for says in ("1 run, 0 finished, 1 to train\n", "1 to train, 1 of them again, after a failure or a stop\n"):
        done = run("hpcgender", "study", "mine.toml", *LOCAL, cwd=tmp_path)
        assert done.returncode != 0
        assert says in done.stdout + done.stderr, done.stdout + done.stderr
        assert [trial.state for trial in trials_of(tmp_path / "runs" / "mine")] == [TrialState.RUNNING]
        assert "fewer than --batch-size 100000" in "".join(path.read_text() for path in (tmp_path / "logs").iterdir())


def test_a_trial_that_is_worse_than_others_is_stopped_early_and_is_not_trained_again(
    tmp_path: Path, run: Run, write: Write
) -> None:
    mine = tmp_path / "runs" / "mine"
    ranges = "lr = { low = 1e-8, high = 1e-7, log = true }"
    write(f'sampler = "tpe"\nprune = true\ntrials = 1\n[search.ranges]\n{ranges}', table="search", epochs=40)
    mine.mkdir(parents=True)
    others = optuna.create_study(
        study_name="mine",
        direction="maximize",
        storage=JournalStorage(JournalFileBackend(str(mine / "optuna.log"))),
    )
    for _ in range(5):  # as if so many had been better from their first epoch on
        better = others.ask({"lr": optuna.distributions.FloatDistribution(1e-8, 1e-7, log=True)})
        for epoch in range(1, 41):
            better.report(0.999, epoch)
        others.tell(better, 0.999)
    done = run("hpcgender", "study", "mine.toml", *LOCAL, cwd=tmp_path)
    assert "1/1 study trial runs/mine/trial-0000: done" in done.stdout, done.stdout + done.stderr
    last = trials_of(mine)[-1]
    assert last.state == TrialState.PRUNED
    assert json.loads((mine / "trial-0000" / "pruned.json").read_text())["epoch"] == max(last.intermediate_values)
    assert len(epochs(tmp_path / "runs", "trial-0000")) < 40
    trained = epochs(tmp_path / "runs", "trial-0000")
    requeued = run("hpcgender", "study", "trial", "mine", "trial-0000", cwd=tmp_path)
    assert (requeued.returncode, requeued.stdout) == (0, ""), requeued.stderr
    assert epochs(tmp_path / "runs", "trial-0000") == trained
    again = run("hpcgender", "study", "mine.toml", *LOCAL, cwd=tmp_path)
    assert "train" not in again.stdout
    assert len(jobs_of(tmp_path / "runs", "trial-0000")) == 1
