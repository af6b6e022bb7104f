from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from torch import nn

from hpcgender.commands.models import ModelsConfig
from hpcgender.data.config import BatchConfig
from hpcgender.models.config import ModelConfig, read_model_config
from hpcgender.models.create import create
from hpcgender.models.network import Network
from hpcgender.models.registry import DEPTHS, MODELS, VGG_DEPTHS, check_model
from hpcgender.models.table import cost, list_models, table
from shard_tools.base.commands import parse_options
from shard_tools.base.errors import UserError
from shard_tools.base.text import text_of

PARAMETERS = {"se_resnet50": 26_043_122, "se_resnet101": 47_281_970, "se_resnet152": 64_776_946}
"""With 2 classes; `sum(p.numel() for p in timm.create_model("seresnet50", num_classes=2).parameters())` and so on."""
BOTH = ("gender", "age")


def made(model: str, **options: object) -> Network:
    config = ModelConfig(model=model, **options)  # type: ignore[arg-type]
    config.check()
    return create(config, 2)


def gender(network: Network, images: torch.Tensor) -> torch.Tensor:
    logits = network(images).gender
    assert isinstance(logits, torch.Tensor)
    return logits


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


def same_function(ours: Network, theirs: nn.Module, size: int) -> bool:
    """Whether `ours` predicts the same with the same weights under the same names."""
    randomise(theirs)
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = theirs.eval()(images)
        return torch.allclose(gender(ours.eval(), images), expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize(
    ("depth", "size"), [*((depth, 112) for depth in DEPTHS), *((depth, 224) for depth in (18, 50, 152))]
)
def test_se_resnets_equal_timms(depth: int, size: int) -> None:
    assert same_function(made(f"se_resnet{depth}"), timm.create_model(f"seresnet{depth}", num_classes=2), size)


@pytest.mark.parametrize("output_stride", [8, 16])
def test_dilated_se_resnets_equal_timms(output_stride: int) -> None:
    theirs = timm.create_model("seresnet50", num_classes=2, output_stride=output_stride)
    ours = made("se_resnet50", output_stride=output_stride)
    assert same_function(ours, theirs, 112)
    assert ours.features(torch.zeros(1, 3, 112, 112)).shape[2:] == (112 // output_stride, 112 // output_stride)


@pytest.mark.parametrize(("depth", "size"), [*((depth, 112) for depth in DEPTHS), (50, 224)])
def test_resnets_equal_torchvisions(depth: int, size: int) -> None:
    name = f"resnet{depth}"
    assert same_function(made(name), torchvision.models.get_model(name, num_classes=2), size)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("vgg11", 112),
        ("vgg16_bn", 224),
        pytest.param("vgg13_bn", 80, marks=pytest.mark.slow),
        pytest.param("vgg19", 80, marks=pytest.mark.slow),
    ],
)
def test_vggs_equal_torchvisions(name: str, size: int) -> None:
    theirs = torchvision.models.get_model(name, num_classes=2)
    with torch.no_grad():  # fresh weights are so small that every image gets the same logits
        for parameter in theirs.classifier.parameters():
            parameter.mul_(4)
    assert same_function(made(name), theirs, size)


@pytest.mark.parametrize("name", [f"vgg{depth}{norm}" for depth in VGG_DEPTHS for norm in ("", "_bn")])
def test_vggs_have_torchvisions_layers(name: str) -> None:
    with torch.device("meta"):
        theirs = torchvision.models.get_model(name, num_classes=2).state_dict()
        ours = made(name).state_dict()
    assert {key: value.shape for key, value in ours.items()} == {key: value.shape for key, value in theirs.items()}


def test_grayscale_networks_equal_timms_on_grey_images() -> None:
    theirs = timm.create_model("seresnet18", num_classes=2, in_chans=1)
    ours = made("se_resnet18", grayscale=True)
    randomise(theirs)
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        torch.testing.assert_close(gender(ours.eval(), images), theirs.eval()(images.mean(1, keepdim=True)))


def test_the_small_stem_keeps_small_images_large() -> None:
    network = made("resnet18", stem="small")
    assert network.features(torch.zeros(1, 3, 32, 32)).shape == (1, 512, 4, 4)
    assert network.conv1.weight.shape == (64, 3, 3, 3)  # type: ignore[union-attr]


@pytest.mark.parametrize(("name", "count"), PARAMETERS.items())
def test_parameters(name: str, count: int) -> None:
    with torch.device("meta"):
        assert sum(p.numel() for p in made(name).parameters()) == count


@pytest.mark.parametrize(
    ("name", "size", "gmacs"),
    [("se_resnet50", 112, 1.078), ("se_resnet101", 112, 2.009), ("se_resnet152", 224, 11.518)],
)
def test_multiply_accumulates(name: str, size: int, gmacs: float) -> None:
    assert cost(ModelConfig(model=name), size).macs / 1e9 == pytest.approx(gmacs, rel=1e-3)


def test_costs_add_up() -> None:
    small, large = (cost(ModelConfig(model="compact"), size) for size in (64, 128))
    pixels = 2 * 3 * 4  # a scale and a shift of each colour, which the state dict leaves out
    assert small.weight_bytes == sum(value.nbytes for value in made("compact").state_dict().values()) + pixels
    assert large.macs == pytest.approx(4 * small.macs, rel=1e-3)
    assert large.activation_bytes == pytest.approx(4 * small.activation_bytes, rel=0.01)


