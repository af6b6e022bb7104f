"""A command on another host: what a shell there makes of it, and what comes back."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.hosts.supervisor import FIRST_LOST, KILLED, REPORTED, Exit, Supervisor
from jobs.scheduler import Host
from jobs.schedulers import SCHEDULERS
from jobs.sge import qrsh, requeue
from tests.programs import cat, put

ROOT = Path(__file__).parents[3]


def there(*argv: str, directory: Path) -> "subprocess.Popen[str]":
    """The command as the shell on the other host runs it, which leads a session."""
    command = qrsh.on_host("node2", argv, str(directory))
    assert command[:4] == ("qrsh", "-inherit", "-V", "node2")
    return subprocess.Popen(
        ["bash", "-c", command[4]],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_a_command_is_quoted_for_the_shell_and_runs_in_the_directory(tmp_path: Path) -> None:
    directory = tmp_path / "a 'b' $(touch harm)"
    directory.mkdir()
    with there("pwd", directory=directory) as process:
        assert process.communicate(timeout=20)[0] == f"{directory}\n"
    words = ("it's", "$HOME", "a  b", "")
    with there("printf", "%s\\n", *words, directory=directory) as process:
        assert process.communicate(timeout=20)[0].splitlines() == list(words)


def test_gpus_of_the_first_host_are_not_carried_to_others(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """qrsh's -V carries all that this process starts it with."""
    put(tmp_path, "qrsh", 'env >"$SEEN"')
    for name, value in {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SEEN": str(tmp_path / "seen")}.items():
        monkeypatch.setenv(name, value)
    for name in ("CUDA_VISIBLE_DEVICES", "SGE_HGR_gpu_card"):
        monkeypatch.setenv(name, "2,3")
    for asked, carried in (({}, []), ({"CUDA_VISIBLE_DEVICES": ""}, ["CUDA_VISIBLE_DEVICES="])):
        node = SCHEDULERS["sge"].node_on(Host("node2", 4), 1, ("true",), "/", {"OMP_NUM_THREADS": "3", **asked})
        with Supervisor([node], str(tmp_path)) as hosts:
            while hosts.wait():
                pass
        seen = (tmp_path / "seen").read_text().splitlines()
        assert "OMP_NUM_THREADS=3" in seen
        assert [line for line in seen if line.startswith(("CUDA_", "SGE_HGR"))] == carried


@pytest.mark.parametrize(
    ("command", "meaning"),
    [
        ("exit 0", Exit(0)),
        ("exit 1", Exit(1)),
        ("exit 97", Exit(97)),
        ("exit 99", Exit(99)),
        ("kill -9 $$", Exit(KILLED)),
    ],
)
def test_an_exit_code_comes_back_as_it_was(command: str, meaning: Exit, tmp_path: Path) -> None:
    with there("bash", "-c", command, directory=tmp_path) as process:
        code = process.wait(20)
    assert code not in (0, 99)
    assert code < 128
    assert qrsh.read_exit(code) == meaning


def test_qrsh_itself_may_lose_the_host_or_the_job() -> None:
    assert qrsh.read_exit(0) == Exit(KILLED, unreachable=True)
    assert qrsh.read_exit(137) == Exit(137, deletes_job=True)


def test_the_shell_outlives_the_signals_that_grid_engine_sends_to_all(tmp_path: Path) -> None:
    program = "import signal, sys; [signal.signal(n, lambda *_: print(n, flush=True)) for n in (1, 10, 12)]"
    program += "; print('up', flush=True); sys.stdin.read()"
    with there(sys.executable, "-c", program, directory=tmp_path) as process:
        assert process.stdout
        assert process.stdout.readline() == "up\n"
        for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
            os.killpg(process.pid, number)
            assert process.stdout.readline()
        assert process.stdin
        process.stdin.close()
        assert qrsh.read_exit(process.wait(20)) == Exit(0)


QSTAT = """\
job_number:                 7
hard resource_list:         gpu=1,h_rt=3000
hard_queue_list:            gpu
parallel environment:  mpi1 range: 2
"""
"""Lines of qstat -j 7."""


@pytest.fixture
def job_of_two_hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The environment of a job, with programs that note how they are called in the file that is returned."""
    calls = tmp_path / "calls"
    for name in ("qsub", "qalter", "qmod"):
        refuses = f"if [ {name} = qsub ] && [ -e {tmp_path}/full ]; then echo 'no suitable queues' >&2; exit 1; fi"
        put(tmp_path, name, f'{refuses}\necho "{name} $*" >> {calls}')
    put(tmp_path, "qstat", cat(QSTAT))
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("JOB_ID", "7")
    monkeypatch.setenv("SGE_TASK_ID", "undefined")
    return calls


def test_a_job_that_loses_its_first_host_is_started_on_others(job_of_two_hosts: Path, tmp_path: Path) -> None:
    """By the shell on its second host, once what runs there has ended of it."""
    command = qrsh.on_host("node2", ("sh", "-c", f"exit {FIRST_LOST}"), str(ROOT), ("node1", "node2"))
    assert subprocess.run(["bash", "-c", command[4]], check=False, timeout=60).returncode == FIRST_LOST
    wanted = "gpu=1,h_rt=3000,hostname=(!node1&!node2)"
    assert job_of_two_hosts.read_text().splitlines() == [
        f"qsub -w v -b y -pe mpi1 2 -l {wanted} -q gpu true",
        f"qalter -l {wanted} 7",
        "qmod -rj 7",
    ]


def test_a_job_stays_as_it_is_where_there_are_no_other_hosts(job_of_two_hosts: Path, tmp_path: Path) -> None:
    (tmp_path / "full").touch()
    assert requeue.leave_hosts(["node1", "node2"]) == "qsub: no suitable queues"
    array = {"JOB_ID": "7", "SGE_TASK_ID": "3"}
    assert requeue.leave_hosts(["node1"], array) == "the tasks of an array share what they ask for"
    assert not job_of_two_hosts.exists()


def test_another_end_than_by_the_loss_of_the_first_host_starts_nothing(job_of_two_hosts: Path) -> None:
    command = qrsh.on_host("node2", ("sh", "-c", f"exit {REPORTED}"), "/", ("node1", "node2"))
    assert subprocess.run(["bash", "-c", command[4]], check=False, timeout=60).returncode == REPORTED
    assert not job_of_two_hosts.exists()


@pytest.mark.parametrize(
    ("resources", "without"),
    [
        ("hostname=*", "hostname=(!node1&!node2)"),
        ("hostname=node*,gpu=1", "gpu=1,hostname=(node*)&(!node1&!node2)"),
        ("gpu=1,hostname=!node9", "gpu=1,hostname=(!node9)&(!node1&!node2)"),
    ],
)
def test_hosts_that_were_asked_for_are_still_asked_for(resources: str, without: str) -> None:
    assert requeue.without(resources, ["node1", "node2"]) == without
    assert requeue.without(without, ["node3"]) == without.replace("!node1&!node2", "!node3")  # lost again
    assert sorted(requeue.anywhere(without).split(",")) == sorted(resources.split(","))
    assert requeue.anywhere(resources) == resources


@pytest.mark.parametrize("left", [True, False])
def test_hosts_that_were_left_are_used_again_after_the_next_requeue(
    left: bool, job_of_two_hosts: Path, tmp_path: Path
) -> None:
    put(tmp_path, "qconf", "echo 'load_report_time             00:00:10'")
    if left:
        put(tmp_path, "qstat", "echo 'hard resource_list:         gpu=1,hostname=(!node1&!node2)'")
    assert requeue.put_back() == ""
    delayed, *rest = job_of_two_hosts.read_text().splitlines()
    assert re.fullmatch(r"qalter -a \d{12}\.\d\d 7", delayed)
    assert rest == [*["qalter -l gpu=1 7"] * left, "qmod -rj 7"]
