"""A trained model as one module: images of any size to calibrated probabilities, log-odds and ages."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from hpcgender.data.decoders.decoder import MEAN, STD
from hpcgender.models.network import Network


class Portable(nn.Module):
    """Resizing, normalisation, network, temperature: what a program without hpcgender needs.

    Takes square images uint8 (n, 3, height, width) of RGB, n, height and width any. Returns, of the tasks that the
    network has, `probability` (n, 2) of female and male, calibrated; `logit` (n,), log-odds of male as the network
    outputs them; and `age` (n,) in years; float32 each.
    """

    def __init__(self, network: Network, image_size: int, temperature: float) -> None:
        super().__init__()
        self.network = network
        self.image_size = image_size
        self.temperature = temperature

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        size = (self.image_size, self.image_size)
        resized = F.interpolate(images.float(), size, mode="bilinear", align_corners=False, antialias=True)
        outputs = self.network((resized.round().clamp(0, 255) - MEAN) / STD)
        results: list[torch.Tensor] = []
        if outputs.gender is not None:
            logit = outputs.gender[:, 1] - outputs.gender[:, 0]
            results += [(outputs.gender / self.temperature).softmax(1), logit]
        if outputs.age is not None:
            results.append(outputs.age)
        return tuple(results)


def output_names(tasks: tuple[str, ...]) -> tuple[str, ...]:
    """The names of what the network of these tasks returns so."""
    gender = ("probability", "logit") if "gender" in tasks else ()
    return (*gender, "age") if "age" in tasks else gender
