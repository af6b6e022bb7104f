"""Small networks that take training steps on a device, from batches that are functions of the step."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from hpcgender.commands.train import TrainConfig
from hpcgender.data.loader import Batch
from hpcgender.distributed import Ranks
from hpcgender.metrics import GradientNorms, Tally
from hpcgender.train.learner import Learner

SIZE, BATCH = 32, 16


def made(device: torch.device, **options: Any) -> Learner:
    """A learner of a fresh SE-ResNet-18, or on a CPU of the smallest network."""
    model = "se_resnet18" if device.type == "cuda" else "compact"
    options = {"model": model, "lr": 0.02, "warmup_epochs": 0.0, **options}
    config = TrainConfig(image_size=SIZE, batch_size=BATCH, **options)
    return Learner(config, 2, Ranks(0, 1, device), fresh=True)


def batch_of(step: int, device: torch.device, count: int = BATCH) -> Batch:
    """Noise whose brightness tells the label."""
    gender = torch.arange(count) % 2
    noise = torch.randn(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(step))
    images = (0.4 * noise + gender[:, None, None, None] - 0.5).clamp(-1, 1)
    age = torch.full((count,), -1.0)
    return Batch(images.to(device), gender.to(device), age.to(device), np.arange(count))


class Steps:
    """Takes steps of a learner; `losses` has theirs, tensors on the device."""

    def __init__(self, learner: Learner) -> None:
        self.learner, device = learner, learner.ranks.device
        self.tally = Tally(device, learner.config.task_weights, binned=True)
        self.norms = GradientNorms(device)
        self.losses: list[torch.Tensor] = []
        learner.network.train()

    def take(self, number: int, batch: Batch) -> None:
        self.losses.append(self.learner.step(batch, 0, number, 1000, self.tally, self.norms))


def losses(learner: Learner, numbers: range) -> list[float]:
    """The losses of steps of those numbers."""
    steps = Steps(learner)
    for number in numbers:
        steps.take(number, batch_of(number, learner.ranks.device))
    learner.check_finite()
    return torch.stack(steps.losses).tolist()
