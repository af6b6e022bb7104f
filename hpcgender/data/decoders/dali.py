"""Pixels by NVIDIA DALI: one graph for training, evaluation, prediction and CAM, on a GPU and without.

Images are decoded on the CPU, by the code that decodes them where there is no GPU; with a GPU the decoded crops are
copied there, and resized, augmented and normalised there. So pixels depend neither on the GPU nor on what else is in
the batch, and a damaged image is found as it is on a CPU. Kernels of the GPU round otherwise: 8-bit results differ
from the CPU's by a level here and there.

`mixed` decodes on the GPU (nvJPEG), which relieves the CPU and promises less: chroma is upsampled without
interpolation, hardware and software decoders share a batch by its size, and what is damaged may be decoded somehow. Of
a batch that fails, those images are bad that fail alone, or that the packer would not have taken.
"""

from __future__ import annotations

import io
from collections import deque
from typing import Any

import numpy as np
import torch
from nvidia.dali import fn, math, pipeline_def, types
from nvidia.dali.tensors import TensorCPU, TensorListCPU
from PIL import Image

from hpcgender.data.augment import Draws, centred
from hpcgender.data.augmentation import PRESETS, Augmentation
from hpcgender.data.decoders.decoder import MEAN, PREFETCH, STD, BadImages
from hpcgender.data.shards import Encoded
from shard_tools.base.errors import one_line
from shard_tools.images import ImageError, fingerprint


def graph(image_size: int, gpu: bool, mixed: bool, augmentation: Augmentation) -> Any:
    """Crop of each image, resized, augmented, normalised: float32 (n, 3, size, size). Unused augmentations are omitted.

    Rotation and blur cost a branch for the images they hit; an image without anything to erase is only copied.
    """
    # Not copied, as a decoder's arrays do not change; nvJPEG may read them after the host has the result.
    encoded = fn.external_source(name="encoded", dtype=types.UINT8, ndim=1, no_copy=not mixed)
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
        device="mixed" if mixed else "cpu",
        output_type=types.RGB,
    )
    if gpu:
        images = images.gpu()
    images = fn.resize(images, size=(image_size, image_size), interp_type=types.INTERP_LINEAR, antialias=True)
    if augmentation.rotates:
        angle = fn.external_source(name="angle", dtype=types.FLOAT, ndim=0)
        if angle != 0:
            images = fn.rotate(images, angle=angle, keep_size=True, interp_type=types.INTERP_LINEAR)
    if augmentation.changes_colour:
        factors = fn.external_source(name="colour", dtype=types.FLOAT, ndim=1)
        images = fn.color_twist(
            images, brightness=factors[0], contrast=factors[1], saturation=factors[2], hue=factors[3]
        )
    if augmentation.blur > 0:
        sigma = fn.external_source(name="sigma", dtype=types.FLOAT, ndim=0)
        if sigma > 0:
            images = fn.gaussian_blur(images, sigma=sigma)
    images = fn.crop_mirror_normalize(
        images, dtype=types.FLOAT, output_layout="CHW", mirror=mirror, mean=[MEAN] * 3, std=[STD] * 3
    )
    if augmentation.erase > 0:
        erase = fn.external_source(name="erase", dtype=types.FLOAT, ndim=1)
        images = fn.erase(images, anchor=erase[0:2], shape=erase[2:4], axis_names="HW", fill_value=0.0)
    return images


