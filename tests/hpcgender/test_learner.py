"""One training step and what it keeps: its layout in memory, its loss scale, and what it starts on the device."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from hpcgender.commands.train import TrainConfig
from hpcgender.data.loader import Batch
from hpcgender.data.packs import read_packs
from hpcgender.distributed import Ranks
from hpcgender.inference.validation import validate
from hpcgender.metrics import GradientNorms, Tally
from hpcgender.models.create import create
from hpcgender.precision import Format, Precision
from hpcgender.stop import StopSignal
from hpcgender.train.ema import EMA
from hpcgender.train.learner import Finite, Learner
from hpcgender.train.loop import TIMED_STEPS, Trainer
from tests.benchmarks.operations import Operations, of_step

CPU = Ranks(0, 1, torch.device("cpu"))


def learner(**options: Any) -> Learner:
    config = TrainConfig(model="resnet18", image_size=32, batch_size=8, warmup_epochs=0.0, **options)
    return Learner(config, 2, CPU, fresh=True)


def losses(one: Learner, steps: range) -> list[float]:
    """The losses of steps whose batches are functions of their numbers."""
    one.network.train()
    found = []
    for step in steps:
        images = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(step)).clamp(-1, 1)
        batch = Batch(images, torch.arange(8) % 2, torch.full((8,), -1.0), np.arange(8))
        tally = Tally(CPU.device, one.config.task_weights, binned=True)
        found.append(float(one.step(batch, 0, step, 100, tally, GradientNorms(CPU.device))))
    return found


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize(("before", "after"), [("off", "on"), ("on", "off")])
def test_a_run_resumes_in_another_memory_format(before: str, after: str, optimizer: str, tmp_path: Path) -> None:
    options = {"optimizer": optimizer, "ema": 0.9, "lr": 0.05 if optimizer == "sgd" else 0.001}
    first = learner(channels_last=before, **options)
    losses(first, range(4))
    weights, state = first.state()
    torch.save((weights, state), tmp_path / "state.pt")
    expected = losses(first, range(4, 8))
    weights, state = torch.load(tmp_path / "state.pt", weights_only=True)
    resumed = learner(channels_last=after, **options)
    resumed.load_state(weights, state)
    assert losses(resumed, range(4, 8)) == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize(("before", "after"), [("on", "on"), ("off", "on"), ("on", "off")])
def test_gradients_moments_and_ema_lie_as_their_weights_do(before: str, after: str) -> None:
    """To the last stride, those of 1x1 kernels too: DDP warns of others and copies them, and the optimizer's one
    operation for all tensors becomes one for each."""
    options = {"optimizer": "adamw", "lr": 0.001, "ema": 0.9}
    first = learner(channels_last=before, **options)
    losses(first, range(1))
    one = learner(channels_last=after, **options)
    one.load_state(*first.state())
    losses(one, range(1, 2))
    weights = dict(one.network.named_parameters())
    assert any(weight.shape[1] > 1 and weight.shape[2:] == (1, 1) for weight in weights.values() if weight.ndim == 4)
    expected = {name: weight.stride() for name, weight in weights.items()}
    assert {name: weight.grad.stride() for name, weight in weights.items() if weight.grad is not None} == expected
    for moment in ("exp_avg", "exp_avg_sq"):
        assert {name: one.optimizer.state[weight][moment].stride() for name, weight in weights.items()} == expected
    assert {name: weight.stride() for name, weight in one.eval_network.named_parameters()} == expected


@pytest.mark.parametrize("name", ["fp32", "bf16"])
def test_the_loss_scale_stays_1_where_it_is_not_needed(name: Format) -> None:
    """It grew until it overflowed, as steps may be skipped."""
    precision = Precision(name, CPU.device, may_skip=True)
    precision.scaler.set_growth_interval(1)
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    for factor in (1.0, 1.0, torch.inf, 1.0):
        before = weight.detach().clone()
        optimizer.zero_grad()
        precision.scaler.scale((weight * factor).sum()).backward()  # type: ignore[no-untyped-call]
        precision.scaler.step(optimizer)
        precision.update_scale()
        assert precision.scaler.get_scale() == 1
        assert torch.equal(weight, before) == (factor == torch.inf)


def test_whether_a_norm_was_finite() -> None:
    assert Finite(torch.tensor(True))
    assert not Finite(torch.tensor(False))


def test_an_ema_update_starts_a_handful_of_operations() -> None:
    """However many tensors there are: on a GPU the host's time for each would be longer than the device's."""
    model = create(TrainConfig(model="resnet18", image_size=32), 2)
    ema = EMA(model, 0.9)
    ema.update()
    with Operations() as started:
        ema.update()
    assert started.started.total() <= 5


def test_a_step_starts_few_operations() -> None:
    """At some microseconds each on the host, more of them take longer than a GPU does with a small batch."""
    started, _ = of_step(TrainConfig(model="se_resnet50", image_size=64, batch_size=2))
    assert started.total() <= 700


@pytest.fixture
def group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A process group of this process alone, in which DDP does all that it does among others."""
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group("gloo", f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def collectives(started: Operations) -> set[str]:
    return {name.split(".")[1] for name in started.started if name.startswith("c10d")}


def test_a_step_of_several_ranks_broadcasts_no_statistics(group: None) -> None:
    """It sums up gradients, and nothing else: `validate` broadcasts rank 0's statistics once."""
    config = TrainConfig(model="resnet18", image_size=32, batch_size=8, warmup_epochs=0.0)
    one = Learner(config, 2, Ranks(0, 2, CPU.device), fresh=True)
    losses(one, range(2))  # the second step agrees on the order of buckets
    with Operations() as started:
        losses(one, range(2, 4))
    assert collectives(started) == {"allreduce_"}
    usual = DistributedDataParallel(create(config, 2))
    with Operations() as started:
        usual(torch.zeros(2, 3, 32, 32))
    assert collectives(started) == {"broadcast_"}  # they would be seen


@pytest.fixture
def timed(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Trainer]]:
    """Makes a trainer whose step number n takes so many seconds of a clock as a function says, and saves nothing."""
    clock = [0.0]
    step = Learner.step
    monkeypatch.setattr("hpcgender.train.loop.time.perf_counter", lambda: clock[0])
    monkeypatch.chdir(tmp_path)
    with ExitStack() as opened:

        def make(seconds: Callable[[int], float], **options: Any) -> Trainer:
            def of_a_clock(self: Learner, *arguments: Any) -> torch.Tensor:
                clock[0] += seconds(self.steps)
                return step(self, *arguments)

            monkeypatch.setattr(Learner, "step", of_a_clock)
            config = TrainConfig(data=shards, model="compact", image_size=32, batch_size=4, **options)
            trainer = Trainer(config, read_packs(shards), CPU, opened.enter_context(StopSignal()))
            opened.callback(trainer.close)
            trainer.saver = None
            assert trainer.steps_per_epoch >= TIMED_STEPS.stop
            return trainer

        yield make


