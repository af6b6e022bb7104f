"""Slurm's trackable resources (TRES): what it writes of cores, memory, nodes and GPUs, as numbers and as words."""

from __future__ import annotations

import re

from shard_tools.base.text import plural

_MEGABYTES = {"": 1.0, "K": 1 / 1024, "M": 1.0, "G": 1024.0, "T": 1024.0**2}
_NAMES = {"cpu": "cores", "node": "nodes", "gres/gpu": "GPUs"}


def parse(text: str) -> dict[str, float]:
    """Amounts by Slurm's names of them, memory in MB: `cpu=4,gres/gpu=1,mem=62.50G`."""
    found = re.findall(r"([a-z]+(?:/[\w:.-]+)?)=(\d+(?:\.\d+)?)([KMGT]?)", text)
    return {kind: number(kind, amount, unit) for kind, amount, unit in found}


def number(kind: str, amount: str, unit: str = "") -> float:
    """An amount as Slurm writes it; of memory in MB."""
    return float(amount) * (_MEGABYTES[unit] if kind == "mem" else 1)


def words(kind: str, amount: float) -> str:
    """An amount for people: `4 cores`, `16 GB`, `2 a100 GPUs`."""
    if kind == "mem":
        return f"{amount / 1024:g} GB"
    many = name(kind)
    return plural(round(amount), kind if many == kind else many.removesuffix("s"), many)


def name(kind: str) -> str:
    """What people call it: cores, GB of memory, a100 GPUs."""
    if kind == "mem":
        return "GB of memory"
    return _NAMES.get(kind, f"{kind.removeprefix('gres/gpu:')} GPUs" if ":" in kind else kind)
