"""Runs that were trained and evaluated for real, for the tests of what is said of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

SMALL: dict[str, Any] = {"image_size": 32, "batch_size": 32, "epochs": 2, "lr": 0.02, "backend": "torchvision"}
RUNS: dict[str, dict[str, Any]] = {
    "both": {"model": "se_resnet18", "output_stride": 16, "tasks": ("gender", "age")},
    "lean": {"model": "resnet18", "stem": "small"},
}


@pytest.fixture(scope="session")
def evaluated(tmp_path_factory: pytest.TempPathFactory, shards: Path) -> Path:
    """A directory `runs` with two runs of two epochs on drawn faces, both evaluated on their validation images.

    `both` tells age too, and has heat maps; `lean` is the cheaper one.
    """
    from hpcgender.cam.heat_maps import cam
    from hpcgender.commands.cam import CamConfig
    from hpcgender.commands.evaluate import EvaluateConfig
    from hpcgender.commands.train import TrainConfig
    from hpcgender.evaluate.evaluation import evaluate
    from hpcgender.train.loop import train

    runs = tmp_path_factory.mktemp("evaluated") / "runs"
    for name, options in RUNS.items():
        assert train(TrainConfig(data=shards, runs=runs, name=name, **SMALL, **options)) == 0
        checkpoint = runs / name / "checkpoints" / "best.pt"
        on: dict[str, Any] = {"checkpoint": checkpoint, "data": shards, "split": "val", "backend": "torchvision"}
        evaluate(EvaluateConfig(**on, errors=True, temperature_from="train"))
    cam(CamConfig(**{**on, "checkpoint": runs / "both" / "checkpoints" / "best.pt"}, deletion=32))
    return runs
