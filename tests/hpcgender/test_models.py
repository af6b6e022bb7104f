from __future__ import annotations

import pytest
import timm
import torch
import torchvision
from torch import nn

from hpcgender.models.registry import DEPTHS, MODELS, check_model, create
from shard_tools.commands import UserError

PARAMETERS = {"se_resnet50": 26_043_122, "se_resnet101": 47_281_970, "se_resnet152": 64_776_946}
"""With 2 classes; `sum(p.numel() for p in timm.create_model("seresnet50", num_classes=2).parameters())` and so on."""


def randomise(model: nn.Module) -> None:
    """Random normalisation statistics and gammas: fresh ones hide the squeeze-and-excitation path."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            with torch.no_grad():
                module.weight.copy_(torch.rand(module.weight.shape, generator=generator) * 0.5 + 0.25)
                module.bias.copy_(torch.randn(module.bias.shape, generator=generator) * 0.1)
                module.running_mean.copy_(torch.randn(module.bias.shape, generator=generator) * 0.1)
                module.running_var.copy_(torch.rand(module.bias.shape, generator=generator) + 0.5)


def same_function(ours: nn.Module, theirs: nn.Module, size: int) -> bool:
    randomise(theirs)
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = theirs.eval()(images)
        return torch.allclose(ours.eval()(images), expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("size", [112, 224])
@pytest.mark.parametrize("depth", DEPTHS)
def test_se_resnets_equal_timms(depth: int, size: int) -> None:
    assert same_function(create(f"se_resnet{depth}", 2), timm.create_model(f"seresnet{depth}", num_classes=2), size)


@pytest.mark.parametrize("output_stride", [8, 16])
def test_dilated_se_resnets_equal_timms(output_stride: int) -> None:
    theirs = timm.create_model("seresnet50", num_classes=2, output_stride=output_stride)
    ours = create("se_resnet50", 2, output_stride)
    assert same_function(ours, theirs, 112)
    assert ours.features(torch.zeros(1, 3, 112, 112)).shape[2:] == (112 // output_stride, 112 // output_stride)


@pytest.mark.parametrize("depth", DEPTHS)
def test_resnets_equal_torchvisions(depth: int) -> None:
    assert same_function(
        create(f"resnet{depth}", 2), torchvision.models.get_model(f"resnet{depth}", num_classes=2), 112
    )


@pytest.mark.parametrize(("name", "count"), PARAMETERS.items())
def test_parameters(name: str, count: int) -> None:
    assert sum(p.numel() for p in create(name, 2).parameters()) == count


@pytest.mark.parametrize("name", MODELS)
def test_a_fresh_model_learns_through_every_parameter(name: str) -> None:
    model = create(name, 2)
    randomise(model)
    model(torch.randn(2, 3, 32, 32)).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert all(
        float(p.grad.abs().max()) > 0 for n, p in model.named_parameters() if p.grad is not None and "se.fc1" not in n
    )


def test_an_unknown_model_is_refused_with_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean se_resnet50"):
        check_model("seresnet50")
