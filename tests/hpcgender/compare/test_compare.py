from __future__ import annotations

import csv
import json
import shutil
from dataclasses import fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hpcgender.commands.compare import CompareConfig
from hpcgender.compare.charts import COSTS, against, chart_of, curves_of_runs
from hpcgender.compare.comparison import compare
from hpcgender.compare.rows import Row
from hpcgender.evaluate.results import read_evaluation
from hpcgender.evaluate.summary import against_baseline
from shard_tools.base.errors import UserError
from shard_tools.base.figures import new_figure
from shard_tools.base.text import percent
from tests.conftest import Run
from tests.hpcgender.compare.other_seeds import of_seed
from tests.hpcgender.report.browser import chromium

QUICK: dict[str, Any] = {"batch_size": 4, "rounds": 1}


def on_val(runs: Path, name: str) -> Path:
    (found,) = (runs / name / "evaluations").iterdir()
    return found


def rows_of(directory: Path) -> list[dict[str, str]]:
    with (directory / "predictions.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_scores_and_costs_of_two_runs(evaluated: Path, tmp_path: Path, run: Run) -> None:
    files = ("--csv", "rows.csv", "--picture", "all.png", "--html", "page.html")
    done = run(
        *("hpcgender", "compare", evaluated / "both", evaluated / "lean", "--batch-size", 4, "--rounds", 2, "--json"),
        *files,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    both, lean = found["runs"]
    assert (both["name"], lean["name"]) == ("both", "lean")
    for row in (both, lean):
        evaluation = read_evaluation(on_val(evaluated, row["name"]))
        assert evaluation.gender
        assert row["accuracy"] == evaluation.gender.accuracy.value
        assert row["accuracy_low"] == evaluation.gender.accuracy.low
        assert row["one_ms"] > 0 < row["batch_ms"]
        records = [json.loads(line) for line in (evaluated / row["name"] / "metrics.jsonl").read_text().splitlines()]
        assert row["training_seconds"] == pytest.approx(sum(record["seconds"] for record in records))
        assert row["epochs"] == 2
        assert row["gap"] == pytest.approx(records[1]["train"]["accuracy"] - records[1]["val"]["accuracy"])
    # SE layers and the age head are all that `both` has more; its stem works on a quarter of the pixels.
    assert both["parameters"] > lean["parameters"] > 11e6
    assert both["macs"] != lean["macs"]
    assert both["age_mae"] > 0
    assert lean["age_mae"] is None
    assert found["data"]["split"] == "val"
    (pair,) = found["pairs"]
    right = [
        [row["prediction"] == row["label"] for row in rows_of(on_val(evaluated, name))] for name in ("both", "lean")
    ]
    only = [sum(a and not b for a, b in zip(*order, strict=True)) for order in (right, right[::-1])]
    assert [pair["mcnemar"]["only_first"], pair["mcnemar"]["only_second"]] == only
    assert pair["accuracy"]["value"] == pytest.approx(both["accuracy"] - lean["accuracy"])
    assert pair["age_mae"] is None
    with (tmp_path / "rows.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["accuracy"]) for row in rows] == [both["accuracy"], lean["accuracy"]]
    assert rows[1]["age_mae"] == ""
    with Image.open(tmp_path / "all.png") as picture:
        assert picture.width > 2000
    assert sorted(path.name for path in tmp_path.iterdir()) == ["all.png", "page.html", "rows.csv"]


def test_tables_fit_a_log(evaluated: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compare(CompareConfig(evaluated=(evaluated / "both", on_val(evaluated, "lean")), **QUICK))
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines()[4:])) <= 110
    assert "\x1b" not in shown
    for title in ("scores", "cost of a forward pass", "cost of training", "differences"):
        assert f"\n{title}\n" in shown
    assert "both - lean" in shown
    for name in ("both", "lean"):
        gender = read_evaluation(on_val(evaluated, name)).gender
        assert gender
        assert gender.baseline
        assert (
            f"{name} is {against_baseline(gender)}; that baseline has {percent(gender.baseline.accuracy, 2)}." in shown
        )


def test_runs_that_differ_by_their_seed_are_compared_as_models(
    evaluated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = [
        of_seed(shutil.copytree(on_val(evaluated, name), tmp_path / f"{name}-{seed}"), seed, Path(f"/no/{name}-{seed}"))
        for name in ("both", "lean")
        for seed in (0, 1)
    ]
    page = tmp_path / "page.html"
    compare(CompareConfig(evaluated=tuple(found), html=page, **QUICK))
    shown = capsys.readouterr().out
    tables, _ = shown.rsplit("\n\n", 1)
    assert max(map(len, tables.splitlines()[6:])) <= 110
    assert "\nmodels over their seeds\n" in shown
    assert "only 1st right" not in shown
    assert "both - lean" in shown
    assert "Runs that differ by their seed alone are one model." in page.read_text()
    compare(CompareConfig(evaluated=tuple(found), json=True, **QUICK))
    content = json.loads(capsys.readouterr().out)
    assert [(model["name"], model["seeds"]) for model in content["models"]] == [("both", [0, 1]), ("lean", [0, 1])]
    gender = read_evaluation(found[0]).gender
    assert gender
    assert content["models"][0]["accuracy"]["mean"]["value"] == pytest.approx(gender.accuracy.value)
    assert content["models"][0]["accuracy"]["deviation"] == 0
    assert content["pairs"][0]["same_seeds"]
    # All seeds of one model: no pair is left to compare.
    compare(CompareConfig(evaluated=tuple(found[:2]), html=page, **QUICK))
    shown = capsys.readouterr().out
    assert "models over their seeds" in shown
    assert "differences" not in shown


def test_the_page_in_a_browser(evaluated: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    compare(CompareConfig(evaluated=(evaluated / "both", evaluated / "lean"), html=page, **QUICK))
    text = page.read_text()
    assert "://" not in text
    assert "<script" not in text
    with chromium(tmp_path / "profile") as browser:
        for width in (400, 1600):
            for scheme in ("light", "dark"):
                layout = browser.open(page, width, scheme)
                assert browser.complaints == []
                assert browser.asked == [page.as_uri()]
                assert layout["across"] <= 0
                assert layout["cut"] == []
                assert len(layout["charts"]) >= 7
                assert min(layout["charts"]) > 100
                assert "accuracy against latency" in layout["text"]
                assert "p (Holm)" not in layout["text"]  # two runs are one pair


def copy(evaluation: Path, out: Path, **data: Any) -> Path:
    """The evaluation with other facts about its data."""
    shutil.copytree(evaluation, out)
    content = json.loads((out / "evaluation.json").read_text())
    content["data"].update(data)
    (out / "evaluation.json").write_text(json.dumps(content))
    return out


@pytest.mark.parametrize(
    ("given", "options", "message"),
    [
        (["both"], {}, "compare needs two evaluated runs or more"),
        (["both", "nowhere"], {}, r"no directory .*nowhere: name a run"),
        (["both", "both"], {}, "is given twice"),
        (["both", "empty"], {}, r"no evaluation in .*empty: hpcgender evaluate --checkpoint"),
        (["both", "lean"], {"on": "mars-test"}, r"no evaluation mars-test in .*both: it has shards-val"),
        (["both", "other split"], {}, r"is of val and .* of test: compare evaluations of one split"),
        (["both", "other data"], {}, "are of different data"),
        (["both", "fewer"], {}, r"fewer has other images than .*: evaluate both again"),
        (["both", "torn"], {}, r"torn/predictions\.parquet is damaged"),
        (["both", "twice"], {}, "the runs have a and b: say which with --on"),
        (["both", "lean"], {"rounds": 0}, "--rounds 0 must be positive"),
        (["both", "lean"], {"html": Path("nowhere/page.html")}, "no directory nowhere to write page.html into"),
        (["both", "lean"], {"picture": Path("all.jpg")}, "all.jpg does not end in .png: name it all.png"),
    ],
)
def test_a_wrong_option_is_one_line(
    evaluated: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    given: list[str],
    options: dict[str, Any],
    message: str,
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    both = on_val(evaluated, "both")
    others = {"both": evaluated / "both", "lean": evaluated / "lean"}
    for name in given:
        place = tmp_path / name
        if name == "empty":
            place.mkdir()
        elif name == "other split":
            copy(both, place, split="test")
        elif name == "other data":
            copy(both, place, manifest="0" * 64)
        elif name == "fewer":
            copy(both, place)
            shutil.copy(fewer_rows(both, tmp_path), place / "predictions.parquet")
        elif name == "torn":
            copy(both, place)
            (place / "predictions.parquet").write_bytes((both / "predictions.parquet").read_bytes()[:300])
        elif name == "twice":
            others["both"] = tmp_path / "once more"
            for run_dir in (place, others["both"]):
                for each in "ab":
                    copy(both, run_dir / "evaluations" / each)
        others.setdefault(name, place)
    with pytest.raises(UserError, match=message) as error:
        compare(CompareConfig(**{"evaluated": tuple(others[name] for name in given), **QUICK, **options}))
    assert "\n" not in str(error.value)
    assert list(work.iterdir()) == []


def fewer_rows(evaluation: Path, out: Path) -> Path:
    from pyarrow import parquet

    table = parquet.read_table(evaluation / "predictions.parquet")
    parquet.write_table(table.slice(1), out / "fewer.parquet")
    return out / "fewer.parquet"


def test_curves_of_training_and_validation_are_in_one_picture_with_the_gap() -> None:
    figure, axes = new_figure()
    first = [(1, 0.7), (2, 0.8), (3, 0.95)], [(1, 0.72), (2, 0.78), (3, 0.8)]
    second: tuple[list[tuple[int, float]], list[tuple[int, float]]] = [(1, 0.6), (2, 0.65)], []  # without validation
    curves_of_runs(axes, [first, second], "accuracy")
    points = [np.asarray(line.get_xydata()).tolist() for line in axes.lines]
    assert points == [[list(point) for point in curve] for curve in (*first, second[0])]
    train, val, other = axes.lines
    assert train.get_color() == val.get_color() != other.get_color()
    assert (train.get_marker(), val.get_marker()) == ("", "o")
    assert [text.get_text() for text in axes.texts] == ["+15.0"]
    assert len(axes.collections) == 1  # what is shaded between the two
    assert figure.axes == [axes]


def test_the_numbers_of_a_cost_do_not_run_into_each_other() -> None:
    """Two models of 0.0163 and 0.0365 billion operations, both right on four of five images."""
    kinds: dict[str, Any] = {"str": "a", "int": 1, "float": 0.8}
    row = Row(**{field.name: kinds[str(field.type)] for field in fields(Row)})
    rows = [replace(row, macs=16_300_000), replace(row, macs=36_500_000)]
    cost = next(cost for cost in COSTS if cost.label.startswith("multiply"))
    figure = chart_of(lambda axes: against(axes, rows, cost))
    figure.draw_without_rendering()
    (axes,) = figure.axes
    low, high = axes.get_xlim()
    labels = [label for label in axes.get_xticklabels() if low <= label.get_position()[0] <= high]
    boxes = [label.get_window_extent() for label in labels]
    assert len(boxes) > 2
    assert all(left.x1 + 10 < right.x0 for left, right in pairwise(boxes))
