"""Every command in README and on the pages has options that there are, and files that there are."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.pages.commands import PAGES, ROOT, commands, fault


def test_every_command_on_a_page_has_options_that_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.toml").write_text('preset = "vgg16"\n')
    written = [command for page in PAGES for command in commands(page)]
    assert len(written) > 250
    faults = {str(command): why for command in written if (why := fault(command))}
    assert faults == {}
    capsys.readouterr()  # of --print-config


def test_every_benchmark_is_on_the_page_of_performance() -> None:
    text = " ".join((ROOT / "docs" / "performance.md").read_text(encoding="utf-8").split())
    programs = {
        path.stem
        for path in (ROOT / "tests" / "benchmarks").glob("*.py")
        if "__main__" in path.read_text(encoding="utf-8")
    }
    assert len(programs) > 12
    assert {name for name in programs if f"python -m tests.benchmarks.{name}" not in text} == set()


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("hpcgender train --epoch 3", "unknown option --epoch: did you mean --epochs?"),
        ("hpcgender trian", "no command trian"),
        (
            "python -m hpcgender.launch --nodes 2 -- evaluate --checkpont x",
            "unknown option --checkpont: did you mean --checkpoint?",
        ),
        ("qsub jobs/train.sh", "no file jobs/train.sh"),
        ("python -m tests.benchmarks.nothing", "no module tests.benchmarks.nothing"),
        ("hpcgendre jobs", "hpcgendre is not known to this test"),
    ],
)
def test_a_wrong_command_is_found(line: str, why: str, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"```bash\n{line} # a comment\n```\n")
    assert [fault(command) for command in commands(page)] == [why]
