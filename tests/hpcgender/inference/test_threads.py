"""On a CPU one thread computes each batch, also beside a GPU that is not used: results depend on no number of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch.nn.modules.module import register_module_forward_pre_hook

from hpcgender.inference.engine import threads_for
from hpcgender.predict.model import load
from tests.hpcgender.evaluate.evaluating import evaluated
from tests.hpcgender.evaluate.examples import save_model


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[set[int]]:
    """How many threads computed any layer of a network, on a machine with a GPU that is not used, and two cores."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("HPCGENDER_DEVICE", "cpu")
    before, seen = torch.get_num_threads(), set[int]()
    torch.set_num_threads(2)
    hook = register_module_forward_pre_hook(lambda module, inputs: seen.add(torch.get_num_threads()))
    yield seen
    hook.remove()
    torch.set_num_threads(before)


def test_a_cpu_has_threads_of_its_own_and_a_gpu_none(threads: set[int]) -> None:
    assert threads_for(torch.device("cpu")) == 2
    assert threads_for(torch.device("cuda", 0)) == 0


def test_evaluate_beside_a_gpu(shards: Path, tmp_path: Path, threads: set[int]) -> None:
    checkpoint = save_model(tmp_path / "best.pt", model="compact")
    threads.clear()
    evaluated(shards, checkpoint, tmp_path / "out", backend="torchvision", batch_size=16)
    assert threads == {1}


def test_predict_beside_a_gpu(faces: Path, tmp_path: Path, threads: set[int]) -> None:
    model = load(save_model(tmp_path / "best.pt", model="compact"), backend="torchvision", batch_size=4)
    threads.clear()
    model.predict(sorted(faces.iterdir())[:12])
    assert threads == {1}
