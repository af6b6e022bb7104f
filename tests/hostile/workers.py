"""Processes that try inputs one after the other, in bounded time and memory: forked of one that has imported torch.

A worker runs commands within itself, so that thousands of inputs cost seconds. What a parent sees of it: a crash (the
signal that ended it), an input that takes longer than SECONDS (it is killed), and memory. Each input may add MEMORY to
what the process holds: more is a failure, and the system refuses it HEADROOM of address space.
"""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from shard_tools.base.commands import Program
from tests.violations import ViolationError

SECONDS = 60.0
"""Processor time of one input, at most."""
PATIENCE = 10
"""How many times as long it may take, at most, on a machine that is shared."""
MEMORY = 1 << 30
"""Bytes that one input may add to a worker's resident memory: an image of 50 megapixels is decoded in a quarter."""
HEADROOM = 6 << 30
"""Bytes of address space that a worker may add to what it was forked with."""
EACH = 200
"""Inputs of a worker, after which a new one is forked."""

RIGHT, REFUSED = "right", "refused"


@dataclass(frozen=True)
class Done:
    """What became of a command."""

    code: int
    out: str
    err: str

    @property
    def verdict(self) -> str:
        """RIGHT where all was well, REFUSED where the command or some of its input was refused."""
        return RIGHT if self.code == 0 else REFUSED


@dataclass(frozen=True)
class Result:
    """What became of a number of inputs of one kind."""

    number: int
    """Of the attempt within its kind, which repeats it."""
    right: int = 0
    refused: int = 0
    fault: str = ""
    """What went wrong; empty if nothing did."""
    seconds: float = 0.0
    bytes: int = 0
    """Memory that it added, at its peak."""


def command(program: Program, *words: object) -> Done:
    """Runs a command line within this process; ViolationError for a traceback or a refusal that says no reason.

    What ends with 2 says why in one line, the last one of stderr; with 1 it has listed what it could not use.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        kept = [os.dup(number) for number in (1, 2)]
        for number, file in ((1, out), (2, err)):
            os.dup2(file.fileno(), number)
        caught = ""
        code = -1
        try:
            code = program.run([os.fsdecode(word) if isinstance(word, bytes) else str(word) for word in words])
        except SystemExit as error:  # --help
            code = int(error.code or 0)
        except BaseException:
            caught = traceback.format_exc()
        finally:
            for stream in (os.sys.stdout, os.sys.stderr):  # type: ignore[attr-defined]
                stream.flush()
            for number, old in zip((1, 2), kept, strict=True):
                os.dup2(old, number)
                os.close(old)
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
    asked = " ".join(map(repr, words))
    if caught or "Traceback (most recent" in "".join(texts):
        raise ViolationError(f"{asked}: {caught or ''.join(texts)[-4000:]}")
    if code not in (0, 1, 2):
        raise ViolationError(f"{asked}: exit code {code}: {texts[1][-1000:]}")
    lines = texts[1].splitlines()
    if code == 2 and not (lines and lines[-1].startswith(f"{program.name}: ")):
        raise ViolationError(f"{asked}: exit code 2 without a line that says why: {texts[1][-1000:]!r}")
    if code == 2 and len(lines[-1]) > 2000:
        raise ViolationError(f"{asked}: the line is {len(lines[-1])} characters long: {lines[-1][:300]}")
    return Done(code, *texts)


def resident(name: str = "VmRSS") -> int:
    """Memory of this process, bytes; `VmHWM` is its peak."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) << 10


def bound_memory() -> None:
    """Refuses this process more address space than HEADROOM above what it has."""
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + HEADROOM, size + HEADROOM))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def measured(number: int, attempt: Callable[[int], dict[str, int]]) -> Result:
    """Tries one number within this process."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before, start = resident(), processor_seconds(os.getpid())
    counts, fault = {}, ""
    try:
        counts = attempt(number)
    except ViolationError as error:
        fault = str(error)
    except BaseException:
        fault = traceback.format_exc()
    added = max(resident("VmHWM") - before, 0)
    if added > MEMORY and not fault:
        fault = f"it took {added >> 20} MB of memory, more than {MEMORY >> 20}"
    return Result(
        number,
        counts.get(RIGHT, 0),
        counts.get(REFUSED, 0),
        fault[-6000:],
        processor_seconds(os.getpid()) - start,
        added,
    )


def tried(numbers: Iterator[int], attempt: Callable[[int], dict[str, int]], end: float) -> Iterator[Result]:
    """What becomes of each number, in workers that are forked of this process; none is begun after the time `end`."""
    pending = next(numbers, None)
    while pending is not None and time.monotonic() < end:
        asked, answered = os.pipe(), os.pipe()
        if not (pid := os.fork()):
            try:
                os.close(asked[1])
                os.close(answered[0])
                _serve(asked[0], answered[1], attempt)
            finally:
                os._exit(0)
        os.close(asked[0])
        os.close(answered[1])
        with os.fdopen(asked[1], "w") as requests, os.fdopen(answered[0]) as answers:
            for _ in range(EACH):
                if pending is None or time.monotonic() > end:
                    break
                requests.write(f"{pending}\n")
                requests.flush()
                ready = _answered(answers, pid)
                line = answers.readline() if ready else ""
                if line:
                    yield Result(**json.loads(line))
                else:
                    yield _lost(pid, pending, hung=not ready)
                pending = next(numbers, None)
                if not line:
                    break
            requests.close()
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            with suppress(ChildProcessError):
                os.waitpid(pid, 0)


def _answered(answers: IO[str], pid: int) -> bool:
    """Whether a worker answers, or ends, within the time of one input; waits for it."""
    began, before = time.monotonic(), processor_seconds(pid)
    while not select.select([answers], [], [], 1.0)[0]:
        if processor_seconds(pid) > before + SECONDS or time.monotonic() > began + PATIENCE * SECONDS:
            return False
    return True


def processor_seconds(pid: int) -> float:
    """That a process and those that it has waited for have used."""
    times = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:15]
    return sum(map(int, times)) / os.sysconf("SC_CLK_TCK")


def _lost(pid: int, number: int, hung: bool) -> Result:
    """The result of an input that its worker did not live through."""
    if hung:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        return Result(number, fault=f"it took more than {SECONDS:.0f} s", seconds=SECONDS)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    return Result(number, fault=f"it ended the process: {how}")


def _serve(requests: int, answers: int, attempt: Callable[[int], dict[str, int]]) -> None:
    os.setpgid(0, 0)
    bound_memory()
    with os.fdopen(requests) as lines, os.fdopen(answers, "w") as results:
        for line in lines:
            signal.alarm(round((PATIENCE + 1) * SECONDS))  # if nobody is left who would end it
            content: dict[str, Any] = measured(int(line), attempt).__dict__
            results.write(json.dumps(content) + "\n")
            results.flush()
