"""Studies as array jobs, on a machine with a scheduler that is a directory."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hpcgender.commands.study import StudyConfig
from hpcgender.run_directory import STUDY_TOML
from hpcgender.study.command import planned
from hpcgender.study.file import read_study
from hpcgender.study.search import keep_values
from hpcgender.study.standing import Standing, check_unchanged
from jobs.sites import find_site
from shard_tools.base.errors import UserError
from tests.conftest import Run
from tests.hpcgender.study.conftest import Write, epochs, jobs_of


def states(hpcgender: Run) -> dict[str, str]:
    """The state of every job by its id."""
    done = hpcgender("jobs", "--all", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    return {run["job"]: run["state"] for run in json.loads(done.stdout)["runs"]}


def events(results: Path, array: str) -> list[dict[str, Any]]:
    """What the launcher noted of a task."""
    (file,) = results.glob(f"submissions/*-{array}_*/attempts.jsonl")
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_a_study_is_an_array_for_each_stage_and_is_listed_cancelled_and_submitted_again(
    tmp_path: Path, shards: Path, queue: Path, hpcgender: Run, write: Write
) -> None:
    runs = tmp_path / "runs"
    for sign in ("closed", "drained"):
        (queue / sign).touch()
    write("seed = [0, 1]", f'[evaluate]\ndata = ["{shards}"]')
    submitted = hpcgender("study", "mine.toml", "--at-once", 1, "--gpus-per-node", 0)
    assert (submitted.returncode, submitted.stderr) == (0, "study mine, training: not now\n")
    lines = [
        "study mine: 2 runs, 0 finished, 2 to train",
        "job 1 mine: 2 trainings",
        "job 2 mine after 1: 2 evaluations",
        "job 3 mine after 1, 2: 1 result",
        "hpcgender jobs mine lists them",
    ]
    assert submitted.stdout.splitlines() == lines
    assert states(hpcgender) == dict.fromkeys(("1_0", "1_1", "2_0", "2_1", "3"), "pending")
    line = hpcgender("jobs").stdout.splitlines()[1].split("\t")
    assert line[:4] == ["mine", "1,2,3", "directory", "pending"]
    assert line[-1] == "2 trainings: 2 pending; 2 evaluations: 2 pending; 1 result: 1 pending"
    again = hpcgender("study", "mine.toml")
    assert again.stdout == "study mine: 2 runs, 0 finished, 2 at work; nothing to start, see hpcgender jobs mine\n"
    assert "Closed: nothing starts while there is" in hpcgender("jobs", "why", "mine").stdout

    write("seed = [0, 1]", lr=0.5)
    changed = hpcgender("study", "mine.toml")
    assert changed.returncode == 2
    assert "asks for lr = 0.5, but runs/mine/seed0 and 1 other run began with lr = 0.02" in changed.stderr
    write("seed = [0, 1]", f'[evaluate]\ndata = ["{shards}"]')

    cancelled = hpcgender("jobs", "cancel", "mine")
    assert (cancelled.returncode, cancelled.stderr) == (0, "")
    assert [line.split(" (")[0] for line in cancelled.stdout.splitlines()] == [
        f"cancelled job {number}" for number in (3, 2, 1)
    ]
    assert set(states(hpcgender).values()) == {"cancelled"}

    (queue / "closed").unlink()
    resubmitted = hpcgender("jobs", "resubmit", "mine")
    assert resubmitted.returncode == 0, resubmitted.stderr
    assert "job 4 mine: 2 trainings" in resubmitted.stdout
    assert json.loads((queue / "4_0" / "job.json").read_text())["at_once"] == 1
    wait_for(lambda: states(hpcgender)["6"] not in ("pending", "running"))
    assert {job: state for job, state in states(hpcgender).items() if job > "4"} == dict.fromkeys(
        ("4_0", "4_1", "5_0", "5_1", "6"), "done"
    )
    for seed in ("seed0", "seed1"):
        assert epochs(runs, seed) == [1, 2]
    first, second = (events(runs / "mine" / seed, "4") for seed in ("seed0", "seed1"))
    assert first[-1]["time"] <= second[0]["time"]  # one at a time
    assert json.loads((runs / "mine" / "result.json").read_text())["looked_at"] == 2
    assert "best by validation alone: " in hpcgender("jobs", "logs", "6").stdout


def test_a_submission_that_was_cut_short_leaves_no_run_that_is_trained_twice(
    tmp_path: Path, queue: Path, hpcgender: Run, write: Write
) -> None:
    runs = tmp_path / "runs"
    (queue / "closed").touch()
    write("seed = [0, 1]")
    assert hpcgender("study", "mine.toml").returncode == 0
    (record,) = jobs_of(runs, "seed1")  # as if killed before it was written
    shutil.rmtree(runs / "mine" / "seed1" / "submissions" / record)
    (runs / "mine" / "submissions" / ".submitting").write_text("mine\n")
    refused = hpcgender("study", "mine.toml")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr == (
        "hpcgender: an earlier submission of runs/mine was cut short, and left job 1 (mine) without records: hpcgender "
        "jobs cancel 1, then give the command again; if that is a job of another directory, remove "
        "runs/mine/submissions/.submitting instead\n"
    )
    seen = hpcgender("study", "mine.toml", "--dry-run")  # perhaps beside the submission
    assert (seen.returncode, seen.stderr) == (0, "")
    assert (runs / "mine" / "submissions" / ".submitting").exists()
    assert hpcgender("jobs", "cancel", "1").returncode == 0
    again = hpcgender("study", "mine.toml")
    assert again.returncode == 0, again.stderr
    assert "job 3 mine: 2 trainings" in again.stdout
    assert hpcgender("jobs", "cancel", "mine").returncode == 0


def test_a_search_through_optuna_is_seen_submitted_and_given_more_trials(
    tmp_path: Path, queue: Path, hpcgender: Run, write: Write
) -> None:
    def search(trials: int, values: str = "[0.01, 0.02]", **base: object) -> None:
        write(f'sampler = "tpe"\ntrials = {trials}\n[search.ranges]\nlr = {values}', table="search", **base)

    (queue / "closed").touch()
    search(2)
    seen = hpcgender("study", "mine.toml", "--dry-run")
    assert (seen.returncode, seen.stderr) == (0, "")
    assert "\n  hpcgender study trial mine trial-0001\n" in seen.stdout
    submitted = hpcgender("study", "mine.toml")
    assert (submitted.returncode, submitted.stderr) == (0, "")
    assert "\njob 1 mine: 2 trainings\n" in submitted.stdout
    search(3)
    more = hpcgender("study", "mine.toml")
    assert (more.returncode, more.stderr) == (0, "")
    assert "\njob 3 mine: 1 training\n" in more.stdout
    search(4)
    refused = hpcgender("study", "mine.toml", "--nodes", 2, "--procs-per-node", 3)
    assert refused.returncode == 2
    assert "batch" in refused.stderr
    search(3, epochs=3)
    refused = hpcgender("study", "mine.toml")
    assert refused.returncode == 2
    assert "mine.toml asks for epochs = 3, but runs/mine/trial-0000 and 2 other runs began with" in refused.stderr
    (tmp_path / "runs" / "mine" / "trial-0000" / "drawn.json").write_text(
        '{"format": "hpcgender-study-drawn-1", "number": 0, "values": {"lr": 0.02}}'
    )
    search(3, "[0.01, 0.02, 0.03]")
    refused = hpcgender("study", "mine.toml")
    assert refused.returncode == 2
    assert "mine.toml: search.ranges.lr has another kind or other choices than when trials" in refused.stderr
    assert hpcgender("jobs", "cancel", "mine").returncode == 0


def test_a_drawn_trial_is_not_checked_again_at_submission(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Write
) -> None:
    monkeypatch.chdir(tmp_path)
    file = write('sampler = "tpe"\ntrials = 2\n[search.ranges]\nbatch_size = [30, 32]', table="search", batch_size=30)
    keep_values(tmp_path / "runs" / "mine" / "trial-0000", 0, {"batch_size": 30})
    drawn, other = map(read_study(file).training, ("trial-0000", "trial-0001"))
    drawn.command.check_ranks(drawn.options, 4)
    with pytest.raises(UserError, match="a global batch of 30 does not divide by 4 ranks"):
        other.command.check_ranks(other.options, 4)


@pytest.mark.parametrize(
    ("earlier", "now", "accepted"),
    [
        ("lr = { low = 0.01, high = 0.1 }", "lr = { low = 0.001, high = 1.0 }", True),
        ("lr = { low = 0.01, high = 0.1 }", "lr = { low = 0.01, high = 0.1, log = true }", False),
        ("batch_size = { low = 8, high = 16 }", "batch_size = { low = 4, high = 32 }", True),
        ("batch_size = { low = 8, high = 16 }", "batch_size = [8, 16]", False),
    ],
)
def test_after_a_draw_a_range_may_have_other_ends_but_no_other_kind(
    earlier: str, now: str, accepted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Write
) -> None:
    monkeypatch.chdir(tmp_path)
    option = earlier.partition(" ")[0]
    file = write(f'sampler = "tpe"\ntrials = 2\n[search.ranges]\n{earlier}', table="search")
    keep_values(tmp_path / "runs" / "mine" / "trial-0000", 0, {option: {"lr": 0.05, "batch_size": 9}[option]})
    shutil.copy(file, tmp_path / "runs" / "mine" / STUDY_TOML)
    write(f'sampler = "tpe"\ntrials = 2\n[search.ranges]\n{now}', table="search")
    refused = pytest.raises(UserError, match=f"search.ranges.{option} has another kind or other choices than when")
    with contextlib.nullcontext() if accepted else refused:
        check_unchanged(read_study(file), Standing(alive={}, unrecorded=[]))


def test_a_result_job_asks_for_one_gpu_whatever_the_trainings_ask_for(
    tmp_path: Path, shards: Path, hpcgender: Run, write: Write
) -> None:
    write("seed = [0]", f'[evaluate]\ndata = ["{shards}"]\ntrials = "best"')
    config = StudyConfig(file=tmp_path / "mine.toml", scheduler="slurm", gpus_per_node=4)
    wanted = read_study(config.file)
    standing = Standing(alive={}, unrecorded=[])
    stages = planned(config, wanted, standing, find_site("", "slurm", {}))
    assert [stage.config.gpus_per_node for stage in stages] == [4, 4, 1]


def test_what_never_begins_leaves_nothing(
    tmp_path: Path, shards: Path, queue: Path, hpcgender: Run, write: Write
) -> None:
    for options, says in (
        ('corrupt = ["blurr"]', "unknown corruption 'blurr': did you mean blur?"),
        ('table = "nope.csv"', "nope.csv"),
        ('temperature_from = "vall"', "--temperature-from vall is neither a split of"),
        ('splits = ["tst"]', "tst"),
        ("batch_size = 0", "--batch-size 0 must be positive"),
    ):
        write("seed = [0]", f'[evaluate]\ndata = ["{shards}"]\n{options}')
        refused = hpcgender("study", "mine.toml")
        assert (refused.returncode, list(queue.iterdir())) == (2, [])
        assert says in refused.stderr
        assert not (tmp_path / "runs").exists()
    write("seed = [0, 1]")
    for words, says in (
        (("--nodes", 4), "the directory queue refuses mine: it has 2 nodes"),
        (("--at-once", -1), "--at-once -1: it cannot be negative"),
    ):
        refused = hpcgender("study", "mine.toml", *words)
        assert (refused.returncode, list(queue.iterdir())) == (2, [])
        assert says in refused.stderr
    write("model = ['compact', 'resnet999']")
    refused = hpcgender("study", "mine.toml")
    assert (refused.returncode, list(queue.iterdir())) == (2, [])
    assert "resnet999" in refused.stderr


def wait_for(found: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 300
    while not found():
        assert time.monotonic() < deadline
        time.sleep(0.5)
