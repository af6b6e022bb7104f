"""Heat maps of timm's models: they add up to the log odds, and are those of pytorch-grad-cam."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from pytorch_grad_cam import GradCAM

from hpcgender.cam.maps import evidence_maps
from shard_tools.base.errors import UserError
from tests.benchmarks.cam import Logits, male_minus_female
from tests.hpcgender.timm_models import CONVNEXT, EFFICIENTNET, IMAGES, MOBILENET, SIZE, SWIN, VIT, made


@pytest.mark.parametrize("name", [EFFICIENTNET, SWIN, "timm:vit_small_patch16_dinov3"])
def test_maps_add_up_to_the_log_odds_where_timm_pools_by_the_mean(name: str) -> None:
    size = 112 if name == SWIN else SIZE
    network = made(name, size)
    images = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        maps, log_odds = evidence_maps(network, images)
        logits = network(images).gender
    assert network.gender is not None
    torch.testing.assert_close(log_odds, logits.diff(1)[:, 0])
    bias = network.state_dict()["gender.bias"].diff()
    torch.testing.assert_close(maps.mean((1, 2)) + bias, log_odds, rtol=1e-4, atol=1e-4)


def tokens(prefix: int) -> Any:
    """How pytorch-grad-cam is to see tokens: without those of the class and registers."""

    def reshaped(features: torch.Tensor) -> torch.Tensor:
        side = round((features.shape[1] - prefix) ** 0.5)
        return features[:, prefix:].reshape(len(features), side, side, -1).permute(0, 3, 1, 2)

    return reshaped


@pytest.mark.parametrize(
    ("name", "layer", "reshape"),
    [
        (VIT, "blocks.11.norm1", tokens(1)),
        ("timm:deit_tiny_distilled_patch16_224", "blocks.11.norm1", tokens(2)),
        ("timm:test_vit2", "norm", tokens(1)),
        ("timm:test_vit3", "norm", tokens(1)),
        ("timm:test_mambaout", "stages", lambda features: features.permute(0, 3, 1, 2)),
        (CONVNEXT, "norm_pre", None),
        (MOBILENET, "blocks", None),
        (EFFICIENTNET, "bn2", None),
        (f"{EFFICIENTNET} with a deep head", "bn2", None),
    ],
)
def test_maps_are_those_of_pytorch_grad_cam(name: str, layer: str, reshape: Any) -> None:
    name, _, deep = name.partition(" ")
    network = made(name, head_layers=(16,) if deep else ()).double()
    images = IMAGES[:1].double()
    with torch.no_grad():
        maps, _ = evidence_maps(network, images)
    target = network.backbone.get_submodule(layer)
    with GradCAM(model=Logits(network), target_layers=[target], reshape_transform=reshape) as theirs:
        theirs(input_tensor=images, targets=[male_minus_female])
        seen = theirs.activations_and_grads
        raw = theirs.get_cam_image(images, target, [], seen.activations[0].numpy(), seen.gradients[0].numpy(), False)
    raw *= maps[0].numel()  # its weights are means over the cells, ours are sums
    assert np.abs(raw).max() > 0
    assert np.abs(maps.numpy() - raw).max() <= 1e-5 * np.abs(raw).max()


def test_a_model_whose_features_are_no_square_has_no_heat_maps() -> None:
    network = made("timm:crossvit_9_240", 240)
    with torch.no_grad():
        assert network(torch.zeros(1, 3, 240, 240)).gender.shape == (1, 2)
    with pytest.raises(UserError, match="crossvit_9_240 has no heat maps, as its features are no square of cells"):
        evidence_maps(network, torch.zeros(1, 3, 240, 240))
