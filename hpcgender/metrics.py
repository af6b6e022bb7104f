"""Metrics of a model over many images, from sums that are exact for any number of ranks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from hpcgender.distributed import Ranks
from shard_tools.manifest import CLASSES

BINS = 65536
BINS_PER_UNIT = 1024
"""The bins of a binned ROC curve: log-odds in [-32, 32) in bins of 1/1024."""


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Metrics of labelled images. Fractions are from 0 to 1; nan: undefined, as no image has the label.

    The predicted gender is the class of the larger logit. Dictionaries have only classes for which a metric is defined:
    recall and F1 of each class that has images, precision of each class that was predicted.
    """

    images: int
    """All images, with labels or without."""
    loss: float
    """The sum of the tasks' losses times their weights, which training minimises."""
    losses: dict[str, float]
    """Per task, the mean loss of the images with a known label, weighted as in training."""
    accuracy: float
    class_images: dict[str, int]
    class_accuracy: dict[str, float]
    """The fraction of each class that is correctly classified."""
    balanced_accuracy: float
    """The mean of `class_accuracy`, which is also macro recall."""
    precision: dict[str, float]
    recall: dict[str, float]
    """The same as `class_accuracy`."""
    f1: dict[str, float]
    macro_f1: float
    """The mean of `f1`."""
    roc_auc: float
    """Area under the ROC curve: the probability that a man has larger log-odds than a woman, ties counting half."""
    age_images: int
    age_mae: float
    """Mean absolute error of the age, years."""


