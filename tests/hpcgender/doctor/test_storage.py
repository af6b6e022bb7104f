"""Checks of `hpcgender doctor`, and the failures of each: scratch space, results and logs."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from hpcgender.doctor import storage


def test_scratch_space_that_is_missing_small_or_slow_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "SLOW_SCRATCH", 0.0)
    assert storage.scratch(tmp_path, needed=1, size=1 << 20).state == "green"
    assert storage.scratch(tmp_path, needed=1e18, size=1 << 20).state == "yellow"
    assert storage.scratch(tmp_path / "none").state == "red"
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(storage, "SLOW_SCRATCH", 1e15)
    assert storage.scratch(tmp_path, needed=1, size=1 << 20).state == "yellow"


def test_a_place_for_results_that_fails_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    assert storage.results(tmp_path / "file" / "runs").state == "red"
    assert storage.judge_results(tmp_path, free=10**9, ahead=0.0).state == "yellow"
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + 120)
    found = storage.results(tmp_path / "runs")
    assert found.state == "yellow"
    assert "120 s behind" in found.found
    assert list((tmp_path / "runs").iterdir()) == []


def test_a_log_that_other_nodes_see_late_or_never_is_told(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("one\ntwo\n")
    seen = storage.wait_for_text(tmp_path / "log", "two")
    assert storage.judge_log({"node2": seen}).state == "green"
    assert storage.judge_log({"node2": 9.0}).state == "yellow"
    found = storage.judge_log({"node2": seen, "node3": storage.wait_for_text(tmp_path / "log", "three", 0.2)})
    assert (found.state, found.found[:6]) == ("red", "node3:")
    assert storage.wait_for_text(tmp_path / "none", "one", 0.2) is None
