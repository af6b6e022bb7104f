"""`hpcgender app` as a process that notes which files it writes and whom it calls."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

NOTING = """
import json, os, sys
log = open(sys.argv.pop(1), "a", buffering=1)
def note(event, arguments):
    if event == "open" and isinstance(arguments[0], (str, bytes)) and arguments[2] & (os.O_WRONLY | os.O_RDWR):
        print(json.dumps(["write", os.fsdecode(arguments[0])]), file=log)
    elif event in ("socket.connect", "socket.bind"):
        print(json.dumps([event, repr(arguments[1])]), file=log)
    elif event == "socket.getaddrinfo":
        print(json.dumps([event, repr(arguments[0])]), file=log)
sys.addaudithook(note)
from hpcgender.cli import main
main()
"""


@dataclass
class Served:
    """A page that is served."""

    address: str
    told: list[str]
    log: Path

    def noted(self) -> list[tuple[str, str]]:
        """What the process wrote, bound and called so far, by Python's audit events."""
        return [tuple(json.loads(line)) for line in self.log.read_text().splitlines()]


@contextmanager
def served(directory: Path, *options: object, **environment: str) -> Iterator[Served]:
    """The page of a command with these options, from a directory; ended by SIGTERM, after which its exit code is 0."""
    log = directory / "noted.jsonl"
    words = [sys.executable, "-c", NOTING, str(log), "app", *map(str, options)]
    variables = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1", **environment}
    with (directory / "stderr").open("w") as stderr:
        process = subprocess.Popen(
            words, cwd=directory, env=variables, stdout=subprocess.PIPE, stderr=stderr, text=True
        )
    assert process.stdout
    told: list[str] = []
    try:
        while not (told and told[-1].startswith("from another machine")):
            line = process.stdout.readline()
            assert line, (directory / "stderr").read_text()
            told.append(line.rstrip("\n"))
        found = re.search(r"http://\S+", told[-2])
        assert found
        wait_for(found[0], process)
        yield Served(found[0], told, log)
        process.terminate()
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.communicate()


def wait_for(address: str, process: subprocess.Popen[str]) -> None:
    """Returns once something answers there."""
    while process.poll() is None:
        try:
            urllib.request.urlopen(address, timeout=10).close()
        except OSError:
            continue
        return
    raise AssertionError(f"the server ended with code {process.returncode}")
