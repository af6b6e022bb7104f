"""`--compile`: one compilation for all steps, whatever comes between them, and a run that knows nothing of it.

Compiled by `aot_eager`, which makes the same graphs of the forward and the backward pass as the default does, and runs
them without building kernels, which would take minutes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch._dynamo.utils import counters

from hpcgender.commands.train import TrainConfig
from hpcgender.data.loader import Batch
from hpcgender.distributed import Ranks
from hpcgender.inference.validation import validate
from hpcgender.metrics import GradientNorms, Tally
from hpcgender.train.learner import Learner, check_compute
from shard_tools.base.errors import UserError
from tests.conftest import Run

CPU = torch.device("cpu")
ALONE = Ranks(0, 1, CPU)
ALL: dict[str, Any] = {"ema": 0.9, "mixup": 0.2, "clip_norm": 1.0, "skip_nonfinite": 3, "accumulate": 2}


@pytest.fixture(autouse=True)
def _once(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Compiles by `aot_eager`, and fails where anything is compiled a second time."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    torch.compiler.reset()
    counters.clear()
    with torch._dynamo.config.patch(error_on_recompile=True):
        yield
    torch.compiler.reset()


def made(ranks: Ranks = ALONE, **options: Any) -> Learner:
    config = TrainConfig(model="compact", dropout=0, image_size=32, batch_size=8, lr=0.02, warmup_epochs=0.0, **options)
    return Learner(config, 2, ranks, fresh=True)


def batch(number: int, count: int = 8) -> Batch:
    gender = torch.arange(count) % 2
    noise = torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(number))
    images = (0.4 * noise + gender[:, None, None, None] - 0.5).clamp(-1, 1)
    return Batch(images, gender, torch.full((count,), 30.0), np.arange(count))


def losses(one: Learner, steps: range) -> list[float]:
    one.network.train()
    tally, norms = Tally(CPU, one.config.task_weights, binned=True), GradientNorms(CPU)
    return [float(one.step(batch(step), 0, step, 100, tally, norms)) for step in steps]


def validation_loss(one: Learner) -> float:
    """Of two batches, the last of which is smaller."""
    return validate(one.eval_network, [[batch(90), batch(91, 3)]], ALONE, one.precision, one.config)[0].loss


@pytest.mark.parametrize("options", [{}, {**ALL, "precision": "bf16", "tasks": ("gender", "age")}])
def test_all_steps_of_a_run_are_compiled_once(options: dict[str, Any]) -> None:
    """The learning rate changes in each, and validation with a smaller last batch comes between."""
    eager, compiled = made(**options), made(compile=True, **options)
    for steps in (range(4), range(4, 8)):
        assert losses(compiled, steps) == pytest.approx(losses(eager, steps), rel=0.02)
        assert validation_loss(compiled) == pytest.approx(validation_loss(eager), rel=0.02)
    assert counters["stats"]["unique_graphs"] == 1
    assert not counters["graph_break"]


def test_a_compiled_run_resumes_uncompiled(tmp_path: Path) -> None:
    one = made(compile=True, **ALL)
    losses(one, range(3))
    torch.save(one.state(), tmp_path / "state.pt")
    expected = losses(one, range(3, 6))
    other = made(**ALL)
    assert other.state()[0].keys() == one.state()[0].keys()
    assert other.state()[0].keys() == other.network.state_dict().keys()
    other.load_state(*torch.load(tmp_path / "state.pt", weights_only=True))
    assert losses(other, range(3, 6)) == pytest.approx(expected, rel=1e-3)


def test_ranks_compile_once_and_train_as_one_process(run: Run, tmp_path: Path) -> None:
    torchrun = ("torch.distributed.run", "--standalone", "--nproc-per-node", 2)
    done = run(*torchrun, "-m", "tests.hpcgender.compiled_ranks", tmp_path / "held.json")
    assert done.returncode == 0, done.stderr
    first, second = json.loads((tmp_path / "held.json").read_text())
    assert first == second


@pytest.mark.parametrize(
    ("options", "world_size", "says"),
    [
        (
            {"compile": True, "batch_size": 12, "accumulate": 4},
            2,
            "--accumulate 4 does not divide the 6 images of each",
        ),
        ({"compile": True, "cuda_graphs": True}, 1, "--cuda-graphs needs GPUs"),
    ],
)
def test_what_would_be_compiled_again_or_not_at_all_is_refused(
    options: dict[str, Any], world_size: int, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hpcgender.train.learner.check_compiler", lambda device: None)
    with pytest.raises(UserError, match=says):
        check_compute(TrainConfig(model="compact", **options), Ranks(0, world_size, CPU))
