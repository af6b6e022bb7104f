"""A network's outputs as numbers of images: the one computation of log-odds for evaluate, cam and predict."""

from __future__ import annotations

import torch

from hpcgender.models.network import Network, Outputs
from hpcgender.precision import Precision
from shard_tools.base.errors import UserError


def outputs_of(model: Network, images: torch.Tensor, precision: Precision) -> Outputs:
    """The outputs of images, float (n, 3, size, size) in [-1, 1]; UserError if they are not finite."""
    with precision.autocast():
        outputs: Outputs = model(images)
    check_finite(*(values for values in (outputs.gender, outputs.age) if values is not None))
    return outputs


def log_odds(logits: torch.Tensor) -> torch.Tensor:
    """Log-odds of male, float32 (n,), of logits (n, 2)."""
    return (logits[:, 1] - logits[:, 0]).float()


def check_finite(*outputs: torch.Tensor) -> None:
    """Raises UserError if an output is NaN or infinite."""
    for values in outputs:
        if not values.isfinite().all():
            raise UserError("the model outputs NaN for some images: training diverged, use an earlier checkpoint")
