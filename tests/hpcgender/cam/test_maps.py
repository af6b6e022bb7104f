"""Heat maps against their definition, and against pytorch-grad-cam."""

from __future__ import annotations

from typing import Any, Literal

import cv2
import numpy as np
import pytest
import torch
from pytorch_grad_cam import GradCAM

from hpcgender.cam.maps import evidence_maps, evidence_of, map_cells
from hpcgender.models.config import ModelConfig
from hpcgender.models.create import create
from hpcgender.models.network import Network
from hpcgender.models.vgg import VGG
from tests.benchmarks.cam import Logits, last_maps, male_minus_female

LINEAR = ("se_resnet18", "resnet50", "compact")
MODELS = (*LINEAR, "vgg11_bn", "vgg13")
IMAGES = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def made(name: str, **options: Any) -> Network:
    torch.manual_seed(0)
    model = create(ModelConfig(model=name, **options), 2).eval()
    for module in model.modules():  # as after training: gates, gains and means that are not 0 or 1
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            assert module.running_mean is not None
            torch.nn.init.normal_(module.running_mean, 0, 0.1)
    return model


@pytest.mark.parametrize("loss", ["ce", "bce"])
@pytest.mark.parametrize("name", LINEAR)
def test_a_map_adds_up_to_the_log_odds(name: str, loss: Literal["ce", "bce"]) -> None:
    model = made(name, gender_loss=loss, tasks=("gender", "age"))
    with torch.no_grad():
        maps, log_odds = evidence_maps(model, IMAGES)
        logits = model(IMAGES).gender
        heads = [module for module in model.modules() if isinstance(module, torch.nn.Linear)]
        bias = heads[0].bias[-1] - (heads[0].bias[0] if loss == "ce" else 0)
    torch.testing.assert_close(log_odds, logits[:, 1] - logits[:, 0])
    torch.testing.assert_close(maps.mean((1, 2)) + bias, log_odds, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_one_pass_gives_predictions_and_maps(name: str) -> None:
    model = made(name, tasks=("gender", "age"))
    with torch.no_grad():
        outputs, features = model.outputs_and_gender_features(IMAGES)
        expected, (maps, _) = model(IMAGES), evidence_maps(model, IMAGES)
        torch.testing.assert_close(outputs[:2], expected[:2], rtol=0, atol=0)
        assert torch.equal(evidence_of(model, outputs, features), maps)


@pytest.mark.parametrize("name", MODELS)
def test_maps_in_bf16_are_those_in_fp32_but_for_rounding(name: str) -> None:
    model = made(name)
    with torch.no_grad():
        exact, exact_log_odds = evidence_maps(model, IMAGES)
        with torch.autocast("cpu", torch.bfloat16):
            maps, log_odds = evidence_maps(model, IMAGES)
    assert maps.dtype == log_odds.dtype == torch.float32
    largest = exact.abs().max()
    limit = 0.03 * largest
    assert (log_odds - exact_log_odds).abs().max() <= limit
    if name not in LINEAR:
        # Rounding turns ReLUs between features and log-odds on or off: as much as noise of bf16's 8 bits does in fp32.
        assert isinstance(model, VGG)
        with torch.no_grad():
            features = model.outputs_and_gender_features(IMAGES)[1]
            noise = torch.randn(features.shape, generator=torch.Generator().manual_seed(0)) / 2**8
            features *= 1 + noise
        noisy = evidence_of(model, model.classify(model.features[-1](features)), features)  # type: ignore[index]
        limit = 2.5 * (noisy - exact).abs().max()
        assert limit <= 0.2 * largest
    assert 0 < (maps - exact).abs().max() <= limit


@pytest.mark.parametrize("name", LINEAR)
def test_a_map_is_grad_cam_of_the_log_odds(name: str) -> None:
    model = made(name).double()
    outputs, features = model.outputs_and_gender_features(IMAGES.double())
    logits = outputs.gender
    assert logits is not None
    (gradient,) = torch.autograd.grad((logits[:, 1] - logits[:, 0]).sum(), features)
    grad_cam = (gradient.sum((2, 3), keepdim=True) * features).sum(1)
    maps, _ = evidence_maps(model, IMAGES.double())
    assert (maps - grad_cam).abs().max() <= 1e-6 * grad_cam.abs().max()


@pytest.mark.parametrize("name", MODELS)
def test_maps_are_those_of_pytorch_grad_cam(name: str) -> None:
    model, images = made(name).double(), IMAGES.double()  # so that only the method can differ
    with torch.no_grad():
        maps, _ = evidence_maps(model, images)
    layer = last_maps(model)
    with GradCAM(model=Logits(model), target_layers=[layer]) as cam:
        theirs = cam(input_tensor=images, targets=[male_minus_female] * len(images))
        seen = cam.activations_and_grads
        raw = cam.get_cam_image(images, layer, [], seen.activations[0].numpy(), seen.gradients[0].numpy(), False)
    raw *= maps[0].numel()  # its weights are means over the cells, ours are sums
    assert np.abs(maps.numpy() - raw).max() <= 1e-6 * np.abs(raw).max()
    for of_image, its in zip(maps.numpy(), theirs, strict=True):
        ours = scaled(cv2.resize(scaled(np.maximum(of_image, 0)), (64, 64)))
        np.testing.assert_allclose(ours, its, atol=1e-5)


def scaled(values: Any) -> Any:
    """As pytorch-grad-cam makes pictures of maps, each on its own."""
    return (values - values.min()) / (1e-7 + np.ptp(values))


@pytest.mark.parametrize(("name", "cells"), [("se_resnet18", (2, 2)), ("compact", (4, 4)), ("vgg11_bn", (4, 4))])
def test_how_fine_maps_are(name: str, cells: tuple[int, int]) -> None:
    model = made(name).requires_grad_(False)
    with torch.no_grad():
        assert map_cells(model, 64, torch.device("cpu")) == cells
        maps, log_odds = evidence_maps(model, IMAGES)
        torch.testing.assert_close(log_odds, model(IMAGES).gender.diff(1)[:, 0])
    assert maps.shape[1:] == cells
    assert maps.abs().max() > 0
