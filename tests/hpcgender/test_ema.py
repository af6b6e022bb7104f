from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch
from torch import nn

from hpcgender.train.ema import EMA, decay_at
from tests.conftest import REPOSITORY, Run


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 2))


def train(model: nn.Module, step: int) -> None:
    """A step whose batch is a function of its number."""
    images = torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(step))
    model.train()
    model.zero_grad()
    model(images).square().mean().backward()
    torch.optim.SGD(model.parameters(), lr=0.1).step()


def state(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def test_the_ema_follows_its_formula() -> None:
    model = network()
    ema = EMA(model, 0.6)
    expected: dict[str, torch.Tensor] = {}
    for step in range(12):
        train(model, step)
        ema.update()
        decay = min(0.6, (1 + step) / (10 + step)) if step else 0.0
        for name, value in state(model).items():
            if value.is_floating_point():
                expected[name] = decay * expected.get(name, value) + (1 - decay) * value
            else:
                expected[name] = value
        torch.testing.assert_close(state(ema.module), expected)
    assert not torch.equal(ema.module.get_parameter("0.weight"), model.get_parameter("0.weight"))
    assert not torch.equal(ema.module.get_buffer("1.running_var"), model.get_buffer("1.running_var"))


@pytest.mark.parametrize(("updates", "decay"), [(0, 0.1), (10, 0.55), (8990, 8991 / 9000), (10**6, 0.9995)])
def test_the_decay_warms_up(updates: int, decay: float) -> None:
    assert decay_at(0.9995, updates) == pytest.approx(decay)


def test_a_restored_ema_continues_with_the_same_bits(tmp_path: Path) -> None:
    model = network()
    ema = EMA(model, 0.9)
    for step in range(3):
        train(model, step)
        ema.update()
    torch.save({"model": model.state_dict(), "ema": ema.state_dict()}, tmp_path / "x.pt")

    loaded = torch.load(tmp_path / "x.pt", weights_only=True)
    again = network()
    restored = EMA(again, 0.9)
    again.load_state_dict(loaded["model"])
    restored.load_state_dict(loaded["ema"])
    for step in range(3, 9):
        for one, its_ema in ((model, ema), (again, restored)):
            train(one, step)
            its_ema.update()
    ours, theirs = ema.state_dict(), restored.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_the_ema_does_not_change_the_model() -> None:
    alone, averaged = network(), network()
    ema = EMA(averaged, 0.5)
    for step in range(3):
        train(alone, step)
        train(averaged, step)
        ema.update()
    left = averaged.state_dict()
    assert all(torch.equal(value, left[name]) for name, value in alone.state_dict().items())
    assert not any(parameter.requires_grad for parameter in ema.parameters())
    assert all(parameter.requires_grad for parameter in averaged.parameters())


def test_frozen_weights_do_not_change() -> None:
    model = network()
    model[0].requires_grad_(False)  # type: ignore[index]
    frozen = copy.deepcopy(model.get_parameter("0.weight"))
    ema = EMA(model, 0.7)
    for step in range(20):
        with torch.no_grad():
            model.get_parameter("3.weight").add_(step)
        ema.update()
    assert torch.equal(ema.module.get_parameter("0.weight"), frozen)


def test_two_ranks_hold_equal_ema_weights(run: Run, tmp_path: Path) -> None:
    torchrun = ("torch.distributed.run", "--standalone", "--nproc-per-node", 2, "-m", "tests.hpcgender.two_ema_ranks")
    done = run(*torchrun, tmp_path / "held.json", cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr
    (first, first_statistics), (second, second_statistics) = json.loads((tmp_path / "held.json").read_text())
    assert first == second
    assert first_statistics != second_statistics  # rank 0's are the model's
