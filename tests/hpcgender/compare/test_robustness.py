"""Two models on the same corrupted images: mean corruption error, paired differences, and the report of one."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hpcgender.commands.compare import CompareConfig
from hpcgender.commands.evaluate import EvaluateConfig
from hpcgender.commands.report import ReportConfig
from hpcgender.compare.comparison import compare
from hpcgender.compare.robustness import Between, RobustModel, corrected, corruption_error, robust_model
from hpcgender.compare.robustness_tables import robustness_tables, robustness_verdicts
from hpcgender.evaluate.evaluation import evaluate
from hpcgender.evaluate.predictions import Floats, Mask, read_predictions
from hpcgender.evaluate.resample import Integers
from hpcgender.evaluate.results import Score
from hpcgender.report.page import report
from hpcgender.robustness.corrupted import read_corrupted
from hpcgender.robustness.results import find_robustness
from shard_tools.base.text import percent
from tests.hpcgender.compare.other_seeds import of_seed
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
    clean = read_predictions(directory)
    found = read_corrupted(directory, NAMES, clean.key)
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


def model(name: str, wrong: Floats, first: Floats, clusters: Integers, *, seeds: bool = False) -> RobustModel:
    """A model by how wrong its runs are, (runs, n, 3)."""
    runs = tuple(f"{name}-{seed}" for seed in range(len(wrong)))
    return robust_model(name, runs, NAMES, wrong, first, Between(clusters=clusters, over_seeds=seeds, same_seeds=False))


def test_intervals_are_those_of_a_plain_bootstrap_of_subjects() -> None:
    draw = np.random.default_rng(0)
    clusters = np.sort(draw.integers(0, 80, 400))
    hard = draw.random(80)[clusters]
    first, second = ((draw.random((400, 3)) < hard[:, None] * 0.6).astype(np.float64) for _ in range(2))
    second[:, 1:] *= draw.random((400, 2)) < 0.7
    found = model("second", second[None], first[None], clusters)
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


def test_runs_that_differ_by_their_seed_are_one_model(
    corrupted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = [
        of_seed(shutil.copytree(corrupted / name, tmp_path / f"{name}-{seed}"), seed, Path(f"/no/{name}-{seed}"))
        for name in ("both", "lean")
        for seed in (0, 1)
    ]
    compare(CompareConfig(evaluated=tuple(found), batch_size=4, rounds=1, json=True))
    content = json.loads(capsys.readouterr().out)
    first, second = content["robustness"]
    assert (first["name"], first["runs"]) == ("both", ["both-0", "both-1"])
    assert second["name"] == "lean"
    (_, right), (_, other) = (right_of(corrupted / name) for name in ("both", "lean"))
    assert second["more"]["value"] == pytest.approx(other.mean() - right.mean(), abs=1e-9)
    assert second["more"]["method"] == "seeds"
    assert len([line for line in content["verdicts"] if "corrupted images" in line]) == 1
    compare(CompareConfig(evaluated=tuple(found), batch_size=4, rounds=1))
    shown = capsys.readouterr().out
    assert "accuracy of corrupted images, means over seeds" in shown


def test_seeds_that_differ_leave_more_to_chance_than_images_alone() -> None:
    draw = np.random.default_rng(0)
    clusters = np.arange(2000)
    first, second = (
        np.stack([draw.random((2000, 3)) < part for part in parts]).astype(np.float64)
        for parts in ((0.20, 0.28, 0.36), (0.14, 0.22, 0.30))
    )
    alone = model("second", second[:1], first[:1], clusters)
    over = model("second", second, first, clusters, seeds=True)
    assert alone.more.low > 0
    assert over.more.value == pytest.approx(0.06, abs=0.01)
    assert over.more.low < 0 < over.more.high
    assert over.p > 0.05 > alone.p
    own = model("first", first, first, clusters, seeds=True)
    (line,) = robustness_verdicts(corrected([own, over]))
    assert line == "Whether first or second is more accurate on corrupted images is unclear."
    table = robustness_tables([own, over])["robustness"]
    assert table.columns[4] == "mCE, % (95 %)"
    assert "(" not in table.rows[1][4]  # no interval over seeds


def test_several_equal_models_are_rarely_called_better() -> None:
    """Six that are as good as the first: by its own interval one of them often differs, by Holm's p rarely."""
    draw = np.random.default_rng(0)
    clusters = np.arange(200)
    by_interval, told, trials = 0, 0, 40
    for _ in range(trials):
        wrong = (draw.random((7, 200, 3)) < 0.3).astype(np.float64)
        models = corrected([model(f"m{n}", one[None], wrong[:1], clusters) for n, one in enumerate(wrong)])
        by_interval += any(one.more.low > 0 or one.more.high < 0 for one in models[1:])
        told += any(line.startswith("On corrupted images ") for line in robustness_verdicts(models))
    assert by_interval / trials > 0.18
    assert told / trials < 0.14


def test_without_errors_of_the_first_model_in_some_draws_the_quotient_has_no_interval() -> None:
    first, second = np.zeros((100, 2)), np.zeros((100, 2))
    first[:10] = second[:20] = 1
    clusters = np.arange(100)
    assert corruption_error(second, first, clusters).low > 1
    first[1:] = 0  # a third of the draws are without this image
    found = corruption_error(second, first, clusters)
    assert found.value == 20
    assert np.isnan([found.low, found.high]).all()


def test_what_is_not_compared_is_said(
    evaluated: Path, corrupted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (plain,) = (evaluated / "lean" / "evaluations").iterdir()
    compare(CompareConfig(evaluated=(corrupted / "both", plain), batch_size=4, rounds=1))
    shown = capsys.readouterr().out
    assert "\nCorrupted images are not compared: evaluate lean with --corrupt, too.\n" in shown
    assert "accuracy of corrupted images" not in shown
    (other,) = (evaluated / "both" / "evaluations").iterdir()
    compare(CompareConfig(evaluated=(plain, other), batch_size=4, rounds=1))
    assert "orrupted images" not in capsys.readouterr().out
    larger = shutil.copytree(corrupted / "lean", tmp_path / "larger")
    file = larger / "evaluation.json"
    content = json.loads(file.read_text())
    size = content["checkpoint"]["image_size"]
    content["checkpoint"]["image_size"] = 2 * size
    file.write_text(json.dumps(content))
    compare(CompareConfig(evaluated=(corrupted / "both", larger), batch_size=4, rounds=1, json=True))
    found = json.loads(capsys.readouterr().out)
    assert [*found["robustness"][1]["by_corruption"]] == ["contrast"]
    assert (
        "Corrupted images are compared without gaussian-noise: these are of single pixels, and inputs have "
        f"{size} and {2 * size} px." in found["verdicts"]
    )
    file = larger / "robustness.json"
    file.write_text(file.read_text().replace('"strength": 0.6', '"strength": 0.7'))
    compare(CompareConfig(evaluated=(corrupted / "both", larger), batch_size=4, rounds=1, json=True))
    found = json.loads(capsys.readouterr().out)
    assert found["robustness"] == []
    assert "Corrupted images are not compared: no corruption is common to all." in found["verdicts"]


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
