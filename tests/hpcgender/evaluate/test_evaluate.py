"""The command on drawn faces: the same bytes from any number of processes, and what it does with all kinds of data."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from hpcgender.checkpoint import load_trained
from hpcgender.commands.predict import PredictConfig
from hpcgender.data.config import ReadConfig
from hpcgender.data.evaluation import EvaluationLoader
from hpcgender.distributed import Ranks
from hpcgender.evaluate.predictions import read_predictions
from hpcgender.evaluate.table import read_columns
from hpcgender.inference.config import WantedPrecision
from hpcgender.predict.command import predict
from shard_tools.base.errors import UserError
from shard_tools.manifest import read_manifest
from tests.conftest import Run
from tests.hpcgender.evaluate.evaluating import changed, damaged, evaluated, rows_of
from tests.hpcgender.evaluate.examples import save_model

FILES = ("predictions.csv", "predictions.parquet", "errors.csv", "errors.png")


def test_any_number_of_processes_and_threads_gives_the_same_bytes(
    run: Run, shards: Path, skilled: Path, tmp_path: Path
) -> None:
    broken = damaged(shards, tmp_path / "data", "val", 7)
    count = read_manifest(shards).split("val").samples
    data = ("--data", tmp_path / "data", "--split", "val", "--batch-size", 8, "--max-bad", 0.2)
    options = ("--checkpoint", skilled, *data, "--flip", "--errors", "--temperature-from", "test")
    numbers = []
    for nodes, threads in ((1, 2), (2, 1), (3, 1)):
        out = tmp_path / str(nodes)
        launch = ("hpcgender.launch", "--nodes", nodes, "--", "evaluate")
        done = run(*launch, *options, "--out", out, OMP_NUM_THREADS=str(threads))
        assert done.returncode == 0, done.stderr
        assert f"1 of {count} images failed to decode" in done.stdout
        for name in FILES:
            assert (out / name).read_bytes() == (tmp_path / "1" / name).read_bytes(), name
        numbers.append(json.loads((out / "evaluation.json").read_text(), parse_constant=pytest.fail))
        assert numbers[-1].pop("run")["world_size"] == nodes
    assert numbers[1] == numbers[0] == numbers[2]
    assert numbers[0]["gender"]["temperature"]["fitted_on"] == "test"
    assert [row["key"] for row in rows_of(tmp_path / "1" / "predictions.csv") if not row["logit"]] == [broken]
    assert (numbers[0]["data"]["images"], numbers[0]["data"]["left_out"]) == (count, 1)


def test_each_image_has_the_row_of_its_prediction(shards: Path, checkpoint: Path, tmp_path: Path) -> None:
    plain, flipped = (evaluated(shards, checkpoint, tmp_path / str(flip), flip=flip) for flip in (False, True))
    assert (plain.options.flip, flipped.options.flip) == (False, True)
    manifest = read_manifest(shards)
    index = manifest.index("test")
    cpu = torch.device("cpu")
    trained = load_trained(checkpoint, cpu)
    loader = EvaluationLoader(
        ReadConfig(data=shards), manifest, "test", batch_size=4, image_size=32, ranks=Ranks(0, 1, cpu)
    )
    expected: dict[str, tuple[list[float], list[float]]] = {}
    with closing(loader), torch.inference_mode():
        for batch in loader.epoch(0):
            there, mirrored = (trained.model(images) for images in (batch.images, batch.images.flip(3)))
            for place, sample in enumerate(batch.samples.tolist()):
                key = index[sample]["key"].decode()
                both = [
                    torch.stack([outputs.gender[place, 1] - outputs.gender[place, 0], outputs.age[place]])
                    for outputs in (there, mirrored)
                ]
                expected[key] = (both[0].tolist(), ((both[0] + both[1]) / 2).tolist())
    for place, name in enumerate(("False", "True")):
        found = read_predictions(tmp_path / name)
        assert found.key.tolist() == sorted(expected)
        values = np.column_stack([found.logit, found.age_prediction])
        np.testing.assert_allclose(values, [expected[key][place] for key in found.key], rtol=1e-4, atol=1e-5)
    rows = rows_of(tmp_path / "False" / "predictions.csv")
    by_key = {row["key"].decode(): row for row in index}
    for row, probability in zip(rows, read_predictions(tmp_path / "False").probability, strict=True):
        labels = by_key[row["key"]]
        assert row["label"] == ("female", "male")[labels["gender"]]
        assert (float(row["age"]), row["subject"]) == (labels["age"], labels["subject"].decode())
        assert row["shard"] == manifest.split("test").shards[labels["shard"]].file
        assert row["prediction"] == ("male" if float(row["logit"]) > 0 else "female")
        assert float(row["probability"]) == pytest.approx(1 / (1 + np.exp(-float(row["logit"]))), rel=1e-6)
        assert float(row["probability"]) == pytest.approx(probability, rel=1e-6)


def test_the_mistakes_are_listed_with_the_most_confident_first(shards: Path, checkpoint: Path, tmp_path: Path) -> None:
    result = evaluated(shards, checkpoint, tmp_path, errors=True)
    rows = rows_of(tmp_path / "predictions.csv")
    wrong = [row for row in rows if row["label"] != row["prediction"]]
    listed = rows_of(tmp_path / "errors.csv")
    assert sorted(row["key"] for row in listed) == [row["key"] for row in wrong]
    sure = [abs(float(row["logit"])) for row in listed]
    assert sure == sorted(sure, reverse=True)
    assert result.gender
    assert result.gender.accuracy.value == pytest.approx(1 - len(wrong) / len(rows))
    with Image.open(tmp_path / "errors.png") as sheet:
        assert min(sheet.size) > 300


@pytest.mark.parametrize(
    ("gender_loss", "age_loss", "of_ages"),
    [("ce", "l1", F.l1_loss), ("bce", "mse", F.mse_loss), ("ce", "smooth_l1", F.smooth_l1_loss)],
)
def test_the_losses_are_those_of_torch_without_weights_and_smoothing(
    partly_labelled: Path, tmp_path: Path, gender_loss: str, age_loss: str, of_ages: Callable[..., torch.Tensor]
) -> None:
    run: dict[str, Any] = {"class_weights": (1.0, 3.0), "label_smoothing": 0.1 if gender_loss == "ce" else 0.0}
    path = save_model(tmp_path / "best.pt", model="compact", gender_loss=gender_loss, age_loss=age_loss, **run)
    found = evaluated(partly_labelled, path, tmp_path / "out", backend="torchvision")
    shown = read_predictions(tmp_path / "out")
    known, aged = shown.label >= 0, ~np.isnan(shown.age)
    assert 0 < known.sum() < len(shown)
    assert 0 < aged.sum() < len(shown)
    logit, label = torch.from_numpy(shown.logit[known]), torch.from_numpy(shown.label[known])
    if gender_loss == "bce":
        of_gender = F.binary_cross_entropy_with_logits(logit, label.float())
    else:
        of_gender = F.cross_entropy(torch.stack([torch.zeros_like(logit), logit], 1), label)
    years = of_ages(torch.from_numpy(shown.age_prediction[aged]), torch.from_numpy(shown.age[aged]).float())
    assert found.losses == pytest.approx({"gender": of_gender.item(), "age": years.item()}, rel=1e-5)


def test_the_precision_is_that_of_the_runs_validation(
    shards: Path, faces: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rounded = save_model(tmp_path / "best.pt", precision="bf16")
    of_run = evaluated(shards, rounded, tmp_path / "run")
    assert f"{of_run.run.images_per_s:.0f} img/s in bf16\n" in capsys.readouterr().out
    exact = evaluated(shards, rounded, tmp_path / "fp32", precision="fp32")
    assert (of_run.options.precision, exact.options.precision) == ("bf16", "fp32")
    assert evaluated(shards, checkpoint, tmp_path / "auto").options.precision == "fp32"
    in_bf16, in_fp32 = (read_predictions(tmp_path / name).logit for name in ("run", "fp32"))
    assert 0 < np.abs(in_bf16 - in_fp32).max() < 0.1 * np.abs(in_fp32).max()
    with pytest.raises(UserError, match="fp32 holds an evaluation with --precision fp32: give another --out, or remov"):
        evaluated(shards, rounded, tmp_path / "fp32")
    capsys.readouterr()
    image = next(faces.iterdir())
    wishes: tuple[tuple[WantedPrecision, str], ...] = (("run", "bf16"), ("fp32", "fp32"))
    for precision, used in wishes:
        predict(PredictConfig(images=(str(image),), checkpoint=rounded, precision=precision, json=True))
        assert json.loads(capsys.readouterr().out)[0]["precision"] == used


@pytest.mark.parametrize("task", ["gender", "age"])
def test_a_model_of_one_task_is_measured_by_it(
    shards: Path, tmp_path: Path, task: str, capsys: pytest.CaptureFixture[str]
) -> None:
    model = save_model(tmp_path / "best.pt", tasks=(task,))
    result = evaluated(shards, model, tmp_path / "out")
    assert (result.gender is None, result.age is None) == (task == "age", task == "gender")
    assert {table.measure for table in result.tables} == {"accuracy" if task == "gender" else "age_mae"}
    assert result.data.left_out == 0
    printed = capsys.readouterr().out
    assert ("accuracy" in printed, "age MAE" in printed) == (task == "gender", task == "age")
    if task == "age":
        for options in ({"errors": True}, {"temperature_from": "val"}):
            with pytest.raises(UserError, match=r"is about gender, and .* predicts age alone"):
                evaluated(shards, model, tmp_path / "other", **options)


def test_unknown_labels_count_for_nothing_and_are_counted(
    partly_labelled: Path, checkpoint: Path, tmp_path: Path
) -> None:
    result = evaluated(partly_labelled, checkpoint, tmp_path)
    assert result.gender
    assert result.age
    assert result.data.labelled == {"female": 10, "male": 10}
    assert (result.data.images, result.data.aged, result.data.subjects) == (30, 24, 15)
    assert (result.gender.images, result.age.images) == (20, 24)
    rows = [row for row in rows_of(tmp_path / "predictions.csv") if row["label"]]
    assert result.gender.accuracy.value == np.mean([row["label"] == row["prediction"] for row in rows])
    table = result.table("group")
    assert table
    assert (sum(group.images for group in table.groups) + table.unknown, table.unknown) == (20, 10)
    assert all(group.small for group in table.groups)
    assert table.gap is None


def test_a_split_of_one_class_and_one_without_labels(partly_labelled: Path, checkpoint: Path, tmp_path: Path) -> None:
    men = evaluated(partly_labelled, checkpoint, tmp_path / "men", split="train").gender
    assert men
    assert (men.roc, men.equal_error, men.classes[0].images) == ((), None, 0)
    assert np.isnan([men.roc_auc.value, men.d_prime.value, men.classes[0].recall.value, men.classes[0].f1.value]).all()
    assert men.balanced_accuracy.value == men.accuracy.value == men.classes[1].recall.value
    nothing = evaluated(partly_labelled, checkpoint, tmp_path / "val", split="val")
    assert (nothing.gender, nothing.age, nothing.tables) == (None, None, ())
    assert len(rows_of(tmp_path / "val" / "predictions.csv")) == 30


def test_scores_by_the_columns_of_a_table(
    shards: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = sorted(key.decode() for key in read_manifest(shards).index("test")["key"])
    lines = [f"{key},{'yes' if number % 2 else 'no'},{number % 3}" for number, key in enumerate(keys[:-2])]
    table = tmp_path / "table.csv"
    table.write_text("\n".join(["key,glasses,light", *lines, "nobody,no,2"]) + "\n")
    result = evaluated(shards, checkpoint, tmp_path / "out", table=table, by=("glasses",))
    assert f"not in {table}: 2 of {len(keys)} images\n" in capsys.readouterr().out
    rows = rows_of(tmp_path / "out" / "predictions.csv")
    assert [row["glasses"] for row in rows] == [*(line.split(",")[1] for line in lines), "", ""]
    assert result.table("light") is None
    found = result.table("glasses")
    assert found
    assert ([group.value for group in found.groups], found.unknown) == (["no", "yes"], 2)
    for group in found.groups:
        of_group = [row["label"] == row["prediction"] for row in rows if row["glasses"] == group.value]
        assert group.images == len(of_group)
        assert group.score.value == np.mean(of_group)
    assert read_predictions(tmp_path / "out").more["glasses"].tolist() == [row["glasses"] for row in rows]


def test_a_table_names_images_by_the_paths_of_their_files(tmp_path: Path) -> None:
    keys = np.array(["female-p1", "female-p2", "male-p1", "male-p3", "male-p3+7", "p9"], dtype=object)
    table = tmp_path / "table.csv"
    lines = ("female/p1.jpg,a", "/data/kaggle/female/p2.JPG,b", "kaggle\\male\\p1.png,c", "male/p3.png,d", "x/p9.jpg,e")
    for column in ("File", "image", "key"):
        table.write_text("\n".join((f"{column},light", *lines, "male/p7.jpg,f")) + "\n")
        found = read_columns(table, (), keys, {"male-p3"})
        assert found["light"].tolist() == ["a", "b", "c", "", "", "e"]  # which file male-p3 is cannot be known
    table.write_text("sep=;\nFILE;Light;\nx/p9.jpg;e;\nfemale/p1.jpg\n;;\n")
    assert read_columns(table, ("light",), keys, ())["Light"].tolist() == ["", "", "", "", "", "e"]
    table.write_text("file,light\na/p9.jpg,1\nb/p9.jpg,2\n")
    with pytest.raises(UserError, match=r"line 3 of .* contradicts an earlier line about b/p9\.jpg"):
        read_columns(table, (), keys, ())


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        (None, {}, "no table .*table.csv"),
        (
            "who,a\nx,1\n",
            {},
            "has no column key, image, file or path, only who, a: name so the one with the images' keys",
        ),
        ("key\nx\n", {}, "has no column besides key"),
        ("key,glasses\nx,1\n", {"by": ("glases",)}, "unknown column of .*'glases': did you mean glasses"),
        ("key,group\nx,1\n", {}, "column group of .* has the name of one that evaluations have: rename it"),
        ("key,a\nx,1\n", {}, "has none of the images: its first key is 'x', one of their keys is "),
        ("key,a\n{0},1\n{0},2\n", {}, "line 3 of .* contradicts an earlier line about {0}"),
        ("key,a\n{0},1,2\n", {}, "line 2 of table.csv has 3 fields, not 2: mend it"),
    ],
)
def test_what_is_wrong_with_a_table_is_an_error(
    shards: Path, checkpoint: Path, tmp_path: Path, content: str | None, options: dict[str, Any], message: str
) -> None:
    key = read_manifest(shards).index("test")["key"][0].decode()
    table = tmp_path / "table.csv"
    if content:
        table.write_text(content.format(key))
    with pytest.raises(UserError, match=message.format(key)):
        evaluated(shards, checkpoint, tmp_path / "out", table=table, **options)
    assert not (tmp_path / "out" / "evaluation.json").exists()


def test_a_column_of_names_is_no_groups(shards: Path, checkpoint: Path, tmp_path: Path) -> None:
    index = read_manifest(shards).index("train")
    table = tmp_path / "table.csv"
    table.write_text("key,name\n" + "".join(f"{key.decode()},{key.decode()}\n" for key in index["key"]))
    with pytest.raises(UserError, match=f"column name of .* has {len(index)} different values, too many for groups"):
        evaluated(shards, checkpoint, tmp_path / "out", split="train", table=table)


def test_a_temperature_is_fitted_on_a_split_or_on_its_evaluation(
    shards: Path, checkpoint: Path, skilled: Path, tmp_path: Path
) -> None:
    model = skilled
    evaluated(shards, model, tmp_path / "val", split="val")
    first = evaluated(shards, model, tmp_path / "a", temperature_from="val").gender
    second = evaluated(shards, model, tmp_path / "b", temperature_from=str(tmp_path / "val")).gender
    assert first
    assert second
    assert first.temperature
    assert second.temperature
    assert first.temperature.value == second.temperature.value
    assert first.temperature.calibration == second.temperature.calibration
    assert first.temperature.fitted_on == "val"
    assert first.temperature.images == read_manifest(shards).split("val").samples
    for options, message in (
        ({"temperature_from": "test"}, "test is the split to evaluate, which would flatter"),
        (
            {"temperature_from": "tets"},
            r"tets is neither a split of .* nor an evaluation's .*: did you mean test\?",
        ),
        ({"temperature_from": str(tmp_path / "a")}, "has the images to evaluate, which would flatter"),
        ({"temperature_from": str(tmp_path / "val"), "flip": True}, "was evaluated without --flip"),
    ):
        with pytest.raises(UserError, match=message):
            evaluated(shards, model, tmp_path / "c", **options)
    with pytest.raises(UserError, match=r"evaluated another checkpoint, .*best\.pt: a temperature holds for its own"):
        evaluated(shards, checkpoint, tmp_path / "c", temperature_from=str(tmp_path / "val"))


def test_a_model_that_diverged_is_an_error(shards: Path, tmp_path: Path) -> None:
    path = changed(save_model(tmp_path / "best.pt"), fc_bias=torch.full((2,), torch.nan))
    with pytest.raises(UserError, match="the model outputs NaN for some images"):
        evaluated(shards, path, tmp_path / "out")
