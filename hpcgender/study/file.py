"""The file of a study: what is trained, on what it is evaluated, and what is compared."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, Literal, get_type_hints

from hpcgender.commands import HPCGENDER
from hpcgender.commands.evaluate import EvaluateConfig
from hpcgender.commands.train import TrainConfig
from hpcgender.data.packs import places_of
from hpcgender.option_layers import LAYERS, read_preset, spelled_out
from hpcgender.run_directory import BEST, CHECKPOINTS
from hpcgender.study.search import Search, Values, kept_values, read_search
from shard_tools.base.commands import RUNS, Call
from shard_tools.base.documents import Toml, read_toml, structured
from shard_tools.base.errors import UserError, nearest
from shard_tools.base.names import check_name, safe_name
from shard_tools.base.options import expand, expanded

_TABLES = ("name", "base", "grid", "search", "evaluate", "compare")
_OF_THE_STUDY = frozenset({"name", "runs", "resume", "stop_after"}) | (LAYERS - {"preset"})
"""Options of a training that the study gives itself."""
_OF_A_TRIAL = frozenset({"checkpoint", "data", "split", "out", "finished", "stop_after"})
"""The same of an evaluation."""


@dataclass(frozen=True, kw_only=True)
class Evaluations:
    """What finished runs are evaluated on."""

    data: tuple[Path, ...]
    splits: tuple[str, ...] = ("test",)
    trials: Literal["all", "best"] = "all"
    """Which of them: the best is known, and evaluated, after all trainings."""


@dataclass(frozen=True, kw_only=True)
class Study:
    """A study as its file says."""

    name: str
    toml: Toml
    trials: Mapping[str, TrainConfig]
    """The trainings by the names of their runs, in the order of the grid."""
    evaluations: Evaluations | None
    options: Mapping[str, Any]
    """Further options of evaluations."""
    compared: tuple[str, ...]
    """Names of the evaluations to compare, such as morph-test."""
    search: Search | None = None
    """How the options of its trials are found, if not in a grid."""

    @property
    def directory(self) -> Path:
        """Where its runs are."""
        return RUNS / self.name

    def training(self, trial: str) -> Call[Any]:
        """The command that trains a trial, or goes on with it."""
        if self.search and self.search.sampler == "tpe":
            words = ("study", "trial", self.name, trial)
            command = HPCGENDER.find(words)
            assert command
            assert not isinstance(command.options, str)
            options = command.options(name=self.name, trial=trial, training=self.trials[trial])
            return Call(module=HPCGENDER.module, command=command, words=words, options=options)
        return _call("train", self.trials[trial])

    def evaluated_on(self, trial: str) -> list[Call[EvaluateConfig]]:
        """The commands that evaluate a trial once it is trained."""
        wanted = self.evaluations
        if not wanted:
            return []
        options = {
            "checkpoint": self.directory / trial / CHECKPOINTS / BEST,
            "backend": self.trials[trial].backend,
            "finished": True,
            **self.options,
        }
        sets = product(wanted.data, wanted.splits)
        return [_call("evaluate", EvaluateConfig(data=data, split=split, **options)) for data, split in sets]


def _call(name: str, options: Any) -> Call[Any]:
    command = HPCGENDER.find([name])
    assert command
    return Call(module=HPCGENDER.module, command=command, words=(name, *spelled_out(options)), options=options)


def read_study(path: Path, called: str = "") -> Study:
    """The study of a file, `called` so or as the file is, if it has no name; UserError, with the line of a fault."""
    toml = read_toml(path)
    for key in toml.content:
        if key not in _TABLES:
            raise toml.fault(key, (), f"is unknown: {nearest(key, _TABLES)}")
    name = structured(str, toml.content.get("name", called or path.stem), partial(toml.fault, "name"))
    check_name(f"{path}, name", name)
    base = read_table(toml, "base", TrainConfig, _OF_THE_STUDY)
    if "grid" in toml.content and "search" in toml.content:
        raise toml.fault("search", (), "cannot stand beside [grid]: a list in [search.ranges] is chosen from")
    search = read_searched(toml) if "search" in toml.content else None
    drawn = draw(toml, search, RUNS / name) if search else read_grid(toml)
    trials = {trial: configured({**base, **values}, RUNS / name, trial) for trial, values in drawn.items()}
    chosen = search.ranges.get("tasks") if search else None
    tasks = chosen if isinstance(chosen, tuple) else [trial.tasks for trial in trials.values()]
    if len({"gender" in one for one in tasks}) > 1:
        raise toml.fault(
            "search" if search else "grid",
            (),
            "has trials with and without gender, of which none is the best: make two studies",
        )
    if any(trial.val_split == "none" for trial in (configured(base, RUNS / name, "base"), *trials.values())):
        raise toml.fault("base", (), 'has val_split = "none", and trials are chosen by validation: give a split')
    wanted, options = read_evaluations(toml)
    if search and search.prune and wanted and wanted.trials == "all":
        raise toml.fault("evaluate", (), 'needs trials = "best" beside prune, which leaves trials untrained')
    on: tuple[str, ...] = ()
    if "compare" in toml.content:
        on = read_compared(toml, wanted)
    return Study(name=name, toml=toml, trials=trials, evaluations=wanted, options=options, compared=on, search=search)


def configured(values: Mapping[str, Any], directory: Path, trial: str) -> TrainConfig:
    """The options of a trial: those of its preset, and over them the given ones."""
    layers = read_preset(TrainConfig, values["preset"]) if values.get("preset") else {}
    of_the_study = {"runs": directory, "name": trial, "resume": True}
    return expanded(TrainConfig(**{**layers, **values, **of_the_study}))


def read_table(toml: Toml, table: str, kind: type, without: Collection[str]) -> dict[str, Any]:
    """The values that a table has for the fields of a dataclass; UserError with the line of a fault."""
    content = _table(toml, table)
    kinds = {name: hint for name, hint in get_type_hints(kind).items() if name not in without}
    return {name: _value(toml, table, (name,), kinds, value) for name, value in content.items()}


def read_grid(toml: Toml) -> dict[str, Values]:
    """The combinations of the values of each option that is varied, by the names of the trials."""
    grid: dict[str, list[Any]] = {}
    for name, values in _table(toml, "grid").items():
        if not isinstance(values, list) or not values:
            raise toml.fault("grid", (name,), "must be a list of values in [ ]")
        grid[name] = [_value(toml, "grid", (name, place), _trained_with(), value) for place, value in enumerate(values)]
    found: dict[str, Values] = {}
    for combination in product(*grid.values()):
        values = dict(zip(grid, combination, strict=True))
        trial = "-".join(label(option, value) for option, value in values.items()) or "run"
        if trial in found:
            raise UserError(f"{toml.name}: two trials would be called {trial}: give values that differ in their names")
        found[trial] = values
    return found


def read_searched(toml: Toml) -> Search:
    """The search that stands in place of a grid."""

    def typed(place: tuple[str | int, ...], value: Any) -> Any:
        return _value(toml, "search", place, _trained_with(), value)

    return read_search(toml, _table(toml, "search"), typed)


def draw(toml: Toml, search: Search, directory: Path) -> dict[str, Values]:
    """The values of a search's trials by their names; nothing for one that Optuna has not drawn yet."""
    names = [f"trial-{number:04d}" for number in range(search.trials)]
    if search.sampler == "random":
        return {trial: search.draw(number) for number, trial in enumerate(names)}
    kinds = _trained_with()
    kept = {trial: kept_values(directory / trial) for trial in names}
    return {
        trial: {name: _value(toml, "search", (name,), kinds, value) for name, value in values.items()}
        for trial, values in kept.items()
    }


