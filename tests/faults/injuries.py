"""The faults: what is done to a command that runs, or to what it reads and writes, at a random moment."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from jobs.machine import PORT_TRIES, candidate_ports, ephemeral_range, port_is_free
from tests.faults.power import journalled, taken_back
from tests.faults.preload import Shim, counted
from tests.faults.processes import Running, command_line, processes_in, start
from tests.faults.scenarios import Scenario, Step, Undisturbed, filled
from tests.violations import ViolationError

MIB = 1 << 20
PAGE = 4096
"""Bytes: the smallest disk in memory."""


@dataclass
class Attempt:
    """One step of a scenario that is about to be disturbed."""

    scenario: Scenario
    step: Step
    cwd: Path
    data: Path
    """A copy of the data set that may be damaged, if the scenario reads one."""
    whole: Undisturbed
    draw: random.Random
    number: int
    hit: bool = False
    """Whether the fault met the step: a command that had ended, or did not ask for what was broken, was not hit."""

    @property
    def place(self) -> int:
        """The step's among those of the scenario."""
        return self.number // 10

    @property
    def seconds(self) -> float:
        """That the step takes undisturbed."""
        return self.whole.seconds[self.place]

    def start(self, **more: Any) -> Running:
        return start(filled(self.step, self.data), self.cwd, self.number, **more)

    def moment(self, running: Running, last: float = 0.95) -> bool:
        """Waits for a random moment, at most `last` of the step's duration; whether it still runs then."""
        runs = running.wait(self.draw.uniform(0.0, last) * self.seconds) is None
        if not runs and not self.number % 10:  # another time the machine was slower
            self.whole.seconds[self.place] = min(self.seconds, time.monotonic() - running.began)
        return runs

    def send(self, running: Running, number: signal.Signals, pids: Sequence[int]) -> None:
        """Sends a signal, which hits if a process gets it."""
        self.hit |= running.send(number, pids)


@dataclass(frozen=True)
class Fault:
    """One kind of fault. `disturb` returns the exit code of the disturbed step, and notes whether it hit."""

    name: str
    disturb: Callable[[Attempt], int]
    fits: Callable[[Scenario], bool] = lambda scenario: True
    same: bool = True
    """Whether the result must be that of an undisturbed run."""
    preloaded: bool = False
    """Whether it is a shim's, of which the undisturbed run must know what it counts."""


def tidy(running: Running, codes: Collection[int]) -> int:
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
            attempt.send(running, signal.SIGKILL, pids)
        return running.ended()

    return disturb


def asked(number: signal.Signals) -> Callable[[Attempt], int]:
    """SIGTERM or SIGINT to the first process: it saves its work and says so, or ends of the signal."""

    def disturb(attempt: Attempt) -> int:
        running = attempt.start()
        if attempt.moment(running):
            attempt.send(running, number, [running.pid])
        return tidy(running, {0, 99, 130, -number, 128 + number})

    return disturb


def frozen(attempt: Attempt) -> int:
    """SIGSTOP to all processes, and SIGCONT a moment later: nothing else happens."""
    running = attempt.start()
    if attempt.moment(running):
        pids = processes_in(attempt.cwd)
        attempt.send(running, signal.SIGSTOP, pids)
        time.sleep(attempt.draw.uniform(0.1, 1.5))
        running.send(signal.SIGCONT, pids)
    return tidy(running, {0})


def twice(attempt: Attempt) -> int:
    """The same command a second time, in the same directory: one waits, or is refused in one line."""
    first = attempt.start()
    attempt.hit = attempt.moment(first)
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
            code = tidy(running, codes)
            attempt.hit = bool(code) or not os.statvfs(attempt.cwd).f_bavail
            return code
        finally:
            mount("-o", then, str(attempt.cwd))
    return tidy(attempt.start(), {0})  # only a directory that is still empty can be replaced


def lost_shard(how: str) -> Callable[[Attempt], int]:
    """A shard that is removed, cut short or damaged while it is read, and restored afterwards."""

    def disturb(attempt: Attempt) -> int:
        running = attempt.start()
        shards = sorted(path for split in attempt.scenario.splits for path in (attempt.data / split).glob("*.tar"))
        path = attempt.draw.choice(shards)
        content = path.read_bytes()
        runs = attempt.moment(running)
        is_open = any(path in open_files(pid) for pid in processes_in(attempt.cwd))
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
            attempt.hit = runs and (is_open or code != 0)
            if code in (2, 75) and how != "damaged" and path.name not in running.text:
                raise ViolationError(f"the message does not name {path.name}: {running.text[-500:]}")
        finally:
            path.unlink(missing_ok=True)
            path.write_bytes(content)
        return code

    return disturb


def preloaded(attempt: Attempt, codes: Collection[int] = (0,), **environment: object) -> int:
    """The step with the shim, which notes what it does."""
    state = attempt.cwd.parent / f"counts-{attempt.number}"
    settings = Shim(attempt.cwd.parent.parent).environment(attempt.cwd, state, **environment)
    running = attempt.start(environment=settings)
    code = tidy(running, codes)
    attempt.hit = counted(state).hits > 0
    return code


def hanging_read(attempt: Attempt) -> int:
    """One read that takes five seconds."""
    reads = attempt.whole.counts[attempt.place].reads
    return preloaded(attempt, FAULT_READ=attempt.draw.randint(1, max(reads, 1)))


def slow_storage(attempt: Attempt) -> int:
    """Storage of which each read takes some milliseconds."""
    return preloaded(attempt, FAULT_SLOW=attempt.draw.choice((2, 10, 30)))


