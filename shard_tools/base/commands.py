"""Commands: what is true of each of them, and how a command line becomes a call of one."""

from __future__ import annotations

import faulthandler
import importlib
import io
import os
import pkgutil
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, Generic, NoReturn, TypeVar

from shard_tools.base import options
from shard_tools.base.errors import BAD_INPUT, FAILED, STORAGE, StorageError, UserError, as_line, unknown
from shard_tools.base.extras import CODE
from shard_tools.base.storage import of_the_system

Options = TypeVar("Options")

RUNS = Path("runs")
"""Directory of the runs, and of the records of commands without results of their own."""


@dataclass(frozen=True, kw_only=True)
class Made:
    """What a command makes that the next one of a chain can use; None is what it does not make."""

    data: Path | None = None
    """Packed data set."""
    checkpoint: Path | None = None
    split: str = "test"
    """Split of `data` to measure the checkpoint on."""
    tasks: tuple[str, ...] = ()
    """What the checkpoint is trained for; empty if that is not known."""
    final: bool = True
    """Whether the checkpoint, if there is one already, is not replaced by the command that makes it."""
    backend: str = ""
    """Decoder that was asked for, which the next command uses too; empty for the default one."""


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What a list of runs shows of one; None is unknown. Accuracies are fractions of the images measured."""

    epochs_done: float | None = None
    """With the fraction of the epoch that is under way."""
    epochs: int | None = None
    accuracy: float | None = None
    age_mae: float | None = None
    """Years."""
    images_per_s: float | None = None
    eta: float | None = None
    """Seconds until the work is done."""


@dataclass(frozen=True, kw_only=True)
class Command(Generic[Options]):
    """One command, and all that is true of it; a subclass overrides the methods that do not hold for it.

    Neither its module nor that of its options imports torch or DALI, so that `--help` answers without a delay.
    """

    name: str
    """One or two words, such as `train` and `pack utkface`."""
    summary: str
    """One line for the list of commands."""
    options: type[Options] | str
    """A dataclass whose fields are the options, or `module:class`, imported when the command is called."""
    work: str
    """`module:function`, imported when the command is called: takes the options, returns an exit code or None for 0."""
    launched: bool = True
    """Whether `hpcgender launch` may run it as a job."""
    distributed: bool = False
    """Whether processes on several nodes share its work. Otherwise one process does it, on the first node."""
    resume: str = ""
    """The flag among the options that resumes an interrupted run; empty if giving the command again does."""
    alias: str = ""
    """Another name for it in `--chain`."""

    def results(self, options: Options) -> Path:
        """The directory of its results; the records of its jobs are kept there."""
        return RUNS

    def data(self, options: Options) -> Path | None:
        """The data set that it reads, if it reads one."""
        return None

    def job_name(self, options: Options) -> str:
        """A name for its job, which may hold any characters."""
        results = self.results(options)
        return self.name if results == RUNS else f"{self.name} {results.name}"

    def progress(self, options: Options) -> int | None:
        """How far the work is, as a number that only grows: attempts without any are not requeued. None: unknown."""
        return None

    def settled(self, options: Options, words: Sequence[str]) -> tuple[str, ...]:
        """The command line that goes on to mean what `words` mean now, whatever becomes of files with options."""
        return tuple(words)

    def shared(self, options: Options) -> bool:
        """Whether several such commands may make the same results side by side."""
        return False

    def check_ranks(self, options: Options, ranks: int) -> None:
        """Raises UserError if so many processes cannot share its work."""
        return

    def check_results(self, options: Options) -> None:
        """Raises UserError if there are results that it must not replace, whatever jobs before it are to do."""
        return

    def done(self, options: Options) -> str:
        """Why nothing is left to do, for a person; empty if something is, or if that is not known."""
        return ""

    def shown(self, results: Path, log: str, running: bool, now: float) -> Shown:
        """What `hpcgender jobs` shows of a run with these results; `log` is its job's, empty if there is none."""
        return Shown()

    def made(self, options: Options) -> Made:
        """What the next command of a chain can use."""
        return Made()

    def following(self, made: Made) -> tuple[str, ...] | None:
        """The command line with which it follows another in a chain; None if it cannot."""
        return None

    def resumed(self, words: Sequence[str]) -> tuple[str, ...]:
        """The command line that resumes what `words` began."""
        flag = f"--{self.resume.replace('_', '-')}"
        return (*words, flag) if self.resume and flag not in words else tuple(words)


