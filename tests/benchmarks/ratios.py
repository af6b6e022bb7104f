"""Times contenders in turn, round after round, and prints what they did and how they compare."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

from rich.console import Console
from rich.table import Table


def measure(
    contenders: Mapping[str, Callable[[], int]], rounds: int, tidy: Callable[[], None]
) -> dict[str, list[float]]:
    """Items per second of each contender in each round; a contender does its work and returns how many items it did.

    They take turns within a round, so that whatever else the machine does meets all of them. `tidy` removes what one
    wrote, and is not timed.
    """
    speeds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, work in contenders.items():
            start = time.perf_counter()
            items = work()
            speeds[name].append(items / (time.perf_counter() - start))
            tidy()
    return speeds


def measure_rates(contenders: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Images per second, measured by each contender itself, in rounds in which they take turns."""
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, work in contenders.items():
            rates[name].append(work())
    return rates


def print_speeds(title: str, unit: str, speeds: Mapping[str, list[float]]) -> None:
    """A table of the median, slowest and fastest round of each contender."""
    table = Table(title=title, title_justify="left")
    for column in ("", f"median {unit}", "slowest", "fastest"):
        table.add_column(column, justify="left" if not column else "right")
    for name, values in speeds.items():
        table.add_row(name, *(f"{value:,.0f}" for value in (statistics.median(values), min(values), max(values))))
    Console(width=120).print(table)


def print_ratio(name: str, above: list[float], below: list[float], goal: str) -> None:
    """The line that ends a comparison: the ratio of two contenders round by round."""
    ratios = [a / b for a, b in zip(above, below, strict=True)]
    print(f"RATIO {name} {statistics.median(ratios):.2f} (min {min(ratios):.2f}, max {max(ratios):.2f}, goal {goal})")
