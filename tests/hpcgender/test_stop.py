from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
import torch

from hpcgender.distributed import Ranks
from hpcgender.stop import StopSignal, job_age
from shard_tools.base.contracts import STARTED

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT)
ALONE = Ranks(0, 1, torch.device("cpu"))


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_stops_one_process_at_the_next_step(number: signal.Signals) -> None:
    with StopSignal() as stop:
        assert stop.requested(ALONE) is None
        signal.raise_signal(number)
        assert stop.requested(ALONE) == stop.reason == number.name
        assert stop.requested(ALONE) == number.name


def test_the_handlers_from_before_are_back_afterwards() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    with StopSignal():
        assert all(signal.getsignal(number) != handler for number, handler in zip(SIGNALS, before, strict=True))
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_a_second_interrupt_interrupts(capfd: pytest.CaptureFixture[str]) -> None:
    with StopSignal() as stop:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        assert stop.requested(ALONE) == "SIGINT"
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert capfd.readouterr().err == "hpcgender: stopping after this step; interrupt again to stop immediately\n"


def test_the_time_limit_counts_from_the_jobs_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(STARTED, str(time.time() - 7200))
    assert StopSignal(stop_after=119.5).requested(ALONE) == "--stop-after 119.5"
    assert StopSignal(stop_after=240).requested(ALONE) is None
    assert StopSignal().requested(ALONE) is None


def test_without_a_launcher_it_counts_from_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(STARTED, raising=False)
    program = "import time; begin = time.time(); from hpcgender.stop import job_age; print(begin, job_age())"
    before = time.time()
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    begin, age = map(float, output.split())
    assert begin - before - 0.02 < age < time.time() - before + 0.02  # ticks are of 0.01 s
    assert job_age() > age


def test_batches_end_where_a_stop_is_requested() -> None:
    closed = []

    def batches() -> Generator[int]:
        try:
            yield from range(4)
        finally:
            closed.append(True)

    with StopSignal() as stop:
        assert list(stop.until_requested(batches(), 4, ALONE)) == [0, 1, 2, 3]
        assert list(stop.until_requested(batches(), 5, ALONE)) == [0, 1, 2, 3]
        seen = []
        for batch in stop.until_requested(batches(), 4, ALONE):
            seen.append(batch)
            if batch == 1:
                signal.raise_signal(signal.SIGUSR1)
        assert seen == [0, 1]
        assert list(stop.until_requested(batches(), 4, ALONE)) == []
    assert closed == [True] * 3  # the last was never begun


def start(directory: Path, *rounds: str) -> subprocess.Popen[str]:
    program = ("--nproc-per-node=2", "-m", "tests.hpcgender.stopped_ranks", str(directory), *rounds)
    return subprocess.Popen(
        [sys.executable, "-m", "jobs.agent", *program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def ends(directory: Path, number: int) -> list[dict[str, Any]]:
    return [json.loads((directory / f"{number}-{rank}.json").read_text()) for rank in (0, 1)]


def test_a_signal_to_one_rank_stops_both_at_one_step(tmp_path: Path) -> None:
    rounds = ((0, "SIGTERM"), (1, "SIGUSR1"), (1, "SIGUSR2"), (0, "SIGINT"))
    with start(tmp_path, "train", "validate", "train", "validate") as agent:
        for number, (rank, name) in enumerate(rounds):
            pid = tmp_path / f"{number}-{rank}.pid"
            while not pid.exists() and agent.poll() is None:
                time.sleep(0.01)
            os.kill(int(pid.read_text()), signal.Signals[name])
        out, err = agent.communicate()
    assert (agent.returncode, out) == (99, ""), err
    assert err == "hpcgender: stopping after this step; interrupt again to stop immediately\n"
    for number, (_, name) in enumerate(rounds):
        first, second = ends(tmp_path, number)
        assert first["reason"] == second["reason"] == name
        assert first["epochs"] == second["epochs"]
        # In validation rank 1 has 4 batches an epoch where rank 0 has 5.
        assert first["steps"] - second["steps"] == (first["epochs"] - 1) * (number in (1, 3))


def test_a_time_limit_on_one_rank_stops_both_and_without_one_none(tmp_path: Path) -> None:
    with start(tmp_path, "late", "finish") as agent:
        out, err = agent.communicate()
    assert (agent.returncode, out, err) == (0, "", "")
    first, second = ends(tmp_path, 0)
    assert first == second == {"epochs": 1, "steps": 1, "reason": "--stop-after 600"}
    assert ends(tmp_path, 1) == [{"epochs": 3, "steps": 15, "reason": None}] * 2
