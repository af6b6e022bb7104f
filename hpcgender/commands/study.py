"""`hpcgender study` and the command of its last job: their options, and what is true of them."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated

import tyro

from hpcgender.commands import HPCGENDER
from hpcgender.commands.launch import JobConfig, LaunchConfig
from hpcgender.commands.train import TrainConfig
from hpcgender.run_directory import STUDY_TOML
from hpcgender.study.file import Study, read_study
from hpcgender.study.search import kept_number
from shard_tools.base.commands import RUNS, Command, Shown
from shard_tools.base.errors import UserError, unknown
from shard_tools.base.names import check_name


@dataclass(frozen=True, kw_only=True)
class StudyConfig(JobConfig):
    """Trains, evaluates and compares all that a TOML file names, as one array job of each.

    Tables of the file: name; [base], options of train as --print-config prints them; [grid], lists of values, of which
    every combination is trained, or [search], ranges to draw from; [evaluate], data sets and splits; [compare]. Given
    again, the command starts what is missing or has failed, and what is new in the file. Runs lie in runs/NAME/TRIAL.
    See also: hpcgender jobs NAME.
    """

    file: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="STUDY.toml")]
    """The study."""
    at_once: int = 0
    """How many jobs of the study run at the same time; 0: as many as there is room for, without a scheduler one."""
    attempts: int = 3
    """Consecutive attempts of a job without progress after which it is no longer requeued."""
    dry_run: bool = False
    """Print what would be trained, and the job script, without submitting it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.at_once < 0:
            raise UserError(f"--at-once {self.at_once}: it cannot be negative")
        if self.attempts < 1:
            raise UserError(f"--attempts {self.attempts}: at least 1 is needed")

    def launched(self, command: tuple[str, ...], name: str) -> LaunchConfig:
        """The launch of one command of the study, as jobs called `name`."""
        resources = {field.name: getattr(self, field.name) for field in fields(JobConfig)}
        return LaunchConfig(**resources, command=command, attempts=self.attempts, job_name=name)


@dataclass(frozen=True, kw_only=True)
class NameConfig:
    """Which study is meant."""

    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")]
    """Name of the study."""

    def __post_init__(self) -> None:
        check_name("study", self.name)

    @property
    def directory(self) -> Path:
        """The study's directory."""
        return RUNS / self.name

    def study(self) -> Study:
        """The study as its file was submitted last."""
        return read_study(self.directory / STUDY_TOML, self.name)

    def check(self) -> None:
        """Raises UserError if there is no such study."""
        if not (self.directory / STUDY_TOML).is_file():
            raise UserError(f"no study {self.name} in {RUNS}: start it with hpcgender study {self.name}.toml")


@dataclass(frozen=True, kw_only=True)
class ResultConfig(NameConfig):
    """Shows what has come of a study: validation, the best trial, evaluations; and compares them.

    The best trial is chosen by its validation alone. It is evaluated now if [evaluate] asks for the best trial only.
    """


@dataclass(frozen=True, kw_only=True)
class TrialConfig(NameConfig):
    """Trains one trial of a study whose sampler is tpe, with options that Optuna chooses when it begins."""

    trial: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="TRIAL")]
    """Name of the trial, such as trial-0003."""
    training: Annotated[TrainConfig | None, tyro.conf.Suppress] = None
    """The options of its training where the study's file is read already; a job reads it when it begins."""

    def check(self) -> None:
        """Raises UserError if there is no such trial, or if it cannot be trained."""
        super().check()
        self.options.check()

    @property
    def options(self) -> TrainConfig:
        """The options of its training; as long as nothing is drawn for it, those in [base]."""
        if self.training:
            return self.training
        trials = self.study().trials
        if self.trial not in trials:
            raise unknown(f"trial of study {self.name}", self.trial, list(trials))
        return trials[self.trial]


class Result(Command[ResultConfig]):
    """The last job of a study."""

    def results(self, options: ResultConfig) -> Path:
        return options.directory

    def job_name(self, options: ResultConfig) -> str:
        return options.name

    def shared(self, options: ResultConfig) -> bool:
        return True


class Trial(Command[TrialConfig]):
    """One training of a search, which goes on where it stopped, with the options that it began with."""

    def results(self, options: TrialConfig) -> Path:
        return options.directory / options.trial

    def data(self, options: TrialConfig) -> Path | None:
        return training().data(options.options)

    def job_name(self, options: TrialConfig) -> str:
        return f"{options.name} {options.trial}"

    def progress(self, options: TrialConfig) -> int | None:
        return training().progress(options.options)

    def check_ranks(self, options: TrialConfig, ranks: int) -> None:
        if kept_number(self.results(options)) is None:  # else Optuna drew it, and it fails by itself
            training().check_ranks(options.options, ranks)

    def shown(self, results: Path, log: str, running: bool, now: float) -> Shown:
        return training().shown(results, log, running, now)


def training() -> Command[TrainConfig]:
    """What is true of every training."""
    found = HPCGENDER.find(["train"])
    assert found
    return found


COMMANDS = (
    Command(
        name="study",
        summary="train, evaluate and compare all that a file names",
        options=StudyConfig,
        work="hpcgender.study.command:study",
        launched=False,
    ),
    Result(
        name="study result",
        summary="show the best trial of a study, and compare its runs",
        options=ResultConfig,
        work="hpcgender.study.result:result",
    ),
    Trial(
        name="study trial",
        summary="train one trial of a search, as the jobs of a study do",
        options=TrialConfig,
        work="hpcgender.study.tuned:trial",
        distributed=True,
    ),
)
