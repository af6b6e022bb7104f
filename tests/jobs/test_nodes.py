"""Several local nodes: real agents and ranks, started, failing, asked to stop, and all gone afterwards."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from jobs.hosts.supervisor import End, Node
from jobs.machine import candidate_ports, ephemeral_range, port_is_free
from jobs.nodes import Outcome, agent_command, run_nodes
from jobs.scheduler import Host
from jobs.schedulers import LOCAL, SCHEDULERS
from jobs.sge import qrsh, qstat
from jobs.stopping import TIME_LIMIT, Limit, StopRequests
from shard_tools.base.errors import REQUEUE

ROOT = Path(__file__).parents[2]

LAUNCHER = """
import sys
from tests.jobs.test_nodes import run_locally
sys.exit(run_locally(*sys.argv[1:]).code)
"""


def run_locally(*arguments: str, limit: Limit | None = None) -> Outcome:
    """Runs the tests' program on two local nodes of one process each."""
    job_id = str(os.getpid())
    port = next(filter(port_is_free, candidate_ports(job_id, ephemeral_range())))
    nodes = []
    for rank in range(2):
        command = agent_command(
            nodes=2, node_rank=rank, procs_per_node=1, address="127.0.0.1", port=port, job_id=job_id
        )
        command = (*command, "-m", "tests.jobs.program", *arguments)
        nodes.append(LOCAL.node_on(Host("here", 1), rank, command, str(ROOT), {"OMP_NUM_THREADS": "3"}))
    with StopRequests() as requests:
        if limit:
            requests.watch(limit)
        return run_nodes(nodes, str(ROOT), requests)


