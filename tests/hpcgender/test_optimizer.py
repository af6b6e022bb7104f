from __future__ import annotations

import copy
import math
from itertools import pairwise

import pytest
import torch

from hpcgender.commands.train import TrainConfig
from hpcgender.models.create import create
from hpcgender.models.transfer import freeze, parameter_groups
from hpcgender.train.optimizer import create_optimizer, set_learning_rate
from hpcgender.train.schedule import learning_rate
from shard_tools.base.errors import UserError


def rates(config: TrainConfig, steps_per_epoch: int = 10) -> list[float]:
    return [learning_rate(config, step, steps_per_epoch) for step in range(config.epochs * steps_per_epoch)]


def test_the_learning_rate_rises_then_falls_by_half_a_cosine() -> None:
    config = TrainConfig(lr=0.4, epochs=5, warmup_epochs=1.0, schedule="cosine")
    of_step = rates(config)
    assert of_step[0] == pytest.approx(0.04)
    assert of_step[9] == of_step[10] == pytest.approx(0.4)
    assert of_step[30] == pytest.approx(0.2)
    assert all(a > b for a, b in pairwise(of_step[10:]))
    assert 0 < of_step[-1] < 0.001


def test_the_learning_rate_falls_to_a_tenth_every_15_epochs() -> None:
    config = TrainConfig(lr=0.1, epochs=50, warmup_epochs=0.0, schedule="step")
    of_epoch = rates(config)[::10]
    assert [of_epoch[epoch] for epoch in (0, 14, 15, 29, 30, 45)] == pytest.approx([0.1, 0.1, 0.01, 0.01, 1e-3, 1e-4])


def test_the_steps_down_can_be_chosen() -> None:
    config = TrainConfig(lr=1.0, epochs=6, warmup_epochs=1.0, schedule="step", decay_every=2, decay_factor=0.5)
    assert rates(config, 2) == pytest.approx([0.5, 1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.25])


@pytest.mark.parametrize(("epochs", "warmup"), [(10, "auto"), (10, 1.0), (3, 0.0), (4, 2.5)])
def test_one_cycle_is_torchs(epochs: int, warmup: float) -> None:
    config = TrainConfig(lr=0.2, epochs=epochs, warmup_epochs=warmup, schedule="onecycle")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    cycle = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 0.2, total_steps=epochs * 7, pct_start=config.warmup / epochs, cycle_momentum=False
    )
    theirs = []
    for _ in range(epochs * 7):
        theirs.append(cycle.get_last_lr()[0])
        optimizer.step()
        if len(theirs) < epochs * 7:
            cycle.step()
    assert rates(config, 7) == pytest.approx(theirs, rel=1e-9)


@pytest.mark.parametrize("schedule", ["step", "cosine", "onecycle"])
@pytest.mark.parametrize("warmup", [0.0, 0.01, 1.0, 2.0])
@pytest.mark.parametrize("steps_per_epoch", [1, 3])
def test_every_schedule_is_positive_and_reaches_its_peak(schedule: str, warmup: float, steps_per_epoch: int) -> None:
    config = TrainConfig(lr=0.3, epochs=2, warmup_epochs=warmup, schedule=schedule)  # type: ignore[arg-type]
    of_step = rates(config, steps_per_epoch)
    assert all(0 < rate <= 0.3 + 1e-12 for rate in of_step)
    if warmup in (1.0, 2.0):
        assert max(of_step) == pytest.approx(0.3)


def test_warm_up_is_one_epoch_and_of_one_cycle_three_tenths() -> None:
    assert TrainConfig(epochs=20).warmup == 1
    assert TrainConfig(epochs=20, schedule="onecycle").warmup == 6
    assert TrainConfig(epochs=20, schedule="onecycle", warmup_epochs=2.0).warmup == 2


