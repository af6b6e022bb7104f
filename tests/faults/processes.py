"""Commands as processes in a directory of their own, forked of one that has imported torch: signals, and their end."""

from __future__ import annotations

import os
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.conftest import REPOSITORY
from tests.forked import become
from tests.violations import ViolationError

BOUND = 600.0
"""Seconds in which every command must end, whatever happens to it: on two cores that ten others share, too."""
GONE = 30.0
"""Seconds in which all processes that it started must be gone after it."""


@dataclass
class Running:
    """A command that runs in a directory."""

    words: Sequence[str]
    cwd: Path
    pid: int
    log: Path
    process: subprocess.Popen[bytes] | None = None
    """None of one that was forked."""
    began: float = field(default_factory=time.monotonic)
    code: int | None = None

    def poll(self) -> int | None:
        """Its exit code, minus a signal's number if one ended it; None while it runs."""
        if self.code is None and self.process:
            self.code = self.process.poll()
        elif self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.code = os.waitstatus_to_exitcode(status) if pid else None
        return self.code

    def wait(self, seconds: float) -> int | None:
        """The same after it has ended, or after so many seconds."""
        end = time.monotonic() + seconds
        while self.poll() is None and time.monotonic() < end:
            time.sleep(0.005)
        return self.code

    def ended(self) -> int:
        """Its exit code; ViolationError if it does not end within BOUND, or leaves a process."""
        if self.wait(BOUND - (time.monotonic() - self.began)) is None:
            self.send(signal.SIGKILL, processes_in(self.cwd))
            self.wait(10)
            raise ViolationError(f"it hangs: {' '.join(self.words)}: {self.text[-1000:]}")
        end = time.monotonic() + GONE
        while left := processes_in(self.cwd):
            if time.monotonic() > end:
                self.send(signal.SIGKILL, left)
                raise ViolationError(f"processes {left} outlive {' '.join(self.words)}")
            time.sleep(0.02)
        assert self.code is not None
        return self.code

    def send(self, number: signal.Signals, pids: Sequence[int]) -> bool:
        """Sends a signal to those of the processes that still run; whether one did."""
        sent = False
        for pid in pids:
            if pid != self.pid or self.poll() is None:  # or it might be another's by now
                with suppress(ProcessLookupError):
                    os.kill(pid, number)
                    sent = True
        return sent

    @property
    def text(self) -> str:
        """What it has printed."""
        return self.log.read_text(errors="replace")


def start(
    words: Sequence[str],
    cwd: Path,
    number: int,
    *,
    log: Path | None = None,
    prepare: Callable[[], None] = lambda: None,
    environment: Mapping[str, str] | None = None,
) -> Running:
    """Starts `python -m <words>`; in a new interpreter where it has an environment of its own or is a launcher.

    What it prints goes to the end of `log`, by default a file of its own. One that is forked calls `prepare` first.
    """
    log = log or cwd.parent / f"{cwd.name}-{number}.log"
    if environment or words[0] not in ("hpcgender", "shard_tools"):
        with log.open("ab") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", *words], cwd=cwd, stdin=subprocess.DEVNULL, stdout=file, stderr=file,
                start_new_session=True, env={**os.environ, "PYTHONPATH": str(REPOSITORY), **(environment or {})},
            )  # fmt: skip
        return Running(words, cwd, process.pid, log, process)
    log.touch()
    pid = os.fork()
    if not pid:
        code = 70
        try:
            os.setsid()
            become(words, str(cwd), str(log), str(log))
            prepare()
            try:
                runpy.run_module(words[0], run_name="__main__", alter_sys=True)
                code = 0
            except SystemExit as error:
                code = error.code if isinstance(error.code, int) else 0 if error.code is None else 1
            except BaseException:
                sys.excepthook(*sys.exc_info())
                code = 1
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)
    return Running(words, cwd, pid, log)


def processes_in(cwd: Path) -> list[int]:
    """The processes that work in a directory, in whatever session; without those that have ended."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, IndexError):  # it ends meanwhile
            if (path / "cwd").readlink() == cwd and (path / "stat").read_text().rpartition(")")[2].split()[0] != "Z":
                found.append(int(path.name))
    return found


def command_line(pid: int) -> str:
    """The words of a process; empty if it has ended."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").replace("\0", " ")
    return ""
