"""Numbers in words, the same on every page."""

from __future__ import annotations

import math
import time

from hpcgender.evaluate.results import Score
from shard_tools.base.text import duration

NOTHING = "\N{EN DASH}"


def percent(value: float, digits: int = 1) -> str:
    """A part of 1 as per cent; a dash if it is not known."""
    return NOTHING if math.isnan(value) else f"{value:.{digits}%}".replace("%", " %")


def number(value: float | None, digits: int = 2) -> str:
    """A number; a dash if it is not known."""
    return NOTHING if value is None or math.isnan(value) else f"{value:,.{digits}f}"


def interval(score: Score, digits: int = 1, *, of_one: bool = True) -> str:
    """Where the number is with 95 %: of parts of 1 as per cent, else as numbers. A dash if it is not known."""
    if math.isnan(score.low) or math.isnan(score.high):
        return NOTHING
    scale = 100 if of_one else 1
    return f"{score.low * scale:.{digits}f} to {score.high * scale:.{digits}f}"


def points(score: Score) -> str:
    """A difference of parts of 1 in percentage points, signed, with its interval."""
    if math.isnan(score.value):
        return NOTHING
    where = "" if math.isnan(score.low) else f" ({score.low * 100:+.2f} to {score.high * 100:+.2f})"
    return f"{score.value * 100:+.2f}{where}"


def years(score: Score) -> str:
    """A difference of years, signed, with its interval."""
    if math.isnan(score.value):
        return NOTHING
    where = "" if math.isnan(score.low) else f" ({score.low:+.2f} to {score.high:+.2f})"
    return f"{score.value:+.2f}{where}"


def p_value(p: float) -> str:
    """As tables have it."""
    return NOTHING if math.isnan(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"


def time_spent(seconds: float) -> str:
    """A time as people say it; a dash if it is not known."""
    return NOTHING if math.isnan(seconds) else duration(seconds)


def when(moment: str) -> str:
    """An ISO time to the second, as 2025-01-31 12:00:00Z; a dash if it is not known."""
    if not moment:
        return NOTHING
    date, _, clock = moment.partition("T")
    zone = "Z" if clock.endswith(("Z", "+00:00")) else ""
    return f"{date} {clock[:8]}{zone}" if clock else date


def when_unix(seconds: float) -> str:
    """A Unix time as `when` gives it."""
    return when(time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds)))
