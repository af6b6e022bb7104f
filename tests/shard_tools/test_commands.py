from __future__ import annotations

import errno
from dataclasses import dataclass

import pytest

from shard_tools.commands import Command, UserError, one_line, run_command


@dataclass(kw_only=True)
class Options:
    """Does as it is told."""

    error: str = ""
    """What to raise."""


ERRORS = {
    "user": UserError("no file x: give another"),
    "disk": OSError(errno.ENOSPC, "No space left on device", "runs/a"),
    "interrupt": KeyboardInterrupt(),
    "bug": ZeroDivisionError("division by zero"),
    "other": OSError(errno.EIO, "Input/output error", "runs/a"),
}


def work(options: Options) -> int | None:
    if options.error:
        raise ERRORS[options.error]
    print("done")
    return None


COMMANDS = {
    "do": Command(f"{__name__}:Options", f"{__name__}:work", "does it"),
    "pack one": Command(f"{__name__}:Options", f"{__name__}:work", "packs one"),
}


@pytest.mark.parametrize("argv", [["do"], ["pack", "one"]])
def test_a_command_runs(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command("tool", COMMANDS, argv) == 0
    assert capsys.readouterr().out == "done\n"


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        ("user", 2, "tool: no file x: give another\n"),
        ("disk", 2, "tool: runs/a: No space left on device\n"),
        ("interrupt", 130, "tool: interrupted\n"),
    ],
)
def test_what_people_can_mend_is_one_line(error: str, code: int, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command("tool", COMMANDS, ["do", "--error", error]) == code
    assert capsys.readouterr().err == says


@pytest.mark.parametrize(("error", "kind"), [("bug", ZeroDivisionError), ("other", OSError)])
def test_bugs_keep_their_traceback(error: str, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        run_command("tool", COMMANDS, ["do", "--error", error])


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["doo"], "unknown command 'doo': did you mean do?"),
        (["xyz"], "unknown command 'xyz': known: do, pack one"),
        (["pack", "two"], "unknown command 'two': known: one"),
    ],
)
def test_an_unknown_command_is_answered_with_the_nearest(
    argv: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command("tool", COMMANDS, argv) == 2
    assert says in capsys.readouterr().err


def test_an_exception_on_one_line() -> None:
    assert one_line(ValueError("a\n  b")) == "a b"
    assert one_line(EOFError()) == "EOFError"
