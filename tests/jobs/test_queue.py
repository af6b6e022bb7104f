from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest

from jobs import command
from jobs.command import SchedulerError
from jobs.requeue import still_to_succeed
from jobs.scheduler import Job
from jobs.schedulers import SCHEDULERS
from jobs.slurm import answers
from shard_tools.base.errors import UserError
from tests.hpcgender.status_records import make_record
from tests.programs import cat, put

SLURM, GRID_ENGINE = SCHEDULERS["slurm"], SCHEDULERS["sge"]

# Slurm 22.05's own words: squeue -h -r -t all -u 5000 -o '%i|%T|%L|%S|%N|%r|%j'
SQUEUE = """\
6|CANCELLED|5:00|N/A||DependencyNeverSatisfied|depbad
11|CANCELLED|5:00|2026-11-22T22:49:53||Priority|victim
5_1|PENDING|5:00|2026-11-22T23:04:50||Priority|arr
5_2|PENDING|5:00|2026-11-22T23:04:50||Priority|arr
5_5|COMPLETED|0:00|2026-11-22T23:05:08|node2|None|arr
2|FAILED|5:00|2026-11-22T22:55:08|node1|NonZeroExitCode|fail3
4|PENDING|5:00|N/A||DependencyNeverSatisfied|dep
8|PENDING|5:00|N/A||PartitionNodeLimit|big
3|PENDING|5:00|N/A||JobHeldUser|held
10|RUNNING|4:57|2026-11-22T22:49:50|node[1-2]|None|run ning|a
1|TIMEOUT|INVALID|2026-11-22T22:49:50|node[1-2]|TimeLimit|long
"""

# sacct -X -n -P -o JobID,State,ExitCode,NodeList,Reason,Start,JobName
SACCT = """\
2|FAILED|3:0|node1|NonZeroExitCode|2026-11-22T22:55:08|fail3
11|CANCELLED by 5000|0:0|None assigned|None|None|victim
5_3|TIMEOUT|0:15|node1|TimeLimit|2026-11-22T22:49:50|arr
4|PENDING|0:0|None assigned|Dependency|Unknown|dep
23|FAILED|0:9|node1|NonZeroExitCode|2026-11-22T22:49:50|wrap
"""
# Of scripts that ended with 9, with 137 because their command was killed, with 128 and with 200
SACCT_CODES = """\
31|FAILED|9:0|node1|None|2026-11-22T22:49:50|e9
32|FAILED|9:0|node1|None|2026-11-22T22:49:50|e137
33|FAILED|0:0|node1|None|2026-11-22T22:49:50|e128
34|FAILED|72:0|node1|None|2026-11-22T22:49:50|e200
"""

SCONTROL = (
    "JobId=4 JobName=dep UserId=rig(5000) JobState=PENDING Reason=Dependency Dependency=afterok:1(unfulfilled) "
    "Requeue=1 Restarts=0 ExitCode=0:0 RunTime=00:00:00 TimeLimit=00:05:00 StartTime=Unknown EndTime=Unknown"
)
# scontrol -o show job 1_2, of a script with arguments in a directory with a blank in its name, and with other values
TASK = (
    "JobId=1 ArrayJobId=1 ArrayTaskId=2 JobName=my script.sh Account=(null) QOS=long JobState=SUSPENDED Reason=None "
    "Dependency=(null) Requeue=1 Restarts=0 BatchFlag=1 Reboot=0 ExitCode=0:0 RunTime=00:00:01 TimeLimit=00:05:00 "
    "Partition=debug AllocNode:Sid=head:0 ReqNodeList=(null) ExcNodeList=node9 NodeList=node1 BatchHost=node1 "
    "NumNodes=1 MinCPUsNode=2 MinMemoryNode=1000M MinTmpDiskNode=0 Features=ib Command={place}/a b/my script.sh 4 x y "
    "WorkDir={place} StdOut={place}/slurm-1_2.out Power= TresPerNode=gres:gpu:a100:1 "
)
INTERACTIVE = (
    "JobId=18 JobName=interactive JobState=RUNNING Reason=None Requeue=1 Restarts=0 BatchFlag=0 Reboot=0 ExitCode=0:0 "
    "Partition=debug Command=(null) WorkDir=/home/me Power="
)
ENDED = (
    "JobId=1 JobName=run ning|a UserId=rig(5000) JobState=TIMEOUT Reason=TimeLimit Dependency=(null) ExitCode=0:15 "
    "RunTime=00:05:18 TimeLimit=00:05:00 StartTime=2026-11-22T22:49:50 EndTime=2026-11-22T22:55:08"
)


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of programs that answer as the scheduler's did; they alone are found."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def test_squeue_tells_states_reasons_and_time_left() -> None:
    found = answers.parse_squeue(SQUEUE)
    assert {job_id: (job.state, job.reason) for job_id, job in found.items()} == {
        "6": ("cancelled", "DependencyNeverSatisfied"),
        "11": ("cancelled", ""),
        "5_1": ("pending", "Priority"),
        "5_2": ("pending", "Priority"),
        "5_5": ("done", ""),
        "2": ("failed", "NonZeroExitCode"),
        "4": ("pending", "DependencyNeverSatisfied"),
        "8": ("pending", "PartitionNodeLimit"),
        "3": ("held", "JobHeldUser"),
        "10": ("running", ""),
        "1": ("timeout", "time limit"),
    }
    started = datetime(2026, 11, 22, 22, 49, 50).timestamp()
    assert found["10"] == Job(
        job_id="10", state="running", name="run ning|a", hosts="node[1-2]", start=started, left=297.0
    )


