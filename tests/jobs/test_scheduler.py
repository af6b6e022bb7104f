"""What the interface of schedulers promises: one more scheduler, in one file, and everything works with it."""

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobs.scheduler import LIVE
from tests.conftest import Run
from tests.wild import WILD, check_wild_pack, pack_wild_table

LONG = ("--", "synthetic", "--out", "data/faces", "--count", "1000000")
"""A command that is not done before the test is."""


def listed(hpcgender: Run, job_id: str) -> dict[str, Any]:
    """What the list of jobs has of one."""
    done = hpcgender("jobs", "--all", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    found: dict[str, Any] = next(run for run in json.loads(done.stdout)["runs"] if run["job"] == job_id)
    return found


def comes_to(hpcgender: Run, job_id: str, **expected: object) -> dict[str, Any]:
    """What the list has of a job once it has what is expected."""
    deadline = time.monotonic() + 300
    while True:
        found = listed(hpcgender, job_id)
        if {name: found[name] for name in expected} == expected:
            return found
        assert time.monotonic() < deadline, found
        time.sleep(0.3)


def test_a_job_waits_runs_is_requeued_and_is_cancelled(tmp_path: Path, queue: Path, hpcgender: Run) -> None:
    for sign in ("closed", "drained"):
        (queue / sign).touch()
    submitted = hpcgender("launch", *LONG)
    assert (submitted.returncode, submitted.stderr) == (0, "launch: synthetic: not now\n")
    assert submitted.stdout == "job 1 synthetic: tail -F logs/synthetic.o1\n"
    comes_to(hpcgender, "1", state="pending", reason="Closed")
    why = hpcgender("jobs", "why", "1").stdout
    assert " on the directory queue: pending" in why
    assert f"Closed: nothing starts while there is {queue}/closed" in why

    (queue / "closed").unlink()
    comes_to(hpcgender, "1", state="running", attempt=1)
    log = tmp_path / "logs" / "synthetic.o1"
    wait_for(lambda: "launch: synthetic on 1 node" in log.read_text())
    time.sleep(1.0)  # the agent starts the command
    os.killpg(json.loads((queue / "1" / "job.json").read_text())["process"], signal.SIGTERM)  # it is preempted
    again = comes_to(hpcgender, "1", state="running", attempt=2)
    assert again["requeues"] == 1
    assert "launch: asked to stop by SIGTERM\nlaunch: requeued\n" in log.read_text()

    cancelled = hpcgender("jobs", "cancel", "1")
    assert (cancelled.returncode, cancelled.stderr) == (0, "")
    assert cancelled.stdout.startswith("cancelled job 1")
    comes_to(hpcgender, "1", state="cancelled")
    wait_for(lambda: json.loads((queue / "1" / "job.json").read_text())["state"] == "cancelled")
    assert "launch: not requeued: cancelled\n" in log.read_text()


def test_a_job_starts_only_after_the_success_of_another(queue: Path, hpcgender: Run) -> None:
    (queue / "closed").touch()
    hpcgender("launch", "--", "models")
    hpcgender("launch", "--after", "1", "--", "verify", "nowhere")
    hpcgender("launch", "--after", "2", "--", "models")
    (queue / "closed").unlink()
    comes_to(hpcgender, "1", state="done")
    comes_to(hpcgender, "2", state="failed")
    found = comes_to(hpcgender, "3", state="skipped")
    assert found["reason"] == "job 2 ended with exit code 2"
    refused = hpcgender("launch", "--after", "1,2", "--", "models")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith("hpcgender: --after 2: job 2 ")


def test_accounting_knows_of_a_job_that_was_killed(queue: Path, hpcgender: Run) -> None:
    hpcgender("launch", *LONG)
    comes_to(hpcgender, "1", state="running", attempt=1)
    os.killpg(json.loads((queue / "1" / "job.json").read_text())["process"], signal.SIGKILL)
    assert comes_to(hpcgender, "1", state="failed")["reason"] == "killed by 9"


def test_what_can_never_run_is_refused(queue: Path, hpcgender: Run) -> None:
    refused = hpcgender("launch", "--nodes", "4", "--after", "7", "--", "train")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith("hpcgender: the directory queue refuses train")
    assert refused.stderr.endswith(": it has 2 nodes\n")
    checked = hpcgender("sites", "check", "--nodes", "2")
    assert checked.stdout == "site site: the directory queue could run 2 x 1 core, 1 GPU: at any time\n"
    missing = hpcgender("jobs", "cancel", "7")
    assert (missing.returncode, missing.stdout) == (2, "")
    assert list(queue.iterdir()) == []


@pytest.mark.parametrize("scheduler", ["auto", "local"])
def test_any_word_reaches_the_command_as_it_is(
    scheduler: str, tmp_path: Path, queue: Path, hpcgender: Run, faces: Path
) -> None:
    out = tmp_path / f"out {WILD}"
    command = pack_wild_table(tmp_path, faces, out)
    refused = hpcgender("launch", "--scheduler", scheduler, "--job-name", WILD, "--", *command)
    assert (refused.returncode, refused.stdout, refused.stderr.count("\n")) == (2, "", 1)
    assert refused.stderr.startswith("hpcgender: --job-name ")
    done = hpcgender("launch", "--scheduler", scheduler, "--job-name", "pack+it", "--", *command)
    assert done.returncode == 0, done.stderr
    if scheduler == "auto":
        wait_for(lambda: json.loads((queue / "1" / "job.json").read_text())["state"] not in LIVE)
        found = json.loads((queue / "1" / "job.json").read_text())
        assert (found["name"], found["state"]) == ("pack_it", "done")
    check_wild_pack(tmp_path, out)


def test_a_job_runs_on_the_site_as_it_was_when_it_was_submitted(tmp_path: Path, queue: Path, hpcgender: Run) -> None:
    (queue / "closed").touch()
    (tmp_path / "site.toml").write_text('scheduler = "directory"\nlog_sync = "touch synced"\n')
    for _ in range(2):
        assert hpcgender("launch", "--", "models").returncode == 0
    (tmp_path / "site.toml").write_text("edited meanwhile")
    (queue / "closed").unlink()
    comes_to(hpcgender, "1", state="done")
    (tmp_path / "site.toml").unlink()
    comes_to(hpcgender, "2", state="done")
    wait_for((tmp_path / "synced").exists)


def test_a_job_that_a_person_submitted_goes_on_as_it_began(tmp_path: Path, queue: Path, hpcgender: Run) -> None:
    ended(queue, "5", name="by_hand", nodes=1)
    first = hpcgender("launch", "--", "models", DIRECTORY_JOB="5", DIRECTORY_RESTARTS="0")
    assert first.returncode == 0, first.stderr
    (tmp_path / "site.toml").write_text("edited meanwhile")
    again = hpcgender("launch", "--", "models", DIRECTORY_JOB="5", DIRECTORY_RESTARTS="1")
    assert again.returncode == 0, again.stderr
    assert listed(hpcgender, "5")["attempt"] == 2


def test_a_name_that_a_job_works_on_is_not_begun_again(
    tmp_path: Path, queue: Path, hpcgender: Run, shards: Path
) -> None:
    (queue / "closed").touch()
    train = ("--", "train", "--data", shards, "--name", "two")
    (tmp_path / "mine.toml").write_text("lr = 0.3\n")
    assert hpcgender("launch", *train, "--config", "mine.toml").returncode == 0
    for more in ((), ("--after", "1")):
        again = hpcgender("launch", *more, *train)
        assert (again.returncode, again.stdout) == (2, "")
        assert again.stderr == (
            "hpcgender: runs/two is being made by job 1, pending: give another name, or --resume to go on where that "
            "ends\n"
        )
    resumed = hpcgender("launch", *train, "--resume")
    assert resumed.stdout.startswith("job 2 ")
    assert resumed.stderr == (
        "launch: runs/two is being made by job 1, pending, and what begins meanwhile fails: --after 1 would wait for "
        "it\n"
    )
    spelled_out = {"--data", str(shards), "--lr", "0.3", "--name", "two"}
    assert set(listed(hpcgender, "1")["command"]) == {"train", *spelled_out}
    for job in ("1", "2"):
        hpcgender("jobs", "cancel", job)
    (tmp_path / "runs" / "two" / "metrics.jsonl").write_text('{"epoch": 50, "epochs": 50}\n')
    finished = hpcgender("launch", *train, "--resume")
    assert finished.stderr.startswith("launch: runs/two is finished: it has its 50 epochs; ")
    (tmp_path / "runs" / "two" / "checkpoints").mkdir()
    (tmp_path / "runs" / "two" / "checkpoints" / "step-00000001.pt").write_text("")
    late = hpcgender("launch", "--after", "3", *train)
    assert late.returncode == 2
    assert "runs/two holds a run already" in late.stderr
    assert hpcgender("jobs", "cancel", "3").returncode == 0


@pytest.mark.parametrize(
    ("words", "results", "says"),
    [
        (("train", "--data", "nowhere", "--name", "mine"), "runs/mine", "no manifest.json in nowhere"),
        (("train", "--epocs", "3"), "runs", "unknown option --epocs"),
        (("trian",), "runs", "unknown command 'trian': did you mean train?"),
    ],
)
def test_a_job_that_a_person_submitted_and_that_is_refused_is_known(
    words: tuple[str, ...], results: str, says: str, tmp_path: Path, queue: Path, hpcgender: Run
) -> None:
    ended(queue, "5", name="by_hand", nodes=1)
    refused = hpcgender("launch", "--", *words, DIRECTORY_JOB="5", DIRECTORY_RESTARTS="0")
    assert refused.returncode == 2
    assert says in refused.stderr
    assert len(list((tmp_path / results / "submissions").iterdir())) == 1
    assert says in listed(hpcgender, "5")["reason"]
    assert f"job 5 on the directory queue: failed\n  {says}" in hpcgender("jobs", "why", "5").stdout


def test_a_job_without_a_record_is_known_by_its_scheduler_and_its_log(
    tmp_path: Path, queue: Path, hpcgender: Run
) -> None:
    ended(queue, "6", name="by_hand", nodes=1)
    assert hpcgender("jobs", "why", "6").stdout.splitlines() == [
        "job 6 by_hand on the directory queue: failed",
        "  exit code 2",
        "  no record here: it ended before the launcher began, or belongs to another project",
        "  no log logs/*.o6",
    ]
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "by_hand.o7").write_text("/spool/job7: no python here: load a module\n")
    assert hpcgender("jobs", "why", "7").stdout.splitlines() == [
        "job 7: no scheduler here knows it any more",
        "  no record here: it ended before the launcher began, or belongs to another project",
        "  log: logs/by_hand.o7",
        "",
        "/spool/job7: no python here: load a module",
    ]
    assert hpcgender("jobs", "logs", "7").stdout == "/spool/job7: no python here: load a module\n"
    assert hpcgender("jobs", "why", "8").returncode == 2


def ended(queue: Path, job_id: str, **known: object) -> None:
    """A job that a person submitted, and that ended with exit code 2."""
    (queue / job_id).mkdir()
    content = {"state": "failed", "reason": "exit code 2", **known}
    (queue / job_id / "job.json").write_text(json.dumps(content))


def wait_for(found: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 300
    while not found():
        assert time.monotonic() < deadline
        time.sleep(0.1)
