"""The arithmetic of a plan: plain numbers in, plain numbers out."""

from __future__ import annotations

import math
from dataclasses import dataclass

from jobs.stopping import margin

KEPT = 3
"""Checkpoints that a training keeps to resume from, besides best.pt and one that is being written."""
CONTEXT_BYTES = 1.5e9
"""Memory of a GPU that CUDA, cuDNN, NCCL and DALI take."""
FILLED = 0.9
"""Part of a GPU's memory that can be filled: the rest is lost between allocations."""
SMALLNESS, UNLIKE = 0.2, 1.5
"""How times may differ from those scaled by operations: by this power of their ratio; in another family of models."""
START_S = 60.0
"""Seconds from the start of an attempt to its first step."""
FORWARD = 1 / 3
"""Time of a forward pass beside a training step's."""
HIDDEN = 2 / 3
"""Part of a step on a GPU behind which its all-reduce can hide: the backward pass."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """What is to be trained, and on what."""

    train_images: int
    val_images: int
    image_bytes: float
    """Mean of the encoded images."""
    epochs: int
    batch_size: int
    """Global."""
    nodes: int
    processes_per_node: int
    on_gpu: bool
    limit_s: float
    weight_bytes: int
    """Parameters and buffers, float32."""
    activation_bytes: float
    """Of one image, in the precision of training."""
    memory_bytes: float | None
    """Of a GPU."""
    peak_bytes: float | None = None
    """Memory that steps of this model and batch were seen to take in one process; None: to be counted."""

    @property
    def processes(self) -> int:
        return self.nodes * self.processes_per_node


@dataclass(frozen=True, kw_only=True)
class Rates:
    """What one process does, all others doing the same. Images and bytes per second."""

    step_images_per_s: float
    loaded_images_per_s: float | None
    """None: unknown, taken to be no limit."""
    decoded_per_core: float
    all_reduce_bytes_per_s: float | None
    """None: unknown, or a single process."""
    low: float
    """The shortest plausible time, as a factor of the estimated one."""
    high: float
    source: str


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What the training takes. Times in seconds."""

    epoch_s: float
    validation_s: float
    """Part of the epoch's time."""
    total_s: float
    low: float
    """The shortest plausible time, as a factor."""
    high: float
    images_per_s: float
    """While it trains, of all processes."""
    limited_by: str
    """steps, images or all-reduce."""
    device_hours: float
    storage_bytes_per_s: float
    """Of all nodes together."""
    cores_per_process: float
    """To decode as fast as steps take."""
    memory_bytes: float
    """Of one process, with its batch."""
    gpu_memory_bytes: float | None
    """What a GPU is taken to have; None: unknown, or no GPU."""
    fits: bool | None
    """Whether the batch fits into it."""
    largest_batch: int | None
    """Global, as its activations are counted; None if the memory is unknown. 0: not even one image fits."""
    checkpoint_bytes: float
    """All that are kept."""
    requeues: int
    source: str


def spread(times: float, operations: float, activations: float, *, alike: bool) -> tuple[float, float]:
    """Factors for the shortest and the longest time of a model beside another, which was timed.

    `times` is by how much its steps are taken to be longer, `operations` and `activations` how many more it has. Layers
    of few operations on large maps, as depthwise convolutions, take the time of their memory, so the truth may be as
    far off as activations are; small networks fill a device less; and other operators run at other speeds.
    """
    apart = max(operations, 1 / operations) ** SMALLNESS * (1.0 if alike else UNLIKE)
    return min(1.0, activations / times) / apart, max(1.0, activations / times) * apart


def estimate(work: Work, rates: Rates) -> Estimate:
    """What the work takes at these rates."""
    part = work.batch_size / work.processes
    step, limited_by = step_seconds(work, rates, part)
    steps = work.train_images // work.batch_size
    load = 1 / rates.loaded_images_per_s if rates.loaded_images_per_s else 0.0
    forward = FORWARD / rates.step_images_per_s
    per_image = max(forward, load) if work.on_gpu else forward + load
    validation = work.val_images / work.processes * per_image
    epoch = steps * step + validation
    total = epoch * work.epochs
    images_per_s = work.batch_size / step
    context = CONTEXT_BYTES if work.on_gpu else 0.0
    fixed = 3 * work.weight_bytes + context  # weights, gradients, momentum
    memory = fixed + part * work.activation_bytes if work.peak_bytes is None else work.peak_bytes + context
    share = FILLED if work.peak_bytes is None else 1.0  # what was reserved has the gaps in it
    usable = work.limit_s - margin(work.limit_s) - START_S
    return Estimate(
        epoch_s=epoch,
        validation_s=validation,
        total_s=total,
        low=rates.low,
        high=rates.high,
        images_per_s=images_per_s,
        limited_by=limited_by,
        device_hours=total * work.processes / 3600,
        storage_bytes_per_s=images_per_s * work.image_bytes,
        cores_per_process=images_per_s / work.processes / rates.decoded_per_core,
        memory_bytes=memory,
        gpu_memory_bytes=work.memory_bytes,
        fits=None if work.memory_bytes is None else memory <= share * work.memory_bytes,
        largest_batch=largest_batch(work, fixed),
        checkpoint_bytes=(KEPT + 1) * 2 * work.weight_bytes + work.weight_bytes,
        requeues=max(0, math.ceil(total / usable) - 1),
        source=rates.source,
    )


def step_seconds(work: Work, rates: Rates, part: float) -> tuple[float, str]:
    """Seconds of a step on `part` images in each process, and what limits it.

    A GPU loads, computes and communicates at the same time; on a CPU all take turns on the same cores.
    """
    step = part / rates.step_images_per_s
    load = part / rates.loaded_images_per_s if rates.loaded_images_per_s else 0.0
    reduce = 0.0
    if rates.all_reduce_bytes_per_s and work.processes > 1:
        reduce = work.weight_bytes / rates.all_reduce_bytes_per_s
    if not work.on_gpu:
        parts = {"steps": step, "images": load, "all-reduce": reduce}
        return step + load + reduce, max(parts, key=lambda name: parts[name])
    communicating = step + max(0.0, reduce - HIDDEN * step)
    limited_by = "images" if load > communicating else "all-reduce" if reduce > step else "steps"
    return max(load, communicating), limited_by


def largest_batch(work: Work, fixed: float) -> int | None:
    """The largest global batch that fits into the memory of the GPUs."""
    if work.memory_bytes is None:
        return None
    images = (FILLED * work.memory_bytes - fixed) / work.activation_bytes
    return max(0, math.floor(images)) * work.processes
