"""What a training step differentiates: the network and its losses, which torch.compile may make one graph."""

from __future__ import annotations

import torch
from torch import nn

from hpcgender.commands.train import TrainConfig
from hpcgender.models.losses import Loss, task_losses, weighted
from hpcgender.models.network import Network, Outputs
from hpcgender.precision import Precision


class Objective(nn.Module):
    """A network and its losses. The network itself stays uncompiled, for validation and checkpoints."""

    def __init__(self, network: Network, config: TrainConfig, precision: Precision) -> None:
        super().__init__()
        self.network = network
        self.config = config
        self.precision = precision

    def forward(
        self, images: torch.Tensor, gender: torch.Tensor, age: torch.Tensor, share: float
    ) -> tuple[torch.Tensor, dict[str, Loss], Outputs]:
        """The total loss times `share`, a scalar float tensor; each task's loss; and the predictions.

        `images`: float (n, 3, h, w); `gender` and `age` as in `task_losses`.
        """
        with self.precision.autocast():
            outputs: Outputs = self.network(images)
        losses = task_losses(outputs, gender, age, self.config)
        return weighted(losses, self.config) * share, losses, outputs

    def compile_step(self, *, graphs: bool) -> None:
        """Compiles the forward and the backward pass, each as one graph, which CUDA then starts at once if `graphs`.

        A batch of another size would be compiled anew: `check_compute` refuses what leads to such. DDP must be
        outside, where it splits the backward pass, so that the first gradients are all-reduced while others are
        computed. The optimizer is left as it is: its fused kernels are one operation for each parameter group already.
        """
        self.compile(dynamic=False, mode="reduce-overhead" if graphs else "default")
