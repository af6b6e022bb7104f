"""Slurm's short forms of hosts and counts, as its environment variables have them."""

from __future__ import annotations

import re


def expand_nodelist(nodelist: str) -> list[str]:
    """The host names of Slurm's short form: `node[1-2,07],gpu3` is node1, node2, node07, gpu3."""
    # A comma inside brackets separates ranges, one outside separates hosts.
    return [name for part in re.findall(r"(?:[^,\[\]]|\[[^\]]*\])+", nodelist) for name in _expand_brackets(part)]


def _expand_brackets(part: str) -> list[str]:
    head, bracket, rest = part.partition("[")
    if not bracket:
        return [part]
    ranges, _, tail = rest.partition("]")
    tails = _expand_brackets(tail)
    return [head + number + end for span in ranges.split(",") for number in _expand_range(span) for end in tails]


def _expand_range(span: str) -> list[str]:
    first, dash, last = span.partition("-")
    return [f"{n:0{len(first)}d}" for n in range(int(first), int(last) + 1)] if dash else [first]


def expand_counts(counts: str) -> list[int]:
    """The numbers of Slurm's short form: `16(x2),8` is 16, 16, 8."""
    found = re.findall(r"(\d+)(?:\(x(\d+)\))?", counts)
    return [int(count) for count, times in found for _ in range(int(times or 1))]
