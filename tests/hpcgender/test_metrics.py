from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from sklearn import metrics as reference  # type: ignore[import-untyped]
from torch.multiprocessing.spawn import spawn

from hpcgender.distributed import Ranks
from hpcgender.metrics import GradientNorms, Scores, Tally
from shard_tools.base.documents import without_nan

ALONE = Ranks(0, 1, torch.device("cpu"))
WEIGHTS = {"gender": 1.0, "age": 0.1}
LOSS_WEIGHTS = torch.tensor([1.0, 1.5, 0.0])
"""Of women, men, and at -1 of images whose gender is unknown."""
IMAGES = 1200
BATCH = 60


class Predictions:
    """Labels of images, one in ten unknown, and predictions that are better than chance; many scores tie."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.gender = torch.randint(0, 2, (IMAGES,), generator=generator)
        noise = torch.randn(IMAGES, 2, generator=generator)
        self.logits = ((noise + F.one_hot(self.gender, 2)) * 4).round() / 4
        self.gender[torch.rand(IMAGES, generator=generator) < 0.1] = -1
        self.age = torch.randint(16, 80, (IMAGES,), generator=generator).float()
        self.years = self.age + 6 * torch.randn(IMAGES, generator=generator)
        self.age[torch.rand(IMAGES, generator=generator) < 0.1] = -1

    def add_to(self, tally: Tally, part: torch.Tensor | slice) -> None:
        gender, logits, age, years = self.gender[part], self.logits[part], self.age[part], self.years[part]
        weights = LOSS_WEIGHTS[gender]
        of_gender = F.cross_entropy(logits, gender, ignore_index=-1, reduction="none") * weights
        of_age = (years - age).abs() * (age >= 0)
        losses = {"gender": (of_gender.sum(), weights.sum()), "age": (of_age.sum(), (age >= 0).sum())}
        tally.add(losses, gender=gender, logits=logits, age=age, years=years)


def parts(ranks: Ranks) -> Iterator[torch.Tensor]:
    """A rank's uneven parts of the batches; the last batch is all rank 0's."""
    for begin in range(0, IMAGES, BATCH):
        last = begin + BATCH == IMAGES
        cuts = [BATCH if last else BATCH // (3 + rank) for rank in range(ranks.world_size - 1)]
        batch = torch.arange(begin, begin + BATCH)
        mine = batch[sum(cuts[: ranks.rank]) :][: cuts[ranks.rank] if ranks.rank < len(cuts) else None]
        if len(mine):
            yield mine


def measure_in_ranks(rank: int, out: Path) -> None:
    """One of three processes, which form groups of 1, 2 and 3 in turn and write down what each rank gets."""
    torch.set_num_threads(1)
    predictions = Predictions()

    def write(name: str, ranks: Ranks, tally: Tally) -> None:
        (out / f"{name}-{ranks.rank}.json").write_text(json.dumps(asdict(tally.scores(ranks))))

    for world_size in (2, 1, 3):
        if rank >= world_size:
            continue
        dist.init_process_group(
            "gloo", init_method=f"file://{out}/meeting-{world_size}", rank=rank, world_size=world_size
        )
        ranks = Ranks(rank, world_size, torch.device("cpu"))
        for binned in (False, True):
            tally = Tally(ranks.device, WEIGHTS, binned=binned)
            for number, part in enumerate(parts(ranks)):
                predictions.add_to(tally, part)
                if binned and world_size == 2 and number == 7:
                    state = tally.state_dict(ranks)
                    if ranks.is_first:
                        torch.save(state, out / "state.pt")
            write(f"{'binned' if binned else 'exact'}-{world_size}", ranks, tally)
        resumed = Tally(ranks.device, WEIGHTS, binned=True)
        resumed.load_state_dict(torch.load(out / "state.pt", weights_only=True), ranks)
        for part in parts(ranks):
            if part[0] >= 8 * BATCH:
                predictions.add_to(resumed, part)
        write(f"resumed-{world_size}", ranks, resumed)
        dist.barrier()
        dist.destroy_process_group()


@pytest.fixture(scope="module")
def scores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """Scores of each rank, by how they were measured and on how many ranks."""
    out = tmp_path_factory.mktemp("ranks")
    spawn(measure_in_ranks, (out,), nprocs=3)  # type: ignore[no-untyped-call]
    kinds = {path.stem.rpartition("-")[0] for path in out.glob("*.json")}
    return {kind: [json.loads(path.read_text()) for path in sorted(out.glob(f"{kind}-*.json"))] for kind in kinds}


def test_scores_are_those_of_scikit_learn_on_all_images_together(scores: dict[str, list[dict[str, Any]]]) -> None:
    predictions = Predictions()
    known, has_age = (predictions.gender >= 0).numpy(), (predictions.age >= 0).numpy()
    label, logits = predictions.gender.numpy()[known], predictions.logits.double().numpy()[known]
    predicted = logits.argmax(1)
    precision, recall, f1, images = reference.precision_recall_fscore_support(label, predicted)
    probability = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    losses = {
        "gender": reference.log_loss(label, probability, sample_weight=LOSS_WEIGHTS.numpy()[label]),
        "age": reference.mean_absolute_error(predictions.age[has_age], predictions.years[has_age]),
    }

    def by_class(values: Any) -> Any:
        return pytest.approx(dict(zip(("female", "male"), values, strict=True)), abs=1e-12)

    (alone,) = scores["exact-1"]
    assert alone == {
        "images": IMAGES,
        "loss": pytest.approx(losses["gender"] + 0.1 * losses["age"], rel=1e-6),
        "losses": pytest.approx(losses, rel=1e-6),
        "accuracy": pytest.approx(reference.accuracy_score(label, predicted), abs=1e-12),
        "class_images": by_class(images),
        "class_accuracy": by_class(recall),
        "balanced_accuracy": pytest.approx(reference.balanced_accuracy_score(label, predicted), abs=1e-12),
        "precision": by_class(precision),
        "recall": by_class(recall),
        "f1": by_class(f1),
        "macro_f1": pytest.approx(reference.f1_score(label, predicted, average="macro"), abs=1e-12),
        "roc_auc": pytest.approx(reference.roc_auc_score(label, logits[:, 1] - logits[:, 0]), abs=1e-12),
        "age_images": has_age.sum(),
        "age_mae": pytest.approx(losses["age"], rel=1e-6),
    }


SUMS_OF_FLOATS = ("loss", "losses", "age_mae")


@pytest.mark.parametrize("kind", ["exact", "binned"])
@pytest.mark.parametrize("world_size", [2, 3])
def test_any_number_of_ranks_gets_the_same_scores(
    scores: dict[str, list[dict[str, Any]]], kind: str, world_size: int
) -> None:
    (alone,) = scores[f"{kind}-1"]
    ranks = scores[f"{kind}-{world_size}"]
    assert len(ranks) == world_size
    assert all(rank == ranks[0] for rank in ranks)
    for name, value in alone.items():
        # A float32 sum over a batch is rounded where the batch is cut; all else is counted.
        assert ranks[0][name] == (pytest.approx(value, rel=1e-6) if name in SUMS_OF_FLOATS else value), name


def test_a_restored_epoch_ends_with_the_same_bits(
    scores: dict[str, list[dict[str, Any]]],
) -> None:
    assert scores["resumed-2"] == scores["binned-2"]


@pytest.mark.parametrize("world_size", [1, 3])
def test_an_epoch_saved_on_two_ranks_resumes_on_another_number(
    scores: dict[str, list[dict[str, Any]]], world_size: int
) -> None:
    for name, value in scores["binned-1"][0].items():
        for rank in scores[f"resumed-{world_size}"]:
            assert rank[name] == (pytest.approx(value, rel=1e-6) if name in SUMS_OF_FLOATS else value), name


def roc_areas(log_odds: torch.Tensor, gender: torch.Tensor) -> tuple[float, float]:
    """Exact and binned."""
    areas = []
    for binned in (False, True):
        tally = Tally(ALONE.device, {"gender": 1.0}, binned=binned)
        logits = torch.stack([torch.zeros_like(log_odds), log_odds], dim=1)
        tally.add({"gender": (torch.zeros(()), torch.ones(()))}, gender=gender, logits=logits)
        areas.append(tally.scores(ALONE).roc_auc)
    return areas[0], areas[1]


def test_the_binned_area_under_the_roc_curve_is_as_close_as_documented() -> None:
    generator = torch.Generator().manual_seed(1)
    gender = torch.randint(0, 2, (100_000,), generator=generator)
    log_odds = torch.randn(100_000, generator=generator) + 2 * gender
    exact, binned = roc_areas(log_odds, gender)
    assert exact == pytest.approx(reference.roc_auc_score(gender, log_odds), abs=1e-12)
    assert binned == pytest.approx(exact, abs=0.0002)


def test_log_odds_of_any_size_have_their_bin() -> None:
    log_odds = torch.tensor([-math.inf, -1e30, -32.0, -0.0, 0.0, 32.0, 1e30, math.inf])
    gender = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
    assert roc_areas(log_odds, gender) == (1 - 0.5 / 16, 1 - 0.5 / 16)
    tally = Tally(ALONE.device, {"gender": 1.0}, binned=True)
    losses = {"gender": (torch.tensor(math.nan), torch.tensor(1.0))}
    tally.add(losses, gender=torch.tensor([1]), logits=torch.tensor([[0.0, math.nan]]))
    assert math.isnan(tally.scores(ALONE).loss)


def test_metrics_of_a_class_without_images_are_omitted() -> None:
    tally = Tally(ALONE.device, {"gender": 1.0})
    logits = torch.tensor([[2.0, 0.0], [0.0, 2.0], [9.0, 0.0]])
    losses = {"gender": (torch.tensor(4.0), torch.tensor(2.0))}
    tally.add(losses, gender=torch.tensor([0, 0, -1]), logits=logits)
    scores = tally.scores(ALONE)
    assert (scores.images, scores.class_images) == (3, {"female": 2, "male": 0})
    assert (scores.loss, scores.accuracy, scores.balanced_accuracy) == (2.0, 0.5, 0.5)
    assert (scores.recall, scores.precision) == ({"female": 0.5}, {"female": 1.0, "male": 0.0})
    assert scores.f1 == {"female": pytest.approx(2 / 3)}
    assert math.isnan(scores.roc_auc)
    assert math.isnan(scores.age_mae)


def test_a_model_of_age_alone_is_measured() -> None:
    tally = Tally(ALONE.device, {"age": 1.0})
    age, years = torch.tensor([20.0, 30.0, -1.0]), torch.tensor([21.0, 27.0, 50.0])
    losses = {"age": (torch.tensor(4.0), torch.tensor(2.0))}
    tally.add(losses, gender=torch.tensor([-1, 1, 0]), age=age, years=years)
    scores = tally.scores(ALONE)
    assert (scores.loss, scores.losses, scores.age_images, scores.age_mae) == (2.0, {"age": 2.0}, 2, 2.0)
    assert math.isnan(scores.accuracy)


def test_no_images_have_scores_that_json_can_hold() -> None:
    for binned in (False, True):
        scores: Scores = Tally(ALONE.device, WEIGHTS, binned=binned).scores(ALONE)
        content = json.loads(json.dumps(without_nan(asdict(scores)), allow_nan=False))
        assert (content["images"], content["loss"], content["roc_auc"], content["losses"]) == (0, None, None, {})


def test_gradient_norms_resume_and_ignore_skipped_steps() -> None:
    norms = GradientNorms(ALONE.device)
    assert all(map(math.isnan, norms.mean_and_max()))
    for norm in (3.0, 1.0, math.inf):
        norms.add(torch.tensor(norm), torch.tensor(norm).isfinite())
    resumed = GradientNorms(ALONE.device)
    resumed.load_state_dict(norms.state_dict())
    for of_both in (norms, resumed):
        of_both.add(torch.tensor(2.0), torch.tensor(True))
        assert of_both.mean_and_max() == (2.0, 3.0)
