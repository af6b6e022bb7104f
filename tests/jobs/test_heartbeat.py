"""A launcher and agents that hold a connection."""

import socket
import time

import pytest

from jobs import heartbeat
from jobs.heartbeat import Listener, watch_launcher


def lost_after(listener: Listener, seconds: float) -> set[int]:
    deadline = time.monotonic() + seconds
    found: set[int] = set()
    while time.monotonic() < deadline and not found:
        found = listener.lost()
        time.sleep(0.01)
    return found


def test_an_agent_that_ended_is_told_when_its_launcher_should_have_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "GRACE_SECONDS", 0.0)
    listener = Listener()
    with socket.create_connection(("127.0.0.1", listener.port)) as agent:
        agent.sendall(b"1\n")
        assert lost_after(listener, 0.3) == set()
    assert lost_after(listener, 10) == {1}
    listener.close()


def test_a_stranger_is_nobody() -> None:
    listener = Listener()
    with socket.create_connection(("127.0.0.1", listener.port)) as stranger:
        stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert lost_after(listener, 0.2) == set()
    assert lost_after(listener, 0.2) == set()
    listener.close()


def test_an_agent_outlives_a_launcher_that_ends_and_one_that_never_was() -> None:
    lost: list[int] = []
    listener = Listener()
    address = f"localhost:{listener.port}"
    watch_launcher(address, 1, lambda: lost.append(1))
    assert lost_after(listener, 0.2) == set()
    listener.close()
    watch_launcher(address, 1, lambda: lost.append(1))
    time.sleep(0.2)
    assert lost == []
