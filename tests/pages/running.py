"""Commands and programs of a page, as they stand there, on fewer and smaller faces."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.conftest import Run
from tests.pages.commands import commands, parts

SMALLER = {
    **{"--count": "300", "--size": "48", "--image-size": "32", "--epochs": "1", "--batch-size": "32"},
    **{"--corrupt": "contrast", "--step": "2"},
}
"""Options whose values are smaller here."""
MODULES = {"hpcgender": "hpcgender", "shard-tools": "shard_tools"}


def steps(page: Path) -> list[list[str]]:
    """Our own commands in the blocks of a page, with smaller values; not those behind the launcher."""
    return [
        [SMALLER.get(before, word) for before, word in zip(("", *words), words, strict=False)]
        for words in (command.words for command in commands(page) if command.whole)
        if words[0] in MODULES
    ]


def carry_out(run: Run, step: list[str], directory: Path) -> None:
    """Runs a command in a directory; it must succeed."""
    done = run(MODULES[step[0]], *step[1:], cwd=directory)
    assert done.returncode == 0, f"{' '.join(step)}: {done.stdout}{done.stderr}"


def run_programs(page: Path, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs the Python programs of a page in a directory."""
    monkeypatch.chdir(directory)
    for part in parts(page):
        if part.language == "python":
            exec("\n".join(part.lines), {})


def missing(made: Iterable[str], directory: Path) -> list[str]:
    """Which of these files are not there."""
    return [name for name in made if not (directory / name).is_file()]
