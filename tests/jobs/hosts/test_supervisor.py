"""A supervisor and the processes of its hosts: real ones here, with real pipes, connections and signals."""

import contextlib
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.hosts import presence, processes, supervisor
from jobs.hosts.supervisor import KILLED, End, Exit, Listener, Node, Supervisor

ROOT = Path(__file__).parents[3]

PROGRAM = """
import signal, subprocess, sys
from pathlib import Path
from jobs.hosts import processes

mode, directory, supervisor = sys.argv[1:]
line = processes.Lifeline(stdin=True, supervisor=supervisor)
child = subprocess.Popen(["sleep", "600"], start_new_session=True)
Path(directory, f"child-{child.pid}").touch()
if mode == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
while (numbers := line.read(None)) is not None:
    Path(directory, f"got-{list(numbers)}").touch()
while mode == "deaf":
    signal.pause()
processes.end([child.pid], 5)
sys.exit(7)
"""


EARLIER: set[int] = set()
"""The children that other tests have left this process, such as that of which commands are forked."""


@pytest.fixture(autouse=True)
def earlier() -> None:
    EARLIER.clear()
    EARLIER.update(processes.children())


def started_here() -> list[int]:
    """The children that this process has since the test began."""
    return [pid for pid in processes.children() if pid not in EARLIER]


def program(mode: str, directory: Path, address: str = "") -> Node:
    return Node(host=mode, argv=(sys.executable, "-c", PROGRAM, mode, str(directory), address))


def wait_until(hosts: Supervisor, look: Callable[[], object], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not look():
        assert time.monotonic() < deadline
        hosts.wait()


def wait_for_end(hosts: Supervisor) -> list[End]:
    wait_until(hosts, lambda: not hosts.wait())
    return hosts.ends


def files(directory: Path, prefix: str) -> list[str]:
    return [path.name.removeprefix(prefix) for path in directory.glob(f"{prefix}*")]


def is_running(pid: str) -> bool:
    return Path(f"/proc/{pid}/exe").exists()


def test_signals_are_handed_on_and_the_end_of_the_line_ends_the_processes(tmp_path: Path) -> None:
    with Supervisor([program("one", tmp_path), program("two", tmp_path)], str(ROOT)) as hosts:
        wait_until(hosts, lambda: len(files(tmp_path, "child-")) == 2)
        children = files(tmp_path, "child-")
        hosts.send(signal.SIGUSR2)
        wait_until(hosts, lambda: files(tmp_path, "got-"))
        assert files(tmp_path, "got-") == ["[12]"]
        hosts.end()
        ends = wait_for_end(hosts)
    assert sorted((end.host, end.code, end.torn_down, end.forced) for end in ends) == [
        ("one", 7, True, False),
        ("two", 7, True, False),
    ]
    assert not any(map(is_running, children))


def test_what_does_not_end_is_killed_with_all_that_it_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "END_SECONDS", 0.5)
    with Supervisor([program("deaf", tmp_path)], str(ROOT)) as hosts:
        wait_until(hosts, lambda: files(tmp_path, "child-"))
        hosts.end()
        (end,) = wait_for_end(hosts)
        assert (end.code, end.forced, end.lost) == (-9, True, False)
        wait_until(hosts, lambda: not any(map(is_running, files(tmp_path, "child-"))), 5)


def test_leaving_ends_all(tmp_path: Path) -> None:
    with Supervisor([program("one", tmp_path)], str(ROOT)) as hosts:
        wait_until(hosts, lambda: files(tmp_path, "child-"))
    assert hosts.ends == []
    assert not any(map(is_running, files(tmp_path, "child-")))
    assert started_here() == []


def test_what_cannot_be_started_leaves_nothing(tmp_path: Path) -> None:
    nodes = [program("one", tmp_path), Node(host="two", argv=("no-such-program",))]
    with pytest.raises(FileNotFoundError, match="no-such-program"), Supervisor(nodes, str(ROOT)):
        pass
    assert started_here() == []


def test_each_node_has_its_environment_and_its_exit_codes_are_read() -> None:
    node = Node(
        host="one",
        argv=("sh", "-c", "exit $CODE"),
        environ={"CODE": "5"},
        read_exit=lambda code: Exit(KILLED, unreachable=code == 5, deletes_job=True),
    )
    with Supervisor([node], str(ROOT)) as hosts:
        (end,) = wait_for_end(hosts)
    assert end == End(host="one", code=KILLED, torn_down=False, unreachable=True, deletes_job=True)
    assert end.lost


