"""What `import hpcgender` gives a notebook: a model, a dataset, an evaluation; and torch once it is used."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import hpcgender
from hpcgender.data.config import ReadConfig
from hpcgender.data.evaluation import EvaluationLoader
from hpcgender.distributed import Ranks
from shard_tools.base.errors import UserError
from shard_tools.manifest import read_manifest
from tests.hpcgender.evaluate.evaluating import damaged, evaluated
from tests.hpcgender.evaluate.examples import save_model


def test_torch_is_imported_when_it_is_used() -> None:
    script = (
        "import sys, hpcgender; assert {'load', 'open', 'evaluation'} <= set(dir(hpcgender))\n"
        "assert not {'numpy', 'torch', 'tyro'} & set(sys.modules)\n"
        "hpcgender.evaluation; assert 'torch' not in sys.modules\n"
        "hpcgender.load; hpcgender.open; assert 'torch' in sys.modules\n"
        "assert not hasattr(hpcgender, 'predict_all')"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_split_is_a_dataset_with_labels(shards: Path, faces: Path) -> None:
    manifest = read_manifest(shards)
    images, inputs = hpcgender.open(shards, "val"), hpcgender.open(shards, "val", image_size=32)
    assert len(images) == len(inputs) == manifest.split("val").samples
    columns = images.columns
    for number in (0, 5, len(images) - 1):
        image, gender, age = images[number]
        key = columns["key"][number]
        assert isinstance(image, Image.Image)
        with Image.open(faces / f"{key}.JPG") as packed:
            assert (np.asarray(image) == np.asarray(packed.convert("RGB"))).all()
        assert (gender, age) == (columns["gender"][number], columns["age"][number])
        assert (gender, age) == (int("M" in key), int(key[-2:]))
        assert columns["subject"][number] == key.partition("_")[0]
    assert set(columns["shard"]) == {shard.file for shard in manifest.split("val").shards}
    assert {len(values) for values in columns.values()} == {len(images)}
    assert list(images)[-1].age == images[-1].age
    with pytest.raises(IndexError):
        images[len(images)]
    assert hpcgender.open(shards).split == "train"


def test_a_data_loader_makes_the_batches_of_evaluation(shards: Path) -> None:
    manifest = read_manifest(shards)
    dataset = hpcgender.open(shards, "val", image_size=32)
    evaluation = EvaluationLoader(
        ReadConfig(data=shards, backend="torchvision"),
        manifest,
        "val",
        batch_size=16,
        image_size=32,
        ranks=Ranks(0, 1, torch.device("cpu")),
    )
    loader = torch.utils.data.DataLoader(dataset, 16, num_workers=1, multiprocessing_context="fork")
    for (pixels, gender, age), expected in zip(loader, evaluation.epoch(0), strict=True):
        assert torch.equal(pixels, expected.images)
        assert torch.equal(gender, expected.gender.long())
        assert torch.equal(age, expected.age.double())
    evaluation.close()
    again = pickle.loads(pickle.dumps(dataset))  # as workers that do not fork get it
    first, second = again[3].image, dataset[3].image
    assert isinstance(first, torch.Tensor)
    assert isinstance(second, torch.Tensor)
    assert torch.equal(first, second)


def test_what_cannot_be_opened_is_named(shards: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no manifest\.json in"):
        hpcgender.open(tmp_path)
    with pytest.raises(UserError, match="image_size 0 must be positive"):
        hpcgender.open(shards, image_size=0)
    with pytest.raises(UserError, match="no split 'vall'"):
        hpcgender.open(shards, "vall")
    key = damaged(shards, tmp_path / "damaged", "val", 2)
    with pytest.raises(UserError, match=f"damaged val: image {key} cannot be used"):
        hpcgender.open(tmp_path / "damaged", "val")[2]


def test_an_evaluation_and_a_model_are_those_of_the_commands(shards: Path, faces: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "runs" / "mine"
    best = save_model(run_dir / "checkpoints" / "best.pt")
    out = run_dir / "evaluations" / "shards-val"
    results = evaluated(shards, best, out, split="val", backend="torchvision")
    found = hpcgender.evaluation(str(out))
    assert repr(found.results) == repr(results)  # nan is not equal to itself, its text is
    assert repr(hpcgender.evaluation(out / "evaluation.json").results) == repr(results)
    assert found.temperature is None
    assert found.groups["gender"] == results.table("gender")
    columns = vars(found.predictions)
    assert len(columns["key"]) == len(columns["logit"]) == len(hpcgender.open(shards, "val"))
    predicted = hpcgender.load(str(run_dir), backend="torchvision").predict(
        [faces / f"{key}.JPG" for key in columns["key"]]
    )
    np.testing.assert_allclose([one.logit for one in predicted], columns["logit"], rtol=1e-4, atol=1e-4)
    with pytest.raises(UserError, match="name an evaluation such as runs/<name>/evaluations/<data>-test"):
        hpcgender.evaluation(tmp_path)
