"""The number format of the forward pass, and its loss scaler."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

from shard_tools.base.errors import UserError


class Precision:
    """`fp32`, or automatic mixed precision in `bf16` or `fp16`; `auto` chooses for the device.

    `scaler` skips steps with non-finite gradients for fp16, whose loss it scales, and if they `may_skip`. Measured with
    SE-ResNet-50: bf16 is slower on CPUs without AMX and faster on GPUs, where it needs compute capability 8.0.

    UserError for fp16 on a CPU.
    """

    def __init__(self, name: str, device: torch.device, *, may_skip: bool = False) -> None:
        if name == "auto":
            if device.type == "cuda":
                name = "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp16"
            else:
                name = "fp32"
        if name == "fp16" and device.type == "cpu":  # correct, and a hundred times slower
            raise UserError("--precision fp16 is for GPUs: on a CPU give bf16 or fp32")
        self.name = name
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
        if self.name == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16 if self.name == "bf16" else torch.float16)