def test_the_learning_rate_is_scaled_to_the_batch_only_if_asked() -> None:
    assert TrainConfig(lr=0.1, batch_size=1024).peak_lr == 0.1
    scaled = TrainConfig(lr=0.1, batch_size=1024, lr_batch=256, warmup_epochs=0.0)
    assert scaled.peak_lr == pytest.approx(0.4)
    assert learning_rate(scaled, 0, 10) == pytest.approx(0.4)


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_an_optimizer_steps_as_torchs_unfused_one(name: str) -> None:
    config = TrainConfig(optimizer=name, lr=0.02, momentum=0.8, beta2=0.95, weight_decay=0.1)  # type: ignore[arg-type]
    ours, theirs = (torch.nn.Linear(6, 4) for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    groups = [
        {"params": [ours.weight], "weight_decay": 0.1, "lr_factor": 0.5},
        {"params": [ours.bias], "weight_decay": 0.0, "lr_factor": 1.0},
    ]
    optimizer = create_optimizer(config, groups)
    set_learning_rate(optimizer, 0.02)
    plain = [
        {"params": [theirs.weight], "weight_decay": 0.1, "lr": 0.01},
        {"params": [theirs.bias], "weight_decay": 0.0, "lr": 0.02},
    ]
    other: torch.optim.Optimizer
    if name == "sgd":
        other = torch.optim.SGD(plain, momentum=0.8, nesterov=True)
    else:
        kind = torch.optim.Adam if name == "adam" else torch.optim.AdamW
        other = kind(plain, betas=(0.8, 0.95))
    images = torch.randn(8, 6)
    for _ in range(5):
        for layer, of_layer in ((ours, optimizer), (theirs, other)):
            of_layer.zero_grad()
            layer(images).square().sum().backward()
            of_layer.step()
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict())


def test_a_restored_optimizer_continues_with_the_same_bits() -> None:
    for name in ("sgd", "adam", "adamw"):
        config = TrainConfig(optimizer=name, lr=0.01)
        torch.manual_seed(0)
        images = torch.randn(4, 6)

        def begin(config: TrainConfig = config) -> tuple[torch.nn.Linear, torch.optim.Optimizer]:
            layer = torch.nn.Linear(6, 4)
            groups = [{"params": list(layer.parameters()), "weight_decay": 1e-4, "lr_factor": 0.1}]
            return layer, create_optimizer(config, groups)

        def step(layer: torch.nn.Linear, optimizer: torch.optim.Optimizer, lr: float, at: torch.Tensor) -> None:
            set_learning_rate(optimizer, lr)
            optimizer.zero_grad()
            layer(at).square().sum().backward()
            optimizer.step()

        layer, optimizer = begin()
        step(layer, optimizer, 0.1, images)
        again, restored = begin()
        again.load_state_dict(layer.state_dict())
        restored.load_state_dict(copy.deepcopy(optimizer.state_dict()))  # which would share its tensors
        for each, of_each in ((layer, optimizer), (again, restored)):
            step(each, of_each, 0.05, images)
        assert torch.equal(layer.weight, again.weight)
        assert [group["lr"] for group in restored.param_groups] == pytest.approx([0.005])


def test_a_models_groups_learn_at_their_rates_and_vectors_are_not_decayed() -> None:
    config = TrainConfig(model="se_resnet18", backbone_lr_factor=0.1, lr=0.5, weight_decay=0.02)
    model = create(config, 2)
    groups = parameter_groups(model, config.peak_lr, config.weight_decay, config.backbone_lr_factor)
    optimizer = create_optimizer(config, groups)
    set_learning_rate(optimizer, 0.3)
    group_of = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    for name, parameter in model.named_parameters():
        group = group_of[id(parameter)]
        assert group["weight_decay"] == (0.02 if parameter.ndim > 1 else 0.0), name
        assert math.isclose(group["lr"], 0.3 if model.in_head(name) else 0.03), name


def test_nothing_to_train_is_an_error() -> None:
    config = TrainConfig(model="resnet18", pretrained="x.pt", freeze="backbone")
    model = create(config, 2)
    freeze(model, "backbone")
    groups = parameter_groups(model, config.peak_lr, config.weight_decay)
    assert create_optimizer(config, groups).param_groups
    with pytest.raises(UserError, match="--freeze backbone leaves nothing to train"):
        create_optimizer(config, [])
