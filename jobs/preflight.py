"""Whether a scheduler could ever run a job, asked before it is submitted: a wrong request may pend forever."""

from __future__ import annotations

import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path

from jobs.submit import NAMES, Request, script, submit_command

_SECONDS = 60


def check(request: Request, folder: Path) -> str:
    """Asks the scheduler whether the job could ever run, and returns what it says.

    Raises ValueError, in the scheduler's own words on one line and with the names that it knows, if not.
    """
    scheduler = request.site.scheduler
    alone = replace(request, after=())
    with tempfile.NamedTemporaryFile("w", prefix="hpcgender-", suffix=".sh") as file:
        file.write(script(alone, folder))
        file.flush()
        program, *options = submit_command(alone, folder, Path(file.name))
        asking = {"slurm": ["--test-only"], "sge": ["-w", "v"]}[scheduler]
        code, said = _run(program, *asking, *options)
    if code:
        hint = known_names(scheduler, said)
        raise ValueError(f"{NAMES[scheduler]} refuses {request.name}: {refusal(said)}" + (f" ({hint})" if hint else ""))
    return refusal(said)


def refusal(said: str) -> str:
    """What a scheduler says in several lines, without its phrases, on one."""
    phrases = ("sbatch: error: ", "sbatch: ", "Unable to run job: ", "allocation failure: ", "verification: ")
    lines = []
    for line in map(str.strip, said.splitlines()):
        for phrase in phrases:
            line = line.removeprefix(phrase)  # noqa: PLW2901
        if line and line not in ("Exiting.", "no suitable queues"):
            lines.append(line)
    return "; ".join(dict.fromkeys(lines)) or "it does not say why"


def known_names(scheduler: str, said: str) -> str:
    """The names that there are of what a refusal calls unknown; empty if that is not what it says."""
    said = said.lower()
    kinds: dict[str, tuple[str, tuple[str, ...]]]
    if scheduler == "slurm":
        kinds = {"partition": ("partitions", ("sinfo", "-h", "-o", "%R"))}
    else:
        kinds = {
            "unknown queue": ("queues", ("qconf", "-sql")),
            "parallel environment": ("parallel environments", ("qconf", "-spl")),
            "unknown resource": ("consumable complexes", ("qconf", "-sc")),
        }
    for word, (kind, command) in kinds.items():
        if word in said:
            code, listed = _run(*command)
            rows = [line.split() for line in listed.splitlines() if line.strip() and not line.startswith("#")]
            names = [row[0] for row in rows if kind != "consumable complexes" or row[5:6] != ["NO"]]
            return f"{kind} here: {', '.join(dict.fromkeys(names))}" if code == 0 and names else ""
    return ""


def _run(*command: str) -> tuple[int, str]:
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_SECONDS,
            check=False,
            errors="replace",
        )
    except FileNotFoundError:
        raise ValueError(f"{command[0]} is not there: submit from a machine of the cluster") from None
    except subprocess.TimeoutExpired:
        raise ValueError(f"{command[0]} has not answered for {_SECONDS} s: the scheduler seems to be down") from None
    return done.returncode, done.stdout
