from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from hpcgender.cam.maps import evidence_maps
from hpcgender.models.config import ModelConfig
from hpcgender.models.create import create
from hpcgender.models.losses import Loss, task_losses, weighted
from hpcgender.models.network import DeepHead, Head, Network, Outputs, UncountedBatchNorm, outputs
from hpcgender.models.transfer import freeze, parameter_groups
from shard_tools.base.errors import UserError

UNKNOWN_AGE = torch.full((6,), -1.0)


def made(model: str = "compact", **options: object) -> tuple[Network, ModelConfig]:
    torch.manual_seed(0)
    config = ModelConfig(model=model, tasks=("gender", "age"), **options)  # type: ignore[arg-type]
    return create(config, 2), config


def images(count: int = 6, size: int = 32) -> torch.Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(1)) * 2 - 1


def logits(count: int = 6) -> torch.Tensor:
    return torch.randn(count, 2, generator=torch.Generator().manual_seed(2)).requires_grad_()


def gender_loss(predicted: torch.Tensor, gender: torch.Tensor, **options: object) -> torch.Tensor:
    config = ModelConfig(**options)  # type: ignore[arg-type]
    return task_losses(Outputs(predicted), gender, UNKNOWN_AGE, config)["gender"].mean


def test_one_output_is_binary_cross_entropy() -> None:
    z = torch.tensor([[-3.0], [-0.5], [0.0], [0.7], [40.0]], requires_grad=True)
    gender = torch.tensor([0, 1, 1, 0, 1])
    predicted = outputs(z, None).gender
    assert predicted is not None
    torch.testing.assert_close(predicted.softmax(1)[:, 1], z[:, 0].sigmoid())
    loss = gender_loss(predicted, gender, gender_loss="bce")
    expected = F.binary_cross_entropy_with_logits(z[:, 0], gender.float())
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(torch.autograd.grad(loss, z)[0], torch.autograd.grad(expected, z)[0])


def test_a_network_with_one_output() -> None:
    network, _ = made("resnet18", gender_loss="bce")
    features = network.eval().features(images())
    predicted = network.classify(features).gender
    direction = network.gender_direction()
    assert predicted is not None
    assert direction is not None
    assert predicted.shape == (6, 2)
    assert bool((predicted[:, 0] == 0).all())
    bias = network.state_dict()["fc.bias"]
    torch.testing.assert_close(features.mean((2, 3)) @ direction + bias, predicted[:, 1])


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weights", [(), (1.0, 3.0)])
def test_the_gender_loss_is_torchs_over_known_labels(smoothing: float, weights: tuple[float, ...]) -> None:
    gender = torch.tensor([0, 1, -1, 1, 0, -1])
    predicted = logits()
    loss = gender_loss(predicted, gender, label_smoothing=smoothing, class_weights=weights)
    weight = torch.tensor(weights) if weights else None
    expected = F.cross_entropy(predicted, gender, weight, ignore_index=-1, label_smoothing=smoothing)
    torch.testing.assert_close(loss, expected)
    gradient = torch.autograd.grad(loss, predicted)[0]
    assert bool((gradient[gender < 0] == 0).all())


def test_mixed_genders_cost_as_much_as_their_parts() -> None:
    a, b, share = torch.tensor([0, 1, 1, 0, 0, 1]), torch.tensor([0, 0, 1, 1, 0, 1]), 0.3
    predicted = logits()
    mixed = share * F.one_hot(a, 2) + (1 - share) * F.one_hot(b, 2)
    parts = share * F.cross_entropy(predicted, a) + (1 - share) * F.cross_entropy(predicted, b)
    torch.testing.assert_close(gender_loss(predicted, mixed), parts)
    half_known = mixed.clone()
    half_known[3:] = 0.0
    torch.testing.assert_close(gender_loss(predicted, half_known), gender_loss(predicted[:3], mixed[:3]))


@pytest.mark.parametrize(("kind", "expected"), [("l1", 7.0), ("mse", 55.25), ("smooth_l1", 6.5)])
def test_age_losses_are_means_over_known_ages(kind: str, expected: float) -> None:
    predicted = torch.tensor([[30.5], [10.0], [50.0]], requires_grad=True)
    age = torch.tensor([35.0, -1.0, 59.5])
    config = ModelConfig(tasks=("age",), age_loss=kind)  # type: ignore[arg-type]
    loss = task_losses(outputs(None, predicted), torch.tensor([-1, 0, 1]), age, config)
    assert set(loss) == {"age"}
    assert loss["age"].mean.item() == pytest.approx(expected)
    assert float(torch.autograd.grad(loss["age"].mean, predicted)[0][1]) == 0