class DaliDecoder:
    """The graph above; keeps what it was given until it is delivered, for the case that an image is bad."""

    def __init__(
        self,
        batch_size: int,
        image_size: int,
        device: torch.device,
        augmentation: Augmentation | None,
        threads: int,
        *,
        mixed: bool = False,
    ) -> None:
        self.batch_size = batch_size
        self.image_size = image_size
        self.device = device
        self.augmentation = PRESETS["none"] if augmentation is None else augmentation
        self.threads = threads
        self.mixed = mixed
        self.pipeline = self.build(batch_size)
        self.under_way: deque[tuple[list[Encoded], Draws]] = deque()
        self.held: list[tuple[torch.cuda.Event, torch.Tensor]] = []
        """Pixels on a GPU that are still being copied."""

    def build(self, batch_size: int) -> Any:
        gpu = self.device.type == "cuda"
        # For `if`s on an image's numbers DALI rewrites the function's source, which takes it seconds.
        branches = self.augmentation.rotates or self.augmentation.blur > 0
        pipeline = pipeline_def(graph, enable_conditionals=branches)(
            self.image_size,
            gpu,
            self.mixed,
            self.augmentation,
            batch_size=batch_size,
            num_threads=self.threads,
            device_id=self.device.index if gpu else None,
            prefetch_queue_depth=PREFETCH,
            exec_pipelined=False,  # a scheduled run is one batch: the loader itself keeps PREFETCH under way
            exec_dynamic=True,
        )
        pipeline.build()
        return pipeline

    def submit(self, encoded: list[Encoded], draws: Draws) -> None:
        self.under_way.append((encoded, draws))
        self.feed(self.pipeline, encoded, draws)

    def feed(self, pipeline: Any, encoded: list[Encoded], draws: Draws) -> None:
        feed = pipeline.feed_input
        # DALI would look at each array of a plain list in Python, and copy them into a contiguous one.
        tensors = [TensorCPU(image) for image in encoded]
        feed("encoded", TensorListCPU(tensors, contiguous=False))  # type: ignore[call-overload]  # DALI's stub lacks it
        feed("size", draws.size)
        feed("corner", draws.corner)
        feed("mirror", draws.mirror)
        if self.augmentation.rotates:
            feed("angle", draws.angle)
        if self.augmentation.changes_colour:
            feed("colour", draws.colour)
        if self.augmentation.blur > 0:
            feed("sigma", draws.sigma)
        if self.augmentation.erase > 0:
            feed("erase", draws.erased(self.image_size).astype("float32"))
        pipeline.schedule_run()

    def result(self) -> torch.Tensor:
        """As Decoder.result. An error that is not an image's own, such as of memory, is DALI's."""
        stream = torch.cuda.current_stream(self.device) if self.device.type == "cuda" else None
        try:
            (images,) = self.pipeline.share_outputs(cuda_stream=stream)
        except RuntimeError:
            reasons = self.bad_images(*self.under_way[0])
            if not reasons:
                raise
            raise BadImages(reasons) from None
        self.pipeline.release_outputs()  # the dynamic executor's buffers live as long as the tensor does
        self.under_way.popleft()
        pixels = torch.utils.dlpack.from_dlpack(images.as_tensor())
        return self.own(pixels) if stream else pixels

    def own(self, pixels: torch.Tensor) -> torch.Tensor:
        """A copy, in channels_last, of pixels on a GPU, which are held until it is made.

        DALI reuses their memory in the order of its own stream, which knows nothing of PyTorch's kernels.
        """
        copied = torch.empty_like(pixels, memory_format=torch.channels_last).copy_(pixels)
        made = torch.cuda.Event()  # type: ignore[no-untyped-call]
        made.record()
        self.held = [(event, of) for event, of in self.held if not event.query()]  # type: ignore[no-untyped-call]
        self.held.append((made, pixels))
        return copied

    def resubmit(self, encoded: list[Encoded], draws: Draws) -> None:
        self.under_way.popleft()
        if encoded:
            self.under_way.appendleft((encoded, draws))
        self.pipeline = self.build(self.batch_size)  # DALI promises nothing of a pipeline after an error
        for batch in self.under_way:
            self.feed(self.pipeline, *batch)

    def bad_images(self, encoded: list[Encoded], draws: Draws) -> dict[int, str]:
        """Which images do not go through the graph alone, and why.

        Raises DALI's error where memory is short, or where a faultless image does not go through either.
        """
        alone = self.build(1)

        def fault(position: int) -> str:
            nonlocal alone
            try:
                self.run(alone, [encoded[position]], draws.rows([position]))
            except RuntimeError as error:
                if "alloc" in str(error):  # "Can't allocate", "bad_alloc", "ALLOCATOR_FAILURE"
                    raise
                alone = self.build(1)
                return reason_of(encoded[position], error)
            # nvJPEG may pass alone what failed in its batch.
            return packers_reason(encoded[position]) if self.mixed else ""

        faults = {position: why for position in range(len(encoded)) if (why := fault(position))}
        if faults:
            file = io.BytesIO()
            Image.new("RGB", (self.image_size, self.image_size)).save(file, "JPEG")
            self.run(alone, [np.frombuffer(file.getvalue(), dtype=np.uint8)], centred(1))
        return faults

    def run(self, pipeline: Any, encoded: list[Encoded], draws: Draws) -> None:
        self.feed(pipeline, encoded, draws)
        pipeline.share_outputs()
        pipeline.release_outputs()


def packers_reason(encoded: Encoded) -> str:
    """Why the packer does not take an image, whose pixels it decodes; empty if it does."""
    try:
        fingerprint(encoded.tobytes(), appearance=False)
    except ImageError as fault:
        return str(fault)
    return ""


def reason_of(encoded: Encoded, error: RuntimeError) -> str:
    """Why DALI does not decode an image, as the packer words it; in DALI's words where the packer finds no fault."""
    if fault := packers_reason(encoded):
        return fault
    why = one_line(error).rpartition("encountered: ")[2].partition(" Current pipeline")[0].strip(" :")
    return f"NVIDIA DALI alone cannot read it: {why or 'it gives no reason'}"
