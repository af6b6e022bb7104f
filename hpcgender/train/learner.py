"""The network, its optimizer and one training step."""

from __future__ import annotations

import os
import shlex
import shutil
import sysconfig
import warnings
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from pathlib import Path
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
from hpcgender.models.create import create, on_meta
from hpcgender.models.network import Network, UncountedBatchNorm
from hpcgender.models.pretrained import load_pretrained
from hpcgender.models.registry import family
from hpcgender.models.transfer import freeze, freeze_unused, parameter_groups
from hpcgender.precision import Precision, allow_tf32
from hpcgender.train.ema import EMA
from hpcgender.train.mixup import draw_mixing, mix
from hpcgender.train.objective import Objective
from hpcgender.train.optimizer import create_optimizer, set_learning_rate
from hpcgender.train.schedule import learning_rate
from shard_tools.base.errors import UserError
from shard_tools.base.text import plural
from shard_tools.manifest import CLASSES

SKIPPED_BY_FP16 = 100
"""Consecutive steps that fp16 may skip while its loss scale adapts."""


class Learner:
    """A network, its optimizer, loss scale and EMA; equal on every rank.

    A fresh one starts from random weights of the seed or from pretrained ones; `load_state` restores a saved state.
    """

    def __init__(self, config: TrainConfig, classes: int, ranks: Ranks, *, fresh: bool) -> None:
        self.config = config
        self.ranks = ranks
        set_up_device(config, ranks.device)
        torch.manual_seed(config.seed)
        self.network: Network = create(config, classes, config.image_size)
        self.pretrained = self.load_pretrained() if fresh and config.pretrained else ""
        """A line on what was loaded of the pretrained weights."""
        if family(config.model) == "timm":
            freeze_unused(self.network, on_meta(config, classes, config.image_size), config.image_size)
        freeze(self.network, config.freeze)
        if config.sync_bn and ranks.world_size > 1:
            self.network = self.network.synchronised()
        self.memory_format = memory_format(config, ranks.device)
        self.network.to(ranks.device).to(memory_format=self.memory_format)
        groups = parameter_groups(
            self.network, config.peak_lr, config.weight_decay, config.backbone_lr_factor, config.layer_decay
        )
        self.optimizer = create_optimizer(config, groups)
        self.precision = Precision(config.precision, ranks.device, may_skip=config.skip_nonfinite > 0)
        self.ema = EMA(self.network, config.ema) if config.ema else None
        objective = Objective(self.network, config, self.precision)
        if config.compile:
            objective.compile_step(graphs=config.cuda_graphs)
        self.objective: nn.Module = objective
        """What the training step calls: the network and its losses, in DDP if there are several ranks."""
        if ranks.world_size > 1:
            # Running statistics are used in validation and checkpoints alone: `validate` broadcasts rank 0's.
            with warnings.catch_warnings():  # the name that takes its place is not in torch 2.9
                warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
                self.objective = DistributedDataParallel(
                    objective, broadcast_buffers=False, gradient_as_bucket_view=True
                )
            # Of depthwise convolutions: only the stride of a dimension of size 1 is another.
            warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
        self.parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        norms = [
            module for module in self.network.modules() if isinstance(module, UncountedBatchNorm) and module.training
        ]
        self.counters = [norm.num_batches_tracked for norm in norms if norm.num_batches_tracked is not None]
        """Of the batches of each layer that is not frozen."""
        self.draws = self.network.draws()
        self.max_skipped = max(config.skip_nonfinite, SKIPPED_BY_FP16 if self.precision.name == "fp16" else 0)
        self.skipped = 0
        """Consecutive steps whose gradients were not finite."""
        self.steps = 0
        """Steps since this process started."""
        self.unchecked: tuple[Finite, int, Batch] | None = None
        """Whether the last step's gradients are finite, its number and batch, until `check_finite` has looked."""

    def load_pretrained(self) -> str:
        """Loads the pretrained weights and returns a line on it. Each node's first rank goes first, as it may have to
        download them."""
        if self.ranks.local_rank == 0:
            line = load_pretrained(self.network, self.config)
        self.ranks.barrier(timedelta(minutes=self.config.timeout))
        if self.ranks.local_rank:
            line = load_pretrained(self.network, self.config)
        return line

    @property
    def eval_network(self) -> Network:
        """The network that is validated and saved: the EMA model if there is one."""
        averaged: Network | None = self.ema.module if self.ema else None  # type: ignore[assignment]
        return averaged or self.network

    def step(
        self, batch: Batch, epoch: int, number: int, steps: int, tally: Tally, norms: GradientNorms
    ) -> torch.Tensor:
        """Step `number` of an epoch of `steps`, on this rank's part of a global batch.

        Adds its predictions to `tally` and its gradient norm to `norms`. Returns the loss, a scalar float tensor.
        Raises NonFiniteError after too many consecutive steps with non-finite gradients.
        """
        config = self.config
        step = epoch * steps + number
        if self.draws:
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
        # The label that accuracy counts for a mixed image: the class with the larger weight.
        label = target if target.ndim == 1 else torch.where(target.sum(1) > 0, target.argmax(1), -1)
        self.optimizer.zero_grad()
        parts = []
        chunks = zip(*(t.chunk(config.accumulate) for t in (images, target, age, label)), strict=True)
        micro_batches = list(chunks)
        for micro_step, (inputs, gender, years, counted_label) in enumerate(micro_batches, 1):
            with self.no_sync() if micro_step < len(micro_batches) else nullcontext():
                loss, losses, outputs = self.objective(inputs, gender, years, len(inputs) / len(images))
                self.precision.scaler.scale(loss).backward()
            parts.append(loss.detach())
            tally.add(losses, gender=counted_label, logits=outputs.gender, age=years, years=outputs.age)
        self.precision.scaler.unscale_(self.optimizer)
        if self.counters:
            torch._foreach_add_(self.counters, len(micro_batches))
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        norm = nn.utils.get_total_norm(gradients, foreach=True)
        if config.clip_norm:
            nn.utils.clip_grads_with_norm_(self.parameters, config.clip_norm, norm, foreach=True)
        finite = norm.isfinite()
        norms.add(norm, finite)
        self.check_finite()
        self.unchecked = (Finite(finite), step, batch)
        if self.ranks.device.type == "cpu":
            self.check_finite()  # before the weights change, as there is no device to wait for
        self.precision.scaler.step(self.optimizer)
        self.precision.update_scale()
        if self.ema:
            self.ema.update()
        self.steps += 1
        return torch.stack(parts).sum()

    def no_sync(self) -> AbstractContextManager[None]:
        """The context of a backward pass that accumulates gradients without an all-reduce."""
        return self.objective.no_sync() if isinstance(self.objective, DistributedDataParallel) else nullcontext()

    def check_finite(self) -> None:
        """Checks the last step's gradient norm, which is equal on all ranks; NonFiniteError after too many bad steps.

        On a GPU it is called one step later, so as not to wait for the device, and before a checkpoint is written.
        """
        if self.unchecked is None:
            return
        (finite, step, batch), self.unchecked = self.unchecked, None
        if finite:
            self.skipped = 0
            return
        self.skipped += 1
        if self.skipped > self.max_skipped:
            raise NonFiniteError(step, batch)

    def state(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The weights of `eval_network`, and what else training needs to resume."""
        state: dict[str, Any] = {
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.precision.scaler.state_dict(),
            "skipped": self.skipped,
        }
        if self.ema:
            state |= {"weights": self.network.state_dict(), "averaged": int(self.ema.n_averaged)}
        return self.eval_network.state_dict(), state

    def load_state(self, weights: Mapping[str, Any], state: Mapping[str, Any]) -> None:
        """Restores what `state` returned."""
        self.eval_network.load_state_dict(weights)
        self.optimizer.load_state_dict(state["optimizer"])
        follow_layout(self.optimizer)
        self.precision.scaler.load_state_dict(state["scaler"])
        self.skipped = state["skipped"]
        if self.ema:
            self.network.load_state_dict(state["weights"])
            self.ema.n_averaged.fill_(state["averaged"])


class Finite:
    """Whether a gradient norm is finite, from a scalar bool tensor: bool(...) waits for that alone.

    Not for the kernels that were started on the GPU after it: the answer is copied to the host as soon as it is there.
    """

    def __init__(self, finite: torch.Tensor) -> None:
        self.copied: torch.cuda.Event | None = None
        if finite.is_cuda:
            self.finite = torch.empty((), dtype=torch.bool, pin_memory=True).copy_(finite, non_blocking=True)
            self.copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self.copied.record()
        else:
            self.finite = finite

    def __bool__(self) -> bool:
        if self.copied:
            self.copied.synchronize()
        return bool(self.finite)


def follow_layout(optimizer: torch.optim.Optimizer) -> None:
    """Lays out the optimizer's state as its parameters are: fused kernels walk both by the parameters' strides.

    A loaded state has the strides with which it was saved, which differ if the run went on in channels_last.
    """
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
                state[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


class NonFiniteError(Exception):
    """Gradients are not finite, after as many skipped steps as are allowed."""

    def __init__(self, step: int, batch: Batch) -> None:
        super().__init__(f"step {step}")
        self.step = step
        self.batch = batch


def check_compute(config: TrainConfig, ranks: Ranks) -> None:
    """Raises UserError for options with which these ranks and their devices cannot compute."""
    if family(config.model) == "timm":
        check_network(config)
    check_micro_batches(config, ranks.world_size)
    Precision(config.precision, ranks.device)
    if config.sync_bn and ranks.world_size > 1 and ranks.device.type != "cuda":
        raise UserError("--sync-bn needs GPUs: leave it out")
    if config.compile:
        check_compiler(ranks.device)
        if (config.batch_size // ranks.world_size) % config.accumulate:
            raise UserError(
                f"--compile needs micro-batches of one size: --accumulate {config.accumulate} does not divide the "
                f"{plural(config.batch_size // ranks.world_size, 'image')} of each process"
            )
    if config.cuda_graphs and ranks.device.type != "cuda":
        raise UserError("--cuda-graphs needs GPUs: leave it out")


def check_network(config: TrainConfig) -> None:
    """Raises UserError for what only the network itself knows: sizes of images, stages and layers."""
    network = on_meta(config, len(CLASSES), config.image_size)
    freeze(network, config.freeze)
    parameter_groups(network, config.peak_lr, config.weight_decay, layer_decay=config.layer_decay)


def check_micro_batches(config: TrainConfig, world_size: int) -> None:
    """Raises UserError where batch normalisation would get a single value per channel, with which it cannot train."""
    smallest = min(map(len, torch.arange(config.batch_size // world_size).chunk(config.accumulate)), default=0)
    if smallest != 1:
        return
    network = on_meta(config, len(CLASSES), config.image_size)
    freeze(network, config.freeze)
    try:
        with torch.no_grad():
            network.train()(torch.empty(1, 3, config.image_size, config.image_size, device="meta"))
    except ValueError:  # of batch normalisation
        raise UserError(
            f"--batch-size {config.batch_size} on {plural(world_size, 'process', 'processes')} with --accumulate "
            f"{config.accumulate} computes one image at a time, with which {config.model} cannot be trained at "
            f"{config.image_size} px: give larger batches"
        ) from None


def set_up_device(config: TrainConfig, device: torch.device) -> None:
    """Sets torch's global switches: deterministic algorithms, cuDNN autotuning, TF32."""
    if config.deterministic != torch.are_deterministic_algorithms_enabled():  # to ask for it imports torch._inductor
        torch.use_deterministic_algorithms(config.deterministic)
    if config.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.benchmark = not config.deterministic
    allow_tf32(device, config.tf32)


def check_compiler(device: torch.device) -> None:
    """Raises UserError unless there is what torch.compile builds kernels with: a compiler and Python's headers."""
    variable, usual = ("CC", ["gcc", "clang"]) if device.type == "cuda" else ("CXX", ["g++"])
    wanted = [os.environ[variable]] if os.environ.get(variable) else usual
    if not any(shutil.which(shlex.split(name)[0]) for name in wanted):
        raise UserError(
            f"--compile needs a compiler, and {' or '.join(wanted)} is not in PATH: load its module, set {variable}, "
            "or leave --compile out"
        )
    headers = Path(sysconfig.get_path("include"))
    if not (headers / "Python.h").exists():
        raise UserError(
            f"--compile needs Python's headers, and {headers} has no Python.h: install python3-dev, or leave --compile "
            "out"
        )


def memory_format(config: TrainConfig, device: torch.device) -> torch.memory_format:
    """The memory format of images and weights: channels_last where it is faster, on GPUs and for ResNets 18 and 34."""
    basic_blocks = family(config.model) in ("resnet", "se_resnet") and config.model.endswith(("18", "34"))
    auto = device.type == "cuda" or basic_blocks
    last = config.channels_last == "on" or (config.channels_last == "auto" and auto)
    return torch.channels_last if last else torch.contiguous_format
