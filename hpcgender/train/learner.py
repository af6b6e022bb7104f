"""The model, and everything that changes its weights: what one step of training does."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import nullcontext
from datetime import timedelta
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from hpcgender.commands.train import TrainConfig
from hpcgender.data.counter_rng import random_bits
from hpcgender.data.loader import Batch
from hpcgender.distributed import Ranks
from hpcgender.metrics import GradientNorms, Tally
from hpcgender.models.create import create
from hpcgender.models.losses import task_losses, weighted
from hpcgender.models.network import Network
from hpcgender.models.pretrained import load_pretrained
from hpcgender.models.registry import family
from hpcgender.models.transfer import freeze, parameter_groups
from hpcgender.precision import Precision
from hpcgender.train.ema import WeightAverage
from hpcgender.train.mixup import draw_mixing, mix
from hpcgender.train.optimizer import create_optimizer, set_learning_rate
from hpcgender.train.schedule import learning_rate
from shard_tools.base.errors import UserError

SKIPPED_BY_FP16 = 100
"""Steps in a row that fp16 may skip by itself, while its loss scale finds its place."""


class Learner:
    """A network, its optimiser and what goes with them; the same on every rank.

    A fresh one begins with the seed's weights, or the pretrained ones; `load_state` makes it go on.
    """

    def __init__(self, config: TrainConfig, classes: int, ranks: Ranks, *, fresh: bool) -> None:
        self.config = config
        self.ranks = ranks
        set_up_device(config, ranks.device)
        torch.manual_seed(config.seed)
        self.network: Network = create(config, classes)
        self.loaded = self.load_pretrained() if fresh and config.pretrained else ""
        """What was loaded of the pretrained weights, in words."""
        freeze(self.network, config.freeze)
        if config.sync_bn and ranks.world_size > 1:
            if ranks.device.type != "cuda":
                raise UserError("--sync-bn needs GPUs: leave it out")
            self.network = nn.SyncBatchNorm.convert_sync_batchnorm(self.network)  # type: ignore[no-untyped-call]
        self.memory_format = memory_format(config, ranks.device)
        self.network.to(ranks.device).to(memory_format=self.memory_format)
        groups = parameter_groups(self.network, config.peak_lr, config.weight_decay, config.backbone_lr_factor)
        self.optimizer = create_optimizer(config, groups)
        self.precision = Precision(config.precision, ranks.device, may_skip=config.skip_nonfinite > 0)
        self.average = WeightAverage(self.network, config.ema) if config.ema else None
        if config.compile:
            self.network.compile()
        self.parallel: nn.Module = self.network
        if ranks.world_size > 1:
            self.parallel = DistributedDataParallel(self.network, gradient_as_bucket_view=True)
        self.parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        self.drops = any(isinstance(module, nn.Dropout) and module.p for module in self.network.modules())
        self.most_skipped = max(config.skip_nonfinite, SKIPPED_BY_FP16 if self.precision.name == "fp16" else 0)
        self.skipped = 0
        """Steps in a row whose gradients were not finite."""
        self.steps = 0
        """Steps that this process has done."""
        self.unchecked: tuple[torch.Tensor, int, Batch] | None = None

    def load_pretrained(self) -> str:
        """Loads the pretrained weights, and says so: each node's first process, which may have to download them, and
        then its others."""
        if self.ranks.local_rank == 0:
            said = load_pretrained(self.network, self.config)
        self.ranks.barrier(timedelta(minutes=self.config.timeout))
        if self.ranks.local_rank:
            said = load_pretrained(self.network, self.config)
        return said

    @property
    def tested(self) -> Network:
        """What is validated and kept: the average of the weights if there is one, else the weights."""
        averaged: Network | None = self.average.module if self.average else None  # type: ignore[assignment]
        return averaged or self.network

    def step(
        self, batch: Batch, epoch: int, number: int, steps: int, tally: Tally, norms: GradientNorms
    ) -> torch.Tensor:
        """Step `number` of an epoch of `steps`, on this rank's part of a global batch, counted in tally and norms.

        Returns the loss, a float of no dimensions. Raises NonFiniteError if gradients were not finite too often.
        """
        config = self.config
        step = epoch * steps + number
        if self.drops:
            bits = random_bits(config.seed, step, "dropout", np.array([self.ranks.rank]))
            torch.manual_seed(int(bits[0] >> np.uint64(1)))
        set_learning_rate(self.optimizer, learning_rate(config, step, steps))
        images, target, age = batch.images.contiguous(memory_format=self.memory_format), batch.gender, batch.age
        if config.mixup:
            mixing = draw_mixing(
                config.mixup,
                config.seed,
                epoch,
                number,
                batch_size=config.batch_size,
                rank=self.ranks.rank,
                world_size=self.ranks.world_size,
            )
            images, target, mixed_age = mix(mixing, images, target, age if "age" in config.tasks else None)
            age = age if mixed_age is None else mixed_age
        # What a blend of two classes counts as in the accuracy: the one that it has more of.
        label = target if target.ndim == 1 else torch.where(target.sum(1) > 0, target.argmax(1), -1)
        self.optimizer.zero_grad()
        total = torch.zeros((), device=images.device)
        parts = list(zip(*(t.chunk(config.accumulate) for t in (images, target, age, label)), strict=True))
        for place, (part, gender, years, said) in enumerate(parts, 1):
            with self.exchange(place == len(parts)):
                with self.precision.autocast():
                    outputs = self.parallel(part)
                losses = task_losses(outputs, gender, years, config)
                loss = weighted(losses, config) * (len(part) / len(images))
                self.precision.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            total = total + loss.detach()
            tally.add(losses, gender=said, logits=outputs.gender, age=years, years=outputs.age)
        self.precision.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self.parameters, config.clip_norm or torch.inf, foreach=True)
        norms.add(norm)
        self.check_finite()
        self.unchecked = (norm, step, batch)
        if self.ranks.device.type == "cpu":
            self.check_finite()  # nothing to wait for: before the weights are touched
        self.precision.scaler.step(self.optimizer)
        self.precision.scaler.update()
        if self.average:
            self.average.update_parameters(self.network)
        self.steps += 1
        return total

    def exchange(self, now: bool) -> Any:
        """The context of a backward pass after which the ranks exchange gradients, or do not yet."""
        if now or not isinstance(self.parallel, DistributedDataParallel):
            return nullcontext()
        return self.parallel.no_sync()

    def check_finite(self) -> None:
        """Looks at the last step's gradients, the same on all ranks; NonFiniteError if there is no going on.

        On a GPU that is a step later, so that nobody waits for it; and before a checkpoint is written.
        """
        if self.unchecked is None:
            return
        (norm, step, batch), self.unchecked = self.unchecked, None
        if torch.isfinite(norm):
            self.skipped = 0
            return
        self.skipped += 1
        if self.skipped > self.most_skipped:
            raise NonFiniteError(step, batch)

    def state(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The weights of `tested`, and what else training needs to go on."""
        state: dict[str, Any] = {
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.precision.scaler.state_dict(),
            "skipped": self.skipped,
        }
        if self.average:
            state |= {"weights": self.network.state_dict(), "averaged": int(self.average.n_averaged)}
        return self.tested.state_dict(), state

    def load_state(self, weights: Mapping[str, Any], state: Mapping[str, Any]) -> None:
        """Goes on from what `state` returned."""
        self.tested.load_state_dict(weights)
        self.optimizer.load_state_dict(state["optimizer"])
        self.precision.scaler.load_state_dict(state["scaler"])
        self.skipped = state["skipped"]
        if self.average:
            self.network.load_state_dict(state["weights"])
            self.average.n_averaged.fill_(state["averaged"])


class NonFiniteError(Exception):
    """A step's loss or gradients are not finite, and none may be left out any more."""

    def __init__(self, step: int, batch: Batch) -> None:
        super().__init__(f"step {step}")
        self.step = step
        self.batch = batch


def set_up_device(config: TrainConfig, device: torch.device) -> None:
    """What torch is to use of the device, for the whole process."""
    torch.use_deterministic_algorithms(config.deterministic)
    if config.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.benchmark = not config.deterministic
    torch.backends.cuda.matmul.fp32_precision = "tf32" if config.tf32 else "ieee"
    torch.backends.cudnn.conv.fp32_precision = "tf32" if config.tf32 else "ieee"  # type: ignore[attr-defined]


def memory_format(config: TrainConfig, device: torch.device) -> torch.memory_format:
    """How images lie in memory. Measured: GPUs gain by channels_last, and on CPUs the networks of 3x3 blocks do."""
    small_blocks = family(config.model) in ("resnet", "se_resnet") and config.model.endswith(("18", "34"))
    auto = device.type == "cuda" or small_blocks
    last = config.channels_last == "on" or (config.channels_last == "auto" and auto)
    return torch.channels_last if last else torch.contiguous_format
