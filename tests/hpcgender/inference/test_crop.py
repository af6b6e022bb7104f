"""The recipe of the training images' crops travels in the checkpoint, and other images are warned of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from hpcgender.checkpoint import load_trained
from hpcgender.commands.evaluate import EvaluateConfig
from hpcgender.commands.train import TrainConfig
from hpcgender.evaluate.evaluation import evaluate
from hpcgender.inference.session import crop_warning
from hpcgender.train.loop import train
from shard_tools.align.recipe import Recipe
from shard_tools.commands import SHARD_TOOLS
from shard_tools.manifest import read_manifest
from tests.shard_tools.align.photos import photos


def test_a_model_knows_how_its_images_were_cropped(tmp_path: Path, capsys: Any) -> None:
    images = photos(tmp_path, 24)

    def packed(name: str, *options: object) -> Path:
        words = ["--images", images, "--out", tmp_path / name, "--female", "a", "--male", "b", "--val", 0.25]
        words += ["--no-near-duplicates", "--workers", 1, *options]
        assert SHARD_TOOLS.run(["pack", "folders", *map(str, words)]) == 0
        return tmp_path / name

    crops = packed("crops", "--align", "--landmarks", tmp_path / "landmarks.csv", "--crop-size", 48)
    plain = packed("plain")
    small: dict[str, Any] = {"image_size": 32, "batch_size": 4, "epochs": 1, "backend": "torchvision"}
    assert train(TrainConfig(data=crops, runs=tmp_path, name="run", model="compact", **small)) == 0
    checkpoint = tmp_path / "run" / "checkpoints" / "best.pt"
    recipe = Recipe(template="arcface", size=48, margin=0.0, faces="largest", landmarks="file")
    assert load_trained(checkpoint, torch.device("cpu")).crop == recipe

    assert crop_warning(recipe, read_manifest(crops)) == ""
    assert crop_warning(recipe, read_manifest(plain)).endswith(
        "; pack them with --align, or state with --aligned that they are such crops already"
    )
    assert crop_warning(None, read_manifest(crops)).endswith("; pack them as they are")
    capsys.readouterr()
    evaluate(EvaluateConfig(data=plain, checkpoint=checkpoint, split="val", backend="torchvision"))
    warning = f"WARNING: the model was trained on arcface crops, and {plain} has images of which no crop is known"
    assert warning in capsys.readouterr().out