def quota(attempt: Attempt) -> int:
    """A quota that is too small for the results, and then has room."""
    written = attempt.whole.counts[attempt.place].written
    return preloaded(attempt, (0, 2), FAULT_ROOM=attempt.draw.randint(1, max(written, 1)))


def clock_jump(attempt: Attempt) -> int:
    """A clock that jumps by a day, forward or back, while the step runs."""
    day = attempt.draw.choice((-86_400, 86_400))
    asked = attempt.whole.counts[attempt.place].asked
    return preloaded(attempt, FAULT_CLOCK=day, FAULT_ASKED=attempt.draw.randint(1, max(asked, 1)))


def power_cut(attempt: Attempt) -> int:
    """SIGKILL to all, and renames that no fsync of their directory has made sure are taken back."""
    journal = attempt.cwd.parent / f"journal-{attempt.number}"
    running = attempt.start(prepare=partial(journalled, journal))
    attempt.moment(running, last=1.0)
    attempt.send(running, signal.SIGKILL, processes_in(attempt.cwd))
    running.ended()
    attempt.hit |= taken_back(journal) > 0
    return -signal.SIGKILL


def full_log(attempt: Attempt) -> int:
    """A disk for the log alone that has room for a few lines or none, by which no result may be lost."""
    disk = attempt.cwd.parent / f"log-{attempt.number}"
    disk.mkdir()
    mount("-t", "tmpfs", "-o", f"size={PAGE}", "tmpfs", str(disk))
    log = disk / "log"
    printed = attempt.whole.printed[attempt.place]
    room = attempt.draw.randrange(min(max(printed, 1), PAGE))
    log.write_bytes(b"\n" * (PAGE - room))
    try:
        code = attempt.start(log=log).ended()
        attempt.hit = printed > 0 and log.stat().st_size == PAGE
        return code
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True, capture_output=True)


def one_stops(attempt: Attempt) -> int:
    """SIGSTOP to one process of several, and SIGCONT seconds later: the others wait."""
    running = attempt.start()
    if attempt.moment(running):
        pids = attempt.draw.sample(processes_in(attempt.cwd) or [running.pid], 1)
        attempt.send(running, signal.SIGSTOP, pids)
        time.sleep(attempt.draw.uniform(0.5, 6))
        running.send(signal.SIGCONT, pids)
    return tidy(running, {0})


def one_hangs(attempt: Attempt) -> int:
    """SIGSTOP to one rank for good: the others wait for --timeout, and all end with a line that says so."""
    running = attempt.start()
    ranks: list[int] = []
    while not ranks and running.poll() is None:
        ranks = [pid for pid in processes_in(attempt.cwd) if "jobs.rank" in command_line(pid)]
        time.sleep(0.05)
    if attempt.moment(running, last=0.8) and ranks:
        attempt.send(running, signal.SIGSTOP, attempt.draw.sample(ranks, 1))
    code = running.ended()
    if code and (not attempt.hit or " failed: " not in running.text):
        raise ViolationError(f"exit code {code} without a line that says why: {running.text[-2000:]}")
    return code


def taken_ports(attempt: Attempt) -> int:
    """Other programs on some of the ports that the launcher tries, also while it tries them."""
    running = attempt.start()
    ports = [*candidate_ports(str(running.pid), ephemeral_range())]
    first = next(filter(port_is_free, ports), 0)
    with ExitStack() as stack:
        attempt.moment(running, last=0.3)
        for port in attempt.draw.sample(ports, PORT_TRIES - 1):
            other = stack.enter_context(
                socket.socket(socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET)
            )
            with suppress(OSError):  # the launcher has it
                other.bind(("", port))
                other.listen(1)
        code = tidy(running, {0})
        attempt.hit = f":{first}" not in running.text or "is taken: trying another" in running.text
        return code


def open_files(pid: int) -> set[Path]:
    """The files that a process has open or mapped; none of one that has ended."""
    found: set[Path] = set()
    with suppress(OSError):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):  # it is closed meanwhile
                found.add(link.readlink())
    return found


def forked(scenario: Scenario) -> bool:
    return scenario.light


def launched(scenario: Scenario) -> bool:
    return scenario.ranks > 1


def on_disk(scenario: Scenario) -> bool:
    return can_mount()


def with_shards(scenario: Scenario) -> bool:
    return scenario.light and bool(scenario.splits)


def with_compiler(scenario: Scenario) -> bool:
    return shutil.which("gcc") is not None


def with_quota(scenario: Scenario) -> bool:
    return scenario.light and with_compiler(scenario)


FAULTS = (
    Fault("SIGKILL, all", killed("all")),
    Fault("SIGKILL, the first", killed("first")),
    Fault("SIGKILL, any one", killed("one")),
    Fault("power cut", power_cut, forked),
    Fault("SIGTERM", asked(signal.SIGTERM)),
    Fault("SIGINT", asked(signal.SIGINT), forked),
    Fault("SIGSTOP, SIGCONT", frozen),
    Fault("one stops", one_stops, launched),
    Fault("one hangs", one_hangs, launched),
    Fault("twice at once", twice),
    Fault("taken ports", taken_ports, launched),
    Fault("full disk", full, on_disk),
    Fault("full disk of the log", full_log, on_disk),
    Fault("read-only disk", read_only, on_disk),
    Fault("shard removed", lost_shard("removed"), with_shards),
    Fault("shard cut short", lost_shard("cut short"), with_shards),
    Fault("shard damaged", lost_shard("damaged"), with_shards, same=False),
    Fault("a read hangs", hanging_read, with_compiler, preloaded=True),
    Fault("slow storage", slow_storage, with_compiler, preloaded=True),
    Fault("full quota", quota, with_quota, preloaded=True),
    Fault("the clock jumps", clock_jump, with_compiler, preloaded=True),
)
