"""Each format is loaded by its own program and predicts what the checkpoint does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import safetensors
import timm
import torch
import torchvision
from safetensors.torch import load_file

from hpcgender.checkpoint import load_trained, read_checkpoint, save_checkpoint
from hpcgender.commands.export import ExportConfig
from hpcgender.export.export import export
from hpcgender.export.metadata import without_directories
from hpcgender.export.parity import chosen_pixels, expected
from shard_tools.base.errors import UserError
from shard_tools.manifest import read_manifest
from tests.hpcgender.evaluate.evaluating import evaluated, save_skilled_model
from tests.hpcgender.evaluate.examples import save_model


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("exported") / "mine"
    save_model(run_dir / "checkpoints" / "best.pt", model="resnet18")
    return run_dir


def exported(run_dir: Path, shards: Path, **options: Any) -> Path:
    config = ExportConfig(checkpoint=run_dir, data=shards, images=8, **options)
    config.check()
    export(config)
    return config.file


def wanted(run_dir: Path, shards: Path) -> tuple[torch.Tensor, dict[str, Any]]:
    trained = load_trained(run_dir / "checkpoints" / "best.pt", torch.device("cpu"))
    pixels = chosen_pixels(read_manifest(shards), "test", 5, trained)
    return pixels, dict(expected(trained, pixels))


def test_a_place_that_cannot_be_written_is_refused_before_the_work(tmp_path: Path, shards: Path) -> None:
    save_model(tmp_path / "mine" / "checkpoints" / "best.pt")
    (tmp_path / "mine" / "exports").touch()
    with pytest.raises(UserError, match=r"exports is no directory: give another one as --out, with a file's name$"):
        ExportConfig(checkpoint=tmp_path / "mine", data=shards, format="onnx").check()


def test_onnx_holds_all_that_a_program_needs(run_dir: Path, shards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = exported(run_dir, shards, format="onnx", threshold="0.6")
    assert path == run_dir / "exports" / "mine.onnx"
    printed = capsys.readouterr().out
    assert "largest difference from the checkpoint on 8 images of test: age" in printed
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    pixels, expects = wanted(run_dir, shards)
    probability, logit, age = session.run(None, {"images": pixels.numpy()})
    np.testing.assert_allclose(logit, expects["logit"], rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(age, expects["age"], atol=1e-2)
    np.testing.assert_allclose(probability[:, 1], 1 / (1 + np.exp(-expects["logit"])), atol=1e-4)
    np.testing.assert_allclose(probability.sum(1), 1, atol=1e-6)
    # Any size: each pixel as a square of four is the same picture.
    _, larger, _ = session.run(None, {"images": np.kron(pixels[:1].numpy(), np.ones((2, 2), np.uint8))})
    np.testing.assert_allclose(larger, expects["logit"][:1], rtol=0.1, atol=0.1)
    about = {prop.key: prop.value for prop in onnx.load(path).metadata_props}
    assert json.loads(about["classes"]) == ["female", "male"]
    assert float(about["threshold_log_odds"]) == pytest.approx(np.log(0.6 / 0.4))
    assert about["manifest"] == "of the data"
    assert "no decision about a person may rest on it" in about["model_card"]


def test_torch_export_loads_its_archive(run_dir: Path, shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # As on GPUs, and on CPUs without AVX-512.
    monkeypatch.setattr("hpcgender.checkpoint.memory_format", lambda model, device: torch.channels_last)
    path = exported(run_dir, shards, format="torch")
    files = {"metadata.json": ""}
    program = torch.export.load(path, extra_files=files)
    pixels, expects = wanted(run_dir, shards)
    _, logit, age = program.module()(pixels[:1])
    np.testing.assert_allclose(logit.detach(), expects["logit"][:1], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(age.detach(), expects["age"][:1], atol=1e-3)
    assert json.loads(files["metadata.json"])["model"] == "resnet18"


def test_timm_torchvision_and_safetensors_load_the_weights(
    run_dir: Path, shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pixels, expects = wanted(run_dir, shards)
    images = pixels.float() / 255 * 2 - 1
    path = exported(run_dir, shards, format="timm")
    assert "timm.create_model('resnet18', num_classes=2, output_stride=16)" in capsys.readouterr().out
    model = timm.create_model("resnet18", num_classes=2, output_stride=16, checkpoint_path=path).eval()
    with torch.no_grad():
        logits = model(images)
    np.testing.assert_allclose(logits[:, 1] - logits[:, 0], expects["logit"], rtol=1e-3, atol=1e-3)
    with safetensors.safe_open(path, "pt") as file:
        assert json.loads(file.metadata()["classes"]) == ["female", "male"]

    with pytest.raises(UserError, match="torchvision has no resnet18 with --output-stride 16: export it as onnx"):
        exported(run_dir, shards, format="torchvision")
    vgg = tmp_path / "run"
    save_model(vgg / "checkpoints" / "best.pt", model="vgg11", tasks=("gender",))
    out = exported(vgg, shards, format="torchvision")
    assert "cannot hold resizing and normalisation, classes, threshold and model card" in capsys.readouterr().out
    other = torchvision.models.vgg11(num_classes=2).eval()
    other.load_state_dict(torch.load(out, weights_only=True))
    with torch.no_grad():
        logits = other(images)
    np.testing.assert_allclose(logits[:, 1] - logits[:, 0], wanted(vgg, shards)[1]["logit"], rtol=1e-3, atol=1e-3)

    path = exported(run_dir, shards, format="safetensors")
    first = path.read_bytes()
    assert "fc_age.weight" in load_file(path)
    assert exported(run_dir, shards, format="safetensors").read_bytes() == first


def test_torchvision_loads_the_weights_of_a_resnet(shards: Path, tmp_path: Path) -> None:
    best = save_model(tmp_path / "run" / "checkpoints" / "best.pt", model="resnet18", output_stride=32)
    content = read_checkpoint(best)
    draw = torch.Generator().manual_seed(0)
    for value in content["model"].values():
        if value.ndim == 1:  # statistics, gains and biases as after training
            value.copy_(0.5 + torch.rand(value.shape, generator=draw))
    save_checkpoint(best, {name: value for name, value in content.items() if name != "format"})
    out = exported(tmp_path / "run", shards, format="torchvision")
    other = torchvision.models.resnet18(num_classes=2).eval()
    other.load_state_dict(torch.load(out, weights_only=True))
    pixels, expects = wanted(tmp_path / "run", shards)
    with torch.no_grad():
        logits = other(pixels.float() / 255 * 2 - 1)
    assert np.ptp(expects["logit"]) > 0.01
    np.testing.assert_allclose(logits[:, 1] - logits[:, 0], expects["logit"], rtol=1e-3, atol=1e-3)


def test_a_head_with_hidden_layers_is_in_onnx_and_refused_by_others(shards: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    save_model(run_dir / "checkpoints" / "best.pt", model="compact", head_layers=(8,), head_norm=True)
    path = exported(run_dir, shards, format="onnx")
    pixels, expects = wanted(run_dir, shards)
    found = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"images": pixels.numpy()})
    np.testing.assert_allclose(found[1], expects["logit"], rtol=1e-3, atol=1e-3)
    save_model(run_dir / "checkpoints" / "best.pt", model="resnet18", head_layers=(8,))
    for library in ("timm", "torchvision"):
        with pytest.raises(UserError, match=f"{library} has no resnet18 with --head-layers that computes the same"):
            exported(run_dir, shards, format=library)


def test_the_temperature_of_an_evaluation_is_in_the_weights(shards: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    best = save_skilled_model(run_dir / "checkpoints" / "best.pt", shards)
    options = {"split": "val", "temperature_from": "train", "backend": "torchvision"}
    found = evaluated(shards, best, run_dir / "evaluations" / "a", **options).gender
    assert found
    assert found.temperature
    with safetensors.safe_open(exported(run_dir, shards, format="timm"), "pt") as file:
        assert float(file.metadata()["temperature"]) == found.temperature.value
        weight = load_trained(best, torch.device("cpu")).model.get_parameter("fc.weight").detach()
        torch.testing.assert_close(file.get_tensor("fc.weight"), weight / found.temperature.value)


def test_a_model_that_computes_otherwise_is_not_published(
    run_dir: Path, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hpcgender.export.export.plain_state", lambda trained, temperature: wrong(trained))
    with pytest.raises(UserError, match=r"differs from its checkpoint by .* in logit, more than 0\.002: nothing was"):
        exported(run_dir, shards, format="timm", out=tmp_path / "a.safetensors")
    assert not list(tmp_path.iterdir())


def wrong(trained: Any) -> dict[str, torch.Tensor]:
    state = {name: value.contiguous() for name, value in trained.model.state_dict().items() if "fc_age" not in name}
    return {**state, "fc.weight": -state["fc.weight"]}


def test_metadata_has_no_absolute_path() -> None:
    about = {"config": {"data": "/home/me/faces", "runs": "runs", "also": ["/a/b", 1]}, "out": Path("/x/y"), "step": 7}
    assert without_directories(about) == {
        "config": {"data": "faces", "runs": "runs", "also": ["b", 1]},
        "out": "y",
        "step": 7,
    }
    texts = {
        "/scratch/me/a=2,/scratch/me/b=1": "a=2,b=1",
        "data/a=2,/scratch/me/b=1": "data/a=2,b=1",
        "/s/a/train and /s/b/val: 3 are in both: x/1, /t/y.jpg": "train and val: 3 are in both: x/1, y.jpg",
        "50 images/s, 1 / 2, https://example.org/a": "50 images/s, 1 / 2, https://example.org/a",
    }
    assert without_directories(list(texts)) == list(texts.values())
