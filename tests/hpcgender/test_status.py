from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from hpcgender.commands import HPCGENDER
from hpcgender.commands.evaluate import EvaluateConfig
from hpcgender.commands.jobs import CancelConfig, JobsConfig, ResubmitConfig, WhyConfig
from hpcgender.evaluate.evaluation import evaluate
from hpcgender.evaluate.results import read_evaluation
from hpcgender.log_lines import AttemptLine, StepLine
from hpcgender.status.cancel import cancel
from hpcgender.status.resubmit import launch_config, resubmit
from hpcgender.status.runs import matching, read_records
from hpcgender.status.state import CANCELLED, judge
from hpcgender.status.table import list_jobs
from hpcgender.status.why import why
from hpcgender.train.log import epoch_line
from jobs.records import Resources, read_events
from jobs.scheduler import Job, State
from jobs.stopping import TIME_LIMIT
from shard_tools.base.commands import Shown
from tests.conftest import Run
from tests.hpcgender.evaluate.examples import save_model
from tests.hpcgender.status_records import EPOCH, end, make_record, metrics, start

CANCEL = {"event": CANCELLED, "time": 0.0}
BY_US = "by hpcgender jobs cancel"
REQUEUED = (start(), end(99, requeued=True))
TERMINATED = end(1, stopped_by="SIGTERM")
LATE = end(1, stopped_by=TIME_LIMIT)
SKIP = {"event": "skipped", "because": "job 11 ended with exit code 1"}


