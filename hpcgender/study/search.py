"""What a search draws the options of its trials from, random draws, and those that were drawn with knowledge of others.

A random draw is a function of the trial's number. What Optuna has drawn is kept in the trial's directory.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from shard_tools.base.documents import Place, Toml, read_document, structured, write_document
from shard_tools.base.errors import UserError

PRUNED = "pruned.json"
"""In the directory of a trial that was stopped early because others were better."""
_DRAWN, _FORM = "drawn.json", "hpcgender-study-drawn-1"
_DIGITS = 4  # of numbers that are drawn: more decide nothing, and make command lines long

Values = Mapping[str, Any]
"""Values of options by their names."""


@dataclass(frozen=True, kw_only=True)
class Range:
    """Numbers from `low` to `high`, both included; whole ones if both are."""

    low: float
    high: float
    log: bool = False
    """Whether the logarithm is spread evenly, not the number."""
    whole: bool = False

    def at(self, place: float) -> float | int:
        """The number at a place from 0 to 1."""
        half = 0.5 if self.whole else 0.0  # so that the ends are as likely as the others
        low, high = self.low - half, self.high + half
        value = low * (high / low) ** place if self.log else low + place * (high - low)
        return min(max(round(value), int(self.low)), int(self.high)) if self.whole else float(f"{value:.{_DIGITS}g}")


@dataclass(frozen=True, kw_only=True)
class Search:
    """How the options of trials are found."""

    trials: int
    sampler: Literal["random", "tpe"] = "random"
    """tpe: Optuna's, by what came of the trials before."""
    prune: bool = False
    """Whether Optuna stops trials whose validation is worse than the median of others after as many epochs."""
    seed: int = 0
    ranges: Mapping[str, Range | tuple[Any, ...]] = field(default_factory=dict)
    """By option: a range of numbers, or the values to choose from."""

    def draw(self, number: int) -> dict[str, Any]:
        """The values of a trial. Others do not change when trials or ranges are added."""
        drawn = {}
        for name, wanted in self.ranges.items():
            place = random.Random(f"{self.seed}/{number}/{name}").random()
            drawn[name] = wanted.at(place) if isinstance(wanted, Range) else wanted[int(place * len(wanted))]
        return drawn

    def chosen(self, values: Values) -> dict[str, Any]:
        """What was drawn, where numbers stand for the values to choose from."""
        return {
            name: value if isinstance(self.ranges[name], Range) else self.ranges[name][value]  # type: ignore[index]
            for name, value in values.items()
        }


def keep_values(results: Path, number: int, values: Values) -> None:
    """Writes into the directory of a trial what was drawn for it; `number` is Optuna's."""
    results.mkdir(parents=True, exist_ok=True)
    write_document(results / _DRAWN, _FORM, {"number": number, "values": values})


def kept_number(results: Path) -> int | None:
    """Optuna's number of a trial; None if nothing was drawn for it yet."""
    return int(_kept(results)["number"]) if (results / _DRAWN).exists() else None


def kept_values(results: Path) -> dict[str, Any]:
    """What was drawn for a trial; nothing as long as that has not happened."""
    return dict(_kept(results)["values"]) if (results / _DRAWN).exists() else {}


def _kept(results: Path) -> dict[str, Any]:
    again = "remove the trial's directory"
    return read_document(results / _DRAWN, _FORM, again, again)


Typed = Callable[[tuple[str | int, ...], Any], Any]
"""Gives a value at a place the type of its option; UserError with the line if it has another."""


def read_search(toml: Toml, content: Mapping[str, Any], typed: Typed) -> Search:
    """The search of a table; UserError with the line of a fault. `typed` is for values of options."""
    ranges = content.get("ranges", {})
    if not isinstance(ranges, dict) or not ranges:
        raise toml.fault("search", ("ranges",), "must be a table of options: begin it with [search.ranges]")
    found = {name: read_range(toml, name, wanted, typed) for name, wanted in ranges.items()}
    own = {name: value for name, value in content.items() if name != "ranges"}
    search: Search = structured(Search, own, partial(toml.fault, "search"))
    if search.trials < 1:
        raise toml.fault("search", ("trials",), "must be at least 1")
    if search.prune and search.sampler != "tpe":
        raise toml.fault("search", ("prune",), 'needs sampler = "tpe"')
    return replace(search, ranges=found)


def read_range(toml: Toml, name: str, wanted: Any, typed: Typed) -> Range | tuple[Any, ...]:
    """The range or the values of an option."""
    if isinstance(wanted, list) and wanted:
        return tuple(typed((name, place), value) for place, value in enumerate(wanted))
    if not isinstance(wanted, dict):
        raise toml.fault("search", ("ranges", name), "must be { low = 1e-4, high = 0.1, log = true }, or values in [ ]")
    fault = partial(_fault, toml, name)
    given: Range = structured(Range, {**wanted, "whole": False}, fault)
    ends = typed((name, "low"), wanted["low"]), typed((name, "high"), wanted["high"])
    if not given.low < given.high or (given.log and given.low <= 0):
        raise fault((), "must have a low below its high" + (", and above 0 with log" if given.log else ""))
    whole = all(type(end) is int for end in ends)
    return Range(low=given.low, high=given.high, log=given.log, whole=whole)


def _fault(toml: Toml, name: str, place: Place, text: str) -> UserError:
    return toml.fault("search", ("ranges", name, *place), text)
