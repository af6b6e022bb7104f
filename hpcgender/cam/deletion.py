"""The deletion check: are the maps faithful? Predictions with an image's hottest cells masked, and with as many random
ones masked (after RISE, Petsiuk et al., arXiv 1806.07421)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch

from hpcgender.cam.results import Deletion, DeletionStep, Masked
from hpcgender.data.counter_rng import random_bits
from hpcgender.data.order import Samples

Floats = npt.NDArray[np.float32]
CellOrder = npt.NDArray[np.int64]
"""For each image (n, cells) the numbers of its map's cells, counted row by row, in some order."""


def draw_images(candidates: Samples, count: int, seed: int, purpose: str) -> Samples:
    """Up to `count` of the candidates, each as likely as the others, ascending: the same for the same seed."""
    order = np.argsort(random_bits(seed, 0, purpose, candidates), kind="stable")
    return np.sort(candidates[order[:count]])


def cells_masked(fractions: Sequence[float], cells: int) -> list[int]:
    """How many cells each fraction masks, at least one."""
    return [max(1, round(fraction * cells)) for fraction in fractions]


def random_order(samples: Samples, cells: int, seed: int) -> CellOrder:
    """For each image its cells in random order, drawn by its number: int64 (n, cells)."""
    counters = samples[:, None].astype(np.int64) * cells + np.arange(cells)
    return np.argsort(random_bits(seed, 0, "deletion cells", counters), axis=1, kind="stable")


def cell_orders(
    maps: Floats, gender: npt.NDArray[np.integer], samples: Samples, seed: int
) -> tuple[CellOrder, CellOrder]:
    """The cells of maps (n, h, w) in the order of masking: from most to least evidence for the label, and random.

    Both are int64 (n, h * w). The random one is drawn by the image's number.
    """
    towards = np.where(gender[:, None] == 1, 1, -1) * maps.reshape(len(maps), -1)
    return np.argsort(-towards, axis=1, kind="stable"), random_order(samples, towards.shape[1], seed)


def masked(images: torch.Tensor, order: CellOrder, count: int, cells: tuple[int, int]) -> torch.Tensor:
    """Images (n, 3, size, size) whose first `count` cells in `order` (n, cells) have the image's mean colour.

    A pixel is of the cell that it lies in where the map is stretched over the image.
    """
    hidden = np.zeros(order.shape, dtype=np.bool_)
    np.put_along_axis(hidden, order[:, :count], True, axis=1)
    size = images.shape[-1]
    rows, columns = (np.arange(size) * side // size for side in cells)
    mask = torch.from_numpy(hidden.reshape(-1, *cells)[:, rows][:, :, columns]).to(images.device)
    colour = (
        images.double().mean((2, 3), keepdim=True).float()
    )  # in double precision, so that the number of threads does not show
    return torch.where(mask[:, None], colour, images)


def seen_images(
    images: torch.Tensor, orders: Sequence[CellOrder], counts: Sequence[int], cells: tuple[int, int]
) -> Iterator[torch.Tensor]:
    """Yields the images, then for each count the images with so many cells masked, in each order."""
    yield images
    for count in counts:
        for order in orders:
            yield masked(images, order, count, cells)


def deletion(
    log_odds: Floats, gender: npt.NDArray[np.integer], fractions: Sequence[float], cells: int, seed: int
) -> Deletion | None:
    """The check, from log-odds of the label for `seen_images`, float32 (n, 1 + 2 * fractions), and labels (n,).

    nan: the image does not decode. None if none does.
    """
    there = ~np.isnan(log_odds[:, 0])
    rows, male = log_odds[there].astype(np.float64), gender[there] == 1
    if not len(rows):
        return None
    steps = []
    for number, (fraction, count) in enumerate(zip(fractions, cells_masked(fractions, cells), strict=True)):
        hottest, random = rows[:, 1 + 2 * number], rows[:, 2 + 2 * number]
        gap = random - hottest
        steps.append(
            DeletionStep(
                fraction=fraction,
                cells=count,
                hottest=masked_scores(hottest, male),
                random=masked_scores(random, male),
                gap=float(gap.mean()),
                gap_standard_error=standard_error(gap),
            )
        )
    return Deletion(images=len(rows), seed=seed, unmasked=masked_scores(rows[:, 0], male), steps=tuple(steps))


def masked_scores(log_odds: npt.NDArray[np.float64], male: npt.NDArray[np.bool_]) -> Masked:
    """Scores of log-odds of the labelled class; 0 is predicted female."""
    correct = (log_odds > 0) | ((log_odds == 0) & ~male)
    return Masked(
        accuracy=float(correct.mean()), log_odds=float(log_odds.mean()), standard_error=standard_error(log_odds)
    )


def standard_error(values: npt.NDArray[np.float64]) -> float:
    """Standard error of the mean; nan for one value."""
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("nan")
