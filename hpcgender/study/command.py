"""Carries a study out: trains what is missing, evaluates it, and compares; as arrays of jobs, or on this machine."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from hpcgender.commands import HPCGENDER
from hpcgender.commands.launch import LaunchConfig
from hpcgender.commands.study import ResultConfig, StudyConfig
from hpcgender.launch.array import check_whole, folder, submit_array
from hpcgender.launch.submit import request, say_once
from hpcgender.run_directory import CONFIG_JSON, STUDY_TOML, holds_run
from hpcgender.study.file import Study, read_study
from hpcgender.study.local import run_here
from hpcgender.study.options import keep_options
from hpcgender.study.result import is_current
from hpcgender.study.result_file import RESULT
from hpcgender.study.search import kept_number
from hpcgender.study.standing import Standing, check_unchanged, is_done, look, trained_already, trains
from hpcgender.study.tuned import check_installed
from jobs import records
from jobs.scheduler import Request, array_id
from jobs.schedulers import named
from jobs.site import Site
from jobs.sites import find_site
from shard_tools.base.commands import Call
from shard_tools.base.contracts import SUBMISSIONS
from shard_tools.base.errors import UserError
from shard_tools.base.files import check_directory, write_file
from shard_tools.base.lock import locked
from shard_tools.base.text import plural

LOCK = "study.lock"
"""Held by the command that submits a study, or carries it out on this machine."""
_PATIENCE = 5.0  # seconds


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Commands that can run side by side, after those of the stages before."""

    noun: str
    calls: list[Call[Any]]
    config: LaunchConfig
    after_end: tuple[str, ...]
    """Ids of jobs that were submitted earlier and must have ended first."""


def study(config: StudyConfig) -> int:
    """Starts all of the study that is missing; returns the exit code. UserError for what can be known beforehand."""
    wanted = read_study(config.file)
    site = find_site(config.site, config.scheduler, os.environ)
    directory = wanted.directory
    if holds_run(directory) or (directory / CONFIG_JSON).exists():
        raise UserError(f"{directory} is a run: give the study another name")
    for call in wanted.evaluated_on(next(iter(wanted.trials))):
        call.options.check_given()
    if wanted.search and wanted.search.sampler == "tpe":
        check_installed()
    check_directory(directory, "the study's name")
    if config.dry_run:
        return preview(config, wanted, site)
    directory.mkdir(parents=True, exist_ok=True)
    with locked(directory / LOCK, directory, "wait until that has ended", patience=_PATIENCE):
        standing = settled(wanted)
        stages = planned(config, wanted, standing, site)
        print(summary(wanted, standing, stages), flush=True)
        if named(site.scheduler).has_queue:
            check_all(config, wanted, stages, site)
        write_file(directory / STUDY_TOML, wanted.toml.text.encode())
        if not any(stage.calls for stage in stages):
            return 0
        keep_options(config, directory)
        if named(site.scheduler).has_queue:
            return submit(config, wanted, stages, site)
        return run_here(config, wanted, [stage.calls for stage in stages])


def settled(wanted: Study) -> Standing:
    """How the study stands, once processes of it have ended that an earlier command on this machine left behind.

    They were asked to stop when it ended.
    """
    standing = look(wanted)
    if left := standing.left_behind(wanted.name):
        print(f"study {wanted.name}: waits until {', '.join(left)} has saved its work", flush=True)
    while standing.left_behind(wanted.name):
        time.sleep(1.0)
        standing = look(wanted)
    check_whole(wanted.directory, standing.unrecorded)
    return standing


def planned(config: StudyConfig, wanted: Study, standing: Standing, site: Site) -> list[Stage]:
    """What is to be started: trainings, evaluations, and the result. UserError if something of it cannot work."""
    check_unchanged(wanted, standing)
    at_work = {trial for trial in wanted.trials if trains(wanted, trial, standing)}
    trainings = {trial: wanted.training(trial) for trial in wanted.trials}
    missing = {trial: call for trial, call in trainings.items() if trial not in at_work and not is_done(call)}
    for trial, call in missing.items():
        if kept_number(call.results) is None:  # else Optuna drew it, and it fails by itself, not all of the study
            with naming(wanted, trial):
                wanted.trials[trial].check()
    evaluations, waits_for = [], [wanted.directory / trial for trial in at_work]
    if wanted.evaluations and wanted.evaluations.trials == "all":
        for trial in wanted.trials:
            for call in wanted.evaluated_on(trial):  # one that waits would come before a training that is new
                if not is_done(call) and (trial in missing or not standing.has(call)):
                    evaluations.append(call)
                elif not is_done(call):
                    waits_for.append(call.results)
    last = result_call(wanted)
    new = bool(missing or evaluations)
    results = [last] if new or not (is_current(wanted) or standing.has(last)) else []
    launched = config.launched((), wanted.name)
    of_the_last = replace(launched, nodes=None, procs_per_node=None)
    if named(site.scheduler).has_queue:
        on_gpu = wanted.evaluations and wanted.evaluations.trials == "best" and config.gpus_per_node != 0
        of_the_last = replace(of_the_last, gpus_per_node=int(bool(on_gpu)))
    before = standing.jobs(waits_for)
    return [
        Stage(noun="training", calls=list(missing.values()), config=launched, after_end=()),
        Stage(noun="evaluation", calls=evaluations, config=launched, after_end=before),
        Stage(noun="result", calls=results, config=of_the_last, after_end=before),
    ]