def test_sacct_tells_how_jobs_ended() -> None:
    found = answers.parse_sacct(SACCT)
    assert {job_id: (job.state, job.reason, job.hosts) for job_id, job in found.items()} == {
        "2": ("failed", "exit code 3", "node1"),
        "11": ("cancelled", "", ""),
        "5_3": ("timeout", "time limit", "node1"),
        "4": ("pending", "Dependency", ""),
        "23": ("failed", "killed by SIGKILL (often: out of memory)", "node1"),
    }
    started = {"2": datetime(2026, 11, 22, 22, 55, 8), "5_3": datetime(2026, 11, 22, 22, 49, 50)}
    starts = {job_id: job.start for job_id, job in found.items() if job_id != "23"}
    assert starts == {"11": None, "4": None} | {job_id: time.timestamp() for job_id, time in started.items()}


def test_a_shell_whose_command_was_killed_names_the_signal() -> None:
    """Of an exit code above 127 scontrol tells all, and sacct what is above 128."""
    failed = SCONTROL.replace("PENDING", "FAILED").replace("ExitCode=0:0", "ExitCode=137:0")
    assert answers.parse_scontrol(failed) == ("killed by SIGKILL (often: out of memory)",)
    found = {job_id: job.reason for job_id, job in answers.parse_sacct(SACCT_CODES).items()}
    both = "exit code 9, or killed by SIGKILL (often: out of memory): sacct has both as 9"
    assert found == {"31": both, "32": both, "33": "exit code 128", "34": "exit code 72"}


@pytest.mark.parametrize(
    ("word", "state", "reason"),
    [
        ("OUT_OF_MEMORY", "failed", "out of memory"),
        ("NODE_FAIL", "failed", "node lost"),
        ("PREEMPTED", "failed", "preempted"),
        ("COMPLETING", "stopping", "None"),
        ("REQUEUE_HOLD", "held", "launch failed requeued held"),
        ("CONFIGURING", "pending", "None"),
    ],
)
def test_rarer_states_of_slurm(word: str, state: str, reason: str) -> None:
    said = reason if state == "held" else "None"
    assert answers.read_state(word, said) == (state, reason if reason != "None" else "")


def test_scontrol_tells_what_squeue_does_not() -> None:
    assert answers.parse_scontrol(SCONTROL) == ("depends on afterok:1(unfulfilled)",)
    assert answers.parse_scontrol(ENDED) == ("its time limit was 00:05:00",)
    failed = SCONTROL.replace("PENDING", "FAILED")
    assert answers.parse_scontrol(failed.replace("ExitCode=0:0", "ExitCode=0:9")) == (
        "killed by SIGKILL (often: out of memory)",
    )
    (no_log,) = answers.parse_scontrol(failed.replace("ExitCode=0:0", "ExitCode=0:53"))
    assert no_log.startswith("its log could not be opened: make the directory that --output names")


def test_holds_end_with_their_jobs() -> None:
    held = answers.parse_squeue(
        "12_3|PENDING|10:00|N/A||JobHeldUser|x\n12_1|FAILED|10:00|N/A||JobHeldUser|x\n12_2|SUSPENDED|10:00|N/A||JobHeldUser|x\n"
    )
    found = [(job.state, job.reason) for job in held.values()]
    assert found == [("held", "JobHeldUser"), ("failed", ""), ("suspended", "")]
    assert "scontrol release 12_3 " in answers.meaning("12_3", "JobHeldUser")


def test_what_is_said_of_a_job_that_neither_waits_nor_works() -> None:
    (suspended,) = answers.parse_scontrol(TASK)
    assert "its processes are stopped" in suspended
    assert "scontrol resume 1_2" in suspended
    (stopping,) = answers.parse_scontrol(TASK.replace("SUSPENDED", "COMPLETING"))
    assert "its processes are being ended" in stopping
    assert answers.parse_scontrol(TASK.replace("SUSPENDED", "RUNNING")) == ()


