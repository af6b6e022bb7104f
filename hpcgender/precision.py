"""The precision of the forward pass, its loss scaler, and PyTorch's switches that decide how it rounds."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch

from shard_tools.base.errors import UserError

Format = Literal["fp32", "tf32", "bf16", "fp16"]

AMPERE = (8, 0)
"""Compute capability from which on GPUs have bf16 and TF32."""


class Precision:
    """`fp32`, `tf32`, or automatic mixed precision in `bf16` or `fp16`; `auto` chooses for the device.

    `scaler` skips steps with non-finite gradients for fp16, whose loss it scales, and if they `may_skip`. bf16 is
    faster on GPUs, where it needs compute capability 8.0, and on CPUs with AMX or AVX512-BF16; on others it is slower.

    UserError for fp16 and tf32 on a CPU, and for tf32 on a GPU before Ampere.
    """

    def __init__(self, name: Format | Literal["auto"], device: torch.device, *, may_skip: bool = False) -> None:
        if name == "auto":
            name = "fp32" if device.type == "cpu" else "bf16" if is_ampere(device) else "fp16"
        if name == "fp16" and device.type == "cpu":  # correct, and a hundred times slower
            raise UserError("--precision fp16 is for GPUs: on a CPU give bf16 or fp32")
        if name == "tf32" and not is_ampere(device):
            raise UserError("--precision tf32 is for GPUs from Ampere on: give fp32")
        self.name: Format = name
        self.device = device
        fp16 = name == "fp16"
        self.scale = None if fp16 else 1.0
        """The loss scale, None where it adapts."""
        self.scaler = torch.amp.GradScaler(device.type, init_scale=2.0**16 if fp16 else 1.0, enabled=fp16 or may_skip)

    def update_scale(self) -> None:
        """After the optimizer's step: fp16's scale adapts, all others stay at 1, as they have the range of float32."""
        self.scaler.update(self.scale)

    def autocast(self) -> AbstractContextManager[object]:
        """The context of a forward pass."""
        if self.name in ("fp32", "tf32"):
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16 if self.name == "bf16" else torch.float16)


def is_ampere(device: torch.device) -> bool:
    """Whether it is a GPU of the generation of the A100 or a newer one."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= AMPERE


def allow_tf32(device: torch.device, allowed: bool) -> None:
    """Whether float32 convolutions and matrix products on a GPU may round their factors to TF32."""
    # Not by the switches of each backend, fp32_precision: torch.compile of 2.9 and 2.10 fails where they are set.
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high" if allowed else "highest")
        torch.backends.cudnn.allow_tf32 = allowed


def for_inference(wish: Format | Literal["run"], run: Mapping[str, Any], device: torch.device) -> Precision:
    """The precision that --precision asks for, and PyTorch's switches set so that it rounds alike each time.

    `run`: the precision in which the run of these options is validated on such a device. It is fp32 on a CPU for
    fp16, which has none.
    """
    if wish == "run":
        name = run["precision"]
        precision = Precision("fp32" if name == "fp16" and device.type == "cpu" else name, device)
        if precision.name == "fp32" and run["tf32"] and is_ampere(device):
            precision = Precision("tf32", device)
    else:
        precision = Precision(wish, device)
    allow_tf32(device, precision.name != "fp32")
    torch.backends.cudnn.benchmark = False  # it may choose other algorithms the next time, which round otherwise
    torch.backends.cudnn.deterministic = True
    return precision
