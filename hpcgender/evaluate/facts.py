"""Which checkpoint was measured, and what differs from one run to the next."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import torch

import hpcgender
from hpcgender.checkpoint import Trained, digest, git_revision
from hpcgender.distributed import Ranks
from hpcgender.evaluate.results import Checkpoint, Run


def checkpoint_facts(path: Path, trained: Trained) -> Checkpoint:
    """Which model it is."""
    return Checkpoint(
        path=str(path.resolve()),
        digest=digest(path),
        model=trained.name,
        image_size=trained.image_size,
        tasks=trained.config.tasks,
        epoch=trained.epoch,
        step=trained.about["step"],
        revision=trained.about["revision"],
        manifest=trained.about["manifest"],
        options=trained.about["config"],
    )


def run_facts(ranks: Ranks, began: float, seconds: float, images_per_s: float) -> Run:
    """What differs from one run to the next."""
    device = ranks.device
    return Run(
        began=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(began)),
        seconds=seconds,
        images_per_s=images_per_s,
        world_size=ranks.world_size,
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        threads=torch.get_num_threads(),
        versions={"hpcgender": hpcgender.__version__, "torch": torch.__version__, "numpy": np.__version__},
        revision=git_revision(),
        job=os.environ.get("SLURM_JOB_ID") or os.environ.get("JOB_ID", ""),
    )
