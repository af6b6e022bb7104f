"""Reference pages of the commands, made of what `--help` prints, and so of the dataclasses of their options."""

from __future__ import annotations

import io
import os
import re
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass, field
from functools import cache
from typing import Any
from unittest.mock import patch

from hpcgender.commands import PROGRAMS
from shard_tools.base.commands import Command, Program

WIDTH = "120"
"""Columns of the terminal that the help is printed for: on wider ones tyro sets sections side by side."""


@dataclass
class Option:
    """An option or an argument, as --help shows it."""

    usage: str
    """The option with its other names and its value."""
    help: str = ""

    @property
    def described(self) -> tuple[str, str]:
        """The help, and the default in it."""
        found = re.fullmatch(r"(.*?) ?\((?:default: (.*)|(required))\)", self.help)
        if not found:
            return self.help, ""
        return found[1], found[3] or {"''": "", "": ""}.get(found[2], found[2])


@dataclass
class Section:
    """A box of --help."""

    title: str
    about: str = ""
    options: list[Option] = field(default_factory=list)


@cache
def printed_help(program: Program, command: Command[Any]) -> str:
    """What `PROGRAM COMMAND --help` prints."""
    printed = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")  # a StringIO has no encoding, and tyro draws in ASCII
    with (
        redirect_stdout(printed),
        patch.dict(os.environ, {"COLUMNS": WIDTH, "NO_COLOR": "1"}),
        suppress(SystemExit),
    ):
        program.parse(command, [*command.name.split(), "--help"])
    printed.seek(0)
    return printed.read()


def read_help(text: str) -> tuple[str, list[Section]]:
    """What a command does, and the boxes of its help with their options."""
    head, _, boxes = text.partition("\n╭")
    about = " ".join(head.partition("\n\n")[2].split())
    sections: list[Section] = []
    for line in f"╭{boxes}".splitlines():
        if line.startswith("╭"):
            sections.append(Section(line.strip("╭╮─ ")))
            continue
        row = line.strip("│").rstrip()[1:]
        section = sections[-1]
        if line.startswith("╰") or not row:
            continue
        if not row.strip("─"):  # what stands above the rule is about the section
            section.about = " ".join(option.usage for option in section.options)
            section.options = []
        elif row.startswith(" "):
            section.options[-1].help = f"{section.options[-1].help} {row.strip()}".strip()
        else:
            usage, _, words = row.partition("  ")
            section.options.append(Option(usage.strip(), words.strip()))
    for section in sections:
        section.options = [option for option in section.options if not option.usage.startswith("-h,")]
    return about, [section for section in sections if section.options]


def cell(text: str) -> str:
    """Text in a cell of a Markdown table."""
    return text.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*").replace("_", "\\_")


def code(text: str) -> str:
    """Text in a cell as code."""
    return f"`{text.replace('|', chr(92) + '|')}`" if text else ""


def command_page(program: Program, command: Command[Any]) -> str:
    """The page of a command in Markdown."""
    about, sections = read_help(printed_help(program, command))
    lines = [f"# {program.name} {command.name}", "", cell(about), ""]
    if command.launched:
        lines += ["It runs as a job, too: put it behind `python -m hpcgender.launch ... --`.", ""]
    for section in sections:
        if len(sections) > 1:
            lines += [f"## {section.title[:1].upper()}{section.title[1:]}", ""]
        if section.about:
            lines += [cell(section.about), ""]
        lines += ["| option | what it does | default |", "|---|---|---|"]
        for option in section.options:
            words, default = option.described
            lines.append(f"| {code(option.usage)} | {cell(words)} | {code(default)} |")
        lines.append("")
    return "\n".join(lines)


@cache
def command_pages() -> dict[str, dict[str, str]]:
    """For each program the pages of its commands, by the names of their files."""
    return {
        program.name: {
            f"{program.name}-{command.name.replace(' ', '-')}.md": command_page(program, command)
            for command in program.commands()
        }
        for program in PROGRAMS
    }
