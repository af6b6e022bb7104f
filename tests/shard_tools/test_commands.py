from __future__ import annotations

import errno
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from shard_tools.base.commands import Command, Program, find_call, not_installed
from shard_tools.base.errors import UserError, one_line


@dataclass(kw_only=True)
class Options:
    """Does as it is told."""

    error: str = ""
    """What to raise."""


ROOT = Path(__file__).resolve().parents[2]

ERRORS = {
    "user": UserError("no file x: give another"),
    "disk": OSError(errno.ENOSPC, "No space left on device", "runs/a"),
    "interrupt": KeyboardInterrupt(),
    "bug": ZeroDivisionError("division by zero"),
    "storage": OSError(errno.EIO, "Input/output error", "runs/a"),
    "other": OSError(errno.EXDEV, "Invalid cross-device link", "runs/a"),
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


@dataclass(kw_only=True)
class Checked(Options):
    """Cannot work."""

    def check(self) -> None:
        raise UserError("it cannot work")


FILES = {
    "checked.py": "Command(name='checked', summary='', options=Checked, work='nowhere:work')",
    "do.py": "does('do', 'does it', 'Options')",
    "do_not.py": "does('do-not', 'does nothing', 'Options')",
    "elsewhere.py": "does('elsewhere', 'does what a file says', 'FromElsewhere')",
    "pack.py": "does('pack one', 'packs one', 'Options'), does('pack two', 'packs two', Options)",
    "no_command.py": "",
}


def does(name: str, summary: str, options: type | str) -> Command[Any]:
    path = f"{__name__}:{options}" if isinstance(options, str) else options
    return Command(name=name, summary=summary, options=path, work=f"{__name__}:work")


@pytest.fixture(scope="module")
def tool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """A program whose commands are files of a package."""
    root = tmp_path_factory.mktemp("tool")
    (root / "tool_of_tests").mkdir()
    (root / "tool_of_tests" / "__init__.py").write_text("")
    for name, commands in FILES.items():
        code = (
            f"from {__name__} import Checked, Command, Options, does\n\nCOMMANDS = ({commands},)\n" if commands else ""
        )
        (root / "tool_of_tests" / name).write_text(code)
    sys.path.insert(0, str(root))
    yield Program("tool", "tool_of_tests")
    sys.path.remove(str(root))


@pytest.mark.parametrize("argv", [["do"], ["do-not"], ["elsewhere"], ["pack", "one"], ["pack", "two"]])
def test_a_command_runs(tool: Program, argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert tool.run(argv) == 0
    assert capsys.readouterr().out == "done\n"


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        ("user", 2, "tool: no file x: give another\n"),
        ("disk", 2, "tool: runs/a: No space left on device\n"),
        (
            "storage",
            75,
            "tool: cannot read or write runs/a: Input/output error: its storage or the network to it fails; when that "
            "is repaired, the same command works\n",
        ),
        ("interrupt", 130, "tool: interrupted\n"),
    ],
)
def test_what_people_can_mend_is_one_line(
    tool: Program, error: str, code: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tool.run(["do", "--error", error]) == code
    assert capsys.readouterr().err == says


@pytest.mark.parametrize(("error", "kind"), [("bug", ZeroDivisionError), ("other", OSError)])
def test_bugs_keep_their_traceback(tool: Program, error: str, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        tool.run(["do", "--error", error])


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["doo"], "unknown command 'doo': did you mean do?"),
        (["xyz"], "unknown command 'xyz': known: checked, do, do-not, elsewhere, pack one, pack two"),
        (["pack", "three"], "unknown command 'three': known: one, two"),
    ],
)
def test_an_unknown_command_is_answered_with_the_nearest(
    tool: Program, argv: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tool.run(argv) == 2
    assert says in capsys.readouterr().err


def test_options_from_elsewhere_may_be_wrong_too(tool: Program, capsys: pytest.CaptureFixture[str]) -> None:
    assert tool.run(["elsewhere", "a", "b"]) == 2
    assert capsys.readouterr().err == "tool: tool elsewhere cannot use a b\n"


@pytest.mark.parametrize(("argv", "code"), [([], 2), (["--help"], 0)])
def test_the_list_of_commands(tool: Program, argv: list[str], code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert tool.run(argv) == code
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["usage: tool COMMAND [OPTIONS]", "       tool --version"]
    assert lines[lines.index("commands:") + 1 :][:6] == [
        "  checked    ",
        "  do         does it",
        "  do-not     does nothing",
        "  elsewhere  does what a file says",
        "  pack one   packs one",
        "  pack two   packs two",
    ]
    assert tool.run(["pack", *argv]) == code
    assert "usage: tool pack COMMAND" in capsys.readouterr().out


def test_a_call_is_found_with_and_without_its_programs_name(tool: Program) -> None:
    call = find_call([tool], ["tool", "pack", "one", "--error", "user"])
    assert call == find_call([tool], ["pack", "one", "--error", "user"])
    assert (call.module, call.words, call.options) == (
        "tool_of_tests",
        ("pack", "one", "--error", "user"),
        call.options,
    )
    with pytest.raises(UserError, match="did you mean elsewhere"):
        find_call([tool], ["elsewere"])


def test_a_python_without_the_environment_is_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-S", "-m", "hpcgender.launch", "--nodes", "2"]  # -S: without installed packages
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"hpcgender: {sys.executable} has no module tyro: ")
    assert done.stderr.endswith(("install.sh\n", "activate\n"))
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(("module", "kind"), [("tyro", UserError), ("torch.cuda", UserError), ("jobs.nowhere", None)])
def test_a_missing_module_of_ours_is_a_bug(module: str, kind: type[Exception] | None) -> None:
    error = ModuleNotFoundError(name=module)
    assert type(not_installed(error)) is (kind or ModuleNotFoundError)


def test_options_are_checked_before_the_work_is_imported(tool: Program, capsys: pytest.CaptureFixture[str]) -> None:
    assert tool.run(["checked"]) == 2
    assert capsys.readouterr().err == "tool: it cannot work\n"


def test_an_exception_on_one_line() -> None:
    assert one_line(ValueError("a\n  b")) == "a b"
    assert one_line(EOFError()) == "EOFError"


def test_closed_streams_are_empty_ones() -> None:
    script = (
        "import sys; from shard_tools.base.commands import open_streams; open_streams()\n"
        "file = open(sys.executable); assert file.fileno() > 2\n"
        "assert sys.stdin.buffer.read() == b''\n"
        "print('lost'); print('lost', file=sys.stderr)"
    )
    shell = '"$0" -c "$1" <&- >&- 2>&-'
    done = subprocess.run(["sh", "-c", shell, sys.executable, script], cwd=ROOT, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_closed_streams_are_open_for_the_programs_that_are_started_too() -> None:
    code = (
        "import os, subprocess, sys; from shard_tools.base.commands import open_streams; open_streams(); "
        "print('lost'); sys.stdout.flush(); os.dup2(os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT), 1); "
        "print('kept', flush=True); subprocess.run(['sh', '-c', 'echo told; echo told >&2'], check=True)"
    )
    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory, "out")
        line = '"$0" -c "$1" "$2" <&- >&- 2>&-'
        done = subprocess.run(["sh", "-c", line, sys.executable, code, str(out)], cwd=ROOT, check=False)
        assert (done.returncode, out.read_text()) == (0, "kept\ntold\n")
