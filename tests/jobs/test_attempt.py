"""One attempt of a job: the hosts that it uses, and what it says of its requeue."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hpcgender.commands import PROGRAMS
from hpcgender.commands.launch import LaunchConfig
from hpcgender.launch import SUBMITTED, attempt
from hpcgender.launch import record as launch_record
from hpcgender.launch.agents import Layout, make_layout
from hpcgender.launch.record import Submitted
from hpcgender.launch.submit import to_pass_on
from jobs.hosts.supervisor import End
from jobs.nodes import Outcome
from jobs.records import Resources, read_events
from jobs.scheduler import Request
from jobs.schedulers import find_allocation
from jobs.sites import read_site
from jobs.stopping import StopRequests
from shard_tools.base.commands import find_call
from tests.hpcgender.status_records import make_record
from tests.programs import put


def test_of_three_granted_hosts_those_are_used_that_were_asked_for(
    tmp_path: Path, shards: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a parallel environment of Grid Engine grants them whose allocation_rule is $round_robin."""
    monkeypatch.chdir(tmp_path)
    words = ("train", "--data", str(shards), "--batch-size", "16", "--name", "mine")
    call = find_call(PROGRAMS, words)
    record = call.results / "submissions" / "20260101T000000-12"  # which the submission has not written yet
    (tmp_path / "pe").write_text("".join(f"node{number} 1 all.q@node{number} UNDEFINED\n" for number in (1, 2, 3)))
    environ = {"PE_HOSTFILE": str(tmp_path / "pe"), "JOB_ID": "12", "HPCGENDER_DEVICE": "cpu", "PATH": "/nowhere"}
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    granted = find_allocation(environ)
    assert len(granted.hosts) == 3
    ran: list[Layout] = []

    def run_layout(layout: Layout, requests: StopRequests) -> Outcome:  # else agents would start on these hosts
        ran.append(layout)
        return Outcome(ends=(End(host="node1", code=0, torn_down=False),), stopped_by=None)

    monkeypatch.setattr(attempt, "run_layout", run_layout)
    site = read_site("sge")
    request = Request(name="train", site=site, resources=Resources(nodes=2))
    monkeypatch.setenv(SUBMITTED, to_pass_on(call, request, "20260101T000000"))
    submitted = launch_record.read_passed_on()
    assert submitted == Submitted(record=str(record.absolute()).removesuffix("-12"), site=site, nodes=2)
    assert attempt.run(LaunchConfig(), call, read_site("sge"), granted, submitted) == 0
    assert [host.name for host in ran[0].allocation.hosts] == ["node1", "node2"]
    assert capsys.readouterr().err == "launch: 2 nodes were asked for, 3 granted: without node3\n"
    begin, end = read_events(record)
    assert (begin["hosts"], end["code"]) == (["node1", "node2"], 0)


def test_a_job_that_an_earlier_version_has_submitted_finds_its_record(monkeypatch: pytest.MonkeyPatch) -> None:
    site = read_site("sge")
    monkeypatch.setenv(
        SUBMITTED, json.dumps({"record": "/runs/mine/submissions/20260101T000000", "site": site.plain()})
    )
    assert launch_record.read_passed_on() == Submitted(
        record="/runs/mine/submissions/20260101T000000", site=site, nodes=0
    )


@pytest.mark.parametrize("fails", [False, True])
def test_a_requeue_is_recorded_before_it_is_asked_for_and_said_once_it_is_granted(
    fails: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    call = find_call(PROGRAMS, ("train", "--name", "mine"))
    record = make_record(call.results, "7", "slurm").directory
    ends = "echo 'Requested operation is presently disabled' >&2; exit 1" if fails else "exit 0"
    noted = f'echo "$*" > {tmp_path}/asked\n/bin/cat {record}/attempts.jsonl > {tmp_path}/by_then'
    put(tmp_path, "scontrol", f"{noted}\n{ends}")
    monkeypatch.setenv("PATH", str(tmp_path))
    environ = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "node1"}
    layout = make_layout(LaunchConfig(), call, read_site("slurm"), find_allocation(environ), environ)
    code = attempt.Attempt(call, layout, record).requeue("SIGTERM", None)
    assert (tmp_path / "asked").read_text() == "requeue 7\n"
    assert '"requeued": true' in (tmp_path / "by_then").read_text()  # Slurm may end this process before it can
    said = capsys.readouterr().err
    last = read_events(record)[-1]
    if fails:
        because = "scontrol requeue 7: scontrol: Requested operation is presently disabled"
        assert (code, said) == (1, f"launch: not requeued: {because}\n")
        assert (last["requeued"], last["because"]) == (False, because)
    else:
        assert (code, said, last["requeued"]) == (99, "launch: requeued\n", True)