def start_launcher(directory: Path) -> "tuple[subprocess.Popen[str], list[int]]":
    """A launcher in a process of its own, and the pids of its ranks, which are waiting."""
    launcher = subprocess.Popen(
        [sys.executable, "-c", LAUNCHER, "wait", str(directory)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 300
    while len(list(directory.iterdir())) < 2 and launcher.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    return launcher, [int(path.name) for path in directory.iterdir()]


def family(pid: int) -> list[int]:
    """All running descendants of a process."""
    pairs = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            parent = stat.read_text().rpartition(")")[2].split()[1]
            pairs.append((int(stat.parent.name), int(parent)))
    found, new = [], [pid]
    while new:
        new = [child for child, parent in pairs if parent in new]
        found += new
    return found


def gone(pids: list[int], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while any(Path(f"/proc/{pid}/exe").exists() for pid in pids):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def test_two_nodes_compute_together_and_only_rank_0_speaks(capfd: pytest.CaptureFixture[str]) -> None:
    outcome = run_locally("sum")
    assert (outcome.code, outcome.silent, outcome.stopped_by) == (0, None, None)
    assert capfd.readouterr() == ("sum 3 of 2, 3 threads\n", "")


def test_a_failing_node_ends_the_other_and_its_code_counts(capfd: pytest.CaptureFixture[str]) -> None:
    started = time.monotonic()
    outcome = run_locally("exit", "1", "2")
    assert time.monotonic() - started < 40  # the other rank sleeps for 60 s
    assert (outcome.code, outcome.silent) == (2, None)
    assert capfd.readouterr() == ("", "program: no such data\n")


def test_a_crash_on_another_node_shows_its_traceback_once(capfd: pytest.CaptureFixture[str]) -> None:
    outcome = run_locally("crash", "1")
    _, err = capfd.readouterr()
    assert outcome.code == 1
    assert err.count("RuntimeError: the marked crash") == 1
    assert err.count("rank 1 failed: exit code 1") == 1
    assert "ChildFailedError" not in err


def test_term_asks_ranks_to_stop_and_leaves_nothing(tmp_path: Path) -> None:
    launcher, ranks = start_launcher(tmp_path)
    with launcher:
        everyone = family(launcher.pid)
        assert set(ranks) < set(everyone)
        launcher.send_signal(signal.SIGTERM)
        out, err = launcher.communicate(timeout=30)
        assert (launcher.returncode, out, err) == (99, "", "")
        assert gone(everyone, 0)


@pytest.mark.parametrize(("seconds", "reason"), [(70, TIME_LIMIT), (1000, None)])
def test_ranks_that_slurm_has_warned_first_were_stopped_by_the_limit(seconds: float, reason: str | None) -> None:
    end = time.time() + seconds
    outcome = run_locally("exit", "0", "99", limit=Limit(lambda: end, margin=10))
    assert (outcome.code, outcome.stopped_by) == (99, reason)


def test_a_killed_launcher_leaves_nothing(tmp_path: Path) -> None:
    launcher, _ = start_launcher(tmp_path)
    with launcher:
        everyone = family(launcher.pid)
        launcher.kill()
        launcher.communicate(timeout=30)
        assert gone(everyone, 20)


def test_a_killed_agent_takes_its_ranks_along(tmp_path: Path) -> None:
    launcher, ranks = start_launcher(tmp_path)
    with launcher:
        everyone = family(launcher.pid)
        agent = int(Path(f"/proc/{ranks[0]}/stat").read_text().rpartition(")")[2].split()[1])
        os.kill(agent, signal.SIGKILL)
        launcher.communicate(timeout=30)
        assert launcher.returncode == 1  # not the 99 of the other node's rank, which was ended
        assert gone(everyone, 0)


def ends(*codes: int) -> tuple[End, ...]:
    return tuple(End(host=f"node{number}", code=code, torn_down=number > 0) for number, code in enumerate(codes))


@pytest.mark.parametrize(
    ("codes", "code"),
    [
        ((0, 0), 0),
        ((97, 0), 1),
        ((97, 2), 2),
        ((97, 99), 1),
        ((99, 97), 99),
        ((99, 2), 2),
        ((-9, 97), 1),
        ((98, 97), 98),
        ((137,), 1),
    ],
)
def test_the_most_telling_code_counts(codes: tuple[int, ...], code: int) -> None:
    assert Outcome(ends=ends(*codes), stopped_by=None).code == code


def test_after_a_request_to_stop_99_counts() -> None:
    assert Outcome(ends=ends(97, 99), stopped_by="SIGTERM").code == 99


@pytest.mark.parametrize(("codes", "silent"), [((0, 0), False), ((97, -9), False), ((1, 97), True), ((-9, 97), True)])
def test_an_agent_that_could_not_speak_is_noticed(codes: tuple[int, ...], silent: bool) -> None:
    assert (Outcome(ends=ends(*codes), stopped_by=None).silent is not None) == silent


def test_a_node_that_was_killed_is_lost_unless_its_launcher_killed_it() -> None:
    killed, ended = (End(host="node2", code=137, torn_down=True, forced=forced) for forced in (False, True))
    failed = End(host="node1", code=97, torn_down=False)
    assert Outcome(ends=(failed, killed), stopped_by=None).lost == killed
    assert Outcome(ends=(failed, ended), stopped_by=None).lost is None
    gone = replace(ended, unreachable=True)
    assert Outcome(ends=(failed, gone), stopped_by=None).lost == gone


@pytest.mark.parametrize("how", ["kill -USR1 $$", "exit 138"])  # here, and as srun tells it
def test_a_request_to_stop_that_an_agent_could_not_hear_yet_is_one(how: str) -> None:
    nodes = [Node(host="node1", argv=("sh", "-c", how)), Node(host="node2", argv=("cat",))]
    with StopRequests() as requests:
        outcome = run_nodes(nodes, str(ROOT), requests)
    assert outcome.code == REQUEUE


def test_slurm_starts_one_task_on_the_named_host() -> None:
    command = SCHEDULERS["slurm"].node_on(Host("node2", 4), 1, ("python", "-m", "jobs.agent"), "/home/a b", {}).argv
    assert command[0] == "srun"
    assert command[-3:] == ("python", "-m", "jobs.agent")
    assert {"--nodes=1", "--ntasks=1", "--nodelist=node2", "--cpus-per-task=4", "--chdir=/home/a b"} < set(command)


def test_grid_engine_reaches_its_other_hosts_by_qrsh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pe").write_text("".join(f"node{number} 4 all.q@node{number} UNDEFINED\n" for number in (1, 2, 3)))
    monkeypatch.setenv("PE_HOSTFILE", str(tmp_path / "pe"))
    scheduler = SCHEDULERS["sge"]
    program = ("python", "-m", "jobs.agent", "--name", "it's a run")
    assert scheduler.node_on(Host("node1", 8), 0, program, "/home/a b", {}).argv == program
    node = scheduler.node_on(Host("node2", 4), 1, program, "/home/a b", {})
    assert node.argv == qrsh.on_host("node2", program, "/home/a b", ("node1", "node2", "node3"))
    third = scheduler.node_on(Host("node3", 4), 2, program, "/home/a b", {})
    assert third.argv == qrsh.on_host("node3", program, "/home/a b")
    assert node.read_exit == qrsh.read_exit


def test_what_the_plugin_calls_requeue_is_the_exit_code_of_all_commands() -> None:
    assert qstat.REQUEUE == REQUEUE