def test_the_time_between_checkpoints_does_not_count_the_start(timed: Callable[..., Trainer]) -> None:
    """A first step of a minute, in which kernels are tuned, made it save all the time."""
    trainer = timed(lambda step: 1 if step else 60, checkpoint_minutes=0.5, epochs=1)
    trainer.train_steps()
    assert trainer.checkpoint_every == 30


def test_it_is_estimated_again_each_epoch(timed: Callable[..., Trainer]) -> None:
    """Where the first steps were faster than the others, as while a GPU is cold or a file system is idle."""
    trainer = timed(lambda step: 1 if step < TIMED_STEPS.stop else 3, checkpoint_minutes=2, epochs=2)
    trainer.train_steps()
    assert trainer.checkpoint_every == 120
    trainer.epoch_step = 0
    trainer.train_epoch(None)
    assert trainer.checkpoint_every == 40


def test_validation_sees_batches_of_one_size_and_counts_their_images_alone() -> None:
    config = TrainConfig(model="compact", image_size=32, tasks=("gender", "age"))
    model, sizes = create(config, 2), []
    model.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    images = torch.randn(13, 3, 32, 32, generator=torch.Generator().manual_seed(1)).clamp(-1, 1)

    def batches(size: int) -> list[Batch]:
        parts = np.array_split(np.arange(13), range(size, 13, size))
        return [Batch(images[part], torch.arange(13)[part] % 2, torch.arange(13.0)[part], part) for part in parts]

    precision = Precision("fp32", CPU.device)
    (expected,) = validate(model, [batches(5)], CPU, precision, config)
    (filled,) = validate(model, [batches(5)], CPU, precision, config, block=5)
    assert sizes == [5, 5, 3, 5, 5, 5]
    assert filled.accuracy == expected.accuracy
    assert filled.loss == pytest.approx(expected.loss, rel=1e-5)
    assert filled.age_mae == pytest.approx(expected.age_mae, rel=1e-5)
