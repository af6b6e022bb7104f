"""Encoded images and drawn parameters to pixels: one NVIDIA DALI graph for training, evaluation, prediction and CAM.

DALI draws nothing itself: every parameter comes with the sample. On a GPU the decoder is DALI's `mixed` one (nvJPEG).
"""

from __future__ import annotations

from typing import Any

import torch
from nvidia.dali import fn, math, pipeline_def, types

from hpcgender.data.augment import Draws
from hpcgender.data.shards import Encoded

PREFETCH = 3
"""Batches that are decoded ahead."""

MEAN = 127.5
STD = 127.5
"""Pixels reach the network as (value - MEAN) / STD, so in [-1, 1], in every channel."""


@pipeline_def  # type: ignore[untyped-decorator]
def graph(image_size: int, gpu: bool, colour: bool) -> Any:
    """Square crop of each image, resized, varied in colour, flipped and normalised: float32 (n, 3, size, size)."""
    encoded = fn.external_source(name="encoded", dtype=types.UINT8, ndim=1)
    size = fn.external_source(name="size", dtype=types.FLOAT, ndim=1)
    corner = fn.external_source(name="corner", dtype=types.FLOAT, ndim=1)
    mirror = fn.external_source(name="mirror", dtype=types.INT32, ndim=0)
    whole = fn.cast(fn.peek_image_shape(encoded)[0:2], dtype=types.FLOAT)
    crop = math.max(math.floor(size * math.min(whole[0], whole[1]) + 0.5), 1.0)
    anchor = math.floor(corner * (whole - crop) + 0.5)
    images = fn.decoders.image_slice(
        encoded,
        anchor,
        crop,
        axis_names="HW",
        normalized_anchor=False,
        normalized_shape=False,
        device="mixed" if gpu else "cpu",
        output_type=types.RGB,
    )
    images = fn.resize(images, size=(image_size, image_size), interp_type=types.INTERP_LINEAR, antialias=True)
    if colour:
        factors = fn.external_source(name="colour", dtype=types.FLOAT, ndim=1)
        images = fn.color_twist(
            images, brightness=factors[0], contrast=factors[1], saturation=factors[2], hue=factors[3]
        )
    return fn.crop_mirror_normalize(
        images, dtype=types.FLOAT, output_layout="CHW", mirror=mirror, mean=[MEAN] * 3, std=[STD] * 3
    )


class Decoder:
    """The graph above, fed and emptied by hand: `submit` batches, `result` them in the same order."""

    def __init__(self, batch_size: int, image_size: int, device: torch.device, colour: bool, threads: int) -> None:
        self.colour = colour
        self.device = device
        gpu = device.type == "cuda"
        self.pipeline = graph(
            image_size,
            gpu,
            colour,
            batch_size=batch_size,
            num_threads=threads,
            device_id=device.index if gpu else None,
            prefetch_queue_depth=PREFETCH,
            exec_pipelined=False,  # a scheduled run is one batch: the loader itself keeps PREFETCH under way
            exec_dynamic=True,
        )
        self.pipeline.build()

    def submit(self, encoded: list[Encoded], draws: Draws) -> None:
        """Starts decoding a batch of at least one image; at most PREFETCH are under way."""
        feed = self.pipeline.feed_input
        feed("encoded", encoded)
        feed("size", draws.size)
        feed("corner", draws.corner)
        feed("mirror", draws.mirror)
        if self.colour:
            feed("colour", draws.colour)
        self.pipeline.schedule_run()

    def result(self) -> torch.Tensor:
        """The pixels of the earliest batch under way, without a copy: float32 (n, 3, size, size) on the device."""
        # On a GPU the buffer belongs to PyTorch's stream, so that it is not reused before the kernels that read it.
        stream = torch.cuda.current_stream(self.device) if self.device.type == "cuda" else None
        (images,) = self.pipeline.share_outputs(cuda_stream=stream)
        self.pipeline.release_outputs()  # the dynamic executor's buffers live as long as the tensor does
        return torch.utils.dlpack.from_dlpack(images.as_tensor())
