"""What the tests ask of a cluster, whichever scheduler it has: run, submit, wait, cut the power, look for processes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, TypeVar

from tests.cluster.hosts import REPOSITORY, USER, Hosts

HEAD = "head"
NODES = ("node1", "node2", "node3")
CPUS, GPUS = 8, 2
"""What each node claims to have; nobody opens the GPUs."""

PATIENCE = 4
"""How much longer is waited for anything than a quiet machine with fast cores may take: others use it, too."""


Found = TypeVar("Found")


@dataclass(frozen=True)
class End:
    """How a job ended: the scheduler's word for it and the greatest exit code, 128 + the signal if one killed it."""

    state: str
    code: int


class Cluster(ABC):
    """A head, where users work and the scheduler's master runs, and three nodes. Use it in a `with`."""

    name: ClassVar[str]
    daemons: ClassVar[frozenset[str]]
    """Names of the programs that run on an idle host."""

    site: ClassVar[str]
    """A site profile of this cluster, by which two nodes are two also when one is full, or has just been lost."""

    programs: ClassVar[tuple[str, ...]]
    """What must be installed."""

    nodes: ClassVar[tuple[str, ...]] = NODES

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.hosts = Hosts(directory, (HEAD, *self.nodes))
        self.environ: dict[str, str] = {}
        """The scheduler's variables that every user has."""

    def __enter__(self) -> Cluster:
        try:
            for name in self.hosts.names:
                self.hosts.start(name)
            self.configure()
            self.start_daemons(HEAD)
            with ThreadPoolExecutor() as pool:
                list(pool.map(self.start_daemons, self.nodes))
            self.wait_until(self.is_ready, 60, "all nodes are ready")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for name in reversed(self.hosts.names):
            self.hosts.stop(name)
        shutil.rmtree(self.directory)

    @abstractmethod
    def configure(self) -> None:
        """Writes the scheduler's files; no daemon runs yet."""

    @abstractmethod
    def start_daemons(self, host: str) -> None:
        """Starts what runs on this host."""

    @abstractmethod
    def is_ready(self) -> bool:
        """Whether all nodes take jobs."""

    @abstractmethod
    def submit(self, *arguments: object, user: str = USER, cwd: Path) -> str:
        """Submits with sbatch's or qsub's own arguments; returns the job's id."""

    @abstractmethod
    def cancel(self, job: str, user: str = USER) -> None:
        """Cancels a job as its user does, with scancel or qdel."""

    @abstractmethod
    def state(self, job: str) -> str:
        """The scheduler's own word for the job's state."""

    @abstractmethod
    def end(self, job: str) -> End | None:
        """How a job ended, with all tasks of an array; None while it has not. AssertionError if it never will."""

    def run(
        self,
        *argv: object,
        user: str = USER,
        cwd: Path | None = None,
        host: str = HEAD,
        timeout: float = 600,
        environ: Mapping[str, str] | None = None,
        check: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command on a host as a user, by default on the head; AssertionError if it fails, unless told not to.

        The environment is what a login gives, with this Python first on PATH, and `environ`. TimeoutExpired if it takes
        longer than `timeout` seconds; it is killed then.
        """
        command = self.command(*argv, user=user, cwd=cwd, host=host, environ=environ)
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
        assert not check or done.returncode == 0, (
            f"{argv} on {host}: code {done.returncode}\n{done.stdout}{done.stderr}"
        )
        return done

    def command(
        self,
        *argv: object,
        user: str = USER,
        cwd: Path | None = None,
        host: str = HEAD,
        environ: Mapping[str, str] | None = None,
    ) -> list[str]:
        """The command line, for subprocess, that runs a command on a host as a user."""
        home = "/root" if user == "root" else str(self.hosts.home)
        login = {
            "PATH": self.path(),
            **{"HOME": home, "USER": user, "LOGNAME": user, "SHELL": "/bin/bash", "LANG": "C.UTF-8"},
            "HPCGENDER_DEVICE": "cpu",  # nobody can open the GPUs that are granted
            "OMP_NUM_THREADS": "1",  # each node claims more cores than this machine has
            **({"PYTHONPATH": os.environ["PYTHONPATH"]} if "PYTHONPATH" in os.environ else {}),
        }
        variables = {**login, **self.environ, **(environ or {})}
        words = [str(argument) for argument in argv]
        return self.hosts.command(host, words, user=user, cwd=cwd or Path(home), environ=variables)

    @staticmethod
    def path(*more: Path) -> str:
        """Where users find programs: this Python first."""
        standard = ("/usr/local/bin", "/usr/bin", "/bin", "/usr/sbin", "/sbin")
        return ":".join(map(str, (Path(sys.executable).parent, *more, *standard)))

    def project(self, user: str = USER) -> Path:
        """A new directory of the user's to submit from: this repository, linked, with nothing packed or trained."""
        number = len(list(self.directory.glob("project-*")))
        project = self.directory / f"project-{number}"
        project.mkdir()
        for name in ("hpcgender", "shard_tools", "jobs"):
            (project / name).symlink_to(REPOSITORY / name)
        (project / ".venv").symlink_to(sys.prefix)
        (project / "logs").mkdir()
        if user != "root":
            for path in (project, project / "logs"):
                os.chown(path, self.hosts.uid, self.hosts.uid)
        return project

    def wait(self, job: str, timeout: float = 480) -> End:
        """Waits until a job has ended, however. AssertionError after `timeout` seconds."""
        return self.wait_until(lambda: self.end(job), timeout, f"job {job} has ended", lambda: self.state(job))

    def wait_until(
        self,
        look: Callable[[], Found | None],
        timeout: float,
        what: str,
        tell: Callable[[], object] = str,
        *,
        pause: float = 1.0,
    ) -> Found:
        """Waits until `look` returns something true, and returns it.

        AssertionError after `timeout` seconds, of which each has PATIENCE real ones; it says `what` was waited for, and
        what `tell` says then. It looks again after `pause` seconds at most.
        """
        began, longest, pause = time.monotonic(), pause, 0.2
        while not (found := look()):
            waited = time.monotonic() - began
            assert waited < PATIENCE * timeout, f"waited {waited:.0f} s until {what}: {tell()}"
            time.sleep(pause)
            pause = min(1.2 * pause, longest)  # each look is a process or two
        return found

    def wait_until_idle(self, timeout: float = 20) -> None:
        """Waits until no host has a process of any job. AssertionError, with what runs, after `timeout` seconds."""
        self.wait_until(
            lambda: not any(map(self.job_processes, self.hosts.names)),
            timeout,
            "nothing of any job runs",
            lambda: [self.job_processes(host) for host in self.hosts.names],
        )

    def cut_power(self, host: str) -> None:
        """The host is gone at once, with all that ran there."""
        self.hosts.stop(host)

    def restore_power(self, host: str) -> None:
        """The host starts again, with the scheduler's daemon and nothing else."""
        self.hosts.start(host)
        self.start_daemons(host)

    def job_processes(self, host: str) -> dict[int, str]:
        """Command lines of what runs on a host besides the scheduler's daemons, by pid on this machine."""
        return {
            pid: line
            for pid, line in self.hosts.processes(host).items()
            if Path(line.lstrip(": ").split()[0]).name not in self.daemons
        }
