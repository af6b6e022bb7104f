from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hpcgender.commands.compare import CompareConfig
from hpcgender.commands.matrix import MatrixConfig
from hpcgender.commands.report import ReportConfig
from hpcgender.compare.comparison import compare
from hpcgender.evaluate.calibration import calibration, excesses, fit_temperature
from hpcgender.evaluate.gender import equal_error, roc_curve
from hpcgender.evaluate.predictions import Floats, Mask, read_predictions, sigmoid, write_predictions
from hpcgender.evaluate.results import read_evaluation
from hpcgender.matrix.cells import calibration_error
from hpcgender.matrix.command import matrix
from hpcgender.report.page import report
from shard_tools.base.errors import UserError
from tests.hpcgender.compare.other_seeds import of_seed
from tests.hpcgender.report.browser import chromium


def add_set(run: Path, name: str, *, images: int | None = 0, **data: Any) -> Path:
    """Adds an evaluation to a run: that of its validation images, as if they were another set of that name."""
    (val,) = (run / "evaluations").glob("*-val")
    out = run / "evaluations" / f"{name}-test"
    shutil.copytree(val, out)
    change(out, path=f"/data/{name}", split="test", manifest=name.ljust(64, "0"), **data)
    content = json.loads((out / "evaluation.json").read_text())
    content["data"]["trained_on"].update(images=images, why="" if images is not None else "it is gone")
    (out / "evaluation.json").write_text(json.dumps(content))
    return out


def change(evaluation: Path, **data: Any) -> None:
    content = json.loads((evaluation / "evaluation.json").read_text())
    content["data"].update(data)
    (evaluation / "evaluation.json").write_text(json.dumps(content))


@pytest.fixture
def runs(evaluated: Path, tmp_path: Path) -> Path:
    """Two seeds of one run, evaluated on mars and venus, and one of another, on mars."""
    found = tmp_path / "runs"
    for name, source, seed in (("both-0", "both", 0), ("both-1", "both", 1), ("lean", "lean", 2)):
        shutil.copytree(evaluated / source, found / name)
        add_set(found / name, "mars", images=3 if name == "lean" else 0)
        if source == "both":
            add_set(found / name, "venus", images=None)
        for evaluation in (found / name / "evaluations").iterdir():
            of_seed(evaluation, seed, found / name)
    return found


def test_models_against_test_sets(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = {name: tmp_path / f"all.{name}" for name in ("csv", "picture", "html")}
    out["picture"] = tmp_path / "all.png"
    paths = tuple(sorted(runs.iterdir()))
    matrix(MatrixConfig(evaluated=paths, csv=out["csv"], picture=out["picture"], html=out["html"], json=True))
    content = json.loads(capsys.readouterr().out)
    assert content["models"] == ["both", "lean"]
    assert [one["name"] for one in content["test_sets"]] == ["mars, test", "venus, test"]
    cells = {(cell["model"], cell["test_set"]): cell for cell in content["cells"]}
    assert set(cells) == {("both", "mars, test"), ("both", "venus, test"), ("lean", "mars, test")}

    # Threshold and temperature are those of the validation images, which here are the same ones.
    lean = cells["lean", "mars, test"]
    (val,) = (runs / "lean" / "evaluations").glob("*-val")
    predictions = read_predictions(val)
    predictions = predictions.rows(predictions.gender_known)
    gender = read_evaluation(val).gender
    assert gender
    assert gender.equal_error
    assert lean["accuracy"]["value"] == pytest.approx(gender.equal_error.accuracy)
    male = predictions.label == 1
    temperature = fit_temperature(predictions.logit, male) or 1.0
    error = lean["calibration_error"]
    assert error["value"] == pytest.approx(calibration(predictions.logit / temperature, male).ece)
    assert 0 <= error["low"] < error["value"] < error["high"]
    recalls = [np.mean((predictions.logit > gender.equal_error.threshold)[male == of] == of) for of in (True, False)]
    assert lean["balanced_accuracy"]["value"] == pytest.approx(np.mean(recalls))
    assert (lean["runs"], lean["validated"], lean["trained_on"]) == (1, True, 3)
    # Both seeds of the other predict the same: their mean is that of one.
    both = cells["both", "venus, test"]
    assert (both["runs"], both["trained_on"]) == (2, None)
    assert both["accuracy"]["method"] == "seeds"

    with out["csv"].open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["accuracy"]) for row in rows] == [cell["accuracy"]["value"] for cell in content["cells"]]
    with Image.open(out["picture"]) as picture:
        assert picture.width > 300
    assert "Of several seeds: the mean" in out["html"].read_text()


