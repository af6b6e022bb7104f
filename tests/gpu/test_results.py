"""Results on one GPU: the same however often interrupted, alike in all commands, and never of a CPU unasked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from hpcgender.evaluate.predictions import read_predictions
from hpcgender.precision import Format
from hpcgender.predict.model import load
from tests.conftest import REPOSITORY, Run
from tests.hpcgender.evaluate.evaluating import evaluated
from tests.hpcgender.evaluate.examples import save_model

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("run") / "checkpoints" / "best.pt")


@pytest.mark.parametrize(("command", "which"), [("evaluate", "test"), ("cam", "maps")])
def test_killed_and_resumed_the_results_have_the_same_bytes(
    command: str, which: str, run: Run, shards: Path, checkpoint: Path, device: torch.device, tmp_path: Path
) -> None:
    program = ("tests.hpcgender.inference.interrupted", "SIGKILL", which)
    options = ("--checkpoint", checkpoint, "--data", shards, "--batch-size", 4)
    for name, blocks, codes in (("whole", 0, [0]), ("killed", 3, [-9, 0])):
        for code in codes:
            signals = blocks if code else 0
            out = ("--out", tmp_path / name)
            done = run(*program, signals, command, *options, *out, cwd=REPOSITORY)
            assert done.returncode == code, done.stderr
    files = ("predictions.parquet", "predictions.csv") if command == "evaluate" else ("averages.npz", "maps.csv")
    for file in files:
        assert (tmp_path / "killed" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_predict_agrees_with_evaluate(
    precision: Format,
    shards: Path,
    faces: Path,
    checkpoint: Path,
    device: torch.device,
    tmp_path: Path,
) -> None:
    evaluated(shards, checkpoint, tmp_path, precision=precision)
    found = read_predictions(tmp_path)
    predicted = load(checkpoint, precision=precision).predict(faces / f"{key}.JPG" for key in found.key[:20])
    logits = [prediction.logit for prediction in predicted]
    np.testing.assert_allclose(logits, found.logit[:20], atol=1e-4 if precision == "fp32" else 0.05)
    assert {prediction.precision for prediction in predicted} == {precision}


def test_a_gpu_has_the_results_of_a_cpu_but_for_rounding(
    run: Run, shards: Path, checkpoint: Path, device: torch.device, tmp_path: Path
) -> None:
    evaluated(shards, checkpoint, tmp_path / "here", precision="fp32")
    options = ("--checkpoint", checkpoint, "--data", shards, "--out", tmp_path / "cpu", "--precision", "fp32")
    done = run("hpcgender", "evaluate", *options, HPCGENDER_DEVICE="cpu")
    assert done.returncode == 0, done.stderr
    here, there = (read_predictions(tmp_path / name) for name in ("here", "cpu"))
    assert here.key.tolist() == there.key.tolist()
    np.testing.assert_allclose(here.logit, there.logit, atol=0.02 * np.abs(there.logit).max())


@pytest.mark.parametrize("model", ["se_resnet18", "vgg11_bn"])
def test_so_has_it_the_heat_maps(model: str, run: Run, shards: Path, device: torch.device, tmp_path: Path) -> None:
    """Of a network whose maps are its features', and of one whose maps are made of gradients."""
    checkpoint = save_model(tmp_path / "best.pt", model=model, tasks=("gender",))
    options = ("--checkpoint", checkpoint, "--data", shards, "--batch-size", 16, "--deletion", 0, "--precision", "fp32")
    for name, environment in (("here", {}), ("cpu", {"HPCGENDER_DEVICE": "cpu"})):
        done = run("hpcgender", "cam", *options, "--out", tmp_path / name, **environment)
        assert done.returncode == 0, done.stderr

    def written(name: str, values: str) -> npt.NDArray[Any]:
        files = sorted((tmp_path / name / "maps").glob(f"{values}-*.npy"))
        return np.concatenate([np.load(path) for path in files])

    assert written("here", "keys").tolist() == written("cpu", "keys").tolist()
    for values in ("log_odds", "maps"):
        expected = written("cpu", values)
        assert np.ptp(expected) > 0
        np.testing.assert_allclose(written("here", values), expected, atol=0.02 * np.abs(expected).max())


def test_granted_gpus_that_are_not_seen_are_one_line(
    run: Run, faces: Path, checkpoint: Path, device: torch.device
) -> None:
    face = next(faces.iterdir())
    lost = {"CUDA_VISIBLE_DEVICES": "GPU-00000000-0000-0000-0000-000000000000", "HPCGENDER_DEVICE": ""}
    done = run("hpcgender", "predict", "--checkpoint", checkpoint, face, **lost)
    assert done.returncode == 2
    assert done.stderr.startswith("hpcgender: CUDA_VISIBLE_DEVICES is GPU-0")
    assert done.stderr.count("\n") == 1
