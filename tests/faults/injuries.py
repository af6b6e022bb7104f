"""The faults: what is done to a command that runs, or to what it reads and writes, at a random moment."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.faults.processes import Running, processes_in, start
from tests.faults.scenarios import Scenario, Step, Undisturbed, filled
from tests.violations import ViolationError

MIB = 1 << 20


@dataclass(frozen=True)
class Attempt:
    """One step of a scenario that is about to be disturbed."""

    scenario: Scenario
    step: Step
    cwd: Path
    data: Path
    """A copy of the data set that may be damaged, if the scenario reads one."""
    seconds: float
    """That the step takes undisturbed."""
    whole: Undisturbed
    draw: random.Random
    number: int

    def start(self, **environment: str) -> Running:
        return start(filled(self.step, self.data), self.cwd, self.number, **environment)

    def moment(self, running: Running) -> bool:
        """Waits for a random moment of the step; whether it still runs then."""
        return running.wait(self.draw.uniform(0.0, 1.1) * self.seconds) is None


@dataclass(frozen=True)
class Fault:
    """One kind of fault. `disturb` returns the exit code of the disturbed step."""

    name: str
    disturb: Callable[[Attempt], int]
    fits: Callable[[Scenario], bool] = lambda scenario: True
    same: bool = True
    """Whether the result must be that of an undisturbed run."""


def tidy(running: Running, codes: set[int]) -> int:
    """The exit code of a step; ViolationError if it is none of these, or there is a traceback."""
    code = running.ended()
    if code not in codes:
        raise ViolationError(f"exit code {code} of {' '.join(running.words)}: {running.text[-2000:]}")
    if "Traceback (most recent" in running.text:
        raise ViolationError(f"a traceback of {' '.join(running.words)}: {running.text[-3000:]}")
    if code in (2, 75) and ": " not in (running.text.strip().splitlines() or [""])[-1]:
        raise ViolationError(f"exit code {code} without a line that says why: {running.text[-500:]!r}")
    return code


def killed(which: str) -> Callable[[Attempt], int]:
    """SIGKILL to all processes, the first, or any one of them."""

    def disturb(attempt: Attempt) -> int:
        running = attempt.start()
        if attempt.moment(running):
            pids = processes_in(attempt.cwd)
            if which != "all":
                pids = [running.pid] if which == "first" else [attempt.draw.choice(pids or [running.pid])]
            running.send(signal.SIGKILL, pids)
        return running.ended()

    return disturb


def asked(number: signal.Signals) -> Callable[[Attempt], int]:
    """SIGTERM or SIGINT to the first process: it saves its work and says so, or ends of the signal."""

    def disturb(attempt: Attempt) -> int:
        running = attempt.start()
        if attempt.moment(running):
            running.send(number, [running.pid])
        return tidy(running, {0, 99, 130, -number, 128 + number})

    return disturb


def frozen(attempt: Attempt) -> int:
    """SIGSTOP to all processes, and SIGCONT a moment later: nothing else happens."""
    running = attempt.start()
    if attempt.moment(running):
        pids = processes_in(attempt.cwd)
        running.send(signal.SIGSTOP, pids)
        time.sleep(attempt.draw.uniform(0.1, 1.5))
        running.send(signal.SIGCONT, pids)
    return tidy(running, {0})


def twice(attempt: Attempt) -> int:
    """The same command a second time, in the same directory: one waits, or is refused in one line."""
    first = attempt.start()
    time.sleep(attempt.draw.uniform(0, 1) * attempt.seconds)
    second = start(filled(attempt.step, attempt.data), attempt.cwd, attempt.number + 1000)
    codes = [tidy(running, {0, 2}) for running in (first, second)]
    if codes == [2, 2]:
        raise ViolationError(f"both are refused: {first.text[-500:]} {second.text[-500:]}")
    return 0


@cache
def can_mount() -> bool:
    """Whether file systems can be mounted: by root, and not in every container."""
    return (
        os.geteuid() == 0
        and subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode == 0
    )


def mount(*words: str) -> None:
    subprocess.run(["mount", *words], check=True, capture_output=True)


def full(attempt: Attempt) -> int:
    """A disk that is too small for the results, and then has room: what is there when it is full is resumed."""
    size = max(int(attempt.whole.bytes * attempt.draw.uniform(0.02, 1.0)), 65_536)
    return on_a_disk(attempt, f"size={size}", f"remount,size={512 * MIB}", {0, 1, 2})


def read_only(attempt: Attempt) -> int:
    """A disk that can only be read from the beginning on, and then be written."""
    return on_a_disk(attempt, "ro", "remount,rw", {2})


def on_a_disk(attempt: Attempt, options: str, then: str, codes: set[int]) -> int:
    """The step with a file system of its own as its directory, whose options change after it has ended."""
    if not attempt.cwd.is_mount() and not any(attempt.cwd.iterdir()):
        mount("-t", "tmpfs", "-o", options, "tmpfs", str(attempt.cwd))
        running = attempt.start()
        try:
            return tidy(running, codes)
        finally:
            mount("-o", then, str(attempt.cwd))
    return tidy(attempt.start(), {0})  # only a directory that is still empty can be replaced


def lost_shard(how: str) -> Callable[[Attempt], int]:
    """A shard that is removed, cut short or damaged while it is read, and restored afterwards."""

    def disturb(attempt: Attempt) -> int:
        running = attempt.start()
        shards = sorted(attempt.data.glob("*/*.tar"))
        path = attempt.draw.choice(shards)
        content = path.read_bytes()
        attempt.moment(running)
        if how == "removed":
            path.unlink()
        elif how == "cut short":
            os.truncate(path, attempt.draw.randrange(len(content)))
        else:
            with path.open("r+b") as file:
                for _ in range(20):
                    file.seek(attempt.draw.randrange(len(content)))
                    file.write(attempt.draw.randbytes(1))
        try:
            code = tidy(running, {0, 1, 2, 75})
            if code in (2, 75) and how != "damaged" and path.name not in running.text:
                raise ViolationError(f"the message does not name {path.name}: {running.text[-500:]}")
        finally:
            path.unlink(missing_ok=True)
            path.write_bytes(content)
        return code

    return disturb


SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
static int reads;
static long number(const char *name) { const char *text = getenv(name); return text ? atol(text) : 0; }
static void hang(void) {
    long nth = number("FAULT_READ");
    if (nth && __sync_add_and_fetch(&reads, 1) == nth) sleep(number("FAULT_SECONDS"));
}
ssize_t pread64(int fd, void *to, size_t size, off_t at) {
    static ssize_t (*real)(int, void *, size_t, off_t);
    if (!real) real = dlsym(RTLD_NEXT, "pread64");
    hang();
    return real(fd, to, size, at);
}
ssize_t pread(int fd, void *to, size_t size, off_t at) {
    static ssize_t (*real)(int, void *, size_t, off_t);
    if (!real) real = dlsym(RTLD_NEXT, "pread");
    hang();
    return real(fd, to, size, at);
}
int clock_gettime(clockid_t id, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    static time_t begin;
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int failed = real(id, now);
    if (id == CLOCK_REALTIME && number("FAULT_CLOCK")) {
        if (!begin) begin = now->tv_sec;
        if (now->tv_sec - begin >= number("FAULT_AFTER")) now->tv_sec += number("FAULT_CLOCK");
    }
    return failed;
}
"""