def _trained_with() -> dict[str, Any]:
    """The types of the options that a study may set."""
    return {name: hint for name, hint in get_type_hints(TrainConfig).items() if name not in _OF_THE_STUDY}


def read_evaluations(toml: Toml) -> tuple[Evaluations | None, dict[str, Any]]:
    """The table of evaluations, if there is one, and the further options in it."""
    if "evaluate" not in toml.content:
        return None, {}
    content = _table(toml, "evaluate")
    own = get_type_hints(Evaluations)
    kinds = {name: hint for name, hint in get_type_hints(EvaluateConfig).items() if name not in _OF_A_TRIAL}
    values = {name: _value(toml, "evaluate", (name,), {**kinds, **own}, value) for name, value in content.items()}
    if not values.get("data"):
        raise toml.fault("evaluate", (), 'needs data: the data sets, as in data = ["data/morph"]')
    wanted = expanded(Evaluations(**{name: value for name, value in values.items() if name in own}))
    names = [data.resolve().name for data in wanted.data]
    if twice := next((name for name in names if names.count(name) > 1), ""):
        raise toml.fault("evaluate", ("data",), f"has two called {twice}, whose evaluations would have one name")
    if twice := next((split for split in wanted.splits if wanted.splits.count(split) > 1), ""):
        raise toml.fault("evaluate", ("splits",), f"has {twice} twice")
    if values.get("keep_temperature") and len(wanted.data) * len(wanted.splits) > 1:
        raise toml.fault("evaluate", ("keep_temperature",), "needs one data set and one split: a checkpoint keeps one")
    return wanted, {name: expand(value) for name, value in values.items() if name not in own}


