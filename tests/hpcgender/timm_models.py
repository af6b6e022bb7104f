"""Models of timm that its tests share, small ones of each family."""

from __future__ import annotations

from typing import Any

import torch

from hpcgender.models.config import ModelConfig
from hpcgender.models.create import create
from hpcgender.models.timm_network import Timm

SIZE = 64
IMAGES = torch.randn(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
VIT, CONVNEXT, EFFICIENTNET, MOBILENET = (
    *("timm:vit_tiny_patch16_224", "timm:convnext_atto"),
    *("timm:efficientnet_lite0", "timm:mobilenetv3_small_050"),
)
SWIN = "timm:swin_tiny_patch4_window7_224"
KINDS = ("weight", "bias")
"""Of the parameters of a head."""


def made(name: str, size: int = SIZE, **options: Any) -> Timm:
    """A network in eval mode with statistics, gains and layer scales as after training."""
    config = ModelConfig(model=name, **options)
    config.check()
    torch.manual_seed(0)
    network = create(config, 2, size).eval()
    assert isinstance(network, Timm)
    randomise(network.backbone)
    return network


def randomise(model: torch.nn.Module) -> None:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if value.is_floating_point() and value.ndim == 1:
                value.copy_(torch.rand(value.shape, generator=generator) * 0.5 + (0.5 if "bias" not in name else -0.25))
