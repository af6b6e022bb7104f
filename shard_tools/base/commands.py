"""How a command line becomes a call: lazily imported subcommands, one-line errors, exit codes."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shard_tools.base.errors import BAD_INPUT, ENVIRONMENT, UserError, unknown


@dataclass(frozen=True)
class Command:
    """A subcommand: where its options and its work live, as `module:attribute`, imported only when it is called.

    `options` is a dataclass whose fields are the options; its module must import neither torch nor DALI, so that
    `--help` answers at once. `work` is a function of one instance of it, returning an exit code or None for 0.
    """

    options: str
    work: str
    summary: str


def attribute(path: str) -> Any:
    """The object that `module:attribute` names."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def run_command(program: str, commands: Mapping[str, Command], argv: Sequence[str]) -> int:
    """Runs `argv` (without the program's name) and returns its exit code; prints what goes wrong as one line."""
    if not argv or argv[0] in ("-h", "--help"):
        print(f"usage: {program} COMMAND [OPTIONS]\n\ncommands:")
        width = max(map(len, commands))
        for name, command in commands.items():
            print(f"  {name:<{width}}  {command.summary}")
        print(f"\n{program} COMMAND --help lists the options of one.")
        return 0 if argv else BAD_INPUT
    try:
        # Subcommands may have two words, as in `pack utkface`.
        name = " ".join(argv[:2]) if " ".join(argv[:2]) in commands else argv[0]
        if name not in commands:
            inner = {n.removeprefix(f"{name} "): c for n, c in commands.items() if n.startswith(f"{name} ")}
            if inner:
                return run_command(f"{program} {name}", inner, argv[1:])
            raise unknown("command", name, list(commands))
        command = commands[name]
        options = parse_options(attribute(command.options), f"{program} {name}", argv[len(name.split()) :])
        return attribute(command.work)(options) or 0
    except UserError as error:
        print(f"{program}: {error}", file=sys.stderr)
        return BAD_INPUT
    except BrokenPipeError:  # the reader went away, as in `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        if error.errno not in ENVIRONMENT or not error.filename:
            raise
        print(f"{program}: {error.filename}: {error.strerror}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print(f"{program}: interrupted", file=sys.stderr)
        return 130


def parse_options(options: type, program: str, argv: Sequence[str]) -> Any:
    """An instance of the dataclass `options` from command line arguments; exits with 2 on a wrong one, 0 on --help.

    Options that come from files too have a class method `from_arguments(program, argv)` that does the same.
    """
    if hasattr(options, "from_arguments"):
        return options.from_arguments(program, argv)
    import tyro  # 0.15 s that the list of commands need not wait for

    return tyro.cli(options, prog=program, args=list(argv), config=(tyro.conf.FlagCreatePairsOff,))
