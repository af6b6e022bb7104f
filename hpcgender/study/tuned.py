"""One trial of a search through Optuna: asks for values, trains with them, reports each epoch, and stops if pruned.

All trials share `optuna.log` in the study's directory, Optuna's journal file: there is no server.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpcgender.commands.study import TrialConfig
from hpcgender.run_directory import read_epochs
from hpcgender.study.file import Study
from hpcgender.study.metrics import score_of
from hpcgender.study.search import PRUNED, Range, Search, keep_values, kept_number
from shard_tools.base.documents import write_document
from shard_tools.base.errors import REQUEUE, UserError
from shard_tools.base.extras import pip_install

if TYPE_CHECKING:
    import optuna

_JOURNAL = "optuna.log"
_FORM = "hpcgender-study-pruned-1"
_LOOK_SECONDS = 1.0
_STARTUP = 5
"""Trials that are not stopped early, as there is little to compare them with."""


def trial(config: TrialConfig) -> int:
    """Trains one trial on every rank; returns 0 also where it was stopped early. UserError for what cannot be."""
    from hpcgender.train.loop import train  # and torch

    study = config.study()
    results = study.directory / config.trial
    first = os.environ.get("RANK", "0") == "0"
    if first and kept_number(results) is None:
        ask(study, config.trial)
    while kept_number(results) is None:  # the first rank writes it
        time.sleep(_LOOK_SECONDS)
    if (results / PRUNED).exists():  # before it was requeued
        if first:
            end(study, results)
        return 0
    study = config.study()
    options = study.trials[config.trial]
    options.check()  # if it fails, Optuna takes the trial for a running one, which counts as bad; failed ones do not
    if not first:
        code = train(options)
        return 0 if code == REQUEUE and (results / PRUNED).exists() else code
    with reporting(study, config.trial):
        code = train(options)
    if code == REQUEUE and (results / PRUNED).exists():
        return 0
    (results / PRUNED).unlink(missing_ok=True)  # it was at its end already
    if code == 0:
        number = kept_number(results)
        assert number is not None
        tuner(study, number).tell(number, best_of(study, config.trial), skip_if_finished=True)
    return code


def tuner(study: Study, number: int) -> optuna.Study:
    """Optuna's study; its draws for the trial of that number are others than for the rest. UserError without Optuna."""
    check_installed()
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    search = study.search
    assert search
    return optuna.create_study(
        storage=JournalStorage(JournalFileBackend(str(study.directory / _JOURNAL))),
        study_name=study.name,
        sampler=optuna.samplers.TPESampler(seed=10_000 * search.seed + number, constant_liar=True),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=_STARTUP) if search.prune else optuna.pruners.NopPruner(),
        direction="maximize",
        load_if_exists=True,
    )


def check_installed() -> None:
    """Raises UserError without Optuna."""
    if find_spec("optuna") is None:
        raise UserError(f'sampler = "tpe" needs Optuna, which is not installed: {pip_install("tune")}')


def ask(study: Study, trial: str) -> None:
    """Asks Optuna for a trial's values, and keeps them in its directory."""
    assert study.search
    asked = tuner(study, int(trial.rpartition("-")[2])).ask(distributions(study.search))
    keep_values(study.directory / trial, asked.number, study.search.chosen(asked.params))


def distributions(search: Search) -> dict[str, Any]:
    """The ranges as Optuna has them; of values to choose from their numbers."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    found: dict[str, Any] = {}
    for name, wanted in search.ranges.items():
        if not isinstance(wanted, Range):
            found[name] = CategoricalDistribution(list(range(len(wanted))))
        elif wanted.whole:
            found[name] = IntDistribution(int(wanted.low), int(wanted.high), log=wanted.log)
        else:
            found[name] = FloatDistribution(wanted.low, wanted.high, log=wanted.log)
    return found


def end(study: Study, results: Path) -> None:
    """Tells Optuna that a trial was pruned, unless it knows that."""
    from optuna.trial import TrialState

    number = kept_number(results)
    assert number is not None
    tuner(study, number).tell(number, state=TrialState.PRUNED, skip_if_finished=True)


def best_of(study: Study, trial: str) -> float:
    """The score of a trial's best epoch."""
    scores = [score_of(record, study.trials[trial].tasks) for record in read_epochs(study.directory / trial)]
    return max(score for score in scores if score is not None)


@contextmanager
def reporting(study: Study, trial: str) -> Iterator[None]:
    """Within its `with`, each epoch's validation is reported to Optuna; the ranks are stopped if Optuna prunes."""
    assert study.search
    if not study.search.prune:
        yield
        return
    ended = threading.Event()
    thread = threading.Thread(target=_report, args=(study, trial, ended), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _report(study: Study, trial: str, ended: threading.Event) -> None:
    import optuna

    results, options = study.directory / trial, study.trials[trial]
    number = kept_number(results)
    assert number is not None
    shared = tuner(study, number)
    known = next(one for one in shared.trials if one.number == number)
    if known.state.is_finished():
        return
    asked = optuna.trial.Trial(shared, known._trial_id)
    reported = set(known.intermediate_values)
    while not ended.wait(_LOOK_SECONDS):
        for epoch, record in enumerate(read_epochs(results), start=1):
            score = score_of(record, options.tasks)
            if score is None or epoch in reported:
                continue
            asked.report(score, epoch)
            reported.add(epoch)
            if epoch < options.epochs and asked.should_prune():
                stop(results, epoch)
                shared.tell(number, state=optuna.trial.TrialState.PRUNED)
                return


def stop(results: Path, epoch: int) -> None:
    """Stops the ranks for good: this one is asked to, and all agree on a step."""
    write_document(results / PRUNED, _FORM, {"epoch": epoch})
    print(f"stopped early after epoch {epoch}: other trials were better by then", flush=True)
    os.kill(os.getpid(), signal.SIGTERM)
