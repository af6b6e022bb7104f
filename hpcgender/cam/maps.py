"""Heat maps of gender: class activation maps from the forward pass, or Grad-CAM where the network has none."""

from __future__ import annotations

import torch

from hpcgender.inference.outputs import log_odds
from hpcgender.models.network import Network, Outputs


def evidence_maps(model: Network, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Evidence for male minus evidence for female at each place, and the log-odds of male; of images in eval mode.

    Images are float (n, 3, size, size) in [-1, 1]; maps float32 (n, cells down, cells across), log-odds float32 (n,).
    """
    outputs, maps = outputs_and_maps(model, images)
    assert outputs.gender is not None
    return maps, log_odds(outputs.gender)


def outputs_and_maps(model: Network, images: torch.Tensor) -> tuple[Outputs, torch.Tensor]:
    """The predictions of images and their maps, by one pass."""
    outputs, features = model.outputs_and_gender_features(images)
    maps = evidence_of(model, outputs, features)
    return Outputs(*(None if values is None else values.detach() for values in outputs)), maps


def evidence_of(model: Network, outputs: Outputs, features: torch.Tensor) -> torch.Tensor:
    """The maps, float32 (n, cells down, cells across), of what `outputs_and_gender_features` returns.

    A network whose log-odds are linear in the means of its feature maps has class activation maps (Zhou et al., arXiv
    1512.04150): their means plus a constant are the log-odds. Another one has Grad-CAM's (Selvaraju et al., arXiv
    1610.02391) of the log-odds, without ReLU or scaling; it needs the gradient of the layers after the maps only. Its
    weights are summed over the cells, so that it gives the former what they are. Both add up channels in float32, also
    under autocast.
    """
    direction = model.gender_direction()
    if direction is None:
        assert outputs.gender is not None
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(log_odds(outputs.gender).sum(), features)
        direction = gradient.float().sum((2, 3))
    sum_channels = "nchw,c->nhw" if direction.ndim == 1 else "nchw,nc->nhw"
    with torch.autocast(features.device.type, enabled=False):
        return torch.einsum(sum_channels, features.detach().float(), direction.float())


def map_cells(model: Network, image_size: int, device: torch.device) -> tuple[int, int]:
    """Cells of a map, down and across."""
    maps, _ = evidence_maps(model, torch.zeros(1, 3, image_size, image_size, device=device))
    return maps.shape[1], maps.shape[2]
