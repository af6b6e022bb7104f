"""The network between two hosts fails while they train: for a moment, which costs nothing, or for good."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import REPOSITORY, Run
from tests.faults import two_hosts
from tests.faults.processes import Running
from tests.faults.scenarios import OFTEN, TINY, trained

EPOCHS = 4


@pytest.fixture(scope="module")
def hosts() -> Iterator[tuple[str, str]]:
    with ExitStack() as stack:
        try:
            names = stack.enter_context(two_hosts.cabled())
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("two networks with a cable between them can be made by root, with the program ip")
        yield names


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory, run: Run) -> Path:
    """A data set of 100 drawn faces."""
    out = tmp_path_factory.mktemp("few") / "data"
    drawn = ("pack", "synthetic", "--count", 100, "--size", 40, "--seed", 3, "--val", 0.2, "--test", 0)
    packed = run("shard_tools", *drawn, "--out", out, "--workers", 1)
    assert packed.returncode == 0, packed.stderr
    return out


def launch(cwd: Path, data: Path, hosts: tuple[str, str]) -> Running:
    """Starts a training on both hosts; the next one resumes it."""
    (cwd / "site.toml").write_text('scheduler = "two"\n')
    train = ("train", "--data", str(data), *TINY, *OFTEN, "--epochs", str(EPOCHS))
    words = ("-m", "tests.faults.two_hosts", "hpcgender", "launch", "--nodes", "2", "--", *train)
    environ = {two_hosts.NAMES: " ".join(hosts), "GLOO_SOCKET_IFNAME": two_hosts.CABLE, "OMP_NUM_THREADS": "1"}
    log = cwd.parent / f"{cwd.name}.log"
    with log.open("ab") as file:
        process = subprocess.Popen(
            [*two_hosts.on(hosts[0]), sys.executable, *words], cwd=cwd, stdin=subprocess.DEVNULL, stdout=file,
            stderr=file, start_new_session=True, env={**os.environ, "PYTHONPATH": str(REPOSITORY), **environ},
        )  # fmt: skip
    return Running(words, cwd, process.pid, log, process)


def await_step(running: Running) -> None:
    """Waits until a checkpoint is there."""
    while running.poll() is None and not [*running.cwd.glob("runs/train/checkpoints/step-*.pt")]:
        time.sleep(0.05)
    assert running.poll() is None, running.text


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, few: Path, hosts: tuple[str, str]) -> Any:
    cwd = tmp_path_factory.mktemp("undisturbed") / "work"
    cwd.mkdir()
    running = launch(cwd, few, hosts)
    assert running.ended() == 0, running.text
    return trained(cwd)


def test_a_cable_that_is_out_for_seconds_costs_nothing(
    tmp_path: Path, few: Path, hosts: tuple[str, str], undisturbed: Any
) -> None:
    (tmp_path / "work").mkdir()
    running = launch(tmp_path / "work", few, hosts)
    await_step(running)
    two_hosts.plug(hosts[0], "down")
    time.sleep(4)
    two_hosts.plug(hosts[0], "up")
    assert running.ended() == 0, running.text
    assert trained(tmp_path / "work") == undisturbed


@pytest.mark.parametrize("side", [0, 1])
def test_a_cable_that_stays_out_ends_the_attempt_and_the_next_one_resumes(
    side: int, tmp_path: Path, few: Path, hosts: tuple[str, str], undisturbed: Any
) -> None:
    (tmp_path / "work").mkdir()
    running = launch(tmp_path / "work", few, hosts)
    await_step(running)
    two_hosts.plug(hosts[side], "down")
    try:
        code = running.ended()
    finally:
        two_hosts.plug(hosts[side], "up")
    assert (code, f"launch: {two_hosts.ADDRESSES[1]} was lost\n" in running.text) == (99, True), running.text
    again = launch(tmp_path / "work", few, hosts)
    assert again.ended() == 0, again.text
    assert "resuming runs/train" in again.text
    assert trained(tmp_path / "work") == undisturbed
