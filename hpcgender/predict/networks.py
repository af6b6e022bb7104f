"""What turns pixels into log-odds, ages and heat maps: a checkpoint by PyTorch."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from hpcgender.cam.maps import outputs_and_maps
from hpcgender.checkpoint import Trained
from hpcgender.data.decoders.decoder import to_pixels
from hpcgender.inference.outputs import check_finite, log_odds, outputs_of
from hpcgender.models.network import Outputs
from hpcgender.precision import Precision
from shard_tools.base.errors import UserError

Floats = npt.NDArray[np.float32]


class Results(NamedTuple):
    """What a network says of n images; None for a task that it does not have."""

    logit: Floats | None = None
    """Log-odds of male (n,)."""
    age: Floats | None = None
    """Years (n,)."""
    maps: Floats | None = None
    """Heat maps (n, cells down, cells across), if they were asked for."""
    faces: npt.NDArray[np.uint8] | None = None
    """With heat maps: what the network sees of the images, (n, size, size, 3)."""


class TorchNetwork:
    """The network of a checkpoint. Safe to call from several threads."""

    def __init__(self, trained: Trained, precision: Precision) -> None:
        self.model = trained.model.requires_grad_(False)
        self.precision = precision
        self.image_size = trained.image_size
        self.crop = trained.crop
        self.has_gender = self.has_maps = "gender" in trained.config.tasks

    def results(self, pixels: torch.Tensor, *, maps: bool) -> Results:
        """Of images float32 (n, 3, size, size) in [-1, 1], with heat maps or without."""
        if not maps:
            return Results(*numbers_of(outputs_of(self.model, pixels, self.precision)))
        if not self.has_gender:
            raise UserError("the checkpoint was not trained for gender: it has no heat maps")
        with self.precision.autocast():
            outputs, evidence = outputs_and_maps(self.model, pixels)
        check_finite(evidence, *(values for values in outputs[:2] if values is not None))
        faces = to_pixels(pixels).permute(0, 2, 3, 1).cpu().numpy()
        return Results(*numbers_of(outputs), evidence.cpu().numpy(), faces)


def numbers_of(outputs: Outputs) -> tuple[Floats | None, Floats | None]:
    """The log-odds and the ages of a network's outputs."""
    logit = None if outputs.gender is None else log_odds(outputs.gender).cpu().numpy()
    return logit, None if outputs.age is None else outputs.age.float().cpu().numpy()
