"""Models of timm: their names, and through training, evaluation, heat maps, resumption and exports."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnxruntime
import pytest
import timm
import timm.optim
import torch

from hpcgender.cam.heat_maps import cam
from hpcgender.cam.results import read_cam
from hpcgender.checkpoint import load_trained, read_checkpoint
from hpcgender.commands.cam import CamConfig
from hpcgender.commands.export import ExportConfig
from hpcgender.commands.train import TrainConfig
from hpcgender.export.export import export
from hpcgender.export.parity import chosen_pixels, expected
from hpcgender.models.config import ModelConfig
from hpcgender.models.create import create
from hpcgender.models.pretrained import load_pretrained
from hpcgender.models.registry import check_model, matching, timm_names
from hpcgender.predict.model import load
from hpcgender.run_directory import newest_first
from hpcgender.train.loop import train
from shard_tools.base.commands import parse_options
from shard_tools.base.errors import UserError
from shard_tools.manifest import read_manifest
from tests.conftest import Run
from tests.hpcgender.evaluate.evaluating import evaluated
from tests.hpcgender.timm_models import CONVNEXT, EFFICIENTNET, MOBILENET, SIZE, VIT

TRAINED: dict[str, dict[str, Any]] = {
    VIT: {"drop_path": 0.1, "layer_decay": 0.75},
    CONVNEXT: {"ema": 0.9},
    EFFICIENTNET: {"output_stride": 16},
    MOBILENET: {},
}
SMALL: dict[str, Any] = {"batch_size": 32, "limit": 96, "epochs": 1, "backend": "torchvision"}
METHODS = {VIT: "grad-cam", CONVNEXT: "grad-cam", EFFICIENTNET: "cam", MOBILENET: "grad-cam"}
CELLS = {VIT: (4, 4), CONVNEXT: (2, 2), EFFICIENTNET: (4, 4), MOBILENET: (2, 2)}


def test_all_of_timms_models_are_known_without_importing_it() -> None:
    assert list(timm_names()) == sorted(timm.list_models())
    assert matching("timm:convnext_at*") == ("timm:convnext_atto", "timm:convnext_atto_ols", "timm:convnext_atto_rms")
    assert matching("*18") == ("resnet18", "se_resnet18")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "timm:convnext_attto",
            "unknown model 'timm:convnext_attto': did you mean timm:convnext_atto or timm:convnext_atto_ols",
        ),
        ("timm:ViT-B/16", r"unknown model 'timm:ViT-B/16': hpcgender models --filter 'timm:\*' lists timm's"),
        ("convnext_atto", "unknown model 'convnext_atto': did you mean timm:convnext_atto?"),
        (
            "timm:convnext_atto.d2_in1k",
            "names weights, too: give --model timm:convnext_atto --pretrained timm:d2_in1k",
        ),
    ],
)
def test_a_model_that_timm_has_not_is_refused_with_the_nearest(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_model(name)


def test_without_timm_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    timm_names.cache_clear()
    with monkeypatch.context() as patched:
        patched.setattr(importlib.util, "find_spec", lambda name: None)
        with pytest.raises(UserError, match=r"timm is not installed: install the extra timm: .*'\.\[timm\]'"):
            check_model(VIT)
        with pytest.raises(UserError, match="unknown model 'resnet19'"):
            check_model("resnet19")
    check_model(VIT)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": VIT, "stem": "small"}, "has no --stem small"),
        ({"model": "resnet18", "drop_path": 0.1}, "resnet18 has no --drop-path: use a model of timm"),
        ({"model": VIT, "drop_path": 1.0}, "--drop-path 1.0 must be at least 0 and below 1"),
        ({"model": "resnet18", "pretrained": "timm:a1_in1k"}, "timm:a1_in1k is for a model of timm: give --model"),
        ({"model": VIT, "pretrained": "torchvision:IMAGENET1K_V1"}, "torchvision has no weights of timm:vit"),
        ({"model": VIT, "pretrained": "a.pt", "freeze": 0}, "has stages from 1 on"),
    ],
)
def test_options_that_do_not_fit_are_refused_before_timm_is_imported(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        ModelConfig(**options).check()


@pytest.mark.parametrize(
    ("model", "size", "options", "message"),
    [
        ("timm:maxvit_tiny_tf_224", 112, {}, r"--image-size 112: timm:maxvit_tiny_tf_224 does not .*timm's own is 224"),
        (VIT, 64, {"output_stride": 16}, "timm cannot make timm:vit_tiny_patch16_224 with --image-size 64 --output-"),
        ("timm:vgg11", 64, {"drop_path": 0.1}, r"timm cannot make timm:vgg11 with --drop-path 0.1 \(.*drop_path_rate"),
        ("timm:deepseek_vit_412m_enc", 64, {}, "deepseek_vit_412m_enc"),
    ],
)
def test_what_a_model_does_not_take_is_said_in_a_line(
    model: str, size: int, options: dict[str, Any], message: str
) -> None:
    with torch.device("meta"), pytest.raises(UserError, match=message) as error:
        create(ModelConfig(model=model, **options), 2, size)
    assert "\n" not in str(error.value)


@pytest.fixture(scope="module", params=TRAINED)
def run_of(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, shards: Path) -> tuple[str, Path]:
    """A model and its run of one epoch, gender and age."""
    name: str = request.param
    options: dict[str, Any] = {"optimizer": "adamw", "lr": 1e-3, "tasks": ("gender", "age"), **TRAINED[name]}
    runs = tmp_path_factory.mktemp("timm") / "runs"
    config = TrainConfig(data=shards, runs=runs, name="a", model=name, image_size=SIZE, **SMALL, **options)
    assert train(config) == 0
    return name, runs / "a"


def test_training_evaluation_and_heat_maps(
    run_of: tuple[str, Path], shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, run_dir = run_of
    found = evaluated(shards, run_dir / "checkpoints" / "best.pt", tmp_path / "evaluated", backend="torchvision")
    assert found.gender is not None
    assert found.age is not None
    assert found.checkpoint.model == name
    cam(CamConfig(checkpoint=run_dir, data=shards, out=tmp_path / "cam", deletion=32, backend="torchvision"))
    maps = read_cam(tmp_path / "cam")
    assert (maps.method, maps.cells) == (METHODS[name], CELLS[name])
    assert f"heat maps ({METHODS[name]}, fp32)" in capsys.readouterr().out
    assert maps.deletion is not None
    assert maps.deletion.images == 32
    (predicted,) = load(run_dir, backend="torchvision").predict([np.zeros((48, 48, 3), np.uint8)], heat_maps=True)
    assert predicted.heat_map is not None
    assert predicted.heat_map.shape == CELLS[name]
    assert 0 < predicted.age < 120


def test_weights_go_to_timm_and_back(run_of: tuple[str, Path], shards: Path, tmp_path: Path) -> None:
    name, run_dir = run_of
    trained = load_trained(run_dir / "checkpoints" / "best.pt", torch.device("cpu"))
    config = ExportConfig(checkpoint=run_dir, data=shards, images=4, format="timm", out=tmp_path / "a.safetensors")
    config.check()
    export(config)
    options: dict[str, Any] = {"img_size": SIZE} if name == VIT else {}
    options |= {"output_stride": 16} if name == EFFICIENTNET else {}
    theirs = timm.create_model(name[5:], num_classes=2, checkpoint_path=config.file, **options).eval()
    pixels = chosen_pixels(read_manifest(shards), "test", 4, trained)
    with torch.no_grad():
        logits = theirs(pixels.float() / 127.5 - 1)
    np.testing.assert_allclose(logits.diff(1)[:, 0], expected(trained, pixels)["logit"], rtol=1e-3, atol=1e-3)
    again = ModelConfig(model=name, pretrained=str(config.file), output_stride=trained.config.output_stride)
    network = create(again, 2, SIZE).eval()
    line = load_pretrained(network, again)
    assert "gender loaded too" in line
    state = trained.model.state_dict()
    kept = [key for key in state if "num_batches" not in key]
    assert len(kept) > 50
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items() if key in kept)


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory, shards: Path) -> Path:
    """The run of a small vision transformer, two epochs with all that keeps a state or draws numbers."""
    options: dict[str, Any] = {"drop_path": 0.2, "ema": 0.9, "layer_decay": 0.8, "grayscale": True, "lr": 0.01}
    runs = tmp_path_factory.mktemp("vit") / "runs"
    small = {**SMALL, "epochs": 2, "image_size": 48}
    assert train(TrainConfig(data=shards, runs=runs, name="a", model="timm:test_vit", **small, **options)) == 0
    return runs / "a"


def test_a_resumed_run_ends_with_the_same_bits(vit: Path, tmp_path: Path) -> None:
    shutil.copytree(vit, tmp_path / "b")
    newest, before = newest_first(tmp_path / "b" / "checkpoints")[:2]
    newest.unlink()
    assert train(parse_options(TrainConfig, "train", ["--runs", str(tmp_path), "--name", "b", "--resume"])) == 0
    wanted, found = (read_checkpoint(place / "checkpoints" / newest.name) for place in (vit, tmp_path / "b"))
    assert before.name != newest.name
    torch.testing.assert_close(found["model"], wanted["model"], rtol=0, atol=0)  # of the EMA
    ours, theirs = found["learner"], wanted["learner"]
    torch.testing.assert_close(ours["weights"], theirs["weights"], rtol=0, atol=0)
    torch.testing.assert_close(ours["optimizer"]["state"], theirs["optimizer"]["state"], rtol=0, atol=0)


def test_two_ranks_that_resume_end_with_the_same_bits(run: Run, shards: Path, tmp_path: Path) -> None:
    """By DistributedDataParallel; and one rank, which has all images of a batch, learns the same."""
    options = ("--model", "timm:test_vit", "--image-size", 48, "--batch-size", 32, "--limit", 96, "--epochs", 2)
    more = ("--tasks", "gender", "age", "--lr", 0.01, "--backend", "torchvision")
    train = ("train", "--data", shards, *options, *more, "--name", "a", "--deterministic")
    on_two = ("hpcgender.launch", "--nodes", 2, "--")
    done = run(*on_two, *train, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    shutil.copytree(tmp_path / "runs", tmp_path / "other" / "runs")
    newest, before = newest_first(tmp_path / "other" / "runs" / "a" / "checkpoints")[:2]
    newest.unlink()
    resumed = run(*on_two, "train", "--name", "a", "--resume", cwd=tmp_path / "other")
    assert resumed.returncode == 0, resumed.stderr
    assert "epoch 2/2" in resumed.stdout
    assert "epoch 1/2" not in resumed.stdout
    assert before.name != newest.name
    whole, again = (
        read_checkpoint(root / "runs" / "a" / "checkpoints" / newest.name)["model"]
        for root in (tmp_path, tmp_path / "other")
    )
    torch.testing.assert_close(again, whole, rtol=0, atol=0)
    alone = run("hpcgender", *train, "--runs", "alone", cwd=tmp_path)
    assert alone.returncode == 0, alone.stderr
    torch.testing.assert_close(
        read_checkpoint(tmp_path / "alone" / "a" / "checkpoints" / newest.name)["model"], whole, rtol=1e-3, atol=1e-4
    )


def test_exports_for_other_programs(vit: Path, shards: Path) -> None:
    trained = load_trained(vit / "checkpoints" / "best.pt", torch.device("cpu"))
    pixels = chosen_pixels(read_manifest(shards), "test", 3, trained)
    wanted = expected(trained, pixels)["logit"]
    kinds: tuple[Literal["onnx", "torch", "safetensors", "timm"], ...] = ("onnx", "torch", "safetensors", "timm")
    for kind in kinds:
        wanted_file = ExportConfig(checkpoint=vit, data=shards, images=3, format=kind)
        export(wanted_file)
        assert wanted_file.file.exists()
        if kind == "onnx":
            session = onnxruntime.InferenceSession(wanted_file.file, providers=["CPUExecutionProvider"])
            _, logit = session.run(None, {"images": pixels.numpy()})
            np.testing.assert_allclose(logit, wanted, rtol=1e-3, atol=1e-3)
    with pytest.raises(UserError, match="torchvision has no timm:test_vit that computes the same: export it as onnx"):
        export(ExportConfig(checkpoint=vit, data=shards, images=3, format="torchvision"))
