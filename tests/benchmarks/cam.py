"""How fast heat maps are: beside pytorch-grad-cam, and beside a forward pass alone.

    python -m tests.benchmarks.cam [--quick] [--model NAME] [--image-size N] [--batch-size N]

On a GPU, if there is one, the same there. All sides have the same model in the same memory layout, and the same batch
that is in memory. Heat maps are all that `hpcgender cam` does with a batch between decoding and disk: maps and log-odds
on the CPU, and the pixels summed for mean faces. pytorch-grad-cam gives maps of the same layer for the same target.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import tyro
from pytorch_grad_cam import GradCAM

from hpcgender.cam.faces import FaceSums
from hpcgender.cam.maps import evidence_maps
from hpcgender.models.compact import Compact
from hpcgender.models.config import ModelConfig
from hpcgender.models.create import create
from hpcgender.models.network import Network
from hpcgender.models.vgg import VGG
from tests.benchmarks.ratios import measure, print_ratio, print_speeds

SUBGROUPS = 24
"""Of gender x group x classified correctly, as with five groups."""


@dataclass(frozen=True, kw_only=True)
class CamBenchmark:
    """How fast heat maps are: beside pytorch-grad-cam, and beside a forward pass alone."""

    quick: bool = False
    """A small model, few batches and one round: to see that it runs, not how fast."""
    model: str = "se_resnet50"
    """Any of the suite's own models: those without a linear gender head have Grad-CAM."""
    image_size: int = 112
    """Height and width of the images, pixels."""
    batch_size: int = 16
    """Images in a batch."""


class Logits(torch.nn.Module):
    """A network that gives the logits of gender alone, as pytorch-grad-cam wants it."""

    def __init__(self, model: Network) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: torch.Tensor) -> Any:
        return self.model(images).gender


def last_maps(model: Network) -> torch.nn.Module:
    """The module whose output is the feature maps that heat maps are of."""
    if isinstance(model, VGG):
        return model.features[-2]  # type: ignore[index,no-any-return]
    return model.get_submodule("gender.convolution" if isinstance(model, Compact) else "layer4")


def male_minus_female(logits: torch.Tensor) -> torch.Tensor:
    """The target: log-odds of male of one image's logits (2,)."""
    return logits[1] - logits[0]


def main(benchmark: CamBenchmark) -> None:
    rounds, steps = (1, 2) if benchmark.quick else (7, 6)
    name, size, batch = benchmark.model, benchmark.image_size, benchmark.batch_size
    if benchmark.quick:
        name, size = "se_resnet18", 64
    device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    model = create(ModelConfig(model=name), 2).eval().to(device).to(memory_format=torch.channels_last)
    images = (torch.randint(0, 256, (batch, 3, size, size), device=device) - 127.5) / 127.5
    contenders = {
        "pytorch-grad-cam": peer(model, images, steps),
        "forward pass alone": forward(model, images, steps),
        "hpcgender, heat maps": own(model, images, steps),
    }
    for work in contenders.values():
        work()  # the first passes are slower
    speeds = measure(contenders, rounds, lambda: None)
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{os.cpu_count()} cores"
    threads = "" if device.type == "cuda" else f", {torch.get_num_threads()} threads"
    print_speeds(
        f"{name}, {batch} images of {size}x{size} pixels in a batch, fp32, {where}{threads}", "images/s", speeds
    )
    theirs, plain, ours = speeds.values()
    print_ratio("cam_over_pytorch_grad_cam", ours, theirs, "at least 3")
    print_ratio("cam_over_forward", ours, plain, "at least 0.9")


def peer(model: Network, images: torch.Tensor, steps: int) -> Callable[[], int]:
    """Maps by pytorch-grad-cam, of the same layer and the difference of the logits."""
    cam = GradCAM(model=Logits(model), target_layers=[last_maps(model)])
    laid_out = images.contiguous(memory_format=torch.channels_last)

    def work() -> int:
        for _ in range(steps):
            cam(input_tensor=laid_out, targets=[male_minus_female] * len(images))
        return steps * len(images)

    return work


def forward(model: Network, images: torch.Tensor, steps: int) -> Callable[[], int]:
    """The logits alone, on the CPU."""

    @torch.no_grad()
    def work() -> int:
        for _ in range(steps):
            model(images.contiguous(memory_format=torch.channels_last)).gender.cpu()
        return steps * len(images)

    return work


def own(model: Network, images: torch.Tensor, steps: int) -> Callable[[], int]:
    """What `hpcgender cam` does with a batch."""
    faces = FaceSums(SUBGROUPS, images.shape[-1], images.device)
    codes = np.arange(len(images)) % SUBGROUPS

    @torch.no_grad()
    def work() -> int:
        for _ in range(steps):
            for result in evidence_maps(model, images.contiguous(memory_format=torch.channels_last)):
                result.cpu().numpy()
            faces.add(images, codes)
        return steps * len(images)

    return work


if __name__ == "__main__":
    main(tyro.cli(CamBenchmark))