def test_marks_say_what_flatters_and_what_is_not_known(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for val in (runs / "lean" / "evaluations").glob("*-val"):
        shutil.rmtree(val)
    path = runs / "lean" / "evaluations" / "mars-test" / "evaluation.json"
    content = json.loads(path.read_text())
    content["checkpoint"]["val_manifest"] = content["data"]["manifest"]
    content["checkpoint"]["options"]["val_split"] = "test"
    path.write_text(json.dumps(content))
    matrix(MatrixConfig(evaluated=tuple(sorted(runs.iterdir()))))
    shown = capsys.readouterr().out
    lean, both = (
        next(line for line in shown.splitlines() if line.strip().startswith(name)) for name in ("lean", "both")
    )
    assert lean.count("*!~") == 1
    assert both.rstrip().endswith("?")
    for line in (
        "* Images of this set lie",
        "? Whether images of this set",
        "! The best epoch was chosen on this set",
        "~ The model has none",
    ):
        assert line in shown
    gender = read_evaluation(runs / "lean" / "evaluations" / "mars-test").gender
    assert gender
    assert f"{gender.accuracy.value * 100:.1f} %" in lean


def test_runs_of_studies_have_their_names(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for study, members in (("light", ["both-0", "both-1"]), ("strong", ["lean"])):
        (runs / study).mkdir()
        (runs / study / "study.toml").touch()
        for seed, member in enumerate(members):
            moved = Path(shutil.move(runs / member, runs / study / f"seed{seed}"))
            for evaluation in (moved / "evaluations").iterdir():
                of_seed(evaluation, seed if study == "light" else 2, moved)
    shutil.copytree(runs / "strong" / "seed0", runs / "strong" / "seed1")
    for evaluation in (runs / "strong" / "seed1" / "evaluations").iterdir():
        of_seed(evaluation, 3, runs / "strong" / "seed1")
    matrix(MatrixConfig(evaluated=(runs / "light", runs / "strong"), json=True))
    assert json.loads(capsys.readouterr().out)["models"] == ["light", "strong"]
    compare(CompareConfig(evaluated=(runs / "light", runs / "strong"), on="mars-test", json=True))
    compared = json.loads(capsys.readouterr().out)
    assert [model["name"] for model in compared["models"]] == ["light", "strong"]
    assert compared["models"][0]["runs"] == ["light/seed0", "light/seed1"]


def with_options(run: Path, val_manifest: str, **options: Any) -> None:
    """Makes all evaluations of a run those of one that was validated so."""
    for file in (run / "evaluations").glob("*/evaluation.json"):
        content = json.loads(file.read_text())
        content["checkpoint"]["val_manifest"] = val_manifest
        content["checkpoint"]["options"].update(options)
        file.write_text(json.dumps(content))


def shifted(evaluation: Path, by: float) -> None:
    """Adds a number to all log-odds of an evaluation."""
    held = read_predictions(evaluation)
    write_predictions(evaluation, replace(held, logit=held.logit + np.float32(by)))


def cells_of(runs: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, Any]]:
    """The cells of the run `lean` by their test sets."""
    matrix(MatrixConfig(evaluated=(runs / "lean",), json=True))
    return {cell["test_set"]: cell for cell in json.loads(capsys.readouterr().out)["cells"]}


def test_the_threshold_is_that_of_what_the_run_was_validated_on(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On another data set with --val-data, on another split with --val-split, and on all data sets of a mixture."""
    run = runs / "lean"
    (val,) = (run / "evaluations").glob("*-val")
    before = cells_of(runs, capsys)["mars, test"]
    venus = add_set(run, "venus")
    shifted(venus, 100)  # all are male, unless the threshold is that of these images
    shifted(run / "evaluations" / "mars-test", 100)
    change(venus, split="val")
    with_options(run, "venus".ljust(64, "0"))
    found = cells_of(runs, capsys)
    assert set(found) == {"mars, test", f"{read_evaluation(val).data.path.rpartition('/')[2]}, val"}
    assert found["mars, test"]["accuracy"]["value"] == pytest.approx(before["accuracy"]["value"])

    change(venus, split="train")
    with_options(run, "venus".ljust(64, "0"), val_split="train")
    found = cells_of(runs, capsys)
    assert found["mars, test"]["accuracy"]["value"] == pytest.approx(before["accuracy"]["value"])
    assert (found["venus, train"]["chose_epoch"], found["venus, train"]["validated"]) == (True, False)


def test_of_a_mixture_all_validation_images_decide(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = runs / "lean"
    (val,) = (run / "evaluations").glob("*-val")
    venus = add_set(run, "venus")
    shifted(venus, 3)
    change(venus, split="val")
    for file in (run / "evaluations").glob("*/evaluation.json"):
        content = json.loads(file.read_text())
        content["checkpoint"]["manifest"] = f"{read_evaluation(val).data.manifest}=1,{'venus'.ljust(64, '0')}=1"
        file.write_text(json.dumps(content))
    (cell,) = cells_of(runs, capsys).values()
    predictions = [one.rows(one.gender_known) for one in (read_predictions(val), read_predictions(venus))]
    logit = np.concatenate([one.logit for one in predictions])
    male = np.concatenate([one.label for one in predictions]) == 1
    threshold = equal_error(logit, male, *roc_curve(logit, male)).threshold
    expected = np.mean((predictions[0].logit > threshold) == (predictions[0].label == 1))  # mars is as val
    assert cell["accuracy"]["value"] == pytest.approx(expected)


def test_where_no_temperature_fits_a_mark_says_so(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = runs / "lean"
    (val,) = (run / "evaluations").glob("*-val")
    held = read_predictions(val)
    write_predictions(val, replace(held, logit=np.where(held.label == 1, 2, -2).astype(np.float32)))
    (cell,) = cells_of(runs, capsys).values()
    assert (cell["validated"], cell["calibrated"]) == (True, False)
    matrix(MatrixConfig(evaluated=(run,)))
    shown = capsys.readouterr().out
    low, value, high = (100 * cell["calibration_error"][name] for name in ("low", "value", "high"))
    assert f"{value:.1f} % ({low:.1f} to {high:.1f})#" in shown
    assert "# No temperature fits" in shown


def test_the_report_has_the_matrix_and_a_browser_shows_it(runs: Path, tmp_path: Path) -> None:
    page = tmp_path / "matrix.html"
    matrix(MatrixConfig(evaluated=tuple(sorted(runs.iterdir())), html=page))
    whole = tmp_path / "report.html"
    report(ReportConfig(inputs=tuple(sorted(runs.iterdir())), out=whole))
    assert "models against test sets" in whole.read_text()
    with chromium(tmp_path / "profile") as browser:
        for width in (400, 1600):
            for scheme in ("light", "dark"):
                layout = browser.open(page, width, scheme)
                assert browser.complaints == []
                assert browser.asked == [page.as_uri()]
                assert layout["across"] <= 0
                assert layout["cut"] == []
                assert len(layout["charts"]) == 1
                assert "models against test sets" in layout["text"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "no run to show: hpcgender matrix runs/a runs/b"),
        (["nowhere"], "no directory .*nowhere: name a run"),
        (["both"], "none of these has an evaluation of gender on a test set"),
    ],
)
def test_a_wrong_argument_is_one_line(evaluated: Path, given: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        matrix(MatrixConfig(evaluated=tuple(evaluated / name for name in given)))


def too_sure(generator: np.random.Generator, runs: int, images: int) -> tuple[Floats, Mask]:
    """Log-odds (runs, images) that are about twice the true ones, by each run in its own degree, and who is male."""
    true = generator.normal(0, 2, images)
    return generator.normal(2, 0.2, (runs, 1)) * true, generator.random(images) < sigmoid(true)


def test_intervals_of_the_calibration_error_hold_the_truth() -> None:
    generator = np.random.default_rng(1)
    many = [too_sure(generator, 1, 100_000) for _ in range(50)]
    truth = np.mean([calibration(logit[0], male).ece for logit, male in many])
    held = 0
    for _ in range(300):
        logit, male = too_sure(generator, 3, 1000)
        off = np.array([excesses(one, male) for one in logit])
        found = calibration_error(off, np.arange(1000))
        assert found.value == pytest.approx(np.mean([calibration(one, male).ece for one in logit]))
        held += bool(found.low <= truth <= found.high)
    assert 0.93 <= held / 300 <= 0.99
