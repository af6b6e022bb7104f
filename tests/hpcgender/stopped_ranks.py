"""Works in rounds until asked to stop, then writes at which step: `DIRECTORY ROUND...`, run by torch.distributed.run.

A round is `train`, `validate` with fewer batches on rank 1, `late` with a time limit that only rank 0 has passed, or
`finish`, which nobody asks to stop. After 3 steps each rank leaves its pid as <round>.<rank>.pid.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Generator
from pathlib import Path

import torch

from hpcgender.distributed import Ranks, process_group
from hpcgender.stop import StopSignal
from shard_tools.base.contracts import STARTED
from shard_tools.base.errors import REQUEUE

STEPS = 5


def batches(count: int) -> Generator[int]:
    for number in range(count):
        time.sleep(0.01)
        yield number


def work(kind: str, prefix: Path, ranks: Ranks) -> str | None:
    os.environ.pop(STARTED, None)
    if kind == "late" and ranks.is_first:
        os.environ[STARTED] = str(time.time() - 3600 * 24)
    fewer = kind == "validate" and ranks.rank == 1
    steps = epochs = 0
    with StopSignal(stop_after=600 if kind == "late" else 0) as stop, torch.inference_mode(kind == "validate"):
        while not stop.reason and epochs < (3 if kind == "finish" else 1000):
            for _ in stop.until_requested(batches(STEPS - fewer), STEPS, ranks):
                if kind == "train":
                    together = ranks.sum(torch.tensor([steps, 1]))
                    assert together[0] == ranks.world_size * steps, "ranks are at different steps"
                steps += 1
                if steps == 3:
                    prefix.with_suffix(".partial").write_text(str(os.getpid()))
                    prefix.with_suffix(".partial").rename(prefix.with_suffix(".pid"))
            epochs += 1
    prefix.with_suffix(".json").write_text(json.dumps({"epochs": epochs, "steps": steps, "reason": stop.reason}))
    return stop.reason


if __name__ == "__main__":
    directory, *rounds = sys.argv[1:]
    reason = None
    with process_group() as ranks:
        for number, kind in enumerate(rounds):
            reason = work(kind, Path(directory, f"{number}-{ranks.rank}"), ranks)
    sys.exit(REQUEUE if reason else 0)
