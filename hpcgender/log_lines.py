"""The lines of a job's log that programs read, each written and parsed here: of epochs, steps and the launcher."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from shard_tools.base.text import duration, seconds_of

LAUNCH = "launch: "
"""What every line of the launcher begins with."""

STOP_REQUESTED = f"{LAUNCH}asked to stop by "
"""How the launcher's line begins that says who asked it to stop."""

NOT_REQUEUED = f"{LAUNCH}not requeued: "
"""How the launcher's line begins that says why a job which did not finish is not requeued."""

NOT_REQUEUED_YET = f"{LAUNCH}not requeued yet, "
"""How the line of `jobs/patience.py` begins that says why the scheduler is asked again."""

NO_VALIDATION = "no validation"
"""What an epoch's line has in the place of the split that it is validated on, if there is none."""

_SPLIT = re.compile(r"(train|val) loss (\S+)(?: acc (\S+)%)?(?: \((.*)\))?")
_CLASS = re.compile(r"(\S+) (\S+)%(?: |$)")
_STEP = re.compile(r"step (\d+)/(\d+) of epoch (\d+)/(\d+) \| loss (\S+) \| (\S+) img/s \| (\w+) left")
_EPOCH = re.compile(
    r"epoch (\d+)/(\d+) \| (train loss [^|]+) \| (val loss [^|]+|no validation)(?: \| val age MAE (\S+))?"
    r" \| lr (\S+) \| (\S+) img/s \| data wait (\S+)% \| eta (\w+)"
)
_ATTEMPT = re.compile(
    r"launch: (?P<command>.+) on (?P<nodes>\d+) (?P<local_nodes>local )?nodes?(?: \((?P<hosts>.+)\))?"
    r"(?:, (?P<processes>\d+) process(?:es)? each, (?P<threads>\S+) threads? each, rendezvous (?P<rendezvous>\S+))?"
)


@dataclass(frozen=True, kw_only=True)
class SplitLosses:
    """What an epoch's line has of a split; None is what the model does not predict. Accuracies are fractions."""

    loss: float
    accuracy: float | None = None
    class_accuracy: Mapping[str, float] = field(default_factory=dict)
    """By the classes' names, which have no spaces; the line of an epoch has that of val alone."""

    def text(self, split: str) -> str:
        """The split's part of the line."""
        classes = " ".join(f"{name} {accuracy:.2%}" for name, accuracy in self.class_accuracy.items())
        accuracy = "" if self.accuracy is None else f" acc {self.accuracy:.2%}"
        return f"{split} loss {self.loss:.4f}{accuracy}{f' ({classes})' if classes else ''}"

    @classmethod
    def parse(cls, text: str) -> SplitLosses:
        """From what `text` returned. Raises ValueError if it is something else."""
        found = _SPLIT.fullmatch(text)
        if not found:
            raise ValueError(f"{text!r} has no losses")
        _, loss, accuracy, classes = found.groups()
        return cls(
            loss=float(loss),
            accuracy=float(accuracy) / 100 if accuracy else None,
            class_accuracy={name: float(value) / 100 for name, value in _CLASS.findall(classes or "")},
        )


@dataclass(frozen=True, kw_only=True)
class EpochLine:
    """The line at the end of each epoch, from 1 to `epochs`."""

    epoch: int
    epochs: int
    train: SplitLosses
    val: SplitLosses | None
    """None without validation."""
    age_mae: float | None
    """Years, on val."""
    lr: float
    images_per_s: float
    data_wait: float
    """Fraction of the training time."""
    eta: float
    """Seconds."""

    def text(self) -> str:
        """The line."""
        age = () if self.age_mae is None else (f"val age MAE {self.age_mae:.2f}",)
        return " | ".join(
            (
                f"epoch {self.epoch}/{self.epochs}",
                self.train.text("train"),
                self.val.text("val") if self.val else NO_VALIDATION,
                *age,
                f"lr {self.lr:.1e}",
                f"{self.images_per_s:.0f} img/s",
                f"data wait {self.data_wait:.1%}",
                f"eta {duration(self.eta)}",
            )
        )

    @classmethod
    def parse(cls, line: str) -> EpochLine | None:
        """From a line of a log; None if it is another one, also one that merely resembles it."""
        found = _EPOCH.fullmatch(line)
        if not found:
            return None
        epoch, epochs, train, val, age_mae, lr, images_per_s, data_wait, eta = found.groups()
        try:
            return cls(
                epoch=int(epoch),
                epochs=int(epochs),
                train=SplitLosses.parse(train),
                val=None if val == NO_VALIDATION else SplitLosses.parse(val),
                age_mae=float(age_mae) if age_mae else None,
                lr=float(lr),
                images_per_s=float(images_per_s),
                data_wait=float(data_wait) / 100,
                eta=seconds_of(eta),
            )
        except ValueError:
            return None


