"""Takes compiled steps on two ranks, beside eager ones, and writes each rank's losses: run by torch.distributed.run."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from torch._dynamo.utils import counters

from hpcgender.distributed import Ranks, process_group
from hpcgender.metrics import GradientNorms, Tally
from tests.hpcgender.test_compile import CPU, batch, made


def losses(ranks: Ranks, *, compiled: bool) -> list[float]:
    """The losses of steps on this rank's halves of batches, summed over the ranks."""
    one = made(ranks, compile=compiled, ema=0.9, skip_nonfinite=3)
    one.network.train()
    tally, norms = Tally(CPU, one.config.task_weights, binned=True), GradientNorms(CPU)
    found = [one.step(batch(2 * step + ranks.rank, 4), 0, step, 100, tally, norms) for step in range(5)]
    weights = torch.cat([parameter.detach().flatten() for parameter in one.network.parameters()])
    return [*ranks.sum(torch.stack(found)).tolist(), float(weights.double().sum())]


if __name__ == "__main__":
    torch.compile = partial(torch.compile, backend="aot_eager")
    with process_group() as ranks, torch._dynamo.config.patch(error_on_recompile=True):
        eager, compiled = losses(ranks, compiled=False), losses(ranks, compiled=True)
        assert compiled == pytest.approx(eager, rel=0.01)
        assert counters["stats"]["unique_graphs"] >= 1
        held = ranks.gather(compiled)
        if ranks.is_first:
            Path(sys.argv[1]).write_text(json.dumps(held))
