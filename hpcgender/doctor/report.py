"""An examination as a table and as JSON: what all hosts found, the worst first, alike findings once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from hpcgender.commands.doctor import DOCTOR, EXAMINATION
from hpcgender.doctor.finding import STATES, Finding
from shard_tools.base.documents import read_document, restored, write_document
from shard_tools.base.errors import FAILED
from shard_tools.base.text import Table, plural, print_tables

FORM = "hpcgender-examination-1"
AGAIN = "examine again: hpcgender doctor"


@dataclass(frozen=True, kw_only=True)
class Examination:
    """What was examined, with which options, and what was found."""

    time: float
    """Unix time of its end."""
    hosts: tuple[str, ...]
    """Of the nodes, in the order of their ranks."""
    processes: int
    """On each node."""
    device: str
    """cpu, or the name of the GPU."""
    precision: str
    cores_per_process: float
    model: str
    image_size: int
    batch_size: int
    """Images of a step in each process."""
    findings: tuple[Finding, ...]
    skipped: Mapping[str, str] = field(default_factory=dict)
    """What was not examined, and why."""

    @property
    def code(self) -> int:
        """The exit code: 1 if anything is red."""
        return FAILED if any(finding.state == "red" for finding in self.findings) else 0

    def number(self, check: str, name: str) -> float | None:
        """A number that a check has measured."""
        return next((f.numbers[name] for f in self.findings if f.check == check and name in f.numbers), None)


def write(examination: Examination, directory: Path = DOCTOR) -> Path:
    """Writes it where `hpcgender plan` finds it, and returns the file."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / EXAMINATION
    write_document(path, FORM, asdict(examination))
    return path


def read(path: Path) -> Examination:
    """The examination in a file; UserError if there is none, or if it is damaged."""
    return restored(Examination, read_document(path, FORM, AGAIN, AGAIN), path, AGAIN)


def in_order(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """The worst first, otherwise as they were found."""
    return tuple(sorted(findings, key=lambda finding: -STATES.index(finding.state)))


def alike(findings: Sequence[Finding]) -> list[list[Finding]]:
    """Findings of the same check and state together."""
    together: dict[tuple[str, str, str], list[Finding]] = {}
    for finding in findings:
        together.setdefault((finding.check, finding.state, finding.advice), []).append(finding)
    return list(together.values())


def words(findings: Sequence[Finding], all_hosts: Sequence[str]) -> str:
    """What was found, where if not everywhere alike, and what to do: of findings that are alike."""
    first, hosts = findings[0], list(dict.fromkeys(finding.host for finding in findings))
    where = ""
    if first.host and len(hosts) < len(set(all_hosts)):
        where = f"on {', '.join(hosts[:3])}{f' and {len(hosts) - 3} more' if len(hosts) > 3 else ''}: "
    elif any(finding.found != first.found for finding in findings):
        where = f"{first.host}, and the others alike: "
    return f"{where}{first.found}" + (f" -> {first.advice}" if first.advice else "")


def show(examination: Examination) -> None:
    """Prints the table, and below it what was not examined, and why."""
    rows = tuple(
        (findings[0].check, findings[0].state, words(findings, examination.hosts))
        for findings in alike(in_order(examination.findings))
    )
    counts = {state: sum(row[1] == state for row in rows) for state in STATES}
    nodes = f"{plural(len(examination.hosts), 'node')} ({', '.join(examination.hosts)})"
    each = plural(examination.processes, "process", "processes")
    table = Table(
        ("check", "state", "found -> what to do"),
        rows,
        title=f"{nodes}, {each} on each",
        left=frozenset({"state", "found -> what to do"}),
    )
    print_tables(table, style=lambda column, cell: cell if column == "state" else "")
    print(", ".join(f"{count} {state}" for state, count in counts.items()))
    for what, why in examination.skipped.items():
        print(f"not examined: {what}: {why}")
