"""Where the feature maps behind a timm model's predictions are, and whether its log-odds are linear in their means.

Both are found by computing, not by the model's name: what pools is given random features.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from shard_tools.base.errors import UserError

TOLERANCE = 1e-4
"""Largest difference from the mean of what only rounds otherwise, of random features with a standard deviation of 1."""


@dataclass(frozen=True)
class Layout:
    """How a tensor of features holds its maps: a square of `side` x `side` cells."""

    kind: Literal["nchw", "nhwc", "tokens"]
    """Channels before the cells, or behind them; or a token (n, tokens, channels) for each cell."""
    side: int
    prefix: int = 0
    """Tokens before those of the cells: of the class, and registers."""

    def maps(self, features: torch.Tensor) -> torch.Tensor:
        """The maps (n, channels, side, side)."""
        if self.kind == "nchw":
            return features
        if self.kind == "nhwc":
            return features.permute(0, 3, 1, 2)
        cells = features[:, self.prefix :].transpose(1, 2)
        return cells.reshape(*cells.shape[:2], self.side, self.side)

    def features(self, maps: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """The features with these maps, and the prefix of `like`."""
        if self.kind == "nchw":
            return maps
        if self.kind == "nhwc":
            return maps.permute(0, 2, 3, 1)
        return torch.cat([like[:, : self.prefix], maps.flatten(2).transpose(1, 2)], 1)


def layout_of(features: Any, prefix: int) -> Layout | None:
    """The layout of a square image's features, with so many tokens before those of cells; None if it is another."""
    if not isinstance(features, torch.Tensor):
        return None
    shape = features.shape
    if len(shape) == 3:
        side = math.isqrt(max(0, shape[1] - prefix))
        return Layout("tokens", side, prefix) if side and side**2 == shape[1] - prefix else None
    if len(shape) != 4 or (shape[2] != shape[3] and shape[1] != shape[2]):
        return None
    return Layout("nchw", shape[2]) if shape[2] == shape[3] else Layout("nhwc", shape[1])


@dataclass(frozen=True)
class Maps:
    """Where the maps are that heat maps are made of."""

    layout: Layout
    linear: bool
    """What the heads get are the means of the maps."""
    layer: str = ""
    """The layer that gives them, whose output `detaching` detaches; empty for the last features."""


def find_maps(backbone: nn.Module, image: torch.Tensor, name: str) -> Maps:
    """Where the maps of a timm model in eval mode are, given an image (1, channels, size, size); UserError if nowhere.

    The last features, if what is pooled depends on their cells. A vision transformer may pool the token of the class
    alone, which gets all that it knows of the cells in the last block: then the maps are the tokens which that reads.
    """
    with torch.no_grad():
        features = backbone.forward_features(image)  # type: ignore[operator]
    prefix = getattr(backbone, "num_prefix_tokens", 0)
    layout = layout_of(features, prefix)
    if layout is None:
        raise UserError(f"{name} has no heat maps, as its features are no square of cells: use another model for them")
    generator = torch.Generator().manual_seed(0)

    def drawn(like: torch.Tensor) -> torch.Tensor:
        return torch.randn(like.shape, generator=generator).to(like)

    def gradient(pooled: torch.Tensor, of: torch.Tensor) -> torch.Tensor:
        """Of a random sum: a plain one does not change with what is behind a layer norm."""
        (found,) = torch.autograd.grad((drawn(pooled) * pooled).sum(), of)
        return found

    with torch.enable_grad():
        features = drawn(features).requires_grad_()
        pooled = backbone.forward_head(features, pre_logits=True)  # type: ignore[operator]
        means = layout.maps(features).mean((2, 3))
        if pooled.shape == means.shape and torch.allclose(pooled, means, rtol=0, atol=TOLERANCE):
            return Maps(layout, linear=True)
        if layout.maps(gradient(pooled, features)).any():
            return Maps(layout, linear=False)
        blocks = getattr(backbone, "blocks", None)
        if isinstance(blocks, nn.Sequential | nn.ModuleList) and hasattr(blocks[-1], "norm1"):
            layer = f"blocks.{len(blocks) - 1}.norm1"
            seen = output_of(backbone, layer, image)
            tokens = layout_of(seen, prefix) or layout_of(seen, 0)
            if tokens:
                hook = backbone.get_submodule(layer).register_forward_hook(DetachHook(tokens))
                with detaching() as detached:
                    pooled = backbone.forward_head(backbone.forward_features(image), pre_logits=True)  # type: ignore[operator]
                if gradient(pooled, detached[0]).any():
                    return Maps(tokens, linear=False, layer=layer)
                hook.remove()
    raise UserError(f"{name} has no heat maps, as it pools no cells of its features: use another model for them")


def output_of(backbone: nn.Module, layer: str, image: torch.Tensor) -> Any:
    """What a layer gives, of an image."""
    seen = []
    hook = backbone.get_submodule(layer).register_forward_hook(lambda module, inputs, output: seen.append(output))
    with torch.no_grad():
        backbone.forward_features(image)  # type: ignore[operator]
    hook.remove()
    return seen[-1]


class DetachHook:
    """A forward hook that detaches a layer's maps: gradients of what follows end at them."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout

    def __call__(self, layer: nn.Module, inputs: Any, features: torch.Tensor) -> torch.Tensor | None:
        detached = _detached.get()
        if detached is None:
            return None
        detached.append(self.layout.maps(features).detach().requires_grad_())
        return self.layout.features(detached[-1], features.detach())


_detached: ContextVar[list[torch.Tensor] | None] = ContextVar("detached", default=None)
"""Where `DetachHook` puts the maps; None: it does nothing. Each thread has its own."""


@contextmanager
def detaching() -> Iterator[list[torch.Tensor]]:
    """Has `DetachHook` detach maps in this thread's forward passes meanwhile, and put them (n, channels, side, side)
    here."""
    detached: list[torch.Tensor] = []
    token = _detached.set(detached)
    try:
        yield detached
    finally:
        _detached.reset(token)
