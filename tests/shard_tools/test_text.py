from __future__ import annotations

import pytest

from shard_tools.base.text import LOG_WIDTH, Table, duration, print_facts, print_tables


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (59.4, "59s"), (59.6, "1m00s"), (725, "12m05s"), (7260, "2h01m")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_tables_in_a_log_are_plain_and_aligned(capsys: pytest.CaptureFixture[str]) -> None:
    counts = Table(("group", "images", "accuracy"), (("Asian", "1,204", "95.97%"), ("[b]", "7", "-")), "by group")
    sources = Table(
        ("model", "source"), (("vgg16", "arXiv " * 30),), caption="as published", left=frozenset({"source"})
    )
    print_tables(counts, sources)
    lines = capsys.readouterr().out.split("\n")
    assert lines[:5] == [
        "by group",
        "group   images   accuracy",
        "Asian    1,204     95.97%",
        "[b]          7          -",
        "",
    ]
    assert lines[5] == "model   source"
    assert all(len(line) <= LOG_WIDTH and line == line.rstrip() for line in lines)
    assert " ".join(lines).count("arXiv") == 30
    assert lines[-2:] == ["as published", ""]


def test_a_long_name_is_cut(capsys: pytest.CaptureFixture[str]) -> None:
    print_tables(Table(("run", "epochs"), (("a" * 100, "50"),)))
    assert capsys.readouterr().out.split("\n")[1] == f"{'a' * 35}…       50"


def test_a_long_name_can_be_folded_so_that_no_number_is_cut(capsys: pytest.CaptureFixture[str]) -> None:
    numbers = tuple(f"{number}" * 8 for number in range(1, 9))
    print_tables(Table(("run", *numbers), (("a" * 60, *numbers),), fold_name=True))
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= LOG_WIDTH
    assert lines[0].split()[1:] == list(numbers)
    assert "".join(line.split()[0] for line in lines[1:]) == "a" * 60


def test_no_character_controls_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    print_tables(Table(("run", "epochs"), (("a\x1b[31m", "5\r0"),)))
    print_facts({"source\n": "\x1b]0;title\x07"})
    shown = capsys.readouterr().out
    assert {c for c in shown if not c.isprintable()} == {"\n"}
    assert shown.count("\N{REPLACEMENT CHARACTER}") == 5
