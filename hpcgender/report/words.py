"""Scores, differences, p-values and times as text, the same in reports and comparisons."""

from __future__ import annotations

import math

from hpcgender.evaluate.results import Score
from shard_tools.base.text import NOTHING, duration, utc


def number(value: float | None, digits: int = 2) -> str:
    """A number; NOTHING if it is not known."""
    return NOTHING if value is None or math.isnan(value) else f"{value:,.{digits}f}"


def interval(score: Score, digits: int = 1, *, fraction: bool = True) -> str:
    """The interval of 95 %, of a fraction in per cent; NOTHING if it is not known."""
    if math.isnan(score.low) or math.isnan(score.high):
        return NOTHING
    scale = 100 if fraction else 1
    return f"{score.low * scale:.{digits}f} to {score.high * scale:.{digits}f}"


def difference(score: Score, *, fraction: bool = True, ends: bool = True) -> str:
    """A signed difference, with the ends of its interval, of fractions in percentage points; NOTHING if not known."""
    if math.isnan(score.value):
        return NOTHING
    scale = 100 if fraction else 1
    known = ends and not math.isnan(score.low)
    where = f" ({score.low * scale:+.2f} to {score.high * scale:+.2f})" if known else ""
    return f"{score.value * scale:+.2f}{where}"


def p_value(p: float) -> str:
    """A p-value to three digits; NOTHING if it is not known."""
    return NOTHING if math.isnan(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"


def time_spent(seconds: float) -> str:
    """A duration; NOTHING if it is not known."""
    return NOTHING if math.isnan(seconds) else duration(seconds)


def when(moment: str) -> str:
    """An ISO time to the second, as 2025-01-31 12:00:00Z; NOTHING if it is not known."""
    if not moment:
        return NOTHING
    date, _, clock = moment.partition("T")
    zone = "Z" if clock.endswith(("Z", "+00:00")) else ""
    return f"{date} {clock[:8]}{zone}" if clock else date


def when_unix(seconds: float) -> str:
    """A Unix time as `when` gives it."""
    return when(utc(seconds))