@cache
def shim(directory: Path) -> Path:
    """A library, preloaded, in which one read hangs or the clock jumps."""
    source, library = directory / "shim.c", directory / "shim.so"
    source.write_text(SHIM)
    subprocess.run(["gcc", "-O1", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True, capture_output=True)
    return library


def preloaded(attempt: Attempt, **environment: str) -> int:
    library = str(shim(attempt.cwd.parent))
    return tidy(attempt.start(LD_PRELOAD=library, **environment), {0})


def hanging_read(attempt: Attempt) -> int:
    """One read of a shard that takes five seconds."""
    return preloaded(attempt, FAULT_READ=str(attempt.draw.randint(1, 40)), FAULT_SECONDS="5")


def clock_jump(attempt: Attempt) -> int:
    """A clock that jumps by a day, forward or back, while the step runs."""
    day = attempt.draw.choice((-86_400, 86_400))
    return preloaded(attempt, FAULT_CLOCK=str(day), FAULT_AFTER=str(attempt.draw.randint(2, 6)))


def one_process(scenario: Scenario) -> bool:
    return scenario.light


def on_disk(scenario: Scenario) -> bool:
    return scenario.light and can_mount()


def with_shards(scenario: Scenario) -> bool:
    return scenario.light and scenario.reads_data


def with_compiler(scenario: Scenario) -> bool:
    return scenario.light and scenario.reads_data and shutil.which("gcc") is not None


FAULTS = (
    Fault("SIGKILL, all", killed("all")),
    Fault("SIGKILL, the first", killed("first")),
    Fault("SIGKILL, any one", killed("one")),
    Fault("SIGTERM", asked(signal.SIGTERM)),
    Fault("SIGINT", asked(signal.SIGINT), one_process),
    Fault("SIGSTOP, SIGCONT", frozen),
    Fault("twice at once", twice, one_process),
    Fault("full disk", full, on_disk),
    Fault("read-only disk", read_only, on_disk),
    Fault("shard removed", lost_shard("removed"), with_shards),
    Fault("shard cut short", lost_shard("cut short"), with_shards),
    Fault("shard damaged", lost_shard("damaged"), with_shards, same=False),
    Fault("a read hangs", hanging_read, with_compiler),
    Fault("the clock jumps", clock_jump, with_compiler),
)
