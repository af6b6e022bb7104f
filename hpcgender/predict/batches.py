"""Images as batches of pixels: read ahead in threads, decoded ahead, and why some cannot be used."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import torch

from hpcgender.data.augment import centred
from hpcgender.data.decoders.decoder import PREFETCH, BadImages, Decoder
from hpcgender.data.shards import READERS
from hpcgender.predict.images import Named, Readable, read
from shard_tools.align.recipe import Recipe

AHEAD = READERS + PREFETCH
"""Batches that are read ahead of decoding."""


@dataclass
class Batch:
    """Consecutive images, and the pixels of those that can be used."""

    images: list[Named]
    found: list[Readable]
    """Of each of the images; after decoding, those that do not decode have an error too."""
    pixels: torch.Tensor
    """float32 (n, 3, size, size) on the device, in [-1, 1], of the n images without an error."""

    @property
    def places(self) -> list[int]:
        """The places in `images` of those that can be used."""
        return [place for place, readable in enumerate(self.found) if readable.encoded is not None]


def batches(images: Iterable[Named], decoder: Decoder, size: int, crop: Recipe | None) -> Generator[Batch]:
    """The images in batches of up to `size`, for which `decoder` was made; cropped by a recipe if there is one."""
    rest = iter(images)
    reading: deque[tuple[list[Named], Future[list[Readable]]]] = deque()
    decoding: deque[Batch] = deque()
    with ThreadPoolExecutor(READERS, "read") as pool:
        try:
            while True:
                while len(decoding) < PREFETCH:
                    while len(reading) < AHEAD and (some := list(islice(rest, size))):
                        reading.append((some, pool.submit(read_all, some, crop)))
                    if not reading:
                        break
                    named, future = reading.popleft()
                    batch = Batch(named, future.result(), torch.empty(0))
                    submit(decoder, batch)
                    decoding.append(batch)
                if not decoding:
                    return
                batch = decoding.popleft()
                if batch.places:
                    batch.pixels = decoded(decoder, batch)
                yield batch
        finally:
            pool.shutdown(cancel_futures=True)


def read_all(images: Sequence[Named], crop: Recipe | None) -> list[Readable]:
    return [read(image, crop) for image in images]


def submit(decoder: Decoder, batch: Batch, *, again: bool = False) -> None:
    """Gives the decoder the images of a batch that can be used; `again` after some were found that cannot."""
    encoded = [readable.encoded for readable in batch.found if readable.encoded is not None]
    if again:
        decoder.resubmit(encoded, centred(len(encoded)))
    elif encoded:
        decoder.submit(encoded, centred(len(encoded)))


def decoded(decoder: Decoder, batch: Batch) -> torch.Tensor:
    """The pixels of the batch that was submitted first; images that do not decode get an error."""
    try:
        return decoder.result()
    except BadImages as bad:
        places = batch.places
        for place, reason in bad.reasons.items():
            batch.found[places[place]] = Readable(None, error=reason)
    submit(decoder, batch, again=True)
    return decoded(decoder, batch) if batch.places else torch.empty(0)
