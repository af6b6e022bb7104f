"""The campaign in short: a few inputs of every kind. `python -m tests.hostile` tries thousands."""

from __future__ import annotations

import mmap
import re
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY, Run
from tests.hostile import __main__ as program
from tests.hostile import workers
from tests.hostile.__main__ import KINDS
from tests.hostile.base import Base

SEED = 20


def test_a_few_inputs_of_every_kind_are_right_or_refused(run: Run) -> None:
    done = run("tests.hostile", "--inputs", 84, "--minutes", 4, "--seed", SEED, cwd=REPOSITORY)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = dict(re.findall(r"^(.+?) {2,}(\d.*) s +\d+ MB$", done.stdout, re.MULTILINE))
    counts = {kind: list(map(int, row.split()[:4])) for kind, row in rows.items()}
    assert counts.keys() == KINDS.keys()
    assert all(inputs == right + refused > 0 and not crashed for inputs, right, refused, crashed in counts.values())


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_repeated_input_has_the_bounds_of_the_campaign(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for directory in ("work", "canary"):
        (tmp_path / directory).mkdir()

    def large(*_: object) -> dict[str, int]:
        with mmap.mmap(-1, 8 << 20) as fresh:  # not memory that this process has had and freed
            for page in range(0, len(fresh), mmap.PAGESIZE):
                fresh[page] = 1
        return {"right": 1}

    monkeypatch.setattr(program, "LIBRARIES", ())
    monkeypatch.setattr(program, "made", lambda _: Base(tmp_path))
    monkeypatch.setattr(workers, "MEMORY", 1 << 20)
    for kind, attempt in {"slow": lambda *_: time.sleep(60), "large": large}.items():
        monkeypatch.setitem(program.KINDS, kind, attempt)
    for words, seconds, message in (
        ("slow/3", 2.0, "it took more than 2 s"),
        ("large/4", workers.SECONDS, r"it took \d+ MB of memory, more than 1"),
    ):
        monkeypatch.setattr(workers, "SECONDS", seconds)
        monkeypatch.setattr(workers, "PATIENCE", 1)
        monkeypatch.setattr(sys, "argv", ["hostile", "--repeat", words])
        assert program.main() == 1
        assert re.search(message, capfd.readouterr().out)
