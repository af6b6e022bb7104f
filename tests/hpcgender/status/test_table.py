"""The list of runs, as `hpcgender jobs` prints it, and which runs a name means."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from pathlib import Path

import pytest

from hpcgender.commands import HPCGENDER
from hpcgender.commands.evaluate import EvaluateConfig
from hpcgender.evaluate.evaluation import evaluate
from hpcgender.evaluate.results import read_evaluation
from hpcgender.log_lines import AttemptLine, StepLine
from hpcgender.run_directory import LOCK
from hpcgender.status.runs import matching, read_records
from hpcgender.train.log import epoch_line
from shard_tools.base.commands import Shown
from shard_tools.base.lock import locked
from tests.conftest import Run
from tests.hpcgender.evaluate.examples import save_model
from tests.hpcgender.status_records import EPOCH, end, make_record, metrics, start
from tests.programs import cat, put

SKIP = {"event": "skipped", "because": "job 11 ended with exit code 1"}


def test_a_training_is_shown_from_the_ends_of_metrics_and_log(tmp_path: Path) -> None:
    (train,) = HPCGENDER.commands("train")
    log = tmp_path / "log"
    assert train.shown(tmp_path, "", True, time.time()) == Shown()
    step = StepLine(step=30, steps=120, epoch=1, epochs=50, loss=0.3, images_per_s=900.0, left=120.0)
    log.write_text(f"{AttemptLine(command='train', nodes=2).text()}\n{step.text()}\n")
    first = train.shown(tmp_path, str(log), True, time.time())
    assert (first.epochs_done, first.epochs, first.images_per_s, first.accuracy) == (0.25, 50, 900.0, None)

    metrics(tmp_path, 1, 50, 0.875, 500.0)
    metrics(tmp_path, 2, 50, 0.9375, 480.0)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 3, "epo')  # torn by a kill
    os.utime(tmp_path / "metrics.jsonl", (1000.0, 1000.0))
    done = train.shown(tmp_path, str(log), False, 1100.0)
    assert (done.epochs_done, done.accuracy, done.images_per_s, done.eta) == (2, 0.9375, 11832.4, 480.0)
    with log.open("a") as file:
        file.write(epoch_line(dataclasses.replace(EPOCH, epoch=2)) + "\n")
    assert train.shown(tmp_path, str(log), True, 1100.0) == dataclasses.replace(done, eta=380.0)
    with locked(tmp_path / LOCK, tmp_path, ""):  # it was requeued, and waited for an hour
        os.utime(tmp_path / LOCK, (4600.0, 4600.0))
        assert train.shown(tmp_path, str(log), True, 4700.0).eta == 380.0
    os.utime(tmp_path / LOCK, (900.0, 900.0))
    with log.open("a") as file:
        file.write(dataclasses.replace(step, step=60, epoch=3).text() + "\n")
    assert train.shown(tmp_path, str(log), True, 1100.0).epochs_done == 2.5


def test_an_evaluation_is_shown_with_its_accuracy(tmp_path: Path, run: Run, no_scheduler: None, shards: Path) -> None:
    results = tmp_path / "runs" / "mine" / "evaluations" / "shards-val"
    make_record(results, "12", "local", [start(), end(0)], command=("evaluate", "--data", str(shards)))
    assert run("hpcgender", "jobs", cwd=tmp_path).stdout.splitlines()[1].split("\t")[5] == "-"
    checkpoint = save_model(tmp_path / "runs" / "mine" / "checkpoints" / "best.pt", tasks=("gender", "age"))
    config = EvaluateConfig(checkpoint=checkpoint, data=shards, split="val", out=results)
    evaluate(config)
    evaluation = read_evaluation(results)
    assert evaluation.gender
    assert evaluation.age
    listed = run("hpcgender", "jobs", cwd=tmp_path).stdout.splitlines()[1].split("\t")
    assert listed[:6] == [
        "mine/evaluations/shards-val", "12", "local", "done", "-", f"{evaluation.gender.accuracy.value:.2%}"
    ]  # fmt: skip
    (entry,) = json.loads(run("hpcgender", "jobs", "--json", cwd=tmp_path).stdout)["runs"]
    assert entry["accuracy"] == evaluation.gender.accuracy.value
    assert entry["age_mae"] == evaluation.age.mae.value


def test_the_list_on_a_machine_without_scheduler(tmp_path: Path, run: Run, no_scheduler: None) -> None:
    runs = tmp_path / "runs"
    make_record(runs / "old", "11", "local", [start(), end(1)], age=9.0)
    make_record(runs / "old", "12", "local", [start(), end(99, requeued=True), start(2), end(0, 2)], age=8.0)
    metrics(runs / "old", 50, 50, 0.9597, 0.0)
    make_record(runs / "of_others", "13", "local", [start(), end(0)], user="somebody")
    make_record(runs / "old" / "evaluations" / "morph-test", "14", "local", [SKIP], command=("evaluate",), age=7.0)
    make_record(tmp_path / "data" / "shards", "15", "local", [start(), end(2)], command=("pack", "morph"), age=6.0)
    done = run("hpcgender", "jobs", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "run\tjob\tscheduler\tstate\tepoch\taccuracy\timg/s\teta\tlimit\trequeues\treason",
        "old\t12\tlocal\tdone\t50/50\t95.97%\t11832\t-\t-\t1\t-",
        "old/evaluations/morph-test\t14\tlocal\tskipped\t-\t-\t-\t-\t-\t0\tjob 11 ended with exit code 1",
        "data/shards\t15\tlocal\tfailed\t-\t-\t-\t-\t-\t0\tits input or configuration was refused",
    ]
    everything = run("hpcgender", "jobs", "--all", "--json", cwd=tmp_path)
    content = json.loads(everything.stdout)["runs"]
    assert [(entry["job"], entry["state"]) for entry in content] == [
        ("11", "failed"),
        ("12", "done"),
        ("14", "skipped"),
        ("15", "failed"),
    ]
    assert (content[1]["accuracy"], content[1]["epoch"], content[1]["requeues"]) == (0.9597, 50, 1)
    assert len(run("hpcgender", "jobs", "--active", cwd=tmp_path).stdout.splitlines()) == 1


def test_what_a_scheduler_says_of_all_jobs_at_once(
    tmp_path: Path, run: Run, no_scheduler: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs, bin_dir = tmp_path / "runs", tmp_path / "bin"
    bin_dir.mkdir()
    for number in range(40):
        make_record(runs / f"run{number}", str(100 + number), "slurm", [start()] * (number % 2), age=100.0 - number)
    metrics(runs / "run0", 12, 50, 0.9, 7200.0)  # as of an attempt before
    metrics(runs / "run1", 12, 50, 0.9, 7200.0)
    lines = [f"{100 + n}|{'RUNNING' if n % 2 else 'PENDING'}|9:00|N/A||Priority|run{n}" for n in range(40)]
    lines += [
        "7|PENDING|9:00|N/A||Priority|by_hand",
        *(f"8_{task}|PENDING|9:00|N/A||Priority|many" for task in (1, 2)),
    ]
    put(bin_dir, "squeue", f"echo asked >> {tmp_path}/asked\n" + cat("\n".join(lines)))
    monkeypatch.setenv("PATH", f"{bin_dir}:{os.environ['PATH']}")
    done = run("hpcgender", "jobs", cwd=tmp_path)
    assert (tmp_path / "asked").read_text() == "asked\n"
    states = [line.split("\t")[3] for line in done.stdout.splitlines()[1:]]
    assert states == ["pending", "running"] * 20
    waits, works, *_ = (line.split("\t")[4:9] for line in done.stdout.splitlines()[1:])
    assert waits == ["12/50", "90.00%", "-", "-", "-"]
    assert (works[:3], works[4]) == (["12/50", "90.00%", "11832"], "9m00s")
    assert works[3].startswith(("2h00m", "1h59m"))
    assert done.stderr == (
        "without a record here: 3 pending (7 by_hand, 8 many)\n"
        "array 8: 2 tasks not begun (Priority): see hpcgender jobs why 8; hpcgender jobs cancel 8_1 cancels one\n"
    )

    put(bin_dir, "squeue", "echo 'squeue: error: Unable to contact slurm controller' >&2; exit 1")
    silent = run("hpcgender", "jobs", "run3", cwd=tmp_path)
    assert silent.returncode == 0
    assert silent.stdout.splitlines()[1].split("\t")[3] == "unknown"
    assert silent.stderr == (
        "hpcgender jobs: squeue: error: Unable to contact slurm controller; states are those in the records\n"
    )


def test_names_of_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    runs = Path("runs")
    make_record(runs / "mine", "11", age=9.0)
    make_record(runs / "mine", "12", age=8.0)
    make_record(runs, "13", command=("models",), name="models")
    make_record(Path("data/shards"), "14", name="pack_shards")
    records = read_records((runs, Path("data")))

    def jobs(wanted: str) -> list[str]:
        return [record.submission.job_id for record in matching(records, wanted)]

    assert (
        jobs("mine") == jobs("runs/mine") == jobs(str(tmp_path / "runs" / "mine")) == jobs("train_mine") == ["11", "12"]
    )
    assert jobs("11") == ["11"]
    assert jobs("models") == ["13"]
    assert jobs("data/shards") == jobs("pack_shards") == ["14"]
    assert jobs("other") == []
    for task in (1, 2):
        make_record(runs / f"task{task}", f"15.{task}")
    records = read_records((runs,))
    assert sorted(jobs("15")) == ["15.1", "15.2"]  # the id that qsub printed
    assert jobs("15.2") == ["15.2"]


@pytest.mark.parametrize("command", ["why", "logs", "cancel", "resubmit", ""])
def test_a_run_that_is_not_there(tmp_path: Path, run: Run, no_scheduler: None, command: str) -> None:
    make_record(tmp_path / "runs" / "resnet152", "11", "local", [start(), end(0)])
    done = run("hpcgender", "jobs", *command.split(), "resnet15", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "hpcgender: unknown run 'resnet15': did you mean resnet152?\n"
