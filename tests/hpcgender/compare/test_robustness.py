"""Two models on the same corrupted images: mean corruption error, paired differences, and the report of one."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hpcgender.commands.compare import CompareConfig
from hpcgender.commands.evaluate import EvaluateConfig
from hpcgender.commands.report import ReportConfig
from hpcgender.compare.comparison import compare
from hpcgender.compare.robustness import robust_run
from hpcgender.evaluate.evaluation import evaluate
from hpcgender.evaluate.predictions import Floats, Mask, read_predictions
from hpcgender.evaluate.resample import Integers
from hpcgender.evaluate.results import Score
from hpcgender.report.page import report
from hpcgender.robustness.corrupted import read_corrupted
from hpcgender.robustness.results import find_robustness
from shard_tools.base.text import percent
from tests.hpcgender.report.browser import chromium

NAMES = ("gaussian-noise", "contrast")


@pytest.fixture(scope="module")
def corrupted(evaluated: Path, shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Evaluations of both runs on corrupted images, of which they have two corruptions in common."""
    out = tmp_path_factory.mktemp("corrupted")
    for name, corruptions in (("both", (*NAMES, "grey")), ("lean", NAMES)):
        checkpoint = evaluated / name / "checkpoints" / "best.pt"
        where: dict[str, Any] = {"checkpoint": checkpoint, "data": shards, "split": "val", "out": out / name}
        evaluate(EvaluateConfig(**where, backend="torchvision", corrupt=corruptions))
    return out


def right_of(directory: Path) -> tuple[Mask, Floats]:
    """Whether a model is right about each image, and about each with each corruption, the mean of severities."""
    clean, found = read_predictions(directory), read_corrupted(directory, NAMES)
    male = clean.label == 1
    columns = [((found[name].logit > 0) == male[:, None]).mean(1) for name in NAMES]
    return (clean.logit > 0) == male, np.column_stack(columns)


def test_errors_and_differences_are_relative_to_the_first(
    corrupted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = (corrupted / "both", corrupted / "lean")
    compare(CompareConfig(evaluated=paths, batch_size=4, rounds=1, json=True, html=tmp_path / "page.html"))
    found = json.loads(capsys.readouterr().out)
    first, second = found["robustness"]
    (clean, right), (other_clean, other) = (right_of(path) for path in paths)
    assert list(first["by_corruption"].values()) == pytest.approx(right.mean(0).tolist())
    assert second["accuracy"] == pytest.approx(other.mean())
    assert second["clean"] == pytest.approx(other_clean.mean())
    assert second["lost"]["value"] == pytest.approx(other_clean.mean() - other.mean())
    assert first["mean_corruption_error"]["value"] == 1
    error = ((1 - other).sum(0) / (1 - right).sum(0)).mean()
    assert second["mean_corruption_error"]["value"] == pytest.approx(error)
    assert second["mean_corruption_error"]["low"] <= error <= second["mean_corruption_error"]["high"]
    assert second["more"]["value"] == pytest.approx(other.mean() - right.mean(), abs=1e-9)
    lost = (other_clean.mean() - other.mean()) - (clean.mean() - right.mean())
    assert second["more_lost"]["value"] == pytest.approx(lost, abs=1e-9)
    assert [*second["more_by_corruption"]] == [*NAMES]
    (line,) = (line for line in found["verdicts"] if "corrupted images" in line)
    decided = second["more"]["low"] > 0 or second["more"]["high"] < 0
    assert line.startswith("On corrupted images " if decided else "Whether both or lean is more accurate on corrupted")
    page = (tmp_path / "page.html").read_text()
    assert "accuracy of corrupted images" in page
    assert "accuracy by corruption, mean of the severities" in page
    compare(CompareConfig(evaluated=paths, batch_size=4, rounds=1))
    shown = capsys.readouterr().out
    assert re.search(rf"\ngaussian-noise +{percent(first['by_corruption']['gaussian-noise'])} ", shown)
    assert "\nboth " in shown.partition("accuracy of corrupted images")[2]


def test_intervals_are_those_of_a_plain_bootstrap_of_subjects() -> None:
    draw = np.random.default_rng(0)
    clusters = np.sort(draw.integers(0, 80, 400))
    hard = draw.random(80)[clusters]
    first, second = ((draw.random((400, 3)) < hard[:, None] * 0.6).astype(np.float64) for _ in range(2))
    second[:, 1:] *= draw.random((400, 2)) < 0.7
    found = robust_run("second", NAMES, second, first, clusters)
    drawn = [np.concatenate([np.flatnonzero(clusters == c) for c in draw.integers(0, 80, 80)]) for _ in range(2000)]
    values: tuple[tuple[Score, Callable[[Integers], float]], ...] = (
        (found.mean_corruption_error, lambda of: (second[of, 1:].sum(0) / first[of, 1:].sum(0)).mean()),
        (found.more, lambda of: first[of, 1:].mean() - second[of, 1:].mean()),
        (found.lost, lambda of: second[of, 1:].mean() - second[of, 0].mean()),
    )
    for score, value in values:
        low, high = np.quantile([value(of) for of in drawn], (0.025, 0.975))
        assert score.value == pytest.approx(value(np.arange(400)))
        assert (score.low, score.high) == pytest.approx((low, high), abs=0.12 * (high - low))
    assert found.more.low > 0


def test_without_corrupted_images_of_all_there_is_no_such_table(
    evaluated: Path, corrupted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (plain,) = (evaluated / "lean" / "evaluations").iterdir()
    compare(CompareConfig(evaluated=(corrupted / "both", plain), batch_size=4, rounds=1))
    assert "corrupted" not in capsys.readouterr().out.replace(str(corrupted), "")


@pytest.fixture(scope="module")
def page(corrupted: Path) -> Path:
    """The report of one."""
    out = corrupted / "page.html"
    report(ReportConfig(inputs=(corrupted / "both",), out=out))
    return out


def test_the_report_has_a_section(corrupted: Path, page: Path) -> None:
    text = re.sub(r"<svg.*?</svg>|<[^>]+>", " ", page.read_text(), flags=re.DOTALL)
    found = find_robustness(corrupted / "both")
    assert found
    assert "accuracy of corrupted images, %, by severity" in text
    assert "age MAE of corrupted images, years, by severity" in text
    for one in found.corruptions:
        assert f"{100 * one.severities[4].scores.accuracy:.1f}" in text
        assert f"{one.name}, by severity" in text


def test_a_browser_shows_it(page: Path, tmp_path: Path) -> None:
    with chromium(tmp_path / "profile") as browser:
        layout = browser.open(page, 400, "dark")
        assert browser.complaints == []
        assert layout["across"] <= 0
        assert layout["cut"] == []