@contextmanager
def naming(wanted: Study, trial: str) -> Iterator[None]:
    """Within its `with`, a UserError names the study's file and the trial."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{wanted.toml.name}, trial {trial}: {error}") from None


def result_call(wanted: Study) -> Call[ResultConfig]:
    """The command that comes last."""
    words = ("study", "result", wanted.name)
    command = HPCGENDER.find(words)
    assert command
    return Call(module=HPCGENDER.module, command=command, words=words, options=ResultConfig(name=wanted.name))


def summary(wanted: Study, standing: Standing, stages: Sequence[Stage]) -> str:
    """How the study stands, in a line."""
    done = sum(is_done(wanted.training(trial)) for trial in wanted.trials)
    alive = sum(trains(wanted, trial, standing) for trial in wanted.trials)
    parts = [f"{plural(len(wanted.trials), 'run')}, {done} finished"]
    parts += [f"{alive} at work"] if alive else []
    parts += [f"{len(stages[0].calls)} to train"] if stages[0].calls else []
    again = sum((call.results / SUBMISSIONS).exists() for call in stages[0].calls)
    parts += [f"{again} of them again, after a failure or a stop"] if again else []
    ends = [", ".join(parts)]
    if not any(stage.calls for stage in stages):
        there = wanted.directory / RESULT
        ends.append(f"nothing to start, see {there if there.exists() else f'hpcgender jobs {wanted.name}'}")
    others = others_there(wanted)
    if others:
        ends.append(f"the file does not name {plural(len(others), 'run')} of it: {', '.join(others)}")
    new = [call.results.name for call in stages[0].calls]
    if same := trained_already(wanted, new, others):
        renamed = ", ".join(f"{other} to {trial}" for trial, other in same.items())
        ends.append(f"trained already with the same options: rename {renamed} in {wanted.directory} to keep that")
    return f"study {wanted.name}: {'; '.join(ends)}"


def others_there(wanted: Study) -> list[str]:
    """Runs in the directory of the study that its file does not name, any more."""
    there = (path.parent for path in wanted.directory.glob(f"*/{CONFIG_JSON}"))
    return sorted(path.name for path in there if path.name not in wanted.trials)


def asked(config: StudyConfig, wanted: Study, stage: Stage, site: Site, after_end: tuple[str, ...] = ()) -> Request:
    """What to ask the scheduler for."""
    one = request(stage.config, stage.calls[0], site)
    for call in stage.calls:
        if call.command.distributed:
            with naming(wanted, call.results.relative_to(wanted.directory).parts[0]):
                call.command.check_ranks(call.options, one.resources.nodes * one.resources.procs_per_node)
    return replace(one, tasks=len(stage.calls), at_once=config.at_once, after_end=(*stage.after_end, *after_end))


def check_all(config: StudyConfig, wanted: Study, stages: Sequence[Stage], site: Site) -> None:
    """Prints what a person should know of the stages; UserError if the scheduler says that one could never run."""
    scheduler, place = named(site.scheduler), folder(wanted.directory, records.stamp())
    say_once(
        (f"study {wanted.name}, {stage.noun}", scheduler.check(asked(config, wanted, stage, site), place).warnings)
        for stage in stages
        if stage.calls
    )


def submit(config: StudyConfig, wanted: Study, stages: Sequence[Stage], site: Site) -> int:
    """Submits each stage after the one before."""
    stamp = records.stamp()
    before: tuple[str, ...] = ()
    for stage in filter(lambda stage: stage.calls, stages):
        try:
            request = asked(config, wanted, stage, site, before)
            submissions = submit_array(stage.config, stage.calls, request, wanted.directory, stamp)
        except (UserError, OSError) as error:
            so_far = f"; submitted before it: job {', '.join(before)}" if before else ""
            raise UserError(f"study {wanted.name}, {stage.noun}: {error}{so_far}") from None
        ids = tuple(dict.fromkeys(array_id(submission.job_id) for submission in submissions))
        after = f" after {', '.join(request.after_end)}" if request.after_end else ""
        print(f"job {', '.join(ids)} {request.name}{after}: {plural(len(stage.calls), stage.noun)}")
        before = (*before, *ids)
    print(f"hpcgender jobs {wanted.name} lists them")
    return 0


def preview(config: StudyConfig, wanted: Study, site: Site) -> int:
    """Prints what would be started, without writing anything."""
    standing = look(wanted)
    stages = planned(config, wanted, standing, site)
    print(summary(wanted, standing, stages))
    scheduler, stamp = named(site.scheduler), records.stamp()
    for stage in filter(lambda stage: stage.calls, stages):
        print(f"\n{plural(len(stage.calls), stage.noun)}:")
        for call in stage.calls:
            print(f"  {shlex.join(('hpcgender', *call.words))}")
        if scheduler.has_queue:
            print(scheduler.preview(asked(config, wanted, stage, site), folder(wanted.directory, stamp)), end="")
    return 0