def test_a_job_of_slurm_tells_how_it_was_submitted(tmp_path: Path, commands: Path) -> None:
    (tmp_path / "a b").mkdir()
    script = tmp_path / "a b" / "my script.sh"
    script.touch()
    put(commands, "scontrol", cat(TASK.format(place=tmp_path)))
    environ = {
        "SLURM_JOB_ID": "1",
        "SLURM_JOB_NODELIST": "node1",
        "SLURM_ARRAY_JOB_ID": "1",
        "SLURM_ARRAY_TASK_ID": "2",
    }
    allocation = SLURM.allocation(environ)
    assert allocation
    assert allocation.job_id == "1_2"  # all that scancel takes
    assert SLURM.submitted(allocation, environ)[0] == str(script)
    assert SLURM.asked_for(allocation, environ) == {
        **{"queue": "debug", "qos": "long", "gpu": "a100", "memory_gb": 1000 / 1024},
        "options": ("--constraint=ib", "--exclude=node9"),
    }
    per_core = TASK.replace("MinMemoryNode=1000M", "MinMemoryCPU=2G").replace("NumNodes=1", "NumNodes=2 NumCPUs=16")
    put(commands, "scontrol", cat(per_core))
    assert SLURM.asked_for(allocation, environ)["memory_gb"] == 16
    part = TASK.replace("MinMemoryNode=1000M", "MinMemoryNode=0").replace("gpu:a100:1", "gpu:nvidia_a100_1g.5gb:1")
    put(commands, "scontrol", cat(part))
    asked = SLURM.asked_for(allocation, environ)
    assert (asked["gpu"], asked["memory_gb"]) == ("nvidia_a100_1g.5gb", 0)
    assert asked["options"] == ("--constraint=ib", "--exclude=node9", "--mem=0")
    for kind in ("1g.10gb:2", "1g.10gb"):
        assert answers.asked_for(f"JobId=1 TresPerNode=gres:gpu:{kind}")["gpu"] == "1g.10gb"
    assert "gpu" not in answers.asked_for("JobId=1 TresPerNode=gres:gpu:2")
    assert SLURM.cannot_requeue(allocation) == ""
    put(commands, "scontrol", f"echo '{INTERACTIVE}'")
    assert SLURM.cannot_requeue(allocation) == "Slurm requeues no job of salloc"


def test_only_what_succeeded_or_may_succeed_is_waited_for(tmp_path: Path, commands: Path) -> None:
    put(commands, "squeue", "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1")
    put(commands, "sacct", "echo 'Slurm accounting storage is disabled' >&2; exit 1")
    runs = tmp_path / "runs"
    for job_id, code in (("1", 0), ("2", 3)):
        events = ({"event": "start", "attempt": 1}, {"event": "end", "code": code, "attempt": 1})
        make_record(runs / f"run{job_id}", job_id, events=events)
    assert still_to_succeed(SLURM, ["1"], [runs]) == ()
    with pytest.raises(
        UserError, match=r"^--after 2: job 2 ended with exit code 3, so that nothing will start after it$"
    ):
        still_to_succeed(SLURM, ["1", "2"], [runs])
    with pytest.raises(
        UserError, match=r"^--after 9: Slurm has no job 9 in its queue or accounting, and no record says"
    ):
        still_to_succeed(SLURM, ["9"], [runs])
    put(commands, "sacct", f"echo '{SACCT.splitlines()[-1]}'")  # slurmctld has forgotten it, accounting has not
    with pytest.raises(
        UserError,
        match=r"^--after 23: job 23 is failed \(killed by SIGKILL \(often: out of memory\)\), so that nothing",
    ):
        still_to_succeed(SLURM, ["23"], [runs])
    put(commands, "squeue", "echo '10|RUNNING|4:57|2026-11-22T22:49:50|node[1-2]|None|a'")
    assert still_to_succeed(SLURM, ["10"], [runs]) == ("10",)
    put(commands, "squeue", cat(SQUEUE.splitlines()[0]))
    with pytest.raises(UserError, match=r"^--after 6: job 6 is cancelled"):
        still_to_succeed(SLURM, ["6"], [runs])


def test_slurm_without_accounting_has_nothing_to_say_of_ended_jobs(commands: Path) -> None:
    put(commands, "sacct", "echo 'Slurm accounting storage is disabled' >&2; exit 1")
    assert SLURM.ended(["2"], 0.0) == {}