def test_the_list_of_models(capsys: pytest.CaptureFixture[str]) -> None:
    list_models(ModelsConfig(image_size=64, json=True))
    listed = json.loads(capsys.readouterr().out)
    assert [entry["name"] for entry in listed] == list(MODELS)
    assert {entry["name"]: entry["parameters"] for entry in listed}.items() >= PARAMETERS.items()
    drawn = text_of([table([cost(ModelConfig(model="se_resnet50"), 112)], 112)])
    (row,) = (line.split() for line in drawn.splitlines() if "se_resnet50" in line)
    assert row[:4] == ["se_resnet50", "26.04", "1.078", "104.4"]
    assert row[5:] == ["Hu", "et", "al.,", "arXiv", "1709.01507"]
    with pytest.raises(UserError, match="--image-size 8"):
        ModelsConfig(image_size=8).check()


@pytest.mark.parametrize(
    ("name", "tasks"),
    [
        *((name, tasks) for name in ("se_resnet18", "compact") for tasks in (("gender",), ("age",), BOTH)),
        *((name, BOTH) for name in MODELS if "vgg" not in name),
        *(("vgg11_bn", tasks) for tasks in (("age",), BOTH)),
    ],
)
def test_a_fresh_model_learns_through_every_parameter(name: str, tasks: tuple[str, ...]) -> None:
    network = made(name, tasks=tasks, grayscale=name == "compact")
    randomise(network)
    outputs = network(torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
    assert [name for name in BOTH if getattr(outputs, name) is not None] == list(tasks)
    loss: torch.Tensor = torch.stack([predicted.square().sum() for predicted in outputs if predicted is not None]).sum()
    loss.backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    assert all(
        float(p.grad.abs().max()) > 0 for n, p in network.named_parameters() if p.grad is not None and "se.fc1" not in n
    )


@pytest.mark.parametrize("zero_init", [True, False])
def test_blocks_begin_as_their_shortcuts_if_asked(zero_init: bool) -> None:
    gammas = [value for key, value in made("resnet50", zero_init=zero_init).state_dict().items() if "bn3.weight" in key]
    assert len(gammas) == 16
    assert all(bool((gamma == (0 if zero_init else 1)).all()) for gamma in gammas)


@pytest.mark.parametrize("name", ["se_resnet18", "compact"])
def test_networks_compile_whole(name: str) -> None:
    network = made(name, tasks=BOTH, age_loss="expectation").eval()
    images = torch.randn(2, 3, 64, 64)
    compiled = torch.compile(network, backend="eager", fullgraph=True)
    with torch.autocast("cpu", torch.bfloat16):
        expected, predicted = network(images), compiled(images)
    for ours, theirs in zip(predicted, expected, strict=True):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours, theirs)


def test_an_unknown_model_is_refused_with_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean se_resnet50"):
        check_model("seresnet50")


def test_options_from_the_command_line() -> None:
    line = "--model vgg16 --tasks gender age --freeze 2 --pretrained torchvision:IMAGENET1K_V1 --class-weights 1 2.5"
    config = parse_options(ModelConfig, "train", line.split())
    config.check()
    assert (config.tasks, config.freeze, config.class_weights) == (BOTH, 2, (1.0, 2.5))
    assert parse_options(ModelConfig, "train", ["--freeze", "backbone"]).freeze == "backbone"


@dataclass(frozen=True, kw_only=True)
class BothConfig(ModelConfig, BatchConfig):
    """Options of a model and of its batches, as training has them."""

    def check(self) -> None:
        ModelConfig.check(self)
        BatchConfig.check(self)


def test_options_of_a_model_stand_beside_those_of_batches() -> None:
    line = "--model resnet18 --class-weights 1 2 --sampling weights --sampling-weights 2 1"
    config = parse_options(BothConfig, "train", line.split())
    config.check()
    assert (config.class_weights, config.sampling_weights) == ((1.0, 2.0), (2.0, 1.0))
    values = json.loads(json.dumps({**asdict(config), "data": "x"}))
    expected = ModelConfig(model="resnet18", class_weights=(1.0, 2.0))
    assert read_model_config(values, Path("config.json"), "train again") == expected
    del values["stem"]
    with pytest.raises(UserError, match=r"^config\.json has no stem: train again$"):
        read_model_config(values, Path("config.json"), "train again")
    for line, message in (("--batch-size 0", "--batch-size 0 must"), ("--model resnet19", "unknown model 'resnet19'")):
        with pytest.raises(UserError, match=message):
            parse_options(BothConfig, "train", line.split()).check()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "vgg16", "output_stride": 16}, "vgg16 has no --output-stride 16"),
        ({"model": "compact", "stem": "small"}, "compact has no --stem small"),
        ({"tasks": ()}, "give gender, age, or both"),
        ({"tasks": ("age", "age")}, "give gender, age, or both"),
        ({"gender_weight": 0.0}, "--gender-weight must be positive"),
        ({"label_smoothing": 1.0}, "--label-smoothing 1.0 must be at least 0 and below 1"),
        ({"class_weights": (1.0,)}, "--class-weights needs 2 positive numbers, for female and male"),
        ({"pretrained": "torchvision:IMAGENET1K_V1"}, "torchvision has no weights of se_resnet50"),
        ({"freeze": "backbone"}, "give --pretrained"),
        ({"freeze": 5, "pretrained": "a.pt"}, "se_resnet50 has stages from 1 to 4"),
    ],
)
def test_what_cannot_work_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        ModelConfig(**options).check()  # type: ignore[arg-type]