@dataclass(frozen=True, kw_only=True)
class StepLine:
    """The line now and then within an epoch: `step` of `steps` are done, the last with `loss`."""

    step: int
    steps: int
    epoch: int
    epochs: int
    loss: float
    images_per_s: float
    left: float
    """Seconds until the epoch's last step."""

    def measured(self) -> str:
        """What was measured, for a progress bar that shows the step itself."""
        return f"loss {self.loss:.4f} | {self.images_per_s:.0f} img/s | {duration(self.left)} left"

    def text(self) -> str:
        """The line."""
        return f"step {self.step}/{self.steps} of epoch {self.epoch}/{self.epochs} | {self.measured()}"

    @classmethod
    def parse(cls, line: str) -> StepLine | None:
        """From a line of a log; None if it is another one, also one that merely resembles it."""
        found = _STEP.fullmatch(line)
        if not found:
            return None
        *counts, loss, images_per_s, left = found.groups()
        step, steps, epoch, epochs = map(int, counts)
        try:
            return cls(
                step=step,
                steps=steps,
                epoch=epoch,
                epochs=epochs,
                loss=float(loss),
                images_per_s=float(images_per_s),
                left=seconds_of(left),
            )
        except ValueError:
            return None


@dataclass(frozen=True, kw_only=True)
class AttemptLine:
    """The launcher's first line of an attempt: which command begins where."""

    command: str
    nodes: int
    hosts: Sequence[str] = ()
    """Empty if all nodes are on this machine."""
    processes: int = 1
    """On each node."""
    threads: str = "1"
    """OMP_NUM_THREADS of each process."""
    rendezvous: str = ""
    """host:port where the processes meet; empty if there is one process alone."""

    def text(self) -> str:
        """The line."""
        where = f"({', '.join(self.hosts)})" if self.hosts else ""
        nodes = _count(self.nodes, "node" if self.hosts else "local node")
        line = " ".join(filter(None, (f"{LAUNCH}{self.command} on {nodes}", where)))
        if not self.rendezvous:
            return line
        processes, threads = _count(self.processes, "process", "processes"), _count(self.threads, "thread")
        return f"{line}, {processes} each, {threads} each, rendezvous {self.rendezvous}"

    @classmethod
    def parse(cls, line: str) -> AttemptLine | None:
        """From a line of a log; None if it is another one."""
        found = _ATTEMPT.fullmatch(line)
        if not found or bool(found["local_nodes"]) == bool(found["hosts"]):
            return None
        return cls(
            command=found["command"],
            nodes=int(found["nodes"]),
            hosts=tuple((found["hosts"] or "").split(", ")) if found["hosts"] else (),
            processes=int(found["processes"] or 1),
            threads=found["threads"] or "1",
            rendezvous=found["rendezvous"] or "",
        )


def step_under_way(log: str) -> StepLine | None:
    """The last line of a step in the end of a log; None if an epoch has ended since."""
    for line in reversed(log.splitlines()):
        if step := StepLine.parse(line):
            return step
        if EpochLine.parse(line):
            return None
    return None


def last_attempt(log: str) -> str:
    """The end of a log since its last attempt began; all of it if that is further back."""
    lines = log.splitlines(keepends=True)
    begun = [number for number, line in enumerate(lines) if AttemptLine.parse(line.rstrip("\n"))]
    return "".join(lines[begun[-1] :]) if begun else log


def _count(number: int | str, noun: str, nouns: str = "") -> str:
    return f"{number} {noun if str(number) == '1' else nouns or f'{noun}s'}"
