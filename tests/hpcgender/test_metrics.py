from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from hpcgender.distributed import Ranks
from hpcgender.metrics import Tally

ALONE = Ranks(0, 1, torch.device("cpu"))


def test_scores_are_those_of_all_images_together() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(100, 2, generator=generator)
    gender = torch.randint(0, 2, (100,), generator=generator)
    tally = Tally(ALONE.device)
    for part in (slice(0, 7), slice(7, 90), slice(90, 100)):
        tally.add(logits[part], gender[part])
    scores = tally.scores(ALONE)
    correct = logits.argmax(1) == gender
    assert scores.images == 100
    assert math.isclose(scores.loss, float(F.cross_entropy(logits, gender)), rel_tol=1e-6)
    assert scores.accuracy == float(correct.double().mean())
    by_class = [float(correct[gender == value].double().mean()) for value in (0, 1)]
    assert list(scores.class_accuracy.values()) == by_class
    assert scores.balanced_accuracy == sum(by_class) / 2


def test_images_of_unknown_gender_count_for_nothing() -> None:
    tally = Tally(ALONE.device)
    tally.add(torch.tensor([[2.0, 0.0], [0.0, 2.0], [9.0, 0.0]]), torch.tensor([0, 0, -1]))
    scores = tally.scores(ALONE)
    assert (scores.images, scores.accuracy, scores.class_accuracy["female"]) == (2, 0.5, 0.5)
    assert "male" not in scores.class_accuracy
    assert scores.balanced_accuracy == 0.5
