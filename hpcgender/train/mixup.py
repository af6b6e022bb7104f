"""Mixup (Zhang et al., arXiv 1710.09412): each image is mixed with a partner in its batch.

Partners and weights are a pure function of (seed, epoch, step, position in the global batch). A rank has every
world_size-th image of a global batch, and a partner must be on the same rank. So partners are a multiple of a stride
apart that world sizes divide, and the global batch is mixed alike for every world size that divides the stride.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from hpcgender.data.counter_rng import uniform
from hpcgender.data.order import LANES


@dataclass(frozen=True)
class Mixing:
    """How one rank's n images of a batch are mixed."""

    partners: npt.NDArray[np.int64]
    """(n,): which of the rank's images each one is mixed with."""
    weights: npt.NDArray[np.float32]
    """(n,): the weight of each image itself, from 0 to 1; its partner has 1 minus that."""


def partner_stride(batch_size: int, world_size: int) -> int:
    """The stride of partners in a global batch: their distances are multiples of it.

    World sizes divide the number of lanes and the batch size, so all of them divide the greatest common divisor of
    both. If that is the whole batch it is divided by its smallest factor, or every image would be its own partner.
    If `world_size` does not divide it (64 ranks for a batch of 192), the stride is `world_size`, with other partners.
    """
    stride = math.gcd(batch_size, LANES)
    if stride == batch_size > 1:
        stride //= next(factor for factor in range(2, batch_size + 1) if batch_size % factor == 0)
    return stride if stride % world_size == 0 else world_size


def draw_mixing(
    alpha: float, seed: int, epoch: int, step: int, *, batch_size: int, rank: int = 0, world_size: int = 1
) -> Mixing:
    """The partners and weights of a rank's part of a global batch of `batch_size`; `step` is counted in the epoch.

    Weights are drawn from Beta(alpha, alpha) for each image. An image is its own partner only if its rank has no other.
    """
    stride = partner_stride(batch_size, world_size)
    places = np.arange(rank, batch_size, world_size)
    counter = step * batch_size + places
    # Images whose distance is a multiple of the stride form a ring, which is rotated by a random amount.
    ring = batch_size // stride
    turn = uniform(seed, epoch, "mixup partner", step * batch_size + places % stride)
    partners = (places + stride * (1 + (turn * (ring - 1)).astype(np.int64))) % batch_size
    return Mixing((partners - rank) // world_size, symmetric_beta(alpha, seed, epoch, counter))


def symmetric_beta(alpha: float, seed: int, epoch: int, counter: npt.NDArray[np.integer]) -> npt.NDArray[np.float32]:
    """A random number from Beta(alpha, alpha), 0 < alpha <= 1, for each counter, float32 of the counter's shape.

    It is the quantile of a uniform number, rounded to float32, also to exactly 0 and 1.
    """
    from scipy.special import betaincinv  # 0.3 s, only for runs with mixup

    drawn: npt.NDArray[np.float64] = betaincinv(alpha, alpha, uniform(seed, epoch, "mixup weight", counter))
    return drawn.astype(np.float32)


def mix(
    mixing: Mixing, images: torch.Tensor, gender: torch.Tensor, age: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Mixes images (n, c, h, w), gender int64 (n,) and, if age is a task, ages float (n,), all on one device.

    Returns the images; the classes' probabilities, float32 (n, 2), whose row is all 0 where the gender is unknown; and
    the ages. An image is not mixed if one of its labels, or of its partner's, is unknown (negative).
    """
    device = images.device
    partners = torch.from_numpy(mixing.partners).to(device, non_blocking=True)
    weights = torch.from_numpy(mixing.weights).to(device, non_blocking=True)
    known = gender >= 0
    if age is not None:
        known = known & (age >= 0)
    weights = torch.where(known & known[partners], weights, 1.0)
    classes = torch.stack([gender == 0, gender == 1], dim=1).float()
    mixed = torch.lerp(images[partners], images, weights.to(images.dtype)[:, None, None, None])
    probabilities = torch.lerp(classes[partners], classes, weights[:, None])
    if age is not None:
        age = torch.lerp(age[partners], age, weights.to(age.dtype))
    return mixed, probabilities, age
