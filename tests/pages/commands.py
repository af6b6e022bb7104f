"""The commands in Markdown: in blocks of shell code, indented lines, and code within sentences."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from hpcgender.commands import HPCGENDER, PROGRAMS
from hpcgender.commands.launch import LaunchConfig
from shard_tools.base.commands import Program, find_call
from shard_tools.base.errors import UserError

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
NAMED = {program.name: program for program in PROGRAMS}
SCRIPTS = ("bash", "qsub", "sbatch")
OTHERS = (
    *(
        "cd",
        "tail",
        "grep",
        "export",
        "mlflow",
        "wandb",
        "tensorboard",
        ".",
        "apptainer",
        "git",
        "unzip",
        "tar",
        "find",
        "ls",
        "head",
    ),
    *("ch-image", "ch-convert", "ch-fromhost", "mkdir", ".venv/bin/pip", ".venv/bin/ruff", "jupyter", "salloc", "ssh"),
)
"""What is not ours, or has no options to check."""


OURS = r"(hpcgender|shard-tools) (?!-|COMMAND)|python -m (hpcgender|tests)|(bash|qsub|sbatch) (jobs|tests|\.ci)/"
"""How our own commands begin."""


class Written(NamedTuple):
    """A command, and where it is written."""

    page: Path
    line: int
    words: tuple[str, ...]
    whole: bool = True
    """Whether it stands in a block; one in a sentence may leave out what is needed."""
    out: str = ""
    """The file that its output goes to; empty if it goes to none."""
    shell: str = ""
    """The whole line that it stands in."""

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}: {shlex.join(self.words)}"


class Part(NamedTuple):
    """A block of a page, or the text between two."""

    language: str
    """Of a block, `text` if it names none; empty between blocks."""
    begin: int
    """The number of its first line."""
    lines: list[str]


def parts(page: Path) -> list[Part]:
    """The blocks of a page and the text between them, in turn."""
    found = [Part("", 1, [])]
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), start=1):
        if fence := re.match(r"\s*```(\w*)", line):
            found.append(Part("" if found[-1].language else fence[1] or "text", number + 1, []))
        else:
            found[-1].lines.append(line)
    return found


def shell_lines(page: Path) -> Iterator[tuple[int, str]]:
    """Each line of shell code of a page with its number; a line that goes on behind a backslash is one."""
    for language, begin, lines in parts(page):
        begun = 0
        words: list[str] = []
        for number, line in enumerate(lines, start=begin):
            if language not in ("bash", "sh") and (language or not re.match(f"    ({OURS})", line)):
                continue
            begun = begun if words else number
            words.append(line.removesuffix("\\"))
            if not line.endswith("\\"):
                yield begun, " ".join(words)
                words = []


def turns(lines: Iterable[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    """The lines as they are carried out: those of a loop once for each of its values."""
    variable, values, within = "", [""], list[tuple[int, str]]()
    for number, line in lines:
        if loop := re.fullmatch(r"for (\w+) in (.*); do", line):
            variable, values = loop[1], loop[2].split()
        elif line == "done":
            yield from ((place, text.replace(f"${variable}", value)) for value in values for place, text in within)
            variable, within = "", []
        elif variable:
            within.append((number, line))
        else:
            yield number, line


def split(text: str) -> Iterator[tuple[tuple[str, ...], str]]:
    """The commands of a line of shell code, behind each other and in pipes, and where the output of each goes."""
    lexer = shlex.shlex(text.replace("2>&1", ""), posix=True, punctuation_chars="|;&>")
    lexer.whitespace_split = True
    lexer.commenters = "#"
    words: list[str] = []
    out = ""
    for word in [*lexer, ";"]:
        if set(word) <= set("|;&"):
            while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
                words = words[1:]
            if words:
                yield tuple(words), out
            words, out = [], ""
        elif word == ">" or words[-1:] != [">"]:
            words.append(re.sub(r"\$\w+", "me", word))
        else:
            words.pop()
            out = word


def commands(page: Path) -> Iterator[Written]:
    """All commands of a page: those in blocks, and ours in sentences if they have options or arguments."""
    for number, line in turns(shell_lines(page)):
        for words, out in split(line):
            yield Written(page, number, words, out=out, shell=line)
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), start=1):
        for code in re.findall(r"(?<!`)`([^`]+)`(?!`)", line):
            if re.match(OURS, code):
                for words, out in split(code.replace(" ...", "").replace("…", "")):
                    yield Written(page, number, words, whole=False, out=out, shell=code)


def fault(written: Written) -> str:
    """Why a command cannot work by its words alone; empty if it can."""
    words = [word for word in written.words if word != "..."]
    match words:
        case ["nohup", *rest]:
            return fault(written._replace(words=tuple(rest)))
        case [program, *rest] if program in NAMED:
            found = fault_of(NAMED[program], rest)
            return "" if not written.whole and re.match(r".* needs \S+.*--help lists all options$", found) else found
        case ["python", "-m", "hpcgender.launch", *rest]:
            return fault_of(HPCGENDER, ["launch", *rest])
        case ["python", "-m", module, *_]:
            path = ROOT / module.replace(".", "/")
            there = path.with_suffix(".py").is_file() or (path / "__main__.py").is_file() or module == "http.server"
            return "" if there else f"no module {module}"
        case [program, *rest] if program in SCRIPTS:
            script = next((word for word in rest if re.search(r"\.sh$|/run$", word)), "")
            return "" if not script or (ROOT / script).is_file() or script == "job.sh" else f"no file {script}"
        case [program, *_]:
            return "" if program in OTHERS else f"{program} is not known to this test"
    return ""


def fault_of(program: Program, words: list[str]) -> str:
    """What the parsers of a program say of its arguments."""
    if not words or "--help" in words or words == ["--version"]:
        return ""
    command = program.find(words)
    if not command:
        return f"no command {words[0]}"
    if words == command.name.split():  # named in a sentence
        return ""
    try:
        call = program.parse(command, words)
        if isinstance(call.options, LaunchConfig) and call.options.command != ("train",):
            find_call(PROGRAMS, call.options.command)
    except SystemExit as end:
        return "" if end.code == 0 else str(end)
    except UserError as error:
        return str(error)
    return ""
