"""The campaign in short: a few faults, one of them of two ranks. `python -m tests.faults` tries hundreds."""

from __future__ import annotations

import re

from tests.conftest import REPOSITORY, Run


def test_a_few_faults_are_survived(run: Run) -> None:
    count = ("--light", "--faults", 6, "--launched", 1, "--minutes", 3)
    done = run("tests.faults", *count, "--seed", 2, cwd=REPOSITORY)
    assert done.returncode == 0, done.stdout + done.stderr
    (found,) = re.findall(r"^all +(\d+) +(\d+) +(\d+) +(\d+)$", done.stdout, re.MULTILINE)
    tried, hit, survived, lost = map(int, found)
    assert tried >= hit == survived > 0 == lost, done.stdout
    assert "\ntrain, 2 ranks " in done.stdout