@dataclass(frozen=True, kw_only=True)
class Call(Generic[Options]):
    """A command with its options, parsed: what `python -m <module> <words>` does."""

    module: str
    command: Command[Options]
    words: tuple[str, ...]
    options: Options

    @property
    def results(self) -> Path:
        """The directory of its results."""
        return self.command.results(self.options)

    @property
    def data(self) -> Path | None:
        """The data set that it reads, if it reads one."""
        return self.command.data(self.options)

    @property
    def job_name(self) -> str:
        """A name for its job, of letters that every scheduler takes."""
        return plain_name(self.command.job_name(self.options))

    @property
    def made(self) -> Made:
        """What the next command of a chain can use."""
        return self.command.made(self.options)

    def progress(self) -> int | None:
        """How far the work is now."""
        return self.command.progress(self.options)

    def check(self) -> None:
        """Checks the options as far as that goes without torch, by their method `check()`. Raises UserError."""
        if hasattr(self.options, "check"):
            self.options.check()

    def settled(self) -> Call[Options]:
        """The call whose words go on to mean what they mean now."""
        return replace(self, words=self.command.settled(self.options, self.words))

    def resumed(self) -> Call[Options]:
        """The call that resumes this one."""
        if not self.command.resume:
            return self
        options: Any = self.options
        return replace(
            self, words=self.command.resumed(self.words), options=replace(options, **{self.command.resume: True})
        )


@dataclass(frozen=True)
class Program:
    """A program with commands: each stands in the file of its package that its first word names, among COMMANDS."""

    name: str
    """As it is called: `shard-tools`."""
    package: str
    """`shard_tools.commands`."""

    @property
    def module(self) -> str:
        """What `python -m` runs."""
        return self.package.partition(".")[0]

    def commands(self, word: str = "") -> list[Command[Any]]:
        """All commands, or those whose first word is `word`, by their names; the list imports all of their files."""
        return list(_commands(self.package, word))

    def find(self, words: Sequence[str]) -> Command[Any] | None:
        """The command that a command line begins with; None if there is none."""
        fits = [
            command
            for command in (self.commands(words[0]) if words and words[0] else ())
            if command.name.split() == list(words[: len(command.name.split())])
        ]
        return max(fits, key=lambda command: len(command.name), default=None)

    def parse(self, command: Command[Any], words: Sequence[str]) -> Call[Any]:
        """The call that a command line, which begins with the command's name, asks for; fails as `parse_options`."""
        kind = attribute(command.options) if isinstance(command.options, str) else command.options
        arguments = words[len(command.name.split()) :]
        return Call(
            module=self.module,
            command=command,
            words=tuple(words),
            options=parse_options(kind, f"{self.name} {command.name}", arguments),
        )

    def main(self, *words: str) -> NoReturn:
        """Runs the command that `words`, or else the first argument, names, and exits with its code.

        What ends the process at once, as SIGBUS where a memory-mapped file is cut short, leaves the place on stderr.
        Names of files need not be text that this terminal can show: what it cannot is printed as an escape.
        """
        open_streams()
        faulthandler.enable()
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")
        sys.exit(self.run([*words, *sys.argv[1:]]))

    def run(self, argv: Sequence[str]) -> int:
        """Runs a command line, without the program's name, and returns its exit code."""
        return guarded(self.name, lambda: self._installed(argv))

    def _installed(self, argv: Sequence[str]) -> int | None:
        try:
            return self._run(argv)
        except ModuleNotFoundError as error:
            raise not_installed(error) from None

    def _run(self, argv: Sequence[str]) -> int | None:
        if argv and argv[0] == "--version":
            print(f"{self.name} {metadata.version('hpcgender')}")
            return 0
        if command := self.find(argv):
            call = self.parse(command, argv)
            call.check()  # before the work is imported, and with it torch
            code: int | None = attribute(command.work)(call.options)
            return code
        group = argv[0] if argv and any(c.name.startswith(f"{argv[0]} ") for c in self.commands(argv[0])) else ""
        program, rest = (f"{self.name} {group}", argv[1:]) if group else (self.name, argv)
        commands = {command.name.removeprefix(f"{group} "): command.summary for command in self.commands(group)}
        if rest and rest[0] not in ("-h", "--help"):
            raise unknown("command", rest[0], list(commands))
        versions = "" if group else f"\n       {program} --version"
        print(f"usage: {program} COMMAND [OPTIONS]{versions}\n\ncommands:")
        width = max(map(len, commands))
        for name, summary in commands.items():
            print(f"  {name:<{width}}  {summary}")
        print(f"\n{program} COMMAND --help lists the options of a command.")
        return 0 if rest else BAD_INPUT