def test_an_age_distribution() -> None:
    predicted = torch.randn(4, 101, generator=torch.Generator().manual_seed(0)).requires_grad_()
    result = outputs(None, predicted)
    assert result.age is not None
    torch.testing.assert_close(result.age, predicted.softmax(1) @ torch.arange(101.0))
    config = ModelConfig(tasks=("age",), age_loss="expectation")
    age = torch.tensor([0.0, 42.0, 116.0, -1.0])
    loss = task_losses(result, torch.zeros(4, dtype=torch.int64), age, config)["age"].mean
    torch.testing.assert_close(loss, F.cross_entropy(predicted[:3], torch.tensor([0, 42, 100])))
    between = task_losses(outputs(None, predicted[:1]), torch.zeros(1), torch.tensor([30.25]), config)["age"].mean
    parts = [F.cross_entropy(predicted[:1], torch.tensor([year])) for year in (30, 31)]
    torch.testing.assert_close(between, 0.75 * parts[0] + 0.25 * parts[1])


def test_losses_are_weighted() -> None:
    config = ModelConfig(tasks=("gender", "age"), gender_weight=2.0, age_weight=0.5)
    losses = {"gender": Loss(torch.tensor(1.4), torch.tensor(2.0)), "age": Loss(torch.tensor(6.0), torch.tensor(1.0))}
    assert float(weighted(losses, config)) == pytest.approx(4.4)


@pytest.mark.parametrize("age_loss", ["l1", "mse", "smooth_l1", "expectation"])
def test_a_batch_without_labels_has_gradients_of_zero(age_loss: str) -> None:
    network, config = made(age_loss=age_loss)
    losses = task_losses(network(images()), torch.full((6,), -1), UNKNOWN_AGE, config)
    assert [loss.mean.item() for loss in losses.values()] == [0.0, 0.0]
    weighted(losses, config).backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is not None and bool((p.grad == 0).all()) for p in network.parameters())


@pytest.mark.parametrize("static_graph", [False, True])
def test_networks_train_in_ddp_whatever_is_labelled(tmp_path: Path, static_graph: bool) -> None:
    network, config = made(age_loss="expectation")
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        parallel = DistributedDataParallel(network, static_graph=static_graph)
        for gender, age in ((0, 30.0), (-1, 30.0), (0, -1.0), (-1, -1.0)):
            predicted = parallel(images())
            assert isinstance(predicted, Outputs)
            losses = task_losses(predicted, torch.full((6,), gender), torch.full((6,), age), config)
            weighted(losses, config).backward()  # type: ignore[no-untyped-call]
    finally:
        dist.destroy_process_group()


def test_heads_are_exact_under_autocast() -> None:
    head = Head(8, 1)
    nn.init.constant_(head.weight, 0.0)
    nn.init.constant_(head.bias, 64.3)
    with torch.autocast("cpu", torch.bfloat16):
        assert head(torch.ones(1, 8, dtype=torch.bfloat16)).item() == pytest.approx(64.3, abs=1e-4)


def state(network: nn.Module) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in network.state_dict().items()}


def train_a_step(network: Network, config: ModelConfig, factor: float = 1.0) -> set[str]:
    """Trains a step and returns the names of what it moved."""
    before = state(network)
    optimizer = torch.optim.SGD(parameter_groups(network, 0.1, 1e-2, factor), lr=0.1)
    network.eval()
    network.train()
    losses = task_losses(network(images(size=64)), torch.tensor([0, 1, 0, 1, 0, 1]), torch.arange(6) + 40.0, config)
    weighted(losses, config).backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return {key for key, value in network.state_dict().items() if not torch.equal(value, before[key])}


@pytest.mark.parametrize("name", ["resnet18", "se_resnet50", "vgg11_bn", "compact"])
def test_a_frozen_backbone_does_not_move(name: str) -> None:
    network, config = made(name, zero_init=False)
    freeze(network, "backbone")
    moved = train_a_step(network, config)
    assert moved
    assert all(network.in_head(key) for key in moved)
    assert moved >= {key for key, _ in network.named_parameters() if network.in_head(key)}


@pytest.mark.parametrize(
    ("name", "stages", "first_moved"),
    [
        ("resnet18", 2, "layer3.0.conv1.weight"),
        ("vgg11_bn", 2, "features.8.weight"),
        ("compact", 3, "features.4.0.weight"),
    ],
)
def test_frozen_stages_do_not_move_and_the_others_do(name: str, stages: int, first_moved: str) -> None:
    network, config = made(name, zero_init=False)
    freeze(network, stages)
    names = list(network.state_dict())
    cut = names.index(first_moved)
    moved = train_a_step(network, config)
    assert not moved & set(names[:cut])
    assert {key for key, _ in network.named_parameters() if names.index(key) >= cut} <= moved


def test_frozen_layers_stay_frozen_in_a_copy_and_with_synchronised_norms() -> None:
    network, config = made("compact")
    freeze(network, "backbone")
    copy = deepcopy(network)
    assert all(copy.in_head(key) for key in train_a_step(copy, config))
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
    converted.train()
    frozen = [m for n, m in converted.named_modules() if isinstance(m, nn.SyncBatchNorm) and not network.in_head(n)]
    assert len(frozen) == 4
    assert not any(module.training for module in frozen)


