"""A split of a packed data set as a dataset of PyTorch: any sample by its number, with its labels."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch.utils.data import Dataset

from hpcgender.data.augment import centred
from hpcgender.data.decoders.vision import cropped, normalised
from hpcgender.data.shards import ShardReader
from shard_tools.base.errors import UserError
from shard_tools.base.options import expand
from shard_tools.images import ImageError, decoded
from shard_tools.manifest import read_manifest


class Sample(NamedTuple):
    """An image and its labels."""

    image: Image.Image | torch.Tensor
    """As it was packed, upright, RGB; or with `image_size` float32 (3, size, size) in [-1, 1], as networks take it."""
    gender: int
    """0 female, 1 male, -1 unknown."""
    age: float
    """Years, -1 unknown."""


class SplitDataset(Dataset[Sample]):
    """The samples of a split in the order of its index, for notebooks and any DataLoader, with workers too.

    `manifest` says what the data set is: its source, the names of the classes, the crop.
    """

    def __init__(self, data: str | Path, split: str, image_size: int | None) -> None:
        if image_size is not None and image_size < 1:
            raise UserError(f"image_size {image_size} must be positive: give pixels, such as 112")
        self.data, self.split, self.image_size = expand(Path(data)), split, image_size
        self.manifest = read_manifest(self.data)
        self.index = self.manifest.index(split)
        self.reader = ShardReader(self.index, self.manifest.shard_paths(split))

    def __reduce__(self) -> tuple[Any, ...]:
        return SplitDataset, (self.data, self.split, self.image_size)  # a worker opens the files itself

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, number: int) -> Sample:
        """A sample; IndexError if there is none of that number, UserError if its image cannot be read or decoded."""
        row = self.index[number]
        try:
            image = self.image(self.reader.read_image(number % len(self)))
        except ImageError as error:
            raise UserError(f"{self.data} {self.split}: image {row['key'].decode()} cannot be used: {error}") from None
        return Sample(image, int(row["gender"]), float(row["age"]))

    def __iter__(self) -> Iterator[Sample]:
        return (self[number] for number in range(len(self)))

    def image(self, encoded: npt.NDArray[np.uint8]) -> Image.Image | torch.Tensor:
        if self.image_size is None:
            return decoded(encoded.tobytes()).convert("RGB")
        centre = centred(1)
        face = cropped(encoded, centre.size[0], centre.corner[0], self.image_size)
        return torch.from_numpy(normalised(np.asarray(face)))

    @property
    def columns(self) -> dict[str, npt.NDArray[Any]]:
        """What the index knows of each sample, arrays (n,), for pandas.DataFrame(dataset.columns) or as they are.

        key, subject and group are texts, empty where unknown; gender (int8), age (float32) as in a sample; shard is its
        file, and row its number in the source that was packed.
        """
        index = self.index
        texts = {name: np.char.decode(np.asarray(index[name]), "utf-8") for name in ("key", "subject", "group")}
        shards = np.array([shard.file for shard in self.manifest.split(self.split).shards])
        numbers = {name: np.array(index[name]) for name in ("gender", "age", "row")}
        return {**texts, **numbers, "shard": shards[index["shard"]] if len(index) else np.array([], dtype=str)}


def open(data: str | Path, split: str = "train", *, image_size: int | None = None) -> SplitDataset:
    """A split of a packed data set: `len(dataset)`, `dataset[number]`, `dataset.columns`.

    With `image_size`, images are tensors of that height and width in pixels, their central square resized as for
    evaluation by Pillow (--backend torchvision), so that a DataLoader makes batches of them; without, as Pillow has
    them. Raises UserError if there is no such data set or split, or for a size that is not positive.
    """
    return SplitDataset(data, split, image_size)
