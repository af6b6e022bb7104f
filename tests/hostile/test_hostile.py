"""The campaign in short: a few inputs of every kind. `python -m tests.hostile` tries thousands."""

from __future__ import annotations

import re

from tests.conftest import REPOSITORY, Run
from tests.hostile.__main__ import KINDS

SEED = 20


def test_a_few_inputs_of_every_kind_are_right_or_refused(run: Run) -> None:
    done = run("tests.hostile", "--inputs", 78, "--minutes", 4, "--seed", SEED, cwd=REPOSITORY)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = dict(re.findall(r"^(.+?) {2,}(\d.*) s +\d+ MB$", done.stdout, re.MULTILINE))
    counts = {kind: list(map(int, row.split()[:4])) for kind, row in rows.items()}
    assert counts.keys() == KINDS.keys()
    assert all(inputs == right + refused > 0 and not crashed for inputs, right, refused, crashed in counts.values())
