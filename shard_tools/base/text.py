"""A time as logs and lists say it."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """A time as people say it: 45s, 12m05s, 3h12m."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
