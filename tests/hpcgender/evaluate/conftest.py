"""Models to evaluate."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest
import torch

from hpcgender.checkpoint import load_trained
from hpcgender.data.config import ReadConfig
from hpcgender.data.evaluation import EvaluationLoader
from hpcgender.distributed import Ranks
from shard_tools.manifest import read_manifest
from tests.hpcgender.evaluate.evaluating import changed
from tests.hpcgender.evaluate.examples import save_model


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("run") / "checkpoints" / "best.pt")


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