@pytest.fixture
def hosts_answer(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether hosts answer, one time after the other, at intervals of moments; the last stays."""
    said: list[bool] = []
    monkeypatch.setattr(presence, "_SECONDS", 0.05)
    for module in (presence, supervisor):
        monkeypatch.setattr(module, "is_silent", lambda _host: not (said.pop(0) if len(said) > 1 else said[0]))
    return said


def test_a_host_whose_connection_ends_is_lost_although_its_process_here_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "GRACE_SECONDS", 0.2)
    # What srun and qrsh are for a host that is lost: they do not end.
    with Listener("127.0.0.1") as listener:
        stays = Node(host="one", argv=("sleep", "600"))
        with Supervisor([stays, program("two", tmp_path, listener.address(1))], str(ROOT), listener) as hosts:
            wait_until(hosts, lambda: hosts.silent == ["one"])
            with connect(listener, 0):
                wait_until(hosts, lambda: not hosts.silent)
                assert hosts.ends == []
            wait_until(hosts, lambda: hosts.ends)
            (end,) = hosts.ends
            assert (end.host, end.unreachable, end.lost) == ("one", True, True)


def test_a_failure_because_another_host_was_started_again_is_the_loss_of_that_host(hosts_answer: list[bool]) -> None:
    hosts_answer += [True]
    with Listener("127.0.0.1") as listener:
        stays, fails = Node(host="one", argv=("sleep", "600")), Node(host="two", argv=("sh", "-c", "read _; exit 7"))
        with Supervisor([stays, fails], str(ROOT), listener) as hosts:
            connection = connect(listener, 0)
            wait_until(hosts, lambda: hosts.silent == ["two"])
            hosts.send(ord("\n"))
            wait_until(hosts, lambda: hosts.ends)
            hosts.end()
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            connection.close()  # with a reset, which is the answer of a host that was started again
            ends = wait_for_end(hosts)
    assert [(end.host, end.code, end.unreachable, end.forced) for end in ends] == [
        ("two", 7, False, False),
        ("one", -9, True, False),
    ]


def test_a_failure_is_its_own_where_the_other_hosts_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "END_SECONDS", 0.5)
    with Listener("127.0.0.1") as listener:
        # As of a host in good order, whose srun or qrsh has ended before what it started there.
        nodes = [Node(host="one", argv=("sh", "-c", "exit 7")), program("deaf", tmp_path, listener.address(1))]
        with connect(listener, 0), Supervisor(nodes, str(ROOT), listener) as hosts:
            wait_until(hosts, lambda: hosts.ends and files(tmp_path, "child-") and listener.known == {0, 1})
            hosts.end()
            ends = wait_for_end(hosts)
    assert [(end.host, end.code, end.unreachable, end.lost) for end in ends] == [
        ("one", 7, False, False),
        ("deaf", -9, False, False),
    ]


def test_a_host_that_is_lost_before_its_process_connects_is_noticed(hosts_answer: list[bool]) -> None:
    hosts_answer += [True, True, False]
    nodes = [Node(host="one", argv=("sleep", "600")), Node(host="two", argv=("sleep", "600"))]
    with Listener("127.0.0.1") as listener, Supervisor(nodes, str(ROOT), listener) as hosts:
        wait_until(hosts, lambda: hosts.ends)
        (end,) = hosts.ends
    assert (end.host, end.unreachable, end.lost) == ("two", True, True)


@pytest.mark.parametrize(("answer", "code", "lost"), [(False, 233, True), (True, 233, False), (False, 97, False)])
def test_a_host_on_which_nothing_starts_is_lost_if_it_does_not_answer(
    answer: bool, code: int, lost: bool, hosts_answer: list[bool]
) -> None:
    hosts_answer += [answer]
    nodes = [Node(host="one", argv=("sleep", "600")), Node(host="two", argv=("sh", "-c", f"exit {code}"))]
    with Listener("127.0.0.1") as listener, Supervisor(nodes, str(ROOT), listener) as hosts:
        wait_until(hosts, lambda: hosts.ends)
        (end,) = hosts.ends
    assert (end.host, end.code, end.unreachable) == ("two", code, lost)


@pytest.mark.parametrize("code", [0, 127])
def test_a_host_behind_a_firewall_is_not_lost(hosts_answer: list[bool], code: int) -> None:
    hosts_answer += [False]
    ends = ("sh", "-c", f"sleep 1; exit {code}")
    nodes = [Node(host="one", argv=("sleep", "600")), Node(host="two", argv=ends)]
    with Listener("127.0.0.1") as listener, Supervisor(nodes, str(ROOT), listener) as hosts:
        wait_until(hosts, lambda: hosts.ends)
        (end,) = hosts.ends
    assert (end.code, end.unreachable) == (code, False)


def test_a_host_that_is_there_answers() -> None:
    assert not presence.is_silent("127.0.0.1")
    assert not presence.is_silent("no-such-host.invalid")  # nothing is known of it


def test_one_address_of_several_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    answering = {"one": True, "two": False}
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (name, 9)) for name in answering]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: found)
    monkeypatch.setattr(presence, "answers", lambda family, address: answering[address[0]])
    assert not presence.is_silent("host")
    found.pop(0)
    assert presence.is_silent("host")


def test_a_host_that_is_not_there_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence, "_SECONDS", 0.2)
    full = socket.create_server(("127.0.0.1", 0), backlog=0)
    with full, contextlib.ExitStack() as stack:  # what is beyond the backlog gets no answer
        for _ in range(2):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        assert presence.is_silent("127.0.0.1", full.getsockname()[1])


def connect(listener: Listener, index: int) -> socket.socket:
    host, _, port = listener.address(index).partition("@")[2].partition(":")
    connection = socket.create_connection((host, int(port)))
    connection.sendall(f"{index}\n".encode())
    return connection


def test_a_stranger_is_no_node() -> None:
    with Listener("localhost") as listener:
        port = int(listener.address(0).rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port)) as stranger:
            stranger.settimeout(10)
            stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
            deadline = time.monotonic() + 10
            while listener.lost(0.0) or not closed(stranger):
                assert time.monotonic() < deadline
        assert listener.known == set()
        assert listener.lost(1000.0) == set()


def closed(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return connection.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


def test_the_supervisors_end_is_its_lifelines_and_the_loss_of_its_host_the_connections() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        line = lifeline(f"3@127.0.0.1:{server.getsockname()[1]}")
        connection, _ = server.accept()
        assert connection.recv(64) == b"3\n"
        connection.close()
        assert line.read(0.5) == b""  # closed: the supervisor has ended, and so does the lifeline
        line = lifeline(f"3@127.0.0.1:{server.getsockname()[1]}")
        connection, _ = server.accept()
        assert connection.recv(64) == b"3\n"
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        connection.close()  # with a reset, as a host answers that was started again
        assert line.read(10) is None


def test_a_firewall_does_not_matter() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert lifeline(f"3@127.0.0.1:{port}").read(0.5) == b""


def test_a_supervisor_that_was_killed_is_not_taken_for_a_lost_host() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        line = lifeline(f"3@127.0.0.1:{server.getsockname()[1]}")
        connection, _ = server.accept()
        with connection:
            assert connection.recv(16) == b"3\n"
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # its end is a reset
    assert line.read(30) is None
    assert not line.lost.is_set()


def lifeline(address: str) -> processes.Lifeline:
    return processes.Lifeline(stdin=False, supervisor=address)


def test_time_in_which_the_job_was_suspended_does_not_count() -> None:
    with Supervisor([Node(host="one", argv=("sleep", "600"))], str(ROOT)) as hosts:
        hosts.wait()
        before = hosts.clock
        hosts._looked -= 3600  # it was stopped for an hour
        hosts.wait()
        assert hosts.clock - before <= 1


def test_a_killed_process_leaves_nothing(tmp_path: Path) -> None:
    with Supervisor([program("one", tmp_path)], str(ROOT)) as hosts:
        wait_until(hosts, lambda: files(tmp_path, "child-"))
        (child,) = files(tmp_path, "child-")
        (pid,) = started_here()
        os.kill(pid, signal.SIGKILL)
        (end,) = wait_for_end(hosts)
        assert end.lost
        assert not is_running(child)


def test_it_needs_the_standard_library_alone() -> None:
    program = """
import sys
before = set(sys.modules)
import jobs.hosts.processes, jobs.hosts.supervisor
names = {name.split(".")[0] for name in set(sys.modules) - before}
print(names - set(sys.stdlib_module_names) - {"jobs"}, [name for name in sys.modules if name[:5] == "jobs."])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert (
        done.stdout == "set() ['jobs.hosts', 'jobs.hosts.processes', 'jobs.hosts.presence', 'jobs.hosts.supervisor']\n"
    )
