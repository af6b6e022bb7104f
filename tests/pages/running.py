"""Commands and programs of a page, as they stand there, on fewer and smaller faces."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from hpcgender.commands import HPCGENDER, PROGRAMS
from shard_tools.base.commands import RUNS, Call, find_call
from tests.conftest import Run
from tests.pages.commands import NAMED, OURS, SCRIPTS, Written, commands, parts
from tests.pages.imitations import copy

SMALLER = {
    **{"--count": "300", "--size": "48", "--image-size": "32", "--epochs": "1", "--batch-size": "32"},
    **{"--corrupt": "contrast", "--step": "2", "--limit": "48", "--workers": "1", "--stage-to": "staged"},
}
"""Options whose values are smaller here."""
SHALLOWER = {
    **{"resnet50": "resnet18", "resnet101": "resnet18", "se_resnet50": "se_resnet18", "se_resnet152": "se_resnet18"},
    "timm:convnext*": "timm:convnext_atto",
}
"""Models that stand for others here."""
STATED: dict[str, tuple[str, ...]] = {
    "train": ("--epochs", "1", "--image-size", "32", "--batch-size", "32", "--model", "resnet18"),
    "show-batch": ("--batch-size", "32"),
    "plan": ("--batch-size", "32"),
}
"""Options that the page leaves to their defaults, or to a preset."""
LEFT_OUT = ("--compile",)
"""It takes a minute: tests/hpcgender/test_compile.py."""
STAND_FOR = {"RUN": "mine", "RUNS": "runs/a runs/b", "IMAGES": "MORPH"}
"""Words of a page that are not meant as they stand."""
QUEUED = ("launch", "jobs", "study", "sites")
"""Commands that ask a scheduler."""
LAUNCHER = ("python", "-m", "hpcgender.launch")


def steps(page: Path) -> list[list[str]]:
    """Our own commands in the blocks of a page, with smaller values; not those behind the launcher."""
    return [shortened(each.words) for each in commands(page) if is_step(each)]


def is_step(written: Written) -> bool:
    """Whether a command is one of ours in a block, without the launcher."""
    return written.whole and written.words[0] in NAMED


def shortened(words: Sequence[str]) -> list[str]:
    """A command on smaller data: what takes long has other values, and what the page leaves to defaults is stated."""
    if "--" in words:
        end = words.index("--") + 1
        return [*words[:end], *shortened(words[end:])]
    found = [word for word in words if word not in LEFT_OUT]
    for place, (before, word) in enumerate(zip(("", *found), found, strict=False)):
        found[place] = SHALLOWER.get(word, word) if before in ("--model", "--filter") else SMALLER.get(before, word)
    if {"--resume", "--epochs"} <= {*found}:  # a longer run
        found[found.index("--epochs") + 1] = "2"
    command = next((word for word in found[:2] if word in STATED), "")
    stated = () if {"--resume", "--run"} & {*found} else STATED.get(command, ())  # a run has its own options
    for option, value in zip(stated[::2], stated[1::2], strict=True):
        if option not in found and not ("--preset" in found and option == "--model"):
            found += [option, value]
    return found


def ours(page: Path) -> Iterator[Written]:
    """Our own commands on a page: all in blocks, and those in sentences that say more than a command's name."""
    seen = set()
    for each in sorted(commands(page), key=lambda each: each.line):
        command = NAMED[each.words[0]].find(each.words[1:]) if each.words[0] in NAMED else None
        named = each.words == LAUNCHER or (command and each.words[1:] == tuple(command.name.split()))
        if not (each.words[0] in SCRIPTS or re.match(OURS, " ".join(each.words).removeprefix("nohup "))):
            continue
        if each.whole or not (named or each.words in seen):
            seen.add(each.words)
            yield each


def carry_out(run: Run, step: Sequence[str], directory: Path, **environment: str) -> str:
    """Runs a command in a directory; it must succeed. Returns what it prints."""
    program, *words = step
    module = NAMED[program].module
    if "DIRECTORY_QUEUE" in environment:
        if program == HPCGENDER.name and words[0] in QUEUED:
            module, words = "tests.jobs.directory_scheduler", [program, *words]
        else:  # other commands do not ask for it, and can be forked without
            environment = {}
    done = run(module, *words, cwd=directory, **environment)
    assert done.returncode == 0, f"{' '.join(step)}: {done.stdout}{done.stderr}"
    return done.stdout