def test_accounting_is_asked_about_all_jobs_at_once(commands: Path) -> None:
    put(commands, "sacct", f'echo "$@" >> {commands}/asked\n{cat(SACCT)}')
    found = SLURM.ended(["2", "11", "5_3", "4"], 0.0)
    assert found["5_3"].state == "timeout"
    assert "4" not in found  # it has not ended
    assert (commands / "asked").read_text().endswith("-j 2,11,5_3,4\n")
    assert SLURM.ended([], 0.0) == {}
    assert (commands / "asked").read_text().count("\n") == 1


def test_a_scheduler_that_does_not_answer_is_told_in_one_line(commands: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SchedulerError, match=r"^there is no squeue here: log in to a machine of the cluster$"):
        SLURM.query()
    put(commands, "squeue", "printf 'squeue: error: cannot contact controller\\nmore\\n' >&2; exit 1")
    with pytest.raises(SchedulerError, match=r"^squeue: error: cannot contact controller more$"):
        SLURM.query()
    monkeypatch.setattr(command, "LIMIT_SECONDS", 1.0)
    put(commands, "squeue", "exec /bin/sleep 60")
    with pytest.raises(SchedulerError, match=r"^squeue gave no answer in 1 s: the scheduler seems to be down$"):
        SLURM.query()


QSTAT = """<?xml version='1.0'?>
<job_info><queue_info><job_list state="running"><JB_job_number>1</JB_job_number><JAT_prio>0.75000</JAT_prio>
<JB_name>running</JB_name><JB_owner>rig</JB_owner><state>r</state><JAT_start_time>2026-11-22T22:49:56</JAT_start_time>
<queue_name>all.q@node1</queue_name><slots>16</slots></job_list></queue_info>
<job_info><job_list state="pending"><JB_job_number>6</JB_job_number><JAT_prio>0.25000</JAT_prio><JB_name>eqw</JB_name>
<JB_owner>rig</JB_owner><state>Eqw</state><JB_submission_time>2026-11-22T22:49:56</JB_submission_time>
<queue_name></queue_name><slots>1</slots></job_list>
<job_list state="pending"><JB_job_number>5</JB_job_number><JAT_prio>0.25000</JAT_prio><JB_name>arr</JB_name>
<JB_owner>rig</JB_owner><state>hqw</state><JB_submission_time>2026-11-22T22:49:56</JB_submission_time>
<queue_name></queue_name><slots>1</slots><tasks>1-2:1</tasks></job_list></job_info></job_info>
"""
DETAILS = """<?xml version='1.0'?>
<detailed_job_info><djob_info><element><JB_job_number>6</JB_job_number><JB_ja_tasks><ulong_sublist>
<JAT_task_number>1</JAT_task_number><JAT_message_list><ulong_sublist>
<QIM_message>11/22/2026 22:56:38 [5000:466]: error: can't open output file "/no/dir"</QIM_message>
</ulong_sublist></JAT_message_list></ulong_sublist></JB_ja_tasks></element></djob_info></detailed_job_info>
"""
QACCT = """\
==============================================================
qname        all.q
hostname     node1
owner        rig
jobname      hrt
jobnumber    8
taskid       undefined
start_time   Sun Nov 22 22:54:50 2026
end_time     Sun Nov 22 22:54:56 2026
slots        1
failed       37  : qmaster enforced h_rt, h_cpu, or h_vmem limit
exit_status  137                  (Killed)
maxvmem      1.797MB
"""


def test_grid_engine_in_the_same_words(commands: Path) -> None:
    put(
        commands,
        "qstat",
        f'case "$*" in *-j*) {cat(DETAILS)} ;; *) {cat(QSTAT)} ;; esac',
    )
    put(commands, "qacct", cat(QACCT))
    found = GRID_ENGINE.query()
    assert {job_id: job.state for job_id, job in found.items()} == {
        "1": "running",
        "6": "error",
        "5.1": "held",
        "5.2": "held",
    }
    assert found["6"].reason == 'Eqw: error: can\'t open output file "/no/dir"'
    assert (found["1"].hosts, found["1"].start) == ("node1", datetime(2026, 11, 22, 22, 49, 56).timestamp())
    (ended,) = GRID_ENGINE.ended(["8", "9"], 0.0).values()
    assert (ended.job_id, ended.state, ended.hosts) == ("8", "timeout", "node1")
    assert ended.max_memory == int(1.797 * 1024**2)
    assert GRID_ENGINE.details("6") == ('error: can\'t open output file "/no/dir"',)


def test_cancelling_what_is_not_there(commands: Path) -> None:
    put(commands, "qdel", 'echo "denied: job \\"$1\\" does not exist"; exit 1')
    with pytest.raises(SchedulerError, match=r'^qdel: denied: job "99" does not exist$'):
        GRID_ENGINE.cancel("99")
