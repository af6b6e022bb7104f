"""The command on drawn faces: the same bytes from any number of processes, and what it does with all kinds of data."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from hpcgender.checkpoint import load_trained, read_checkpoint, save_checkpoint
from hpcgender.commands.compare import CompareConfig
from hpcgender.commands.evaluate import COMMANDS, EvaluateConfig
from hpcgender.commands.predict import PredictConfig
from hpcgender.commands.report import ReportConfig
from hpcgender.commands.show_batch import ShowBatchConfig
from hpcgender.data.config import ReadConfig
from hpcgender.data.evaluation import EvaluationLoader
from hpcgender.distributed import Ranks
from hpcgender.evaluate.evaluation import evaluate
from hpcgender.evaluate.predictions import read_predictions
from hpcgender.evaluate.results import Evaluation, read_evaluation
from hpcgender.evaluate.table import read_columns
from shard_tools.base import lock
from shard_tools.base.commands import Made
from shard_tools.base.errors import UserError
from shard_tools.manifest import read_manifest
from tests.conftest import Run
from tests.hpcgender.evaluate.examples import save_model

FILES = ("predictions.csv", "predictions.parquet", "errors.csv", "errors.png")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("run") / "checkpoints" / "best.pt")


def evaluated(shards: Path, checkpoint: Path, out: Path, **options: Any) -> Evaluation:
    """Evaluates in this process."""
    config = EvaluateConfig(data=shards, checkpoint=checkpoint, out=out, **options)
    config.check()
    evaluate(config)
    return read_evaluation(out)


def changed(path: Path, **weights: torch.Tensor) -> Path:
    """A checkpoint with other weights, such as fc_bias for those of fc.bias."""
    content = read_checkpoint(path)
    for name, value in weights.items():
        content["model"][name.replace("_", ".")] = value
    save_checkpoint(path, {name: value for name, value in content.items() if name != "format"})
    return path


@pytest.fixture(scope="module")
def skilled(tmp_path_factory: pytest.TempPathFactory, shards: Path) -> Path:
    """A checkpoint whose gender head looks along the line between women and men of train, so that it is often right."""
    path = save_model(tmp_path_factory.mktemp("skilled") / "checkpoints" / "best.pt")
    cpu = torch.device("cpu")
    trained, manifest = load_trained(path, cpu), read_manifest(shards)
    loader = EvaluationLoader(
        ReadConfig(data=shards), manifest, "train", batch_size=300, image_size=32, ranks=Ranks(0, 1, cpu)
    )
    with closing(loader), torch.inference_mode():
        (batch,) = loader.epoch(0)
        means = trained.model.features(batch.images).mean((2, 3))
    direction = (means * (batch.gender * 2 - 1).float()[:, None]).mean(0)
    scores = means @ direction
    weight, bias = direction / scores.std(), -scores.median() / scores.std()
    nothing = torch.zeros(())
    return changed(path, fc_weight=torch.stack([weight * 0, weight]), fc_bias=torch.stack([nothing, bias]))


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def damaged(shards: Path, out: Path, split: str, sample: int) -> str:
    """Copies a data set as if one image had been packed broken; returns its key."""
    shutil.copytree(shards, out)
    manifest = read_manifest(out)
    row = manifest.index(split)[sample]
    tar = manifest.shard_paths(split)[row["shard"]]
    before = hashlib.sha256(tar.read_bytes()).hexdigest()
    with tar.open("r+b") as file:
        file.seek(int(row["offset"]))
        file.write(b"garbage" * 20)
    text = (out / "manifest.json").read_text()
    (out / "manifest.json").write_text(text.replace(before, hashlib.sha256(tar.read_bytes()).hexdigest()))
    return str(row["key"].decode())


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
        assert f"1 of {count} images do not decode" in done.stdout
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


@pytest.fixture(scope="module")
def partly_labelled(tmp_path_factory: pytest.TempPathFactory, faces: Path, run: Run) -> Path:
    """Drawn faces of which some have no gender, some no age, in test; men alone in train; no label at all in val."""
    root = tmp_path_factory.mktemp("partly")
    table = root / "labels.csv"
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("file", "sex", "years", "who", "race", "part"))
        for number, path in enumerate(sorted(faces.glob("*.JPG"))[:90]):
            part = ("train", "val", "test")[number // 30]
            sex = {"train": "male", "val": "", "test": ("male", "female", "")[number % 3]}[part]
            years = "" if part == "val" or number % 5 == 0 else 20 + number % 30
            writer.writerow((path.name, sex, years, f"s{number // 2}", ("", "one", "two")[number % 3], part))
    columns = ("--image", "file", "--gender", "sex", "--age", "years", "--subject", "who", "--group", "race")
    packed = run(
        *("shard_tools", "pack", "table", "--table", table, "--images", faces, "--out", root / "packed"),
        *(*columns, "--split", "part", "--no-near-duplicates"),
    )
    assert packed.returncode == 0, packed.stderr
    return root / "packed"


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
    assert f"2 of {len(keys)} images are not in {table}" in capsys.readouterr().out
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


def test_an_evaluation_is_never_replaced_by_another(
    partly_labelled: Path, shards: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, other = tmp_path / "out", save_model(tmp_path / "other.pt", seed=1)
    first = evaluated(shards, checkpoint, out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    for data, model, options, message in (
        (partly_labelled, checkpoint, {}, "an evaluation of another data set"),
        (shards, other, {}, "an evaluation of another checkpoint"),
        (partly_labelled, other, {}, "an evaluation of another checkpoint and data set"),
        (shards, checkpoint, {"split": "val"}, "an evaluation of another split"),
        (shards, checkpoint, {"flip": True}, "an evaluation without --flip"),
        (shards, checkpoint, {"batch_size": 7}, "an evaluation with --batch-size 64"),
        (shards, other, {"flip": True}, "an evaluation of another checkpoint, without --flip"),
    ):
        with pytest.raises(UserError, match=f"{out} holds {message}: give another --out, or remove it$"):
            EvaluateConfig(data=data, checkpoint=model, out=out, **options).check()
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    capsys.readouterr()

    tempered = evaluated(shards, checkpoint, out, temperature_from="val")  # has all that was there, and more
    assert "holds this evaluation already: it is computed again" in capsys.readouterr().out
    assert tempered.gender
    assert replace(tempered.gender, temperature=None) == first.gender
    if tempered.gender.temperature:
        with pytest.raises(UserError, match="holds an evaluation with --temperature-from val: give another --out"):
            EvaluateConfig(data=shards, checkpoint=checkpoint, out=out).check()
    (out / "evaluation.json").write_text("{")
    with pytest.raises(UserError, match=r"damaged .*: remove it and evaluate again"):
        EvaluateConfig(data=shards, checkpoint=checkpoint, out=out).check()


def test_two_commands_do_not_write_one_evaluation_together(
    shards: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "work").mkdir()
    monkeypatch.setitem(lock.locked.__wrapped__.__kwdefaults__, "patience", 0.0)  # type: ignore[attr-defined]
    with (
        lock.locked(tmp_path / "work" / "lock", tmp_path, ""),
        pytest.raises(UserError, match=f"{tmp_path} is locked by process .*: wait for that, or give another --out"),
    ):
        evaluated(shards, checkpoint, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["work"]
    assert evaluated(shards, checkpoint, tmp_path).gender
    assert not (tmp_path / "work").exists()


def test_a_table_of_the_users_is_kept(shards: Path, checkpoint: Path, tmp_path: Path) -> None:
    keys = [key.decode() for key in read_manifest(shards).index("val")["key"]]
    table = tmp_path / "table.csv"
    table.write_text("key,glasses,light\n" + "".join(f"{key},{n % 2},{n % 3}\n" for n, key in enumerate(keys)))
    options: dict[str, Any] = {"data": shards, "checkpoint": checkpoint, "split": "val", "out": tmp_path / "out"}
    evaluate(EvaluateConfig(**options, table=table, by=("glasses",)))
    EvaluateConfig(**options, table=table).check()
    others: tuple[dict[str, Any], ...] = ({}, {"table": table, "by": ("light",)})
    for more in others:
        with pytest.raises(UserError, match="holds an evaluation with --by glasses: give another --out, or remove it"):
            EvaluateConfig(**options, **more).check()


def test_where_results_cannot_be_written_is_known_first(shards: Path, checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for out in (tmp_path / "file", tmp_path / "file" / "below", tmp_path / "dangling"):
        with pytest.raises(UserError, match="is no directory: give another one as --out"):
            EvaluateConfig(data=shards, checkpoint=checkpoint, out=out).check()
    with pytest.raises(UserError, match=r"cannot write into /proc \(.*\): give another directory as --out"):
        EvaluateConfig(data=shards, checkpoint=checkpoint, out=Path("/proc/new/out")).check()
    for file, config in (
        ("x.html", ReportConfig(inputs=(tmp_path,), out=Path("/proc/x.html"))),
        ("x.csv", CompareConfig(evaluated=(tmp_path, tmp_path), csv=Path("/proc/x.csv"))),
        ("x.png", ShowBatchConfig(data=shards, out=Path("/proc/x.png"))),
    ):
        with pytest.raises(UserError, match=rf"cannot write into /proc \(.*\): name another directory for {file}"):
            config.check()
    EvaluateConfig(data=shards, checkpoint=checkpoint, out=tmp_path / "new" / "out").check()
    assert not (tmp_path / "new").exists()


def test_a_run_means_its_best_checkpoint(shards: Path, checkpoint: Path) -> None:
    run_dir = checkpoint.parents[1]
    for given in (run_dir, checkpoint.parent, checkpoint):
        config = EvaluateConfig(data=shards, checkpoint=given)
        config.check()
        assert config.checkpoint == checkpoint
        assert config.out_dir == run_dir / "evaluations" / f"{shards.name}-test"
        assert PredictConfig(images=(), checkpoint=given).checkpoint == checkpoint
    with pytest.raises(UserError, match=f"no checkpoint {shards}/checkpoints/best.pt: give one as --checkpoint"):
        EvaluateConfig(data=shards, checkpoint=shards).check()
    with pytest.raises(UserError, match=r"is cut short, or not a checkpoint of hpcgender"):
        EvaluateConfig(data=shards, checkpoint=shards / "manifest.json").check()


def test_a_model_that_diverged_is_an_error(shards: Path, tmp_path: Path) -> None:
    path = changed(save_model(tmp_path / "best.pt"), fc_bias=torch.full((2,), torch.nan))
    with pytest.raises(UserError, match="the model outputs NaN for some images"):
        evaluated(shards, path, tmp_path / "out")


def test_a_chain_after_training_does_not_meet_earlier_results(tmp_path: Path) -> None:
    (command,) = (one for one in COMMANDS if one.name == "evaluate")
    best = tmp_path / "run" / "checkpoints" / "best.pt"
    made = Made(data=tmp_path / "data", checkpoint=best, tasks=("gender",), final=False)
    out = tmp_path / "run" / "evaluations" / "data-test"
    (out / "submissions").mkdir(parents=True)
    assert command.following(made)
    (out / "evaluation.json").write_text("{}")
    with pytest.raises(UserError, match=f"{out} holds results of an earlier checkpoint, and is not replaced"):
        command.following(made)
    assert command.following(replace(made, final=True))  # the training is complete: the checkpoint stays
    (out / "evaluation.json").rename(out / "predictions.csv")
    (out / "work").mkdir()
    (out / "work" / "predictions.json").write_text("{}")  # of an evaluation that was killed
    with pytest.raises(UserError, match=f"{out} holds results of an earlier checkpoint"):
        command.following(made)
