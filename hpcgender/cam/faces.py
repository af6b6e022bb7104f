"""Mean faces, exactly: pixels summed as integers."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from hpcgender.data.decoders.decoder import to_pixels


class FaceSums:
    """Sums the pixels of the images of each subgroup as integers, so that any order gives the same mean face."""

    def __init__(self, subgroups: int, image_size: int, device: torch.device) -> None:
        self.sums = torch.zeros(subgroups, 3, image_size, image_size, dtype=torch.int64, device=device)

    def add(self, images: torch.Tensor, codes: npt.NDArray[np.int64]) -> None:
        """Counts a batch: the network's input, float32 (n, 3, size, size); the images' subgroups (n,), -1 for none."""
        known = np.flatnonzero(codes >= 0)
        places = torch.from_numpy(codes[known]).to(self.sums.device)
        if len(known) < len(codes):
            images = images[torch.from_numpy(known).to(images.device)]
        self.sums.index_add_(0, places, to_pixels(images).long())

    def numpy(self) -> npt.NDArray[np.int64]:
        """The sums, int64 (subgroups, 3, size, size)."""
        return self.sums.cpu().numpy().copy()