@cache
def _commands(package: str, word: str) -> tuple[Command[Any], ...]:
    path = importlib.import_module(package).__path__
    wanted = word.replace("-", "_")
    files = [file.name for file in pkgutil.iter_modules(path) if wanted in ("", file.name)]
    modules = [importlib.import_module(f"{package}.{file}") for file in files]
    found: list[Command[Any]] = [command for module in modules for command in getattr(module, "COMMANDS", ())]
    return tuple(sorted(found, key=lambda command: command.name))


def find_call(programs: Sequence[Program], words: Sequence[str]) -> Call[Any]:
    """The call of a launched command that a command line, with or without its program's name, asks for.

    Raises UserError for an unknown command, and fails as `parse_options` does.
    """
    if words and any(words[0] == program.name for program in programs):
        words = words[1:]
    for program in programs:
        command = program.find(words)
        if command and command.launched:
            return program.parse(command, words)
    known = [command.name for program in programs for command in program.commands() if command.launched]
    raise unknown("command", " ".join(words[:1]), known)


def find_command(programs: Sequence[Program], words: Sequence[str]) -> Command[Any] | None:
    """The command of any program that a command line begins with; None if there is none."""
    return next(filter(None, (program.find(words) for program in programs)), None)


def plain_name(text: str) -> str:
    """A job's name of letters, digits and . _ - that begins with a letter, as Grid Engine and file names need it."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", text).strip("_")[:100]
    return name if name[:1].isalpha() else f"job_{name}"


def attribute(path: str) -> Any:
    """The object that `module:attribute` names."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def not_installed(error: ModuleNotFoundError) -> Exception:
    """The error for a Python without the packages that are needed; `error` itself if one of these three is missing."""
    missing = (error.name or "").partition(".")[0]
    if missing in ("", "hpcgender", "jobs", "shard_tools"):
        return error
    installer, activate = CODE / "jobs" / "install.sh", CODE / ".venv" / "bin" / "activate"
    how = f"install the project: bash {installer}" if installer.is_file() else "install hpcgender with its dependencies"
    if activate.is_file() and Path(sys.prefix).resolve() != activate.parents[1].resolve():
        how = f"activate the project's environment: . {activate}"
    return UserError(f"{sys.executable} has no module {missing}: {how}")


def open_streams() -> None:
    """Makes standard streams that are closed, as by `>&-`, those of /dev/null: no file may get their numbers."""
    number = os.open(os.devnull, os.O_RDWR)
    while number <= 2:
        os.set_inheritable(number, True)  # nor may a file of the programs that are started
        number = os.dup(number)
    os.close(number)
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, mode, closefd=False))


def guarded(program: str, work: Callable[[], int | None]) -> int:
    """Does the work and returns its exit code; prints what people can correct, or storage refuses, as one line."""
    try:
        return work() or 0
    except UserError as error:
        print(f"{program}: {as_line(error)}", file=sys.stderr)
        return BAD_INPUT
    except StorageError as error:
        print(f"{program}: {as_line(error)}", file=sys.stderr)
        return STORAGE
    except BrokenPipeError:  # the reader went away, as in `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except OSError as error:
        if not (known := of_the_system(error)):
            raise
        print(f"{program}: {as_line(known)}", file=sys.stderr)
        return STORAGE if isinstance(known, StorageError) else BAD_INPUT
    except KeyboardInterrupt:
        print(f"{program}: interrupted", file=sys.stderr)
        return 130


def parse_options(kind: type[Options], program: str, argv: Sequence[str]) -> Options:
    """An instance of the dataclass `kind` from command line arguments; exits with 0 on --help.

    Raises UserError for a wrong argument. Options that come from files too have a class method
    `from_arguments(program, argv)` that does the same.
    """
    from_arguments: Callable[[str, Sequence[str]], Options] | None = getattr(kind, "from_arguments", None)
    if from_arguments:
        return options.expanded(from_arguments(program, argv))
    import tyro  # 0.15 s that other modules need not wait for

    if {"-h", "--help"} & set(argv):
        options.help_in_lines(kind)
    # A flag that is on by default is shown with both of its forms, --decode and --no-decode: one alone reads backwards.
    pairs = any(field.default is True for field in fields(kind))  # type: ignore[arg-type]
    config = (tyro.conf.DisallowNone, *(() if pairs else (tyro.conf.FlagCreatePairsOff,)))
    found: Options = options.parse(kind, program, argv, config=config)
    return options.expanded(found)


def default_is(text: str, metavar: str | None = None) -> object:
    """The annotation of an option whose default --help describes in words, and what it calls the value."""
    import tyro

    return tyro.conf.arg(metavar=metavar, help_behavior_hint=f"(default: {text})")
