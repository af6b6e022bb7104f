"""Studies on this machine: trained, evaluated and compared for real; killed, extended, and refused."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from hpcgender.study.file import read_study
from shard_tools.base.files import last_record
from shard_tools.manifest import read_manifest
from tests.conftest import Run
from tests.hpcgender.study.conftest import Write, epochs, jobs_of

LOCAL = ("--scheduler", "local")


def test_a_study_from_its_start_to_its_result_and_what_is_new_in_it(
    tmp_path: Path, shards: Path, run: Run, write: Write
) -> None:
    runs = tmp_path / "runs"
    more = f'[evaluate]\ndata = ["{shards}"]\nsplits = ["test"]\n[compare]\non = ["shards-test"]'
    write("seed = [0, 1]", more)
    seen = run("hpcgender", "study", "mine.toml", *LOCAL, "--dry-run", cwd=tmp_path)
    assert seen.returncode == 0, seen.stderr
    assert seen.stdout.startswith("study mine: 2 runs, 0 finished, 2 to train\n")
    assert "\n2 evaluations:\n" in seen.stdout
    assert not runs.exists()

    done = run("hpcgender", "study", "mine.toml", *LOCAL, "--at-once", 2, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2/2 train runs/mine/seed" in done.stdout
    assert "2/2 evaluate runs/mine/seed" in done.stdout
    assert "shards-test was measured for 2 of 2 runs, and chose none\n" in done.stdout
    assert "local node" not in done.stdout
    assert "seeds" in done.stdout  # of the comparison
    assert (runs / "mine" / "compare-shards-test.html").is_file()
    result = json.loads((runs / "mine" / "result.json").read_text())
    best = max(result["trials"], key=lambda trial: trial["val_accuracy"])
    assert f"best by validation alone: {result['best']}, of 2 runs looked at\n" in done.stdout
    assert result["best"] == best["name"]
    assert epochs(runs, "seed0") == [1, 2]
    counted = (
        f"2 runs looked at; best by validation alone: {result['best']}; shards-test was measured for 2 of 2 runs, "
    )
    assert (
        f"<dt>study mine</dt><dd>{counted}and chose none</dd>"
        in (runs / "mine" / "compare-shards-test.html").read_text()
    )

    header, line = run("hpcgender", "jobs", cwd=tmp_path).stdout.splitlines()
    cells = dict(zip(header.split("\t"), line.split("\t"), strict=True))
    ends = [last_record(runs / "mine" / trial / "metrics.jsonl") or {} for trial in ("seed0", "seed1")]
    last = max(end["val"]["accuracy"] for end in ends)
    assert (cells["run"], cells["state"], cells["accuracy"]) == ("mine", "done", f"{last:.2%}")
    assert cells["reason"] == "2 trainings: 2 done; 2 evaluations: 2 done; 1 result: 1 done"
    unfolded = [line.split("\t")[0] for line in run("hpcgender", "jobs", "mine", cwd=tmp_path).stdout.splitlines()]
    assert sorted(unfolded[1:]) == [
        "mine",  # its result
        *("mine/seed0", "mine/seed0/evaluations/shards-test"),
        *("mine/seed1", "mine/seed1/evaluations/shards-test"),
    ]

    shown = json.loads(run("hpcgender", "matrix", "mine", "--json", cwd=tmp_path).stdout)
    assert len(shown["models"]) == 1  # of two seeds
    again = run("hpcgender", "study", "mine.toml", *LOCAL, cwd=tmp_path)
    assert again.returncode == 0
    assert again.stdout == "study mine: 2 runs, 2 finished; nothing to start, see runs/mine/result.json\n"
    write("seed = [0, 1]", more.replace("[compare]", "flip = true\n[compare]"))
    other = run("hpcgender", "study", "mine.toml", *LOCAL, cwd=tmp_path)
    assert other.returncode == 2
    assert other.stderr == (
        "hpcgender: mine.toml asks for evaluations with flip = true, but runs/mine/seed0/evaluations/shards-test was "
        "begun with flip = false: restore it, or cancel and remove runs/mine/*/evaluations\n"
    )
    write("seed = [0, 1]", more.partition("[compare]")[0])
    alone = run("hpcgender", "study", "mine.toml", *LOCAL, cwd=tmp_path)
    assert alone.returncode == 0, alone.stdout + alone.stderr
    assert alone.stdout.splitlines()[1].startswith("1/1 study result runs/mine: done")
    assert json.loads((runs / "mine" / "result.json").read_text())["compared"] == []

    before = jobs_of(runs, "seed0")
    write("seed = [1, 2]", more)
    grown = run("hpcgender", "study", "mine.toml", *LOCAL, cwd=tmp_path)
    assert grown.returncode == 0, grown.stdout + grown.stderr
    assert grown.stdout.startswith(
        "study mine: 2 runs, 1 finished, 1 to train; the file does not name 1 run of it: seed0\n"
    )
    assert "1/1 train runs/mine/seed2: done" in grown.stdout
    assert jobs_of(runs, "seed0") == before
    assert len(jobs_of(runs, "seed1")) == 1

    write("seed = [0, 1, 2]", more, lr=0.03)
    changed = run("hpcgender", "study", "mine.toml", *LOCAL, cwd=tmp_path)
    assert changed.returncode == 2
    assert changed.stderr == (
        "hpcgender: mine.toml asks for lr = 0.03, but runs/mine/seed0 and 2 other runs began with lr = 0.02, and would "
        "not be comparable: restore it, cancel and remove the run, or give the study another name\n"
    )
    write("seed = [0, 1, 2]", more, data=str(tmp_path / "gone"))
    gone = run("hpcgender", "study", "mine.toml", *LOCAL, cwd=tmp_path)
    assert gone.returncode == 2
    assert f"{tmp_path}/gone" in gone.stderr
    assert "other data" not in gone.stderr


def test_a_new_option_in_the_grid_says_how_finished_runs_are_kept(
    tmp_path: Path, shards: Path, run: Run, write: Write
) -> None:
    done = read_study(write("seed = [0, 1]")).trials
    for trial, epoch in (("seed0", 2), ("seed1", 1)):  # the second one is not finished
        results = tmp_path / "runs" / "mine" / trial
        (results / "checkpoints").mkdir(parents=True)
        (results / "checkpoints" / "best.pt").touch()
        begun = {**done[trial].plain(), "manifest": read_manifest(shards).sha256}
        (results / "config.json").write_text(json.dumps(begun, default=str))
        (results / "metrics.jsonl").write_text(json.dumps({"epoch": epoch, "epochs": 2, "step": 1}) + "\n")
    write('seed = [0, 1]\naugment = ["light", "strong"]')
    seen = run("hpcgender", "study", "mine.toml", *LOCAL, "--dry-run", cwd=tmp_path)
    assert seen.returncode == 0, seen.stderr
    assert seen.stdout.splitlines()[0].endswith(
        "4 to train; the file does not name 2 runs of it: seed0, seed1; trained already with the same options: rename "
        "seed0 to seed0-light in runs/mine to keep that"
    )
    (tmp_path / "runs" / "mine" / "seed0").rename(tmp_path / "runs" / "mine" / "seed0-light")
    seen = run("hpcgender", "study", "mine.toml", *LOCAL, "--dry-run", cwd=tmp_path)
    assert seen.stdout.startswith("study mine: 4 runs, 1 finished, 3 to train;")


def test_an_option_that_cannot_work_names_its_trial(tmp_path: Path, run: Run, write: Write) -> None:
    write("batch_size = [32, 100000]")
    seen = run("hpcgender", "study", "mine.toml", *LOCAL, "--dry-run", cwd=tmp_path)
    assert seen.returncode == 2
    assert seen.stderr.startswith("hpcgender: mine.toml, trial batch_size100000: ")
    assert seen.stderr.count("\n") == 1


def test_a_study_that_is_killed_or_stopped_goes_on_and_trains_nothing_twice(
    tmp_path: Path, run: Run, write: Write
) -> None:
    runs = tmp_path / "runs"
    write("seed = [0, 1]", epochs=6, checkpoint_minutes=0.0001)

    def begin() -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "hpcgender", "study", "mine.toml", *LOCAL, "--at-once", "2"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(command, cwd=tmp_path, env=environment, text=True, stdout=subprocess.PIPE)

    def logs() -> str:
        return "".join(path.read_text() for path in (tmp_path / "logs").glob("mine.o*"))

    killed = begin()
    wait_for(lambda: len(list((runs / "mine").glob("*/checkpoints/step-*.pt"))) >= 2, killed)
    killed.kill()
    killed.communicate()
    stopped = begin()
    wait_for(lambda: "resuming runs/mine/" in logs(), stopped)
    cancelled = run("hpcgender", "jobs", "cancel", "mine", cwd=tmp_path)
    assert cancelled.returncode == 0, cancelled.stderr
    assert f"asked process {stopped.pid} to stop (mine)\n" in cancelled.stdout
    said, _ = stopped.communicate(timeout=120)
    assert stopped.returncode == 99, said
    assert said.endswith("study mine: stopped by SIGTERM; the same command goes on\n")
    assert run("hpcgender", "jobs", cwd=tmp_path).stdout.splitlines()[1].split("\t")[3] == "cancelled"
    last = begin()
    said, _ = last.communicate(timeout=300)
    assert last.returncode == 0, said
    for seed in ("seed0", "seed1"):
        assert epochs(runs, seed) == [1, 2, 3, 4, 5, 6]
    assert logs().count("training runs/mine/") == 2  # each began once, and went on from a checkpoint


def test_a_run_that_fails_keeps_no_other_back_and_the_best_alone_is_tested(
    tmp_path: Path, shards: Path, run: Run, write: Write
) -> None:
    write("lr = [0.02, 1e30]", f'[evaluate]\ndata = ["{shards}"]\ntrials = "best"')
    done = run("hpcgender", "study", "mine.toml", *LOCAL, cwd=tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "1/2 train runs/mine/lr0.02: done" in done.stdout
    assert "2/2 train runs/mine/lr1e+30: exit code 2" in done.stdout
    result = json.loads((tmp_path / "runs" / "mine" / "result.json").read_text())
    assert (result["best"], result["looked_at"]) == ("lr0.02", 1)
    assert [list(trial["evaluations"]) for trial in result["trials"]] == [["shards-test"], []]
    why = run("hpcgender", "jobs", "why", "mine", cwd=tmp_path).stdout
    assert why.startswith("study mine: 2 trainings: 1 done, 1 failed; 1 result: 1 failed\n")
    assert "NaN or infinite gradients" in why
    state = run("hpcgender", "jobs", cwd=tmp_path).stdout.splitlines()[1].split("\t")[3]
    assert state == "failed"


def test_two_commands_at_once_are_one(tmp_path: Path, run: Run, write: Write) -> None:
    write("seed = [0]")
    directory = tmp_path / "runs" / "mine"
    directory.mkdir(parents=True)
    with (directory / "study.lock").open("w") as lock:
        lock.write("process 7 on node1\n")
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)
        refused = run("hpcgender", "study", "mine.toml", *LOCAL, cwd=tmp_path)
    assert refused.returncode == 2
    assert refused.stderr == "hpcgender: runs/mine is locked by process 7 on node1: wait until that has ended\n"
    assert not list(directory.glob("*/"))


def wait_for(found: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 240
    while not found():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.1)