def read_compared(toml: Toml, wanted: Evaluations | None) -> tuple[str, ...]:
    """The evaluations to compare: those that the table names, or else all."""
    content = _table(toml, "compare")
    there = [f"{data.resolve().name}-{split}" for data in wanted.data for split in wanted.splits] if wanted else []
    found: tuple[str, ...] = tuple(there)
    for name, value in content.items():
        found = _value(toml, "compare", (name,), {"on": tuple[str, ...]}, value)
    if not wanted or wanted.trials != "all":
        raise toml.fault("compare", (), 'needs [evaluate] with trials = "all": runs are compared by their evaluations')
    for name in found:
        if name not in there:
            raise toml.fault("compare", ("on",), f"has {name!r}: {nearest(name, there)}")
    return found


def _table(toml: Toml, name: str) -> dict[str, Any]:
    content = toml.content.get(name, {})
    if not isinstance(content, dict):
        raise toml.fault(name, (), f"must be a table: begin it with [{name}]")
    return content


def _value(toml: Toml, table: str, place: tuple[str | int, ...], kinds: Mapping[str, Any], value: Any) -> Any:
    name = str(place[0])
    if name not in kinds:
        advice = "a study names its runs itself" if name in _OF_THE_STUDY else nearest(name, list(kinds), "see --help")
        raise toml.fault(table, place[:1], f"is unknown: {advice}")
    if name == "data" and kinds[name] is Path and isinstance(value, list):
        raise toml.fault(table, place, 'must be text in quotes; a mixture is one text, such as "data/a=2,data/b=1"')
    return structured(kinds[name], value, lambda within, text: toml.fault(table, (*place, *within), text))


def label(option: str, value: Any) -> str:
    """A value in the name of a trial: text as it is, of a file its name, and others after the option's name.

    Of a mixture the names of its data sets, with their weights.
    """
    if option == "data":
        places = places_of(value)
        return safe_name("+".join(f"{one.root.name}{one.weight if len(places) > 1 else ''}" for one in places))
    if isinstance(value, bool):
        return option if value else f"no_{option}"
    if isinstance(value, tuple):
        return safe_name("+".join(map(str, value)))
    if isinstance(value, str | Path):
        text = str(value)
        return safe_name(Path(text).stem if "/" in text or text.endswith(".toml") else text or f"no_{option}")
    return safe_name(f"{option}{value}")
