"""How a study stands: which of its work is done, which waits or is under way; and whether its file has changed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpcgender.commands import HPCGENDER
from hpcgender.commands.evaluate import EvaluateConfig
from hpcgender.commands.train import TrainConfig
from hpcgender.data.packs import identity, read_packs
from hpcgender.evaluate.results import FILE, read_evaluation
from hpcgender.run_directory import CONFIG_JSON, STUDY_TOML, holds_run, is_finished
from hpcgender.status.direct import is_locked
from hpcgender.status.runs import ListedRun, RunRecord, ask, judge_all, others, read_records
from hpcgender.study.file import Study, read_evaluations, read_study
from hpcgender.study.search import PRUNED, Range, kept_number
from jobs.scheduler import UNKNOWN, array_id
from jobs.schedulers import named
from shard_tools.base.commands import Call, find_call
from shard_tools.base.documents import read_json, read_toml
from shard_tools.base.errors import UserError
from shard_tools.base.text import plural
from shard_tools.manifest import manifest_sha256


@dataclass(frozen=True, kw_only=True)
class Standing:
    """What jobs of a study do, by the directories of their results."""

    alive: Mapping[Path, ListedRun]
    unrecorded: Sequence[tuple[str, str]]
    """Ids and names of this user's jobs that wait or run and have no record in the study."""

    def jobs(self, results: list[Path]) -> tuple[str, ...]:
        """The ids of the jobs, or of their arrays, that wait or work on some results."""
        runs = [self.alive[path] for path in results if path in self.alive]
        return tuple(dict.fromkeys(array_id(run.record.submission.job_id) for run in runs))

    def left_behind(self, name: str) -> list[str]:
        """The processes of a study, as words, that work on this machine."""
        submissions = [run.record.submission for run in self.alive.values()]
        own = [one for one in submissions if one.name == name and not named(one.scheduler).has_queue]
        return [f"process {one.job_id}" for one in own]

    def has(self, call: Call[Any]) -> bool:
        """Whether a job waits to do this, or does it."""
        return call.results in self.alive


def look(study: Study) -> Standing:
    """How a study stands, by its records and their schedulers; UserError if that is unknown."""
    found = read_records((study.directory,))
    queues = ask(found)
    runs = judge_all(found, queues)
    unknown = {run.record.submission.scheduler for run in runs if run.status.state == UNKNOWN}
    for scheduler, error in queues.silent.items():
        if scheduler in unknown:
            raise UserError(f"{error}: the state of the runs of study {study.name} is unknown, try again")
    return Standing(
        alive={run.record.results: run for run in runs if run.status.alive and not _is_study(run.record)},
        unrecorded=[(array_id(job.job_id), job.name) for _, job in others(found, queues)],
    )


def _is_study(record: RunRecord) -> bool:
    # Its process on this machine: what it started is listed by itself.
    return HPCGENDER.find(record.submission.command) == HPCGENDER.find(["study"])


def is_done(call: Call[Any]) -> bool:
    """Whether a training or an evaluation of a study is done."""
    if isinstance(call.options, EvaluateConfig):
        return (call.results / FILE).is_file()
    return is_finished(call.results) or (call.results / PRUNED).exists()


def trains(study: Study, trial: str, standing: Standing) -> bool:
    """Whether a trial is trained now, also by a process without a job."""
    results = study.directory / trial
    return results in standing.alive or bool(is_locked(results))


def check_unchanged(study: Study, standing: Standing) -> None:
    """Raises UserError, naming what has changed, if something was done, or waits to be, with other options than now.

    Where data is and where results are may change.
    """
    _check_trainings(study, standing)
    if study.evaluations:
        _check_evaluations(study, standing)


def _check_evaluations(study: Study, standing: Standing) -> None:
    calls = [call for trial in study.trials for call in study.evaluated_on(trial)]
    done = {call.results.name: call for call in reversed(calls) if is_done(call)}  # one for each name: it is as others
    for call in done.values():
        held, data = read_evaluation(call.results).data.manifest, call.options.data
        if held != manifest_sha256(data):
            raise UserError(
                f"{study.toml.name} asks for the data in {data}, but {call.results} is of other data: restore it, or "
                "give its directory another name"
            )
    file = study.directory / STUDY_TOML
    begun = next((call.results for call in calls if is_done(call) or standing.has(call)), None)
    if begun and file.exists():
        asked, options = read_evaluations(read_toml(file))
        if asked:
            _check_asked(study, begun, options)
    for call in done.values():
        call.options.check_held(read_evaluation(call.results))