@pytest.fixture
def no_scheduler(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without schedulers, whatever this one has."""
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))
    monkeypatch.delenv("SGE_ROOT", raising=False)


def queued(state: State, reason: str = "", **more: Any) -> Job:
    return Job(job_id="12", state=state, reason=reason, **more)


OUT_OF_MEMORY = queued("failed", "out of memory", external=True)


@pytest.mark.parametrize(
    ("events", "in_queue", "accounted", "said"),
    [
        ([], queued("pending", "Priority"), None, ("pending", "Priority", True, 0)),
        ([start()], queued("running"), None, ("running", "", True, 0)),
        ([*REQUEUED], queued("pending", "BeginTime"), None, ("pending", "requeued, BeginTime", True, 1)),
        ([*REQUEUED, start(2)], queued("running"), None, ("running", "", True, 1)),
        ([start(), start(2)], queued("running"), None, ("running", "", True, 1)),  # a node was lost
        ([start(), end(0)], queued("running"), None, ("done", "", False, 0)),  # in a moment
        ([start(), end(1)], queued("running"), None, ("stopping", "exit code 1", True, 0)),
        ([start(), TERMINATED], queued("pending"), None, ("pending", "requeued", True, 0)),  # preempted
        ([start(), end(0)], None, None, ("done", "", False, 0)),
        ([start(), end(1)], None, None, ("failed", "exit code 1", False, 0)),
        ([start(), end(137)], None, None, ("failed", "killed by SIGKILL (often: out of memory)", False, 0)),
        ([start(), end(2)], None, None, ("failed", "its input or configuration was refused", False, 0)),
        ([start(), end(1)], queued("failed", "exit code 1"), None, ("failed", "exit code 1", False, 0)),
        ([start(), end(1)], OUT_OF_MEMORY, None, ("failed", "out of memory", False, 0)),
        ([start(), LATE], None, None, ("timeout", "time limit, and it was not requeued", False, 0)),
        ([start(), TERMINATED], None, None, ("cancelled", "by SIGTERM", False, 0)),
        ([start(), CANCEL], None, None, ("cancelled", BY_US, False, 0)),
        ([start(), CANCEL, TERMINATED], None, None, ("cancelled", BY_US, False, 0)),
        ([start(), CANCEL], queued("stopping"), None, ("stopping", "", True, 0)),
        ([CANCEL], None, None, ("cancelled", BY_US, False, 0)),
        ([SKIP], None, None, ("skipped", "job 11 ended with exit code 1", False, 0)),
        ([start()], None, queued("failed", "node lost"), ("failed", "node lost", False, 0)),
        ([start()], None, None, ("unknown", "neither in the queue nor accounted for, and with no end", False, 0)),
        ([], None, None, ("unknown", "not in the queue, and it never started", False, 0)),
        ([], queued("error", "Eqw: no such file"), None, ("error", "Eqw: no such file", True, 0)),
    ],
)  # fmt: skip
def test_a_run_is_in_the_state_that_who_knows_best_says(
    tmp_path: Path,
    events: Sequence[Mapping[str, Any]],
    in_queue: Job | None,
    accounted: Job | None,
    said: tuple[str, str, bool, int],
) -> None:
    submission = make_record(tmp_path / "mine", "12", "slurm", events)
    status = judge(submission, in_queue, accounted, time.time())
    assert (status.state, status.reason, status.alive, status.requeues) == said


def test_an_attempt_before_the_last_says_nothing_of_how_the_last_one_ended(tmp_path: Path) -> None:
    events = [{**start(), "time": 1000.0}, end(99, requeued=True), {**start(2), "time": 2000.0}]
    submission = make_record(tmp_path / "mine", "12", "slurm", events)
    earlier, last = (queued("failed", "exit code 99", start=began) for began in (995.0, 1995.0))
    assert judge(submission, None, earlier, time.time()).state == "unknown"
    assert judge(submission, None, last, time.time()).state == "failed"


def test_the_time_that_is_left_of_the_limit(tmp_path: Path) -> None:
    submission = make_record(tmp_path / "mine", resources=Resources(nodes=1, time_min=60.0))
    assert judge(submission, queued("running", left=297.0), None, 1000.0).left == 297.0
    assert judge(submission, queued("running", start=400.0), None, 1000.0).left == 3000.0  # Grid Engine does not say
    assert judge(submission, queued("pending", start=400.0), None, 1000.0).left is None


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", "hpcgender.launch"])
    yield process
    process.kill()
    process.wait()


def test_a_local_run_lives_as_long_as_its_launcher(tmp_path: Path, sleeper: subprocess.Popen[bytes]) -> None:
    submission = make_record(tmp_path / "mine", str(sleeper.pid), "local", [start()])
    assert judge(submission, None, None, time.time()).state == "running"
    later = dataclasses.replace(submission, submitted="2020-01-01T00:00:00Z")  # the number was another's then
    assert judge(later, None, None, time.time()).state == "failed"
    other = dataclasses.replace(submission, job_id=str(os.getpid()))  # no launcher
    assert judge(other, None, None, time.time()).state == "failed"
    sleeper.kill()
    sleeper.wait()
    status = judge(submission, None, None, time.time())
    assert (status.state, status.reason) == ("failed", "its launcher was killed")
    elsewhere = dataclasses.replace(submission, host="other")
    assert judge(elsewhere, None, None, time.time()).reason == "it ran on other: ask there"


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
    lines = [f"{100 + n}|{'RUNNING' if n % 2 else 'PENDING'}|9:00|N/A||Priority|run{n}" for n in range(40)]
    lines += [
        "7|PENDING|9:00|N/A||Priority|by_hand",
        *(f"8_{task}|PENDING|9:00|N/A||Priority|many" for task in (1, 2)),
    ]
    squeue = bin_dir / "squeue"
    squeue.write_text(f"#!/bin/sh\necho asked >> {tmp_path}/asked\n/bin/cat <<'END'\n" + "\n".join(lines) + "\nEND\n")
    squeue.chmod(0o755)
    monkeypatch.setenv("PATH", f"{bin_dir}:{os.environ['PATH']}")
    done = run("hpcgender", "jobs", cwd=tmp_path)
    assert (tmp_path / "asked").read_text() == "asked\n"
    states = [line.split("\t")[3] for line in done.stdout.splitlines()[1:]]
    assert states == ["pending", "running"] * 20
    assert done.stdout.splitlines()[2].split("\t")[8] == "9m00s"
    assert done.stderr == "without a record here: 3 pending (7 by_hand, 8 many)\n"

    squeue.write_text("#!/bin/sh\necho 'squeue: error: Unable to contact slurm controller' >&2; exit 1\n")
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


def test_cancelling_a_local_run(tmp_path: Path, run: Run, no_scheduler: None, sleeper: subprocess.Popen[bytes]) -> None:
    make_record(tmp_path / "runs" / "mine", str(sleeper.pid), "local", [start()])
    make_record(tmp_path / "runs" / "done", str(sleeper.pid), "local", [start(), end(0)])
    done = run("hpcgender", "jobs", "cancel", "mine", "done", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert (
        done.stdout == f"done (job {sleeper.pid}) has ended already: done\nasked process {sleeper.pid} to stop (mine)\n"
    )
    assert sleeper.wait(10) == -15
    assert "\tcancelled\t" in run("hpcgender", "jobs", "mine", cwd=tmp_path).stdout


def test_what_a_scheduler_goes_on_with_is_not_cancelled(
    tmp_path: Path, no_scheduler: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """scancel takes an id that it does not know without a word; squeue has the last one."""
    running = [make_record(tmp_path / "runs" / "mine", f"12_{task}", "slurm", [start()]) for task in (1, 2)]
    state = tmp_path / "state"
    state.write_text("RUNNING")
    line = f"$(/bin/cat {state})|9:50|2026-11-22T22:49:50|node1|None|train"
    for name, script in {
        "scancel": f'echo "$@" >> {tmp_path}/asked',
        "squeue": f'echo "12_1|{line}"; echo "12_2|{line}"',
    }.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr("hpcgender.status.cancel.LOOK_SECONDS", 0.0)
    within = (tmp_path / "runs",)
    assert cancel(CancelConfig(runs=("12_2",), within=within)) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("hpcgender jobs cancel: job 12_2 (mine) is still running, although Slurm was asked")
    assert [event["event"] for event in read_events(running[1].directory)] == ["start"]

    state.write_text("COMPLETING")
    assert cancel(CancelConfig(runs=("12",), within=within)) == 0  # as sbatch printed it
    assert capsys.readouterr().out == "cancelled job 12 (mine)\n"
    assert cancel(CancelConfig(runs=("mine",), within=within)) == 0
    assert capsys.readouterr().out == "cancelled job 12 (mine)\n"
    make_record(tmp_path / "runs" / "other", "12_3", "slurm", [start(), end(0)])  # an array of several runs
    assert cancel(CancelConfig(runs=("mine",), within=within)) == 0
    assert capsys.readouterr().out == "cancelled job 12_1 (mine)\ncancelled job 12_2 (mine)\n"
    assert (tmp_path / "asked").read_text() == "12_2\n12\n12\n12_1\n12_2\n"
    assert all(read_events(record.directory)[-1]["event"] == CANCELLED for record in running)


@pytest.mark.parametrize(("tasks", "recorded"), [(1000, False), (100, True)])
def test_a_large_array_takes_a_few_calls(
    tasks: int,
    recorded: bool,
    tmp_path: Path,
    no_scheduler: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for task in range(1, tasks + 1) if recorded else ():
        make_record(tmp_path / "runs" / "mine", f"12_{task}", "slurm", [start()])
    (tmp_path / "state").write_text("PENDING")
    asks = f"echo x >> {tmp_path}/calls; state=$(/bin/cat {tmp_path}/state); "
    for name, script in {
        "scancel": f"{asks} echo COMPLETING > {tmp_path}/state",
        "squeue": f'{asks} for n in $(/usr/bin/seq {tasks}); do echo "12_$n|$state|9:50|N/A||JobHeldUser|arr"; done',
        "scontrol": f"{asks} echo 'JobId=12 ArrayJobId=12 ArrayTaskId=1-1000 JobState=PENDING Reason=JobHeldUser'",
        "sacct": asks,
        "sbatch": asks,
    }.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "slurm.conf").touch()
    monkeypatch.setenv("SLURM_CONF", str(tmp_path / "slurm.conf"))
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    within = (tmp_path / "runs",)
    list_jobs(JobsConfig(within=within))
    said = capsys.readouterr()
    assert said.out.count("held") == tasks if recorded else f"without a record here: {tasks} held (12 arr)" in said.err
    why(WhyConfig(run="12", within=within))
    assert f"array 12: {tasks} held; of these\n" in capsys.readouterr().out
    assert cancel(CancelConfig(runs=("mine" if recorded else "12",), within=within)) == 0
    assert capsys.readouterr().out == f"cancelled job 12{' (mine)' if recorded else ''}\n"
    assert (tmp_path / "calls").read_text().count("x") < 12


def test_a_script_submitted_by_hand_is_submitted_again_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = {"queue": "gpu", "qos": "long", "gpu": "a100", "memory_gb": 64, "options": ["--constraint=ib"]}
    make_record(
        tmp_path / "runs" / "mine",
        events=[start(), end(1)],
        command=("models",),
        script="/home/me/train.sh",
        site={"name": "slurm", "scheduler": "slurm", **asked},
        resources=Resources(gpus_per_node=2, cpus=8, time_min=60.0),
    )
    monkeypatch.chdir(tmp_path)
    assert resubmit(ResubmitConfig(run="mine", within=(tmp_path / "runs",), dry_run=True)) == 0
    script = capsys.readouterr().out
    for option in ("partition=gpu", "qos=long", "gpus-per-node=a100:2", "mem=65536M", "constraint=ib", "time=60"):
        assert f"\n#SBATCH --{option}\n" in script
    assert "\nexec " in script  # scancel --batch --signal=USR1 reaches the launcher


def test_a_resubmission_asks_for_what_the_submission_had(tmp_path: Path) -> None:
    wanted = Resources(nodes=2, procs_per_node=4, gpus_per_node=4, cpus=16, mem=64.0, time_min=1439.5)
    submission = make_record(tmp_path / "mine", resources=wanted, site={"name": "abci"}, scheduler="sge")
    config = launch_config(submission)
    assert config.command == (*submission.command, "--resume")
    assert (config.nodes, config.procs_per_node, config.gpus_per_node) == (2, 4, 4)
    assert (config.cpus, config.mem, config.time) == (16, 64.0, "1439.5m")
    assert (config.scheduler, config.site, config.job_name) == ("sge", "abci", "train_mine")
    evaluation = dataclasses.replace(submission, command=("evaluate", "--data", "x"), resources=Resources())
    assert launch_config(evaluation).command == ("evaluate", "--data", "x")
    assert (launch_config(evaluation).cpus, launch_config(evaluation).time) == (None, "")


def test_resubmitting_a_local_run(tmp_path: Path, run: Run, no_scheduler: None, shards: Path) -> None:
    place = tmp_path / "elsewhere"
    place.mkdir()
    more: dict[str, Any] = {"resources": Resources(nodes=2, procs_per_node=1), "site": {"name": "local"}}
    command = ("train", "--data", str(shards), "--name", "mine", "--model", "compact")
    make_record(tmp_path / "runs" / "mine", "1", "local", [start(), end(1)], command=command, cwd=str(place), **more)
    done = run("hpcgender", "jobs", "resubmit", "mine", "--dry-run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("2 nodes (")
    assert f"with 1 processes each: {sys.executable} -m hpcgender train --data {shards} " in done.stdout
    assert done.stdout.endswith("--resume\n")


def test_a_run_that_is_alive_is_not_resubmitted(
    tmp_path: Path, run: Run, no_scheduler: None, sleeper: subprocess.Popen[bytes]
) -> None:
    make_record(tmp_path / "runs" / "mine", str(sleeper.pid), "local", [start()])
    done = run("hpcgender", "jobs", "resubmit", "mine", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (
        2,
        f"hpcgender: run mine is running as job {sleeper.pid}: cancel it first, with hpcgender jobs cancel mine\n",
    )


def test_a_run_that_is_stopping_is_waited_for(
    tmp_path: Path, run: Run, no_scheduler: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """squeue's own words of a job that was cancelled a moment ago."""
    make_record(tmp_path / "runs" / "mine", "12", "slurm", [start(), CANCEL])
    squeue = tmp_path / "squeue"
    squeue.write_text("#!/bin/sh\necho '12|COMPLETING|9:50|2026-11-22T22:49:50|node[1-2]|None|train'\n")
    squeue.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    done = run("hpcgender", "jobs", "resubmit", "mine", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (
        2,
        "hpcgender: run mine is stopping as job 12: wait until it has ended, which hpcgender jobs logs mine --follow "
        "does\n",
    )
