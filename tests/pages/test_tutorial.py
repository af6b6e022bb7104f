"""The tutorial, command by command as it stands there, on fewer and smaller faces and for one epoch."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import Run
from tests.pages.commands import ROOT, commands, parts

PAGE = ROOT / "docs" / "tutorial.md"
SMALLER = {"--count": "300", "--size": "48", "--image-size": "32", "--epochs": "1", "--batch-size": "32"}
"""Options whose values are smaller here."""
MADE = (
    *("faces.png", "compare.png", "groups.pdf", "report.html", "runs/plain/evaluations/faces-test/errors.png"),
    *("runs/plain/cams/faces-test/sheet.png", "runs/plain/cams/faces-test/deletion.png"),
)
"""Files that the tutorial says are there afterwards."""


def smaller(words: tuple[str, ...]) -> list[str]:
    """A command with smaller values."""
    return [SMALLER.get(before, word) for before, word in zip(("", *words), words, strict=False)]


@pytest.mark.slow
def test_the_tutorial_leads_to_a_figure(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modules = {"hpcgender": "hpcgender", "shard-tools": "shard_tools"}
    steps = [command.words for command in commands(PAGE) if command.whole]
    assert len(steps) == 11
    for words in steps:
        program, *arguments = smaller(words)
        done = run(modules[program], *arguments, cwd=tmp_path)
        assert done.returncode == 0, f"{' '.join(words)}: {done.stderr}"
    figure = next(part for part in parts(PAGE) if part.language == "python")
    monkeypatch.chdir(tmp_path)
    exec("\n".join(figure.lines), {})
    assert [name for name in MADE if not (tmp_path / name).is_file()] == []
    assert all(name in PAGE.read_text(encoding="utf-8") for name in ("sheet.png", "deletion.png", "report.html"))
