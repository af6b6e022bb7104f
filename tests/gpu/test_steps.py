"""Training steps on a GPU: what they wait for, what they do with numbers that are not finite, how they resume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from hpcgender.data.config import BatchConfig
from hpcgender.data.packs import read_packs
from hpcgender.data.training import TrainingLoader
from hpcgender.distributed import Ranks
from hpcgender.inference.validation import validate
from hpcgender.precision import is_ampere
from hpcgender.train.learner import NonFiniteError
from hpcgender.train.saver import Saver
from tests.gpu.learning import BATCH, SIZE, Steps, batch_of, losses, made

pytestmark = pytest.mark.gpu

ALL = {"ema": 0.9, "mixup": 0.2, "clip_norm": 1.0}


@pytest.mark.parametrize("precision", ["fp16", "bf16", "fp32"])
def test_a_step_waits_for_nothing(precision: str, device: torch.device) -> None:
    if precision == "bf16" and device.type == "cuda" and not is_ampere(device):
        pytest.skip("needs a GPU from Ampere on")
    if precision == "fp16" and device.type == "cpu":
        pytest.skip("a CPU has no fp16")
    steps = Steps(made(device, precision=precision, **ALL))
    batches = [batch_of(number, device) for number in range(12)]
    on_gpu = device.type == "cuda"
    for number in range(3):  # the first ones tune, and allocate
        steps.take(number, batches[number])
    try:
        if on_gpu:
            torch.cuda.synchronize()
            torch.cuda.set_sync_debug_mode("error")
        for number in range(3, 11):
            steps.take(number, batches[number])
    finally:
        if on_gpu:
            torch.cuda.set_sync_debug_mode("default")
    if on_gpu:  # nor for the device in another way: it is still busy with what came before the step
        torch.cuda.synchronize()
        torch.cuda._sleep(6_000_000_000)  # type: ignore[no-untyped-call]
        slept = torch.cuda.Event()  # type: ignore[no-untyped-call]
        slept.record()
        steps.take(11, batches[11])
        assert not slept.query()  # type: ignore[no-untyped-call]
    assert torch.stack(steps.losses).isfinite().all()


def test_fp16_skips_what_overflows_and_recovers(gpu: torch.device) -> None:
    one = made(gpu, precision="fp16")
    one.precision.scaler = torch.amp.GradScaler("cuda", init_scale=2.0**40)
    steps = Steps(one)
    before = [parameter.detach().clone() for parameter in one.parameters]
    steps.take(0, batch_of(0, gpu))
    assert all(torch.equal(a, b) for a, b in zip(before, one.parameters, strict=True))
    for number in range(1, 40):
        steps.take(number, batch_of(number, gpu))
    one.check_finite()
    assert one.skipped == 0
    assert one.precision.scaler.get_scale() < 2.0**40
    assert steps.losses[-1] < steps.losses[0]


def test_the_loss_scale_of_bf16_stays_1(device: torch.device) -> None:
    one = made(device, precision="bf16", skip_nonfinite=5)
    one.precision.scaler.set_growth_interval(1)
    losses(one, range(6))
    assert one.precision.scaler.get_scale() == 1


def test_what_is_not_finite_ends_training_before_a_checkpoint(device: torch.device) -> None:
    one = made(device, precision="fp32")
    steps = Steps(one)
    steps.take(0, batch_of(0, device))
    bad = batch_of(1, device)
    bad.images.fill_(torch.nan)

    def go_on() -> None:
        steps.take(1, bad)
        one.check_finite()  # as before each checkpoint

    with pytest.raises(NonFiniteError, match="step 1"):
        go_on()


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize(("before", "after"), [("off", "on"), ("on", "off")])
@pytest.mark.parametrize("moves", ["to the CPU", "from the CPU", "stays"])
def test_a_run_resumes_on_another_device_and_in_another_layout(
    before: str, after: str, moves: str, optimizer: str, device: torch.device, tmp_path: Path
) -> None:
    cpu = torch.device("cpu")
    first, second = {"to the CPU": (device, cpu), "from the CPU": (cpu, device), "stays": (device, device)}[moves]
    options: dict[str, Any] = {"optimizer": optimizer, "ema": 0.9, "precision": "fp32", "tf32": False}
    options |= {"model": "resnet18"} if device.type == "cuda" else {}
    options["lr"] = 0.02 if optimizer == "sgd" else 0.001
    one = made(first, channels_last=before, **options)
    losses(one, range(4))
    torch.save(one.state(), tmp_path / "state.pt")
    expected = losses(one, range(4, 7))
    other = made(second, channels_last=after, **options)
    other.load_state(*torch.load(tmp_path / "state.pt", map_location="cpu", weights_only=True))
    assert losses(other, range(4, 7)) == pytest.approx(expected, rel=0.03, abs=0.002)


def test_a_deterministic_run_resumes_to_the_same_bits(device: torch.device, tmp_path: Path) -> None:
    options: dict[str, Any] = {"deterministic": True, **ALL}
    one = made(device, **options)
    losses(one, range(3))
    torch.save(one.state(), tmp_path / "state.pt")
    expected = losses(one, range(3, 7))
    other = made(device, **options)
    other.load_state(*torch.load(tmp_path / "state.pt", map_location="cpu", weights_only=True))
    assert losses(other, range(3, 7)) == expected
    weights, its = one.state()[0], other.state()[0]
    assert all(torch.equal(value, its[name]) for name, value in weights.items())


@pytest.mark.parametrize(("tf32", "graphs"), [(True, False), (False, False), (False, True)])
def test_compiled_steps_train_and_a_part_of_a_batch_is_validated(
    tf32: bool, graphs: bool, device: torch.device
) -> None:
    if graphs and device.type == "cpu":
        pytest.skip("a CPU has no CUDA graphs")
    # compiled dropout draws other masks
    options: dict[str, Any] = {"model": "compact", "dropout": 0, "precision": "fp32", "tf32": tf32, "ema": 0.9}
    eager, compiled = made(device, **options), made(device, compile=True, cuda_graphs=graphs, **options)
    with torch._dynamo.config.patch(error_on_recompile=True):
        assert losses(compiled, range(6)) == pytest.approx(losses(eager, range(6)), rel=0.03)
    batches = [batch_of(0, device), batch_of(1, device, count=5)]
    scores = [
        validate(one.eval_network, [batches], one.ranks, one.precision, one.config, block=BATCH)[0]
        for one in (eager, compiled)
    ]
    assert scores[1].loss == pytest.approx(scores[0].loss, rel=0.03)
    assert scores[1].accuracy == scores[0].accuracy


def test_what_changes_after_a_save_is_written_as_it_was(device: torch.device, tmp_path: Path) -> None:
    from hpcgender.checkpoint import read_checkpoint

    tensor = torch.zeros(64, 1 << 16, device=device)
    with Saver(tmp_path, keep=5) as saver:
        for step in range(1, 6):
            tensor.fill_(step)
            saver.save(step, {"model": {"w": tensor}}, {})
            tensor.fill_(-1)
    for step in range(1, 6):
        assert (read_checkpoint(tmp_path / f"step-{step:08d}.pt")["model"]["w"] == step).all()


def test_memory_is_flat(gpu: torch.device, shards: Path) -> None:
    """That of PyTorch and of DALI, over 500 batches."""
    steps = Steps(made(gpu, **ALL))
    config = BatchConfig(data=shards, batch_size=BATCH, image_size=SIZE, augment="strong")
    loader = TrainingLoader(config, read_packs(shards), Ranks(0, 1, gpu))
    free, number = [], 0
    while number < 500:
        for batch in loader.epoch(number):
            steps.take(number, batch)
            number += 1
            if number in (100, 500):
                torch.cuda.synchronize()
                free.append(torch.cuda.mem_get_info(gpu)[0])
    loader.close()
    assert free[0] - free[1] < 64 << 20
