"""Class activation maps (Zhou et al., arXiv 1512.04150) from the forward pass, and exact sums of maps and faces."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from hpcgender.data.decoders import to_pixels
from hpcgender.distributed import Ranks
from hpcgender.models.network import Network

Maps = npt.NDArray[np.float32]


def activation_maps(model: Network, features: torch.Tensor) -> torch.Tensor:
    """Evidence for male minus evidence for female at each place: float32 (n, h, w) of features (n, c, h, w).

    The mean of a map plus the difference of the biases is the difference of the logits, male minus female. ValueError
    if the model's gender head is not linear in the means of the features.
    """
    direction = model.gender_direction()
    if direction is None:
        raise ValueError("no class activation maps without a linear gender head over the means of the features")
    return torch.einsum("nchw,c->nhw", features.float(), direction)


class FaceSums:
    """Sums the pixels of the images of each class, as integers, so that any order gives the same mean face."""

    def __init__(self, classes: int, image_size: int, device: torch.device) -> None:
        self.sums = torch.zeros(classes, 3, image_size, image_size, dtype=torch.int64, device=device)
        self.counts = torch.zeros(classes, dtype=torch.int64, device=device)

    def add(self, images: torch.Tensor, gender: torch.Tensor) -> None:
        """Counts a batch: images as the network sees them, float32 (n, 3, size, size); gender int64 (n,)."""
        known = gender >= 0
        self.sums.index_add_(0, gender[known], to_pixels(images[known]).long())
        self.counts += torch.bincount(gender[known], minlength=len(self.counts))

    def means(self, ranks: Ranks) -> npt.NDArray[np.float64]:
        """The mean face of each class over all ranks, in [0, 255]: (classes, size, size, 3). Every rank must ask."""
        sums, counts = ranks.sum(self.sums).double(), ranks.sum(self.counts)
        means = sums / counts.clamp(min=1).double()[:, None, None, None]
        return means.permute(0, 2, 3, 1).cpu().numpy()


@dataclass(frozen=True)
class Average:
    """The mean of raw maps of one class, float64 (h, w), and of how many."""

    mean: npt.NDArray[np.float64]
    count: int


def class_averages(maps: Maps, gender: npt.NDArray[np.integer], classes: int) -> list[Average]:
    """The average map of each class; maps (n, h, w) in the order of the index, so that ranks do not matter."""
    averages = []
    for value in range(classes):
        chosen = maps[gender == value]
        mean = chosen.mean(0, dtype=np.float64) if len(chosen) else np.full(maps.shape[1:], np.nan)
        averages.append(Average(mean, len(chosen)))
    return averages
