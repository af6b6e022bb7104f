"""The names of the models. Imports no torch, so that a wrong name is reported immediately."""

from __future__ import annotations

import difflib
import fnmatch
import importlib.util
import re
from collections.abc import Collection
from functools import cache
from heapq import nlargest
from pathlib import Path

from shard_tools.base.errors import UserError, unknown
from shard_tools.base.extras import pip_install

TIMM = "timm:"
"""What stands before the name of a model of timm, and of weights that timm knows."""
ALIKE = 0.6
"""Of names that may be meant: difflib's usual likeness."""

DEPTHS = (18, 34, 50, 101, 152)
VGG_DEPTHS = (11, 13, 16, 19)
MODELS = (
    *(f"resnet{depth}" for depth in DEPTHS),
    *(f"se_resnet{depth}" for depth in DEPTHS),
    *(f"vgg{depth}{norm}" for norm in ("", "_bn") for depth in VGG_DEPTHS),
    "compact",
)

SOURCES = {
    "resnet": "He et al., arXiv 1512.03385",
    "se_resnet": "Hu et al., arXiv 1709.01507",
    "vgg": "Simonyan and Zisserman, arXiv 1409.1556",
    "compact": "after Levi and Hassner, CVPRW 2015",
    "timm": "see timm",
}
"""The paper of each family of models."""
STAGES = {"resnet": 4, "se_resnet": 4, "vgg": 5, "compact": 4}
"""Stages of each family that can be frozen; each model of timm has its own."""


def check_model(name: str) -> None:
    """Raises UserError unless there is a model of that name."""
    if not name.startswith(TIMM):
        if name in MODELS:
            return
        if importlib.util.find_spec("timm") and name in timm_names():
            near = [*difflib.get_close_matches(name, MODELS, n=1, cutoff=0.8), TIMM + name]
            raise UserError(f"unknown model {name!r}: did you mean {' or '.join(near)}?")
        raise unknown("model", name, MODELS)
    known, (timms, _, tag) = timm_names(), name.removeprefix(TIMM).partition(".")
    if timms in known and tag:
        raise UserError(f"{name} names weights, too: give --model {TIMM}{timms} --pretrained {TIMM}{tag}")
    if timms not in known:
        near = [TIMM + other for other in alike(timms, known)]
        if near:
            raise UserError(f"unknown model {name!r}: did you mean {' or '.join(near)}?")
        raise UserError(f"unknown model {name!r}: hpcgender models --filter '{TIMM}*' lists timm's")


def alike(name: str, known: Collection[str]) -> list[str]:
    """The names most like one, at most three; also those that begin like it, as timm's often go on with a size."""

    def likeness(other: str) -> float:
        return max(difflib.SequenceMatcher(None, name, part).ratio() for part in (other, other[: len(name)]))

    return [other for other in nlargest(3, known, likeness) if likeness(other) > ALIKE]


def without_timm() -> UserError:
    """What is raised where timm is not installed."""
    return UserError(f"timm is not installed: install the extra timm: {pip_install('timm')}")


@cache
def timm_names() -> tuple[str, ...]:
    """The models of timm, without its prefix, sorted; UserError if it is not installed.

    From its source, as importing it takes seconds.
    """
    spec = importlib.util.find_spec("timm")
    if spec is None or not spec.submodule_search_locations:
        raise without_timm()
    files = (file for place in spec.submodule_search_locations for file in Path(place, "models").glob("*.py"))
    texts = (file.read_text(encoding="utf-8") for file in files)
    return tuple(sorted({name for text in texts for name in re.findall(r"^@register_model\s+def (\w+)", text, re.M)}))


def matching(pattern: str) -> tuple[str, ...]:
    """The models whose names match a pattern such as `se_*`; those of timm only if it begins with `timm:`."""
    known = [TIMM + name for name in timm_names()] if pattern.startswith(TIMM) else MODELS
    return tuple(fnmatch.filter(known, pattern))


def family(name: str) -> str:
    """resnet, se_resnet, vgg, compact or timm."""
    return "timm" if name.startswith(TIMM) else name.removesuffix("_bn").rstrip("0123456789")