def _check_asked(study: Study, begun: Path, earlier: Mapping[str, Any]) -> None:
    for name in sorted({*earlier, *study.options} - {"workers", "stage_to", "max_bad", "errors"}):
        before, now = (given.get(name, getattr(EvaluateConfig, name)) for given in (earlier, study.options))
        if before != now:
            raise UserError(
                f"{study.toml.name} asks for evaluations with {name} = {_spelled(now)}, but {begun} was begun with "
                f"{name} = {_spelled(before)}: restore it, or cancel and remove {study.directory}/*/{begun.parent.name}"
            )


def _spelled(value: Any) -> str:
    return json.dumps(value, default=str)


def _check_trainings(study: Study, standing: Standing) -> None:
    file = study.directory / STUDY_TOML
    tuned = study.search and study.search.sampler == "tpe" and file.exists()
    earlier = read_study(file, study.name) if tuned else None
    _check_ranges(study, earlier)
    found = ((trial, _difference(study, trial, standing, earlier)) for trial in study.trials)
    differing = [(trial, *difference) for trial, difference in found if difference]
    if differing:
        trial, before, now = differing[0]
        more = f" and {plural(len(differing) - 1, 'other run')}" if len(differing) > 1 else ""
        raise UserError(
            f"{study.toml.name} asks for {now}, but {study.directory / trial}{more} began with {before}, and would not "
            "be comparable: restore it, cancel and remove the run, or give the study another name"
        )


def _difference(study: Study, trial: str, standing: Standing, earlier: Study | None) -> tuple[str, str] | None:
    """The first option in which a trial has begun otherwise, before and now; None if there is none.

    `earlier` is a search through Optuna as it was submitted last.
    """
    call, results, data = study.training(trial), study.directory / trial, study.trials[trial].data
    if holds_run(results) and (results / CONFIG_JSON).exists():
        again = "remove the run"
        begun = read_json(results / CONFIG_JSON, again, again)
        if begun.get("manifest") != identity(read_packs(data)):
            return f"other data, {begun.get('data')}", f"the data in {data}"
        return _first(begun, study.trials[trial])
    waiting = standing.alive.get(results)
    if waiting and (words := waiting.record.submission.command) != call.words:
        before = find_call([HPCGENDER], words).options
        if isinstance(before, TrainConfig):
            return _first(before.plain(), study.trials[trial])
        return "another sampler", "this one"
    if earlier and trial in earlier.trials and (waiting or kept_number(results) is not None):
        return _first(earlier.trials[trial].plain(), study.trials[trial])
    return None


def trained_already(study: Study, trials: Sequence[str], others: Sequence[str]) -> dict[str, str]:
    """The trials not begun whose options and data another, finished run in the study's directory has, and its name."""
    found: dict[str, str] = {}
    for other in others:
        if is_finished(study.directory / other):
            again = "remove the run"
            begun = read_json(study.directory / other / CONFIG_JSON, again, again)
            for trial in (trial for trial in trials if not (study.directory / trial).exists()):
                options = study.trials[trial]
                if begun.get("manifest") == identity(read_packs(options.data)) and _first(begun, options) is None:
                    found.setdefault(trial, other)
    return found


def _check_ranges(study: Study, earlier: Study | None) -> None:
    """Raises UserError if a range has changed in which Optuna knows trials."""
    drawn = any(kept_number(study.directory / trial) is not None for trial in study.trials)
    if not (drawn and study.search and earlier and earlier.search):
        return
    for name, wanted in study.search.ranges.items():
        if name in earlier.search.ranges and _kind(wanted) != _kind(earlier.search.ranges[name]):
            raise UserError(
                f"{study.toml.name}: search.ranges.{name} has another kind or other choices than when trials of "
                f"{study.directory} were drawn, which Optuna does not take: restore it, or give the study another name"
            )


def _kind(wanted: Range | tuple[Any, ...]) -> Any:
    """What Optuna takes no other of: the choices, or whether numbers are whole and logarithmic."""
    return (wanted.whole, wanted.log) if isinstance(wanted, Range) else wanted


def _first(begun: Mapping[str, Any], options: TrainConfig) -> tuple[str, str] | None:
    from hpcgender.compare.seeds import NOT_OF_THE_MODEL  # and numpy, for which a first submission need not wait

    for name, value in options.plain().items():
        now, before = (json.loads(json.dumps(one)) for one in (value, begun.get(name)))
        if name in NOT_OF_THE_MODEL - {"seed"} or now == before:
            continue
        if name == "augmentation":  # the file has the same name and other content
            return "another content of it", f"augment = {json.dumps(options.augment)}"
        return f"{name} = {json.dumps(before)}", f"{name} = {json.dumps(now)}"
    return None
