"""Loss and accuracy as sums over images, so that they are exact over any number of ranks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from hpcgender.distributed import Ranks
from shard_tools.manifest import CLASSES


@dataclass(frozen=True)
class Scores:
    """Means over images; nan if there is none. `loss` is cross-entropy in nats; accuracies are parts of 1."""

    images: int
    loss: float
    accuracy: float
    class_images: dict[str, int]
    class_accuracy: dict[str, float]
    """Of each class that has images."""
    balanced_accuracy: float
    """The mean of these."""


class Tally:
    """Counts what a model says of labelled images; images of unknown gender count for nothing."""

    def __init__(self, device: torch.device) -> None:
        # Rows: classes. Columns: sum of losses, correct, images.
        self.sums = torch.zeros(len(CLASSES), 3, dtype=torch.float64, device=device)

    def add(self, logits: torch.Tensor, gender: torch.Tensor) -> None:
        """Counts a batch: logits float (n, classes), gender int64 (n,)."""
        losses = F.cross_entropy(logits.float(), gender, ignore_index=-1, reduction="none").double()
        correct = (logits.argmax(1) == gender).double()
        rows = torch.stack([losses, correct, torch.ones_like(losses)], dim=1)
        known = gender >= 0
        self.sums.index_add_(0, gender.clamp(min=0), rows * known[:, None])

    def scores(self, ranks: Ranks) -> Scores:
        """The scores over all ranks. Every rank must ask."""
        sums = ranks.sum(self.sums.clone())
        loss, correct, images = sums.sum(0).tolist()
        by_class = {name: right / of for name, (_, right, of) in zip(CLASSES, sums.tolist(), strict=True) if of}
        nan = float("nan")
        return Scores(
            images=int(images),
            loss=loss / images if images else nan,
            accuracy=correct / images if images else nan,
            class_images={name: int(of) for name, (_, _, of) in zip(CLASSES, sums.tolist(), strict=True)},
            class_accuracy=by_class,
            balanced_accuracy=sum(by_class.values()) / len(by_class) if by_class else nan,
        )
