"""An exported ONNX file is as good a checkpoint to predict as the one that it was made of."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from hpcgender.checkpoint_file import KeptTemperature, digest, keep_temperature
from hpcgender.commands.export import ExportConfig
from hpcgender.commands.predict import PredictConfig
from hpcgender.export.export import export
from hpcgender.export.parity import LIMITS
from hpcgender.predict.model import load
from hpcgender.predict.onnx_network import OnnxNetwork
from shard_tools.align.recipe import Recipe
from shard_tools.base.errors import UserError
from tests.hpcgender.evaluate.evaluating import evaluated, save_skilled_model
from tests.hpcgender.evaluate.examples import save_model

RECIPE = Recipe(template="square", size=64, margin=0.5, faces="largest", landmarks="")


def exported(run_dir: Path, shards: Path, threshold: str = "") -> Path:
    config = ExportConfig(checkpoint=run_dir, data=shards, images=8, format="onnx", threshold=threshold)
    config.check()
    export(config)
    return config.file


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory, shards: Path) -> Path:
    """A run with a temperature in its checkpoint, an evaluation, and an exported model with a threshold of its own."""
    run_dir = tmp_path_factory.mktemp("onnx") / "mine"
    best = save_skilled_model(run_dir / "checkpoints" / "best.pt", shards)
    keep_temperature(best, digest(best), KeptTemperature(value=1.7, fitted_on="9 images of val"))
    evaluated(shards, best, run_dir / "evaluations" / "val", split="val", backend="torchvision")
    exported(run_dir, shards, threshold="0.4")
    return run_dir


def test_it_predicts_what_the_checkpoint_does(run_dir: Path, faces: Path) -> None:
    images = sorted(faces.iterdir())[:40]
    of_both = load(run_dir, threshold="0.4", batch_size=16), load(run_dir / "exports" / "mine.onnx", batch_size=16)
    wanted, found = (model.predict(images) for model in of_both)
    logit = np.array([one.logit for one in wanted])
    apart = np.abs(np.array([one.logit for one in found]) - logit) / np.maximum(1, np.abs(logit))
    assert apart.max() <= LIMITS["logit"]
    np.testing.assert_allclose([one.age for one in found], [one.age for one in wanted], atol=LIMITS["age"])
    np.testing.assert_allclose([one.probability for one in found], [one.probability for one in wanted], atol=1e-3)
    assert [one.label for one in found] == [one.label for one in wanted]
    assert {one.precision for one in found} == {"fp32"}
    of_checkpoint, of_file = (model.decision for model in of_both)
    assert of_file.temperature == 1.7
    assert of_file.threshold == pytest.approx(of_checkpoint.threshold)
    assert of_file.calibrated_by == "9 images of val, as kept in best.pt, as kept in mine.onnx"


def test_one_thread_computes_each_batch_also_beside_a_gpu(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which computes nothing of an exported model."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    network = load(run_dir / "exports" / "mine.onnx").network
    assert isinstance(network, OnnxNetwork)
    options = network.session.get_session_options()
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (1, 1)


def test_a_threshold_and_an_evaluation_of_its_checkpoint_are_its_own(run_dir: Path) -> None:
    path = run_dir / "exports" / "mine.onnx"
    assert load(path, threshold="0.5").decision.threshold == 0
    for threshold in ("equal-error", "fpr=0.1"):
        of_file, of_checkpoint = (load(one, threshold=threshold).decision for one in (path, run_dir))
        assert of_file.threshold == of_checkpoint.threshold != 0
    assert load(path, evaluation="none").decision.temperature == 1


def test_it_knows_what_its_threshold_was_chosen_on(run_dir: Path, shards: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(run_dir, tmp_path / "mine")
    decision = load(exported(copy, shards, threshold="equal-error")).decision
    assert decision.threshold_from == load(copy, threshold="equal-error").decision.threshold_from != ""
    assert decision.threshold_from in decision.words


def test_it_crops_by_the_recipe_in_its_metadata(shards: Path, faces: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    save_model(run_dir / "checkpoints" / "best.pt", crop=RECIPE)
    path = exported(run_dir, shards)
    assert load(path).crop == load(run_dir).crop == RECIPE
    image = np.zeros((200, 200, 3), np.uint8)
    assert load(path).predict([image])[0].error == "no face was found in it"
    assert load(path, crop="none").predict([image])[0].error == ""


def test_what_it_cannot_do_is_one_line(run_dir: Path, faces: Path, tmp_path: Path) -> None:
    path = run_dir / "exports" / "mine.onnx"
    with pytest.raises(UserError, match=r"--cam needs a checkpoint: .*mine\.onnx was exported, and has no heat maps"):
        PredictConfig(images=("x",), checkpoint=path, cam=tmp_path / "maps").check()
    with pytest.raises(UserError, match="an exported model has no heat maps: give its checkpoint"):
        load(path).predict([sorted(faces.iterdir())[0]], heat_maps=True)
    with pytest.raises(UserError, match="--precision bf16 is for checkpoints: an exported model computes in fp32"):
        load(path, precision="bf16")
    with pytest.raises(UserError, match=r"no file gone\.onnx: give one of hpcgender export --format onnx"):
        load("gone.onnx")
    (tmp_path / "damaged.onnx").write_bytes(path.read_bytes()[:5000])
    with pytest.raises(UserError, match=r"damaged\.onnx is damaged, or no ONNX file"):
        load(tmp_path / "damaged.onnx")
    model = onnx.load(path)
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "other.onnx")
    with pytest.raises(UserError, match=r"other\.onnx is no model of hpcgender export --format onnx"):
        load(tmp_path / "other.onnx")


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("tasks", None, "it has no metadata 'tasks'"),
        ("classes", "[" * 5000, "its metadata: it is nested more than 100 deep"),
        ("classes", "7", "classes must be a list in"),
        ("crop", '{"a": 1}', "is unknown"),
        ("image_size", "100000", "image_size or temperature is out of range"),
        ("image_size", '"32"', "image_size must be a whole number"),
        ("temperature", "nan", "image_size or temperature is out of range"),
        ("threshold_log_odds", "x", "its metadata: could not convert string to float: 'x'"),
        ("tasks", '["age"]', "its inputs and outputs are others than it says"),
    ],
)
def test_metadata_that_cannot_be_is_one_line(
    name: str, value: str | None, why: str, run_dir: Path, tmp_path: Path
) -> None:
    model = onnx.load(run_dir / "exports" / "mine.onnx")
    texts = {entry.key: entry.value for entry in model.metadata_props}
    del texts[name], model.metadata_props[:]
    onnx.helper.set_model_props(model, texts if value is None else {**texts, name: value})
    onnx.save(model, tmp_path / "a.onnx")
    with pytest.raises(UserError, match=re.escape(why)) as error:
        load(tmp_path / "a.onnx")
    assert str(error.value).startswith(f"{tmp_path / 'a.onnx'} is damaged (")
    assert "\n" not in str(error.value)


def test_a_network_for_other_images_is_one_line(run_dir: Path, faces: Path, tmp_path: Path) -> None:
    model = onnx.load(run_dir / "exports" / "mine.onnx")
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 7
    onnx.save(model, tmp_path / "a.onnx")
    with pytest.raises(UserError, match=r"a\.onnx is damaged \(.*invalid dimensions.*\): export it again"):
        load(tmp_path / "a.onnx").predict([sorted(faces.iterdir())[0]])
