"""A command that is to be launched: what runs, where its results go, and how far it is."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shard_tools.base.commands import Command, attribute, parse_options
from shard_tools.base.errors import UserError, unknown
from shard_tools.manifest import MANIFEST, UNFINISHED

DISTRIBUTED = frozenset({"train", "evaluate", "cam"})
"""Commands whose processes share the work. The others run once, on the first node."""

NOT_LAUNCHED = ("launch", "jobs", "sites")

RUNS = Path("runs")
"""Directory of the runs, and of the records of commands without results of their own."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """One command with its options, as every rank runs it: `python -m <module> <command>`."""

    module: str
    title: str
    """The command's own words: `train`, `pack ms1mv2`."""
    command: tuple[str, ...]
    options: Any
    """The instance of its options."""

    @property
    def distributed(self) -> bool:
        return self.title in DISTRIBUTED

    @property
    def results(self) -> Path:
        """The directory of its results: the record of its submission is kept there."""
        directory = getattr(self.options, "run_dir", None) or getattr(self.options, "out_dir", None)
        if self.title.startswith("pack ") or self.title == "finalize":
            directory = self.options.out
        return directory if isinstance(directory, Path) else RUNS

    @property
    def rank_log(self) -> str:
        """Where ranks above 0 log to, with {rank} in it; empty if there are none."""
        return str(self.results / "logs" / "rank-{rank}.log") if self.distributed else ""

    @property
    def job_name(self) -> str:
        """A name for its job, of letters that every scheduler takes."""
        run = [self.results.parents[1].name] if self.title in ("evaluate", "cam") and not self.options.out else []
        return plain_name("_".join([self.title, *run, *([self.results.name] if self.results != RUNS else [])]))

    @property
    def data(self) -> Path | None:
        """The data set that it reads, if it reads one."""
        data = getattr(self.options, "data", None)
        return data if isinstance(data, Path) else None

    @property
    def manifest_sha256(self) -> str:
        """The SHA-256 of its data set's manifest; empty if there is none yet."""
        try:
            return hashlib.sha256((self.data / MANIFEST).read_bytes()).hexdigest() if self.data else ""
        except OSError:
            return ""

    def progress(self) -> int | None:
        """How far the work is, in numbers that only ever grow; None if that cannot be told.

        Of a training it is the step of the newest checkpoint, of a pack the parts that are done.
        """
        if self.title == "train":
            steps = (path.stem.partition("-")[2] for path in (self.results / "checkpoints").glob("step-????????.pt"))
            return max(map(int, steps), default=0)
        if self.title.startswith("pack "):
            return sum(1 for _ in (self.results / UNFINISHED).rglob("*"))
        return None


def find_work(command: Sequence[str], check: bool = True) -> Work:
    """The work that a command line asks for; with `check`, its options are checked as far as that goes without torch.

    An options object may have a method `check()` that raises UserError. Raises UserError, or exits as the command
    itself would on a wrong option.
    """
    from hpcgender.cli import COMMANDS as OWN  # which names this package
    from shard_tools.cli import COMMANDS as SHARDS

    command = command[1:] if command[:1] in (("hpcgender",), ("shard-tools",)) else command
    own = {name: entry for name, entry in OWN.items() if name.split()[0] not in NOT_LAUNCHED}
    known: dict[str, tuple[str, Command]] = {name: ("hpcgender", entry) for name, entry in own.items()}
    known.update({name: ("shard_tools", entry) for name, entry in SHARDS.items()})
    title = " ".join(command[:2]) if " ".join(command[:2]) in known else command[0] if command else ""
    if title not in known:
        raise unknown("command", title, list(known))
    module, entry = known[title]
    program = f"{module.replace('_', '-')} {title}"
    options = parse_options(attribute(entry.options), program, command[len(title.split()) :])
    if check and hasattr(options, "check"):
        options.check()
    return Work(module=module, title=title, command=tuple(command), options=options)


def plain_name(text: str) -> str:
    """A job's name of letters, digits and . _ - that begins with a letter, as Grid Engine and file names need it."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", text).strip("_")[:100]
    return name if name[:1].isalpha() else f"job_{name}"


def chained(work: Work, names: Sequence[str]) -> list[Work]:
    """What follows `work`, each command on the results of those before; UserError for one that cannot follow.

    Train follows a pack, on its data; eval and cam follow a training, on its best checkpoint and its data, or an
    evaluation, on the same checkpoint and split.
    """
    data, run_dir, checkpoint, split = work.data, None, None, "test"
    if work.title.startswith("pack ") or work.title == "finalize":
        data = work.results
    elif work.title == "train":
        run_dir = work.results
    elif work.title in ("evaluate", "cam"):
        checkpoint, split = work.options.checkpoint, work.options.split
    found = []
    for name in names:
        if name == "train" and data is not None and run_dir is None and checkpoint is None:
            run_dir = RUNS / data.resolve().name
            command = ["train", "--data", str(data), "--name", run_dir.name, "--resume"]
        elif name in ("eval", "evaluate", "cam") and data is not None and (run_dir or checkpoint):
            best = checkpoint or (run_dir or RUNS) / "checkpoints" / "best.pt"
            title = "cam" if name == "cam" else "evaluate"
            command = [title, "--checkpoint", str(best), "--data", str(data), "--split", split]
        elif name in ("train", "eval", "evaluate", "cam"):
            raise UserError(
                f"--chain: {name} cannot follow {work.title}: train follows pack, eval and cam follow train"
            )
        else:
            raise unknown("command in --chain", name, ["train", "eval", "cam"])
        found.append(find_work(command, check=False))
    return found
