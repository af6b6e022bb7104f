from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from shard_tools.base.commands import Command, run_command
from shard_tools.base.errors import UserError, one_line


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


@dataclass(kw_only=True)
class FromElsewhere(Options):
    """Does as a file tells it."""

    @classmethod
    def from_arguments(cls, program: str, arguments: Sequence[str]) -> FromElsewhere:
        if arguments:
            raise UserError(f"{program} cannot use {' '.join(arguments)}")
        return cls()


COMMANDS = {
    "do": Command(f"{__name__}:Options", f"{__name__}:work", "does it"),
    "elsewhere": Command(f"{__name__}:FromElsewhere", f"{__name__}:work", "does what a file says"),
    "pack one": Command(f"{__name__}:Options", f"{__name__}:work", "packs one"),
}


@pytest.mark.parametrize("argv", [["do"], ["elsewhere"], ["pack", "one"]])
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
        (["xyz"], "unknown command 'xyz': known: do, elsewhere, pack one"),
        (["pack", "two"], "unknown command 'two': known: one"),
    ],
)
def test_an_unknown_command_is_answered_with_the_nearest(
    argv: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command("tool", COMMANDS, argv) == 2
    assert says in capsys.readouterr().err


def test_options_from_elsewhere_may_be_wrong_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command("tool", COMMANDS, ["elsewhere", "a", "b"]) == 2
    assert capsys.readouterr().err == "tool: tool elsewhere cannot use a b\n"


def test_an_exception_on_one_line() -> None:
    assert one_line(ValueError("a\n  b")) == "a b"
    assert one_line(EOFError()) == "EOFError"
