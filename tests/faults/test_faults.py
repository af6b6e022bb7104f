"""The campaign in short: a few faults. `python -m tests.faults` tries hundreds, with several processes, too."""

from __future__ import annotations

import re

from tests.conftest import REPOSITORY, Run


def test_a_few_faults_are_survived(run: Run) -> None:
    done = run("tests.faults", "--light", "--faults", 8, "--minutes", 4, "--seed", 2, cwd=REPOSITORY)
    assert done.returncode == 0, done.stdout + done.stderr
    (found,) = re.findall(r"^all +(\d+) +(\d+) +(\d+)$", done.stdout, re.MULTILINE)
    tried, survived, lost = map(int, found)
    assert tried == survived > 0 == lost
