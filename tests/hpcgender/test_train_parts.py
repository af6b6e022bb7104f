from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest

from hpcgender.metrics import Scores
from hpcgender.models.registry import create
from hpcgender.train.config import TrainConfig
from hpcgender.train.log import EpochRecord, RunLog, duration, epoch_line
from hpcgender.train.optimiser import learning_rate, sgd


def test_the_epoch_line() -> None:
    record = EpochRecord(
        epoch=12,
        epochs=50,
        step=1200,
        train=Scores(1000, 0.1023, 0.9669, {"female": 500, "male": 500}, {"female": 0.96, "male": 0.97}, 0.965),
        val=Scores(100, 0.1201, 0.9597, {"female": 50, "male": 50}, {"female": 0.9510, "male": 0.9684}, 0.9597),
        lr=0.01,
        images_per_s=11832.4,
        data_wait=0.004,
        bad_images=0,
        seconds=300.0,
        eta=3 * 3600 + 12 * 60 + 20,
    )
    assert epoch_line(record) == (
        "epoch 12/50 | train loss 0.1023 acc 96.69% | val loss 0.1201 acc 95.97% (female 95.10% male 96.84%) "
        "| lr 1.0e-02 | 11832 img/s | data wait 0.4% | eta 3h12m"
    )


@pytest.mark.parametrize(
    ("seconds", "said"), [(0, "0s"), (59.4, "59s"), (59.6, "1m00s"), (725, "12m05s"), (7260, "2h01m")]
)
def test_durations(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def record(epoch: int) -> EpochRecord:
    scores = Scores(10, 0.5, 0.9, {"female": 5, "male": 5}, {"female": 0.9, "male": 0.9}, 0.9)
    return EpochRecord(
        epoch=epoch,
        epochs=9,
        step=epoch,
        train=scores,
        val=scores,
        lr=0.1,
        images_per_s=1,
        data_wait=0,
        bad_images=0,
        seconds=1,
        eta=1,
    )


def test_a_log_gone_on_with_drops_what_came_after_the_checkpoint(tmp_path: Path) -> None:
    log = RunLog(tmp_path, 0, 0)
    for epoch in (1, 2, 3):
        log.write(record(epoch))
    log.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 4, "val": {"lo')  # killed while it wrote
    log = RunLog(tmp_path, 2, 2)
    log.write(record(3))
    log.close()
    assert [json.loads(line)["epoch"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == [1, 2, 3]


def test_the_learning_rate_rises_then_falls_by_half_a_cosine() -> None:
    config = TrainConfig(lr=0.4, epochs=5, warmup_epochs=1.0, schedule="cosine")
    rates = [learning_rate(config, step, 10) for step in range(50)]
    assert rates[0] == pytest.approx(0.04)
    assert rates[9] == rates[10] == pytest.approx(0.4)
    assert rates[30] == pytest.approx(0.2)
    assert all(a > b for a, b in pairwise(rates[10:]))
    assert 0 < rates[-1] < 0.001


def test_the_learning_rate_falls_to_a_tenth_every_15_epochs() -> None:
    config = TrainConfig(lr=0.1, epochs=50, warmup_epochs=0.0, schedule="step")
    rates = [learning_rate(config, epoch * 10, 10) for epoch in (0, 14, 15, 29, 30, 45)]
    assert rates == pytest.approx([0.1, 0.1, 0.01, 0.01, 1e-3, 1e-4])


def test_biases_and_normalisation_are_not_decayed() -> None:
    model = create("se_resnet18", 2)
    decayed, kept = sgd(model, TrainConfig(data=Path("x"))).param_groups
    names = {id(p): name for name, p in model.named_parameters()}
    assert kept["weight_decay"] == 0
    assert {names[id(p)].rsplit(".", 1)[-1] for p in decayed["params"]} == {"weight"}
    assert not any("bn" in names[id(p)] for p in decayed["params"])
    assert len(decayed["params"]) + len(kept["params"]) == len(names)