@dataclass(frozen=True)
class Place:
    """The working directory, in which the commands of a page are carried out one after the other."""

    run: Run
    presupposed: Path
    """What it was filled with."""
    environment: dict[str, str]
    """Of its scheduler, whose queue is a directory; without `DIRECTORY_QUEUE` it has none."""
    left: list[subprocess.Popen[bytes]] = field(default_factory=list)
    """What runs in the background."""

    def carry_out(self, written: Written) -> None:
        """Runs a command of a page; what it begins is not there, and what it presupposes is."""
        words = [part for word in written.words for part in STAND_FOR.get(word, word).split(" ")]
        behind = words[0] == "nohup"
        if behind:
            words = [*words[1:], "--epochs", "999"]
        if tuple(words[:3]) == LAUNCHER:
            words = ["hpcgender", "launch", *self.local, *words[3:]]
        assert words[0] in NAMED, f"{written} is neither run nor in NOT_RUN"
        if behind:
            self.leave(words, Path(written.out))
            return
        words = shortened(words)
        if not {"--dry-run", "--print-config"} & {*words}:
            self.prepare(words)
        if words[-1] == "-":
            line = written.shell.replace("hpcgender ", f"{sys.executable} -m hpcgender ")
            subprocess.run(["bash", "-c", f"set -o pipefail; {line}"], check=True)
            return
        printed = carry_out(self.run, words, Path.cwd(), **self.environment)
        if written.out:
            Path(written.out).write_text(printed)

    @property
    def local(self) -> tuple[str, ...]:
        """Options of the launcher on a machine without a scheduler."""
        return () if "DIRECTORY_QUEUE" in self.environment else ("--scheduler", "local")

    def leave(self, words: Sequence[str], log: Path) -> None:
        """Leaves a command running, and returns once it works."""
        log.parent.mkdir(exist_ok=True)
        environment = {**os.environ, **self.environment, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", NAMED[words[0]].module, *words[1:]]
        with log.open("wb") as file:
            self.left.append(subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=environment))
        deadline = time.monotonic() + 300
        while "\nepoch " not in log.read_text():
            assert time.monotonic() < deadline, log.read_text()
            assert self.left[-1].poll() is None, log.read_text()
            time.sleep(0.2)

    def end(self) -> list[int]:
        """Ends what waits in the queue, and waits for what was left running; returns the exit codes of that."""
        for job in Path("queue").glob("[0-9]*"):
            (job / "cancelled").touch()  # its process ends
        return [process.wait(120) for process in self.left]

    def prepare(self, words: Sequence[str]) -> None:
        """Removes the results that a command is to make, unless it resumes them, and restores what it presupposes."""
        if words[1:3] == ["jobs", "resubmit"]:
            self.end_job(words[3])
        call = called(words)
        if call is None:
            return
        resumes = call.command.resume and getattr(call.options, call.command.resume)
        if call.results != RUNS and not resumes:
            shutil.rmtree(call.results, ignore_errors=True)
        if call.command.name == "train" and not resumes:
            return
        for word in words:
            name = word.removeprefix("runs/").partition("/")[0]
            source, target = self.presupposed / "runs" / name, Path("runs") / name
            if name and source.is_dir() and not (target / "checkpoints").is_dir():
                copy(source, target)

    def end_job(self, name: str) -> None:
        """Ends the job of a run; one without a job is submitted before."""
        if not Path("runs", name, "submissions").is_dir():
            training = ("train", "--data", "data/faces", "--name", name, "--resume")
            carry_out(self.run, ["hpcgender", "launch", "--", *training], Path.cwd(), **self.environment)
        carry_out(self.run, ["hpcgender", "jobs", "cancel", name], Path.cwd(), **self.environment)


def called(words: Sequence[str]) -> Call[Any] | None:
    """The call that a command line makes, or has the launcher make; None for one that is about jobs."""
    inner = words[words.index("--") + 1 :] if "--" in words else words
    if inner[1] in QUEUED:
        return None
    command = NAMED[inner[0]].find(inner[1:]) if inner[0] in NAMED else None
    return NAMED[inner[0]].parse(command, inner[1:]) if command else find_call(PROGRAMS, inner)


def run_programs(page: Path, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs the Python programs of a page in a directory."""
    monkeypatch.chdir(directory)
    for part in parts(page):
        if part.language == "python":
            exec("\n".join(part.lines), {})


def missing(made: Iterable[str], directory: Path) -> list[str]:
    """Which of these files are not there."""
    return [name for name in made if not (directory / name).is_file()]
