"""What is read from the answers of a real Grid Engine 8.1.9, kept in `data`."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from jobs.command import SchedulerError
from jobs.sge import qstat, scheduler
from jobs.sge.advice import advise
from jobs.sge.reasons import closed_queues, parse_why
from tests.hpcgender.status_records import make_record
from tests.programs import put

DATA = Path(__file__).parent / "data"


def test_each_job_and_each_task_of_an_array_has_its_state() -> None:
    jobs = qstat.parse_qstat((DATA / "qstat.xml").read_text())
    assert {job_id: job.state for job_id, job in jobs.items()} == {
        **{"53": "RUNNING", "54.1": "RUNNING", "54.2": "RUNNING", "57": "RUNNING", "60": "SUSPENDED"},
        **{"61": "RUNNING", "62": "CANCELLING", "55": "PENDING", "56": "HELD", "58": "FAILED"},
        **{"59.1": "FAILED", "59.2": "FAILED", "59.3": "FAILED"},
        **{"54.3": "PENDING", "54.4": "PENDING", "54.5": "PENDING"},
    }
    assert (jobs["57"].name, jobs["57"].slots, jobs["57"].queue, jobs["57"].host) == ("wide", 4, "all.q", "node2")
    assert jobs["55"].host == ""


@pytest.mark.parametrize(
    ("letters", "state"),
    [("Rq", "REQUEUED"), ("hRwq", "HELD"), ("Rr", "RUNNING"), ("t", "RUNNING"), ("S", "SUSPENDED"), ("dEqw", "FAILED")],
)
def test_letters_mean_states(letters: str, state: str) -> None:
    assert qstat.live_state(letters) == state


def test_a_queue_without_jobs_is_no_error() -> None:
    assert qstat.parse_qstat("<?xml version='1.0'?>\n<job_info><queue_info/><job_info/></job_info>") == {}


def test_an_answer_that_is_cut_off_is_an_error() -> None:
    with pytest.raises(SchedulerError, match="not XML"):
        qstat.parse_qstat((DATA / "qstat.xml").read_text()[:-20])


def test_tasks_are_expanded() -> None:
    assert qstat.expand_tasks("1,3-9:2,20-21") == [1, 3, 5, 7, 9, 20, 21]


def test_reasons_are_told_of_errors_and_of_waiting() -> None:
    reasons = parse_why((DATA / "why.xml").read_text())
    assert reasons["58"] == ('error: can\'t open output file "/nonexistent/log": No such file or directory',)
    assert reasons["59.2"] == ('error: can\'t open output file "/nonexistent/2": No such file or directory',)
    assert '(-l gpu=50) cannot run at host "node1" because it offers only hc:gpu=2.000000' in reasons["55"]


def test_why_tasks_of_an_array_have_not_begun() -> None:
    """Of qsub -t 1-6 -tc 2."""
    (reason,) = parse_why((DATA / "array.xml").read_text())["1"]
    assert reason.startswith("as many tasks of its array run as may at once: the number after -tc of qsub")


def test_the_last_record_of_a_job_tells_how_it_ended() -> None:
    records = qstat.parse_qacct((DATA / "qacct.txt").read_text())
    assert {job_id: record.state for job_id, record in records.items()} == {
        **{"7": "COMPLETED", "8": "FAILED", "10.1": "FAILED", "10.2": "FAILED", "10.3": "FAILED"},
        **{"12": "CANCELLED", "13": "CANCELLED", "15": "FAILED", "16": "FAILED", "17": "TIMEOUT"},
    }
    assert records["8"].reason == "exit code 3"
    assert (records["15"].signal, records["15"].exit_code) == (signal.SIGKILL, 137)
    assert "opening input/output file" in records["10.1"].reason
    assert records["10.1"].start is None
    # 13 ran twice; 16 has records of its tasks on other hosts, too.
    assert records["13"].host == "node2"
    assert (records["16"].host, records["16"].slots) == ("node1", 4)
    assert records["16"].maxvmem == int(19.781 * 1024**2)


def test_a_part_of_a_job_that_is_accounted_for_first_is_not_the_job() -> None:
    """16 ran on two hosts: as where its part on the second has ended well, and its own record is not there yet."""
    blocks = (DATA / "qacct.txt").read_text().split("=" * 62)
    (first, *_) = (block for block in blocks if "jobnumber    16 " in block)
    ended = first.replace("failed       100 : assumedly after job", "failed       0").replace(
        "exit_status  129                  (Hangup)", "exit_status  95"
    )
    assert ended.count("exit_status  95") == 1
    assert qstat.parse_qacct(ended) == {}
    assert qstat.parse_qacct(ended.replace("granted_pe   mpi2", "granted_pe   NONE"))["16"].reason == "exit code 95"


def test_commands_that_are_missing_or_fail_or_hang_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(SchedulerError, match="there is no qnothing here"):
        qstat.call("qnothing")
    complaint = "echo 'error: commlib error' >&2\necho 'got select error' >&2"
    put(tmp_path, "qsomething", f"{complaint}\n[ $1 = 0 ] || exec sleep $1\nexit 1")
    with pytest.raises(SchedulerError, match=r"^qsomething: error: commlib error got select error$"):
        qstat.call("qsomething", "0")
    with pytest.raises(SchedulerError, match="no answer"):
        qstat.call("qsomething", "20", seconds=0.2)


def test_commands_are_found_where_a_job_has_them_not_on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SGE_ROOT", str(tmp_path))
    monkeypatch.setenv("SGE_ARCH", "lx-amd64")
    programs = tmp_path / "bin" / "lx-amd64"
    programs.mkdir(parents=True)
    put(programs, "qsomewhere", 'echo "there $1"')
    assert qstat.call("qsomewhere", "3") == "there 3\n"


def test_a_job_that_waits_is_told_which_queues_take_none() -> None:
    reasons = parse_why((DATA / "closed.xml").read_text())
    unavailable = "no job starts in gpu@node1, which is temporarily not available"
    assert reasons["9"] == (unavailable, "no job starts in gpu@node2, gpu@node3, which are disabled")  # asked for gpu
    assert "no job starts in all.q@node2, which is full" in reasons["11"]
    assert any("all.q@node3, which is overloaded: np_load_avg=" in line for line in reasons["11"])


def test_many_queues_are_one_line() -> None:
    messages = [f'queue instance "gpu@node{number}" dropped because it is full' for number in range(10, 110)]
    assert closed_queues(messages) == [
        "no job starts in gpu@node10, gpu@node100, gpu@node101, gpu@node102 and 96 more, which are full"
    ]
    assert "and 7 more" in closed_queues(messages, ["gpu@node10*"])[0]
    assert closed_queues(messages, ["all.q"]) == []


@pytest.fixture
def listed() -> dict[str, qstat.Job]:
    """Jobs of a real `qstat -xml -r`: 1 in Rt, 5 and 8 held by a person, 6 after 5, 7 both."""
    return qstat.parse_qstat((DATA / "held.xml").read_text())


def test_a_hold_names_only_jobs_that_have_not_ended_or_what_releases_it(listed: dict[str, qstat.Job]) -> None:
    later = qstat.parse_qstat((DATA / "held_after_end.xml").read_text())
    assert scheduler._of_qstat(listed["7"]).reason == "after 5"
    assert scheduler._of_qstat(later["7"]).reason == "on hold"  # 5 has ended
    assert advise(later["7"], away=False, reasons=True).startswith("qrls 7 ")
    assert advise(listed["6"], away=False, reasons=True) == ""


def test_a_job_that_is_not_handed_to_its_host_does_not_run(listed: dict[str, qstat.Job]) -> None:
    job = scheduler._of_qstat(listed["1"])
    assert (job.state, job.start, job.reason) == ("pending", None, "being handed to node3")
    assert "qmod -rj 1 " in advise(listed["1"], away=False, reasons=False)


def test_what_can_be_typed_about_a_job_that_has_begun() -> None:
    jobs = qstat.parse_qstat((DATA / "qstat.xml").read_text())
    lost = replace(jobs["53"], host="node1")
    assert advise(jobs["53"], away=False, reasons=False) == ""
    assert advise(lost, away=True, reasons=False).startswith("node1, where it runs, does not answer")
    assert "qdel -f 62 " in advise(jobs["62"], away=False, reasons=False)
    assert advise(jobs["60"], away=False, reasons=False)
    assert "qmod -cj 58 " in advise(jobs["58"], away=False, reasons=True)
    waits = replace(jobs["53"], state="PENDING", letters="qw", host="")
    assert advise(waits, away=False, reasons=False).startswith("no reason from Grid Engine: qstat -g c shows")
    assert advise(waits, away=False, reasons=True) == ""


def test_a_job_on_a_host_that_does_not_answer_is_told_what_to_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By what qstat and qhost print: the whole way from the job's id to the advice."""
    head = "HOSTNAME                ARCH         NCPU NSOC NCOR NTHR  LOAD  MEMTOT  MEMUSE  SWAPTO  SWAPUS\n"
    host = "                   lx-amd64        2    1    2    2     {}   23.5G       -     0.0       -\n"
    programs = {
        "qstat": f"/bin/cat {DATA / 'qstat.xml'}",
        "qhost": f"printf '%s' '{head}'\n"
        f"[ $2 = node2 ] && printf '%s' 'node2{host.format('-')}' || printf '%s' \"$2{host.format('8.51')}\"",
    }
    for name, script in programs.items():
        put(tmp_path, name, script)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    engine = scheduler.GridEngine()
    assert engine.advice("57", "", ()).startswith("node2, where it runs, does not answer Grid Engine: qmod -rj 57 ")
    assert engine.advice("61", "", ()) == ""  # node1 answers
    assert "qmod -cj 59 " in engine.advice("59", "", ("no such file",))  # of an array as it was printed
    assert engine.advice("55", "", ()).startswith("no reason from Grid Engine: ")
    assert engine.advice("55", "", ("it is next",)) == ""
    assert engine.advice("999", "", ()) == ""


def test_a_job_that_left_no_trace_was_deleted_before_it_started(tmp_path: Path) -> None:
    engine, log = scheduler.GridEngine(), tmp_path / "x.o12"
    submission = make_record(tmp_path / "mine", "12", "sge", [])
    state, reason = engine.without_trace(replace(submission, log=str(log)))
    assert (state, reason) == ("cancelled", "deleted before it started, as by qdel")
    log.touch()
    assert engine.without_trace(replace(submission, log=str(log)))[0] == "unknown"
