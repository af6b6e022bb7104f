from __future__ import annotations

import pytest

from shard_tools.base.commands import guarded
from shard_tools.base.errors import LONGEST, UserError
from shard_tools.base.text import LOG_WIDTH, Table, byte_size, duration, plural, print_facts, print_tables


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (59.4, "59s"), (59.6, "1m00s"), (725, "12m05s"), (7260, "2h01m")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0.0 MB"), (1_234, "1.2 kB"), (4e5, "0.4 MB"), (1.2345e9, "1,234.5 MB"), (1.23e10, "12.3 GB")],
)
def test_sizes(count: float, text: str) -> None:
    assert byte_size(count) == text


@pytest.mark.parametrize(
    ("number", "images", "processes", "are"),
    [
        (0, "0 images", "0 processes", "0 images are"),
        (1, "1 image", "1 process", "1 image is"),
        (2, "2 images", "2 processes", "2 images are"),
        (2_000, "2,000 images", "2,000 processes", "2,000 images are"),
    ],
)
def test_counts(number: int, images: str, processes: str, are: str) -> None:
    assert plural(number, "image") == images
    assert plural(number, "process", "processes") == processes
    assert plural(number, "image is", "images are") == are


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


def terminal(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)


RUNS = Table(
    ("run", "job", "state", "epoch", "eta", "reason"),
    (
        ("se_resnet152_ms1mv2_strong_seed0", "20612", "running", "12.5/50", "3h12m", "-"),
        ("a", "20613", "failed", "-", "-", "exit code 1: RuntimeError: CUDA error: an illegal memory access"),
    ),
    left=frozenset({"job", "state", "reason"}),
    max_name=None,
    spare=("eta", "epoch", "reason"),
)


@pytest.mark.parametrize("columns", [120, 100, 80, 60, 40, 20])
def test_a_narrow_terminal_cuts_nothing_and_says_what_is_left_out(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal(monkeypatch, columns)
    print_tables(RUNS)
    text = capsys.readouterr().out
    lines = text.splitlines()
    assert max(map(len, lines)) <= columns
    assert "…" not in text
    whole = text.replace("\n", "") if columns == 20 else text  # a name of 32 letters takes two lines
    for name in ("se_resnet152_ms1mv2_strong_seed0", "20612", "running", "20613", "failed"):
        assert name in whole
    dropped = [column for column in RUNS.spare if column not in text.replace(" left out", "")]
    assert not dropped
    assert ("left out, as the terminal is narrow: " in text) == (columns in (60, 80))


def test_where_there_is_no_terminal_a_line_is_as_long_as_it_has_to_be(capsys: pytest.CaptureFixture[str]) -> None:
    numbers = tuple(f"{number}" * 12 for number in range(1, 12))
    print_tables(Table(("run", *numbers), (("a", *numbers),)))
    assert [line.split()[1:] for line in capsys.readouterr().out.splitlines()] == [list(numbers)] * 2


def test_an_error_is_one_line_of_bounded_length_that_controls_no_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise UserError(f"bad.csv: line 1: \x1b[2J\n{'a' * 5000}: write it again")

    assert guarded("shard-tools", fail) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("shard-tools: bad.csv: line 1: \N{REPLACEMENT CHARACTER}[2J\N{REPLACEMENT CHARACTER}aaa")
    assert line.endswith("aaa: write it again")
    assert len(line) == len("shard-tools: ") + LONGEST + len(" ... ")