class Tally:
    """Accumulates a model's predictions; labels of -1 are unknown and ignored.

    `weights` has the weight of each task's loss, by the task's name. Nothing synchronises with the device before
    `scores`.

    The area under the ROC curve is exact, which takes 9 bytes per image. For a training epoch of millions of images,
    `binned` takes 1 MB instead and can be saved: the area then differs by at most half the fraction of pairs of a woman
    and a man in the same bin, 0.0002 for log-odds with a standard deviation of 1.
    """

    def __init__(self, device: torch.device, weights: Mapping[str, float], *, binned: bool = False) -> None:
        self.weights = dict(weights)
        self.binned = binned
        # Sums of this rank: each task's losses and weights of images, then absolute errors of age.
        self.sums = torch.zeros(2 * len(self.weights) + 1, dtype=torch.float64, device=device)
        # Integers, whose sums do not depend on the order. Rows of the confusion matrix: labels.
        self.images = torch.zeros((), dtype=torch.int64, device=device)
        self.age_images = torch.zeros((), dtype=torch.int64, device=device)
        self.confusion = torch.zeros(len(CLASSES), len(CLASSES), dtype=torch.int64, device=device)
        self.bins = torch.zeros(BINS if binned else 0, len(CLASSES), dtype=torch.int64, device=device)
        self.kept: list[tuple[torch.Tensor, torch.Tensor]] = []

    def add(
        self,
        losses: Mapping[str, tuple[torch.Tensor, torch.Tensor]],
        *,
        gender: torch.Tensor,
        logits: torch.Tensor | None = None,
        age: torch.Tensor | None = None,
        years: torch.Tensor | None = None,
    ) -> None:
        """Adds a batch of n images.

        `losses`: per task, sums over the images with a known label of weighted losses and of weights (1 each if classes
        have no weights), scalar float tensors.
        `gender`: labels, int64 (n,). `logits`: predictions, float (n, 2).
        `age`: labels in years, (n,). `years`: predictions, float (n,).
        """
        # On a GPU every operation costs the host more than the device, so few are started here.
        both = torch.stack([value.detach() for task in self.weights for value in losses[task]]).double().view(-1, 2)
        totals = both[:, :1]
        both.masked_fill_(totals - totals != 0, 0.0)  # inf and nan: a batch that training skips is ignored
        self.sums[:-1] += both.view(-1)
        self.images += len(gender)
        if logits is not None:
            self.add_gender(logits.detach(), gender)
        if years is not None and age is not None:
            known = age >= 0
            self.sums[-1] += (years.detach().double() - age).abs().masked_fill(~known, 0.0).sum()
            self.age_images += known.sum()

    def add_gender(self, logits: torch.Tensor, gender: torch.Tensor) -> None:
        # No boolean indexing, which would synchronise with the device: unknown labels are added as zero women.
        known = (gender >= 0).long()
        label = gender.clamp(min=0)
        self.confusion.view(-1).index_add_(0, torch.add(logits.argmax(1), label, alpha=len(CLASSES)), known)
        female, male = logits.double().unbind(1)
        log_odds = male - female
        if self.binned:
            bins = (log_odds * BINS_PER_UNIT).nan_to_num().floor().clamp(-BINS // 2, BINS // 2 - 1).long() + BINS // 2
            self.bins.view(-1).index_add_(0, torch.add(label, bins, alpha=len(CLASSES)), known)
        else:
            self.kept.append((log_odds, gender.to(torch.int8)))

    def counts(self) -> dict[str, torch.Tensor]:
        return {"images": self.images, "age_images": self.age_images, "confusion": self.confusion, "bins": self.bins}

    def state_dict(self, ranks: Ranks) -> dict[str, torch.Tensor]:
        """The state to save within an epoch, on the CPU: the counts of all ranks together, and each rank's sums.

        Collective: every rank must call it. Sums stay separate, (world size, numbers), because floats added in another
        order would differ in the last bit from those of a run that was not interrupted.
        """
        assert self.binned, "an exact tally is not saved"
        summed = {name: ranks.sum(count.clone()).cpu() for name, count in self.counts().items()}
        return {**summed, "sums": self.all_sums(ranks).cpu()}

    def load_state_dict(self, state: Mapping[str, torch.Tensor], ranks: Ranks) -> None:
        """Restores what `state_dict` returned, on any number of ranks."""
        sums = state["sums"]
        if len(sums) == ranks.world_size:
            self.sums.copy_(sums[ranks.rank])
        else:
            self.sums.copy_(sums.sum(0) if ranks.is_first else torch.zeros_like(sums[0]))
        for name, count in self.counts().items():
            count.copy_(state[name] if ranks.is_first else torch.zeros_like(state[name]))

    def all_sums(self, ranks: Ranks) -> torch.Tensor:
        """Every rank's sums, (world size, numbers)."""
        sums = self.sums.new_zeros(ranks.world_size, len(self.sums))
        sums[ranks.rank] = self.sums
        return ranks.sum(sums)

    def roc_counts(self, ranks: Ranks) -> torch.Tensor:
        """Numbers of women and men at each score or bin, ascending, int64 (scores, 2), of all ranks."""
        if self.binned:
            return ranks.sum(self.bins.clone())
        log_odds = torch.cat([self.sums.new_zeros(0), *(scores for scores, _ in self.kept)])
        gender = torch.cat([self.images.new_zeros(0), *(labels.long() for _, labels in self.kept)])
        log_odds, gender = log_odds[gender >= 0], gender[gender >= 0]
        # Ranks have different numbers of images: each writes its own into its slice of the whole.
        lengths = self.images.new_zeros(ranks.world_size)
        lengths[ranks.rank] = len(gender)
        ends = ranks.sum(lengths).cumsum(0).tolist()
        mine = slice(ends[ranks.rank] - len(gender), ends[ranks.rank])
        whole = self.sums.new_zeros(ends[-1], 2)
        whole[mine] = torch.stack([log_odds, gender.double()], dim=1)
        scores, place = ranks.sum(whole)[:, 0].unique(return_inverse=True)  # type: ignore[no-untyped-call]
        counts = self.images.new_zeros(len(scores), len(CLASSES))
        counts.view(-1).index_add_(0, place * len(CLASSES) + whole[:, 1].long(), torch.ones_like(place))
        return counts

    def scores(self, ranks: Ranks) -> Scores:
        """The scores over all ranks. Collective: every rank must call it."""
        images, age_images = ranks.sum(torch.stack([self.images, self.age_images])).tolist()
        confusion = ranks.sum(self.confusion.clone()).tolist()
        *loss_sums, age_errors = self.all_sums(ranks).sum(0).tolist()
        pairs = zip(self.weights, loss_sums[::2], loss_sums[1::2], strict=True)
        losses = {task: total / count for task, total, count in pairs if count}
        area = roc_area(self.roc_counts(ranks))
        of_class = [sum(row) for row in confusion]
        predicted = [sum(column) for column in zip(*confusion, strict=True)]
        correct = [confusion[value][value] for value in range(len(CLASSES))]
        recall = per_class(correct, of_class)
        totals = [a + b if a else 0 for a, b in zip(of_class, predicted, strict=True)]
        f1 = per_class([2 * count for count in correct], totals)
        return Scores(
            images=images,
            loss=sum(self.weights[task] * loss for task, loss in losses.items()) if losses else math.nan,
            losses=losses,
            accuracy=sum(correct) / sum(of_class) if sum(of_class) else math.nan,
            class_images=dict(zip(CLASSES, of_class, strict=True)),
            class_accuracy=recall,
            balanced_accuracy=mean(recall),
            precision=per_class(correct, predicted),
            recall=recall,
            f1=f1,
            macro_f1=mean(f1),
            roc_auc=area,
            age_images=age_images,
            age_mae=age_errors / age_images if age_images else math.nan,
        )


class GradientNorms:
    """Mean and maximum of the steps' gradient norms, without synchronising with the device.

    Norms that are not finite, of skipped steps, are ignored.
    """

    def __init__(self, device: torch.device) -> None:
        # Sum, maximum, steps.
        self.values = torch.zeros(3, dtype=torch.float64, device=device)

    def add(self, norm: torch.Tensor, finite: torch.Tensor) -> None:
        """Adds a step's norm, a scalar float tensor, and whether it is finite, a scalar bool tensor."""
        counted = norm.detach().double().masked_fill(~finite, 0.0)
        total, most, steps = self.values.unbind()
        total += counted
        torch.maximum(most, counted, out=most)
        steps += finite

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The state to save within an epoch, on the CPU; equal on all ranks, as gradients are."""
        return {"values": self.values.to("cpu", copy=True)}

    def load_state_dict(self, state: Mapping[str, torch.Tensor]) -> None:
        """Restores what `state_dict` returned."""
        self.values.copy_(state["values"])

    def mean_and_max(self) -> tuple[float, float]:
        """Mean and maximum; both nan before the first step."""
        total, most, steps = self.values.tolist()
        return (total / steps, most) if steps else (math.nan, math.nan)


def roc_area(counts: torch.Tensor) -> float:
    """Area under the ROC curve, from the numbers of women and men at each score, ascending, int64 (scores, 2).

    The Mann-Whitney statistic: the fraction of pairs in which the man's score is larger; a tie counts half.
    """
    women, men = counts.unbind(1)
    half_pairs = int((men * (2 * women.cumsum(0) - women)).sum())
    pairs = int(women.sum()) * int(men.sum())
    return half_pairs / (2 * pairs) if pairs else math.nan


def per_class(counts: list[int], of: list[int]) -> dict[str, float]:
    return {name: count / total for name, count, total in zip(CLASSES, counts, of, strict=True) if total}


def mean(of_classes: Mapping[str, float]) -> float:
    return sum(of_classes.values()) / len(of_classes) if of_classes else math.nan