def test_groups_of_parameters() -> None:
    network, config = made("se_resnet18")
    groups = parameter_groups(network, lr=0.2, weight_decay=1e-4, backbone_lr_factor=0.1)
    names = {id(p): name for name, p in network.named_parameters()}
    assert sorted(names[id(p)] for group in groups for p in group["params"]) == sorted(names.values())
    for group in groups:
        inside = {names[id(p)] for p in group["params"]}
        heads = group["lr_factor"] == 1.0
        assert group["lr"] == pytest.approx(0.2 if heads else 0.02)
        assert all(name.startswith("fc") == heads for name in inside)
        norms = {name for name in inside if "bn" in name or "downsample.1" in name}
        weights = {name for name in inside if name.endswith("weight")} - norms
        assert weights == (inside if group["weight_decay"] > 0 else set())
    freeze(network, "backbone")
    assert [group["name"] for group in parameter_groups(network, 0.1, 1e-4)] == ["heads, decayed", "heads, not decayed"]
    assert len(train_a_step(network, config, 0.1)) == 4


@pytest.mark.parametrize("model", ["resnet18", "vgg11_bn", "compact"])
def test_heads_may_have_hidden_layers(model: str) -> None:
    """Each task has its own, with ReLU, batch normalisation and dropout; the heads alone train in a frozen backbone."""
    network, config = made(model, head_layers=(24, 8), head_norm=True, dropout=0.3)
    deep = [module for module in network.modules() if isinstance(module, DeepHead)]
    assert len(deep) == 2
    for head in deep:
        names = [type(layer).__name__ for layer in head.hidden]
        assert names == ["Linear", "BatchNorm1d", "ReLU", "Dropout"] * 2
        assert [layer.p for layer in head.hidden if isinstance(layer, nn.Dropout)] == [0.3, 0.3]
        assert head.head.in_features == 8
    freeze(network, "backbone")
    trained = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    assert trained == {name for name, _ in network.named_parameters() if network.in_head(name)}
    predicted = network.train()(images())
    total = weighted(task_losses(predicted, torch.tensor([0, 1] * 3), torch.full((6,), 40.0), config), config)
    total.backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters() if p.requires_grad)
    norms = [module for module in network.modules() if isinstance(module, UncountedBatchNorm)]
    assert {int(norm.num_batches_tracked or 0) for norm in norms} == {0}  # the learner counts the batches of all


def test_a_head_with_hidden_layers_has_no_direction_and_its_maps_are_grad_cam() -> None:
    network, _ = made("resnet18", head_layers=(16,))
    assert network.gender_direction() is None
    features = network.eval().features(images()).detach().requires_grad_()
    values = network.classify(features).gender
    assert values is not None
    (gradient,) = torch.autograd.grad((values[:, 1] - values[:, 0]).sum(), features)
    maps, log_odds = evidence_maps(network, images())
    torch.testing.assert_close(log_odds, values[:, 1] - values[:, 0])
    torch.testing.assert_close(maps, (gradient.sum((2, 3), keepdim=True) * features).sum(1))


def test_a_branch_of_several_convolutions_is_flattened() -> None:
    """At 128 pixels the trunk leaves 8x8 cells, and two poolings 2x2, which are flattened as they are."""
    network, _ = made("compact", branch_layers=(48, 40), head_layers=(32,), dropout=0.0)
    branch = network.get_submodule("gender")
    kinds = [type(layer).__name__ for layer in branch.get_submodule("convolution").children()]
    assert kinds == ["Conv2d", "BatchNorm2d", "ReLU", "MaxPool2d", "Conv2d", "BatchNorm2d", "ReLU"]
    with torch.no_grad():
        features = network.eval().outputs_and_gender_features(images(2, 128))[1]
        assert features.shape == (2, 40, 4, 4)
        flat = F.max_pool2d(features, 2).flatten(1)
        assert flat.shape == (2, 160)
        expected = branch.get_submodule("head")(flat)
        torch.testing.assert_close(network(images(2, 128)).gender, expected)
        maps, _ = evidence_maps(network, images(2, 64))
    assert network.gender_direction() is None
    assert maps.shape[1:] == (2, 2)
    config = ModelConfig(model="compact", branch_layers=(48, 40))
    assert (config.map_side(128), config.map_side(64)) == (4, 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "resnet18", "branch_layers": (8,)}, "resnet18 has no --branch-layers: use compact"),
        ({"head_layers": (8, 0)}, "--head-layers needs positive widths"),
        ({"head_norm": True}, "--head-norm needs --head-layers"),
    ],
)
def test_heads_that_cannot_be(options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        ModelConfig(**options).check()  # type: ignore[arg-type]
    with pytest.raises(UserError, match="compact takes images of 64 pixels or more"):
        ModelConfig(model="compact", branch_layers=(8, 8)).check_image_size(48)
