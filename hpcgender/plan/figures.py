"""Published figures of GPUs, with their sources: training ResNet-50 at 224 pixels in mixed precision on one GPU."""

from __future__ import annotations

from dataclasses import dataclass

RESNET50_MACS = 4.09e9
"""Multiply-accumulates of ResNet-50 for one image of 224 pixels, forward: He et al., arXiv 1512.03385, with the stride
of v1.5."""
SQUEEZE = 0.80
"""Speed of SE-ResNets beside ResNets of as many operations: timm, results/benchmark-train-amp-nhwc-pt112-cu113-
rtx3090.csv: seresnet50 971.79 and resnet50 1218.01 images/s."""
DECODED_PER_CORE = 1500.0
"""Images of 112 pixels that a core decodes and augments in a second: half of what two do in
`python -m tests.benchmarks.loader`."""


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """One kind of GPU."""

    images_per_s: float
    """ResNet-50, 224 pixels, mixed precision, training."""
    memory_bytes: float
    source: str
    less_memory_bytes: float | None = None
    """Of a smaller one of the same name."""


_EXAMPLES = "NVIDIA DeepLearningExamples, PyTorch ResNet50 v1.5, training performance"
_A100 = 2470.0

GPUS = {
    "v100": Gpu(
        images_per_s=1156.0,
        memory_bytes=32e9,
        less_memory_bytes=16e9,
        source=f"{_EXAMPLES}, DGX-1 V100 32GB, 1 GPU",
    ),
    "a100": Gpu(
        images_per_s=_A100,
        memory_bytes=80e9,
        less_memory_bytes=40e9,
        source=f"{_EXAMPLES}, DGX A100 80GB, 1 GPU",
    ),
    "h100": Gpu(
        images_per_s=_A100 * 14.4 / 7.8,
        memory_bytes=80e9,
        source=f"{_EXAMPLES}, A100, times 1.8: MLPerf Training v3.0, ResNet-50 on 16 GPUs, A100 14.4 and H100 7.8 min",
    ),
    "h200": Gpu(
        images_per_s=_A100 * 14.4 / 7.8,
        memory_bytes=141e9,
        source="as h100, whose compute the H200's data sheet repeats",
    ),
    "rtx3090": Gpu(
        images_per_s=1218.0,
        memory_bytes=24e9,
        source="timm, results/benchmark-train-amp-nhwc-pt112-cu113-rtx3090.csv, resnet50",
    ),
}
