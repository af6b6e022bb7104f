from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import pytest
import tyro

from shard_tools.base.commands import parse_options
from shard_tools.base.errors import UserError
from shard_tools.base.names import check_name, safe_name


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of every kind."""

    images: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    """Files."""
    out: Path
    """Directory."""
    count: int = 1
    """Number."""
    size: tuple[int, int] = (1, 1)
    """Two numbers."""
    kind: Literal["small", "large"] = "small"
    """Kind."""
    weights: str = ""
    """Name or file."""
    also: tuple[Path, ...] = field(default=())
    """More directories."""
    json: bool = False
    """JSON."""


@dataclass(frozen=True, kw_only=True)
class OnByDefault:
    """An option that is on."""

    decode: bool = True
    """Whether to decode."""


@dataclass(frozen=True, kw_only=True)
class Described:
    """An option with more words than a line of its source has."""

    count: int = 1
    """Number of
    images."""


class More(Described):
    """Inherits it."""


def test_help_is_folded_as_the_terminal_is_wide(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "90")
    with pytest.raises(SystemExit):
        parse_options(More, "tool", ["--help"])
    assert "Number of images. (default: 1)" in capsys.readouterr().out


@pytest.mark.parametrize("columns", ["40", "200"])
@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("", "do needs --out PATH: tool do --help lists all options"),
        ("--out x --cuont 3", "unknown option --cuont: did you mean --count?"),
        ("--cuont 3", "unknown option --cuont: did you mean --count?"),
        ("--out x --cuont=3", "unknown option --cuont: did you mean --count?"),
        ("--out x --images y", "unknown option --images: tool do --help lists all options"),
        ("--out x --count", "--count needs a value: tool do --help lists all options"),
        ("--out x --count many", "--count: cannot read 'many': give a whole number"),
        ("--out x --size 1 b", "--size: cannot read ['1', 'b']: give INT INT"),
        ("--out x --kind lagre", "--kind lagre: did you mean large?"),
        ("--out x -q", "unknown option -q: tool do --help lists all options"),
    ],
)
def test_a_wrong_argument_is_one_line(
    line: str, says: str, columns: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    with pytest.raises(UserError) as error:
        parse_options(Options, "tool do", line.split())
    assert str(error.value) == says
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["--out", ""], "--out"),
        (["--out="], "--out"),
        (["--out", "x", "--also", "y", ""], "an argument"),
        (["", "--out", "x"], "an argument"),
    ],
)
def test_an_empty_path_is_not_taken_for_the_directory_here(words: list[str], what: str) -> None:
    with pytest.raises(UserError) as error:
        parse_options(Options, "tool do", words)
    assert str(error.value) == f"{what} is empty: give a path, or . for the current directory"
    options = parse_options(Options, "tool do", ["--out", ".", "--weights", "", "--count=2"])
    assert (options.out, options.weights) == (Path(), "")


def test_an_option_that_is_on_shows_how_it_is_turned_off(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_options(OnByDefault, "tool do", ["--help"])
    assert "--decode, --no-decode" in capsys.readouterr().out
    assert not parse_options(OnByDefault, "tool do", ["--no-decode"]).decode
    with pytest.raises(SystemExit):
        parse_options(Options, "tool do", ["--help"])
    assert "--no-json" not in capsys.readouterr().out


def test_an_option_between_arguments_is_said() -> None:
    with pytest.raises(
        UserError, match=r"^unexpected argument 'b': give all arguments without an option side by side$"
    ):
        parse_options(Options, "tool do", ["a", "--out", "x", "b"])
    with pytest.raises(UserError, match=r"^unexpected argument 'b': tool do --help lists all options$"):
        parse_options(OnByDefault, "tool do", ["b"])


def test_a_tilde_is_the_home_directory_wherever_a_path_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    line = ["--out=~/out", "--weights=~/w.pt", "--also", "~", "x~", "--", "~/a.jpg", "~nobody-of-that-name/b.jpg"]
    options = parse_options(Options, "tool do", line)
    assert (options.out, options.weights) == (tmp_path / "out", str(tmp_path / "w.pt"))
    assert options.also == (tmp_path, Path("x~"))
    assert options.images == (tmp_path / "a.jpg", Path("~nobody-of-that-name/b.jpg"))


@pytest.mark.parametrize("name", ["a", "se_resnet50", "2025.01+b-c", "_x", "x" * 100])
def test_names_that_are_taken(name: str) -> None:
    check_name("--name", name)
    assert safe_name(name) == name


@pytest.mark.parametrize(
    "name", ["", ".", "..", ".hidden", "-x", "a/b", "../evil", "a b", "a\n", "ä", "x" * 101, "%j", "a:b", "~"]
)
def test_names_that_would_be_written_elsewhere_or_break_a_job_are_refused(name: str) -> None:
    with pytest.raises(UserError, match="letters, digits"):
        check_name("--name", name)
    check_name("--name", safe_name(name))
