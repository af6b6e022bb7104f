"""The layers of timm's models: which learn how fast, and which do not."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import timm
import timm.optim
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from hpcgender.models.config import ModelConfig
from hpcgender.models.create import create
from hpcgender.models.network import Network
from hpcgender.models.transfer import freeze, freeze_unused, parameter_groups
from shard_tools.base.errors import UserError
from tests.hpcgender.timm_models import CONVNEXT, IMAGES, KINDS, MOBILENET, SIZE, SWIN, VIT, made


@pytest.mark.parametrize("name", [VIT, CONVNEXT, SWIN])
def test_learning_rates_by_layer_are_timms(name: str) -> None:
    size = 224 if name == SWIN else SIZE
    config = ModelConfig(model=name, tasks=("gender", "age"))
    with torch.device("meta"):
        network = create(config, 2, size)
        theirs = timm.create_model(name[5:], num_classes=2)
    wanted: dict[str, tuple[float, float]] = {}
    names = {id(parameter): key for key, parameter in theirs.named_parameters()}
    for group in timm.optim.param_groups_layer_decay(
        theirs,
        weight_decay=0.05,
        layer_decay=0.75,
        no_weight_decay_list=theirs.no_weight_decay() if name != CONVNEXT else (),
    ):
        wanted |= {names[id(p)]: (group["lr_scale"], group["weight_decay"]) for p in group["params"]}
    found: dict[str, tuple[float, float]] = {}
    names = {id(parameter): key for key, parameter in network.named_parameters()}
    for group in parameter_groups(network, 0.1, 0.05, layer_decay=0.75):
        assert group["lr"] == pytest.approx(0.1 * group["lr_factor"])
        found |= {names[id(p)]: (group["lr_factor"], group["weight_decay"]) for p in group["params"]}
    heads = {key: value for key, value in found.items() if not key.startswith("backbone.")}
    assert heads == {f"{task}.{kind}": (1.0, 0.05 * (kind == "weight")) for task in config.tasks for kind in KINDS}
    classifier = timm.get_pretrained_cfg(name[5:]).classifier
    ours = {key.removeprefix("backbone."): value for key, value in found.items() if key not in heads}
    assert ours == {key: pytest.approx(value) for key, value in wanted.items() if not key.startswith(classifier)}


def test_a_resnet_learns_by_its_blocks_and_a_model_without_groups_is_refused() -> None:
    network = create(ModelConfig(model="resnet18"), 2)
    names = {id(parameter): key for key, parameter in network.named_parameters()}
    factors = {
        names[id(p)]: group["lr_factor"]
        for group in parameter_groups(network, 0.1, 1e-4, 0.5, layer_decay=0.5)
        for p in group["params"]
    }
    assert factors["fc.weight"] == 1
    assert factors["layer4.1.conv2.weight"] == 0.5 * 0.5
    assert factors["layer4.0.conv1.weight"] == 0.5 * 0.5**2
    assert factors["conv1.weight"] == 0.5 * 0.5**9
    with torch.device("meta"):
        poolformer = create(ModelConfig(model="timm:poolformer_s12"), 2, SIZE)
    with pytest.raises(UserError, match=r"--layer-decay 0\.75: the model has no groups of layers"):
        parameter_groups(poolformer, 0.1, 1e-4, layer_decay=0.75)
    with pytest.raises(UserError, match="--freeze 2: the model has no stages: give --freeze backbone"):
        freeze(poolformer, 2)


def step(network: Network) -> set[str]:
    """Trains a step and returns the names of what it moved."""
    before = {key: value.clone() for key, value in network.state_dict().items()}
    optimizer = torch.optim.SGD(parameter_groups(network, 0.1, 1e-2), lr=0.1)
    network.train()
    outputs = network(IMAGES)
    torch.stack([value.sum() for value in outputs if value is not None]).sum().backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return {key for key, value in network.state_dict().items() if not torch.equal(value, before[key])}


@pytest.mark.parametrize("name", [VIT, CONVNEXT, MOBILENET])
def test_frozen_backbones_and_stages_do_not_move(name: str) -> None:
    network = made(name, tasks=("gender", "age"))
    freeze(network, "backbone")
    assert step(network) == {f"{task}.{kind}" for task in ("gender", "age") for kind in KINDS}
    network = made(name)
    freeze(network, 2)
    moved = step(network)
    still = ("blocks.0.", "blocks.1.", "patch_embed", "pos_embed", "stem", "stages.0.", "stages.1.", "conv_stem")
    frozen = {key for key, _ in network.named_parameters() if key.removeprefix("backbone.").startswith(still)}
    assert frozen
    assert not moved & frozen
    assert moved >= {key for key, p in network.named_parameters() if p.requires_grad and key.endswith("weight")}
    with pytest.raises(UserError, match="--freeze 99: the model has stages 1 to"):
        freeze(network, 99)


def test_what_no_prediction_depends_on_is_frozen_so_that_ranks_do_not_wait_for_it(tmp_path: Path) -> None:
    config = ModelConfig(model="timm:efficientvim_m1_dist")
    network = create(config, 2, SIZE)
    with torch.device("meta"):
        on_meta = create(config, 2, SIZE)
    freeze_unused(network, on_meta, SIZE)
    assert {key for key, p in network.named_parameters() if not p.requires_grad} == {
        "backbone.weights",
        "backbone.weights_dist",
    }
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        parallel = DistributedDataParallel(network)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Grad strides do not match")  # as in training
            for _ in range(2):
                parallel(IMAGES).gender.sum().backward()
    finally:
        dist.destroy_process_group()


def test_synchronised_batch_normalisation_keeps_its_activation() -> None:
    network = made(MOBILENET)
    converted = network.synchronised()
    layer = converted.get_submodule("backbone.bn1")
    assert isinstance(layer, torch.nn.SyncBatchNorm)
    assert isinstance(layer.act, torch.nn.Hardswish)
