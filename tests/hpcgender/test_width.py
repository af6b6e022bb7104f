"""`--width`: other numbers of channels, in every family of networks and through every command that makes one."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import hpcgender
from hpcgender.checkpoint import load_trained, read_checkpoint, save_checkpoint
from hpcgender.commands import HPCGENDER
from hpcgender.commands.export import ExportConfig
from hpcgender.doctor import report
from hpcgender.export.export import export
from hpcgender.models.config import ModelConfig
from hpcgender.models.create import create, on_meta
from hpcgender.models.network import Network, scaled
from hpcgender.models.pretrained import load_pretrained
from hpcgender.models.registry import MODELS
from hpcgender.models.table import cost
from hpcgender.study.file import read_study
from shard_tools.base.errors import UserError
from tests.conftest import Run
from tests.hpcgender.evaluate.examples import save_model
from tests.hpcgender.test_plan import examined

INITIAL = {
    "compact": 21309.959287704893,
    "resnet18": 227451.68758155854,
    "se_resnet50": 941368.720683615,
    "vgg11": 1114359.1377775515,
}
"""The sum of the absolute initial weights and buffers, of seed 0, from before there was a --width."""
BOTH = ("gender", "age")


def made(model: str, width: float, **options: Any) -> Network:
    config = ModelConfig(model=model, width=width, **options)
    config.check()
    torch.manual_seed(0)
    return create(config, 2)


@pytest.mark.parametrize(
    ("channels", "factor", "expected"),
    [(64, 1, 64), (64, 0.5, 32), (64, 0.75, 48), (64, 0.3, 16), (64, 0.33, 24), (32, 0.01, 8), (512, 4, 2048)],
)
def test_channels_are_multiples_of_eight(channels: int, factor: float, expected: int) -> None:
    assert scaled(channels, factor) == expected


@pytest.mark.parametrize("name", [*list(INITIAL)[:-1], pytest.param("vgg11", marks=pytest.mark.slow)])
def test_without_a_width_networks_begin_as_they_always_did(name: str) -> None:
    assert ModelConfig.width == 1
    state = made(name, 1).state_dict()
    assert sum(float(value.double().abs().sum()) for value in state.values()) == pytest.approx(INITIAL[name], rel=1e-6)


@pytest.mark.parametrize("name", MODELS)
def test_half_the_width_halves_all_channels(name: str) -> None:
    whole, half = (on_meta(ModelConfig(model=name, width=width), 2) for width in (1, 0.5))
    shapes = {key: value.shape for key, value in half.state_dict().items()}
    assert list(shapes) == list(whole.state_dict())
    for key, value in whole.state_dict().items():
        for number, (before, now) in enumerate(zip(value.shape, shapes[key], strict=True)):
            same = number > 1 or before <= 8  # a kernel's sides; colours, classes, and the smallest bottleneck
            assert now == (before if same else before // 2), key
    parameters = [sum(value.numel() for value in network.parameters()) for network in (whole, half)]
    assert parameters[1] / parameters[0] == pytest.approx(1 / 4, rel=0.03)


@pytest.mark.parametrize(
    ("name", "width"), [("resnet18", 1.5), ("se_resnet50", 0.3), ("vgg11_bn", 0.3), ("compact", 0.3), ("compact", 1.5)]
)
def test_a_network_of_another_width_learns_through_every_parameter(name: str, width: float) -> None:
    network = made(name, width, tasks=BOTH, zero_init=False)
    sizes = [value.shape[:2] for key, value in network.named_parameters() if value.ndim == 4]
    assert all(channels % 8 == 0 or channels == 3 for size in sizes for channels in size)
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    outputs = network(images)
    torch.stack([values.square().sum() for values in outputs if values is not None]).sum().backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    predicted, features = network.eval().outputs_and_gender_features(images)
    assert predicted.gender is not None
    assert features.shape[1] % 8 == 0


def test_widths_that_are_given_stay_as_they_are() -> None:
    network = made("compact", 0.5, branch_layers=(40, 24), head_layers=(12,))
    shapes = [tuple(value.shape[:2]) for value in network.gender.parameters() if value.ndim > 1]  # type: ignore[union-attr]
    assert shapes == [(40, 128), (24, 40), (12, 24 * 4), (2, 12)]


def test_the_cost_is_that_of_the_width(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)

    def printed(*words: object) -> Any:
        assert HPCGENDER.run(list(map(str, words))) == 0
        return json.loads(capsys.readouterr().out)

    expected = cost(ModelConfig(model="resnet18", width=0.5), 64)
    assert expected.macs == pytest.approx(cost(ModelConfig(model="resnet18"), 64).macs / 4, rel=0.1)
    listing = ("models", "--filter", "resnet18", "--image-size", 64, "--width", 0.5)
    assert printed(*listing, "--json") == [asdict(expected)]
    assert HPCGENDER.run(list(map(str, listing))) == 0
    assert "models of width 0.5 for 2 classes" in capsys.readouterr().out
    plan = ("plan", "--data", shards, "--model", "resnet18", "--image-size", 64, "--batch-size", 16, "--gpu", "a100")
    whole, half = printed(*plan, "--json"), printed(*plan, "--width", 0.5, "--json")
    assert half["checkpoint_bytes"] == pytest.approx(whole["checkpoint_bytes"] / 4, rel=0.03)
    assert half["images_per_s"] > whole["images_per_s"]
    assert HPCGENDER.run([*map(str, plan), "--width", "0.5"]) == 0
    assert "resnet18 of width 0.5 at 64 px" in capsys.readouterr().out
    report.write(examined("resnet18"))
    scaled_up = printed(*plan[:-2], "--width", 0.5, "--json")
    assert scaled_up["source"].endswith(", scaled by operations from resnet18 at 64 px")
    assert HPCGENDER.run([*map(str, plan[:-2]), "--width", "0.5"]) == 0
    assert "wide, as hpcgender doctor times models of width 1" in " ".join(capsys.readouterr().out.split())


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a ResNet of half the width."""
    run_dir = tmp_path_factory.mktemp("narrow") / "narrow"
    save_model(run_dir / "checkpoints" / "best.pt", model="resnet18", width=0.5, tasks=("gender",))
    return run_dir


def test_a_checkpoint_keeps_its_width(narrow: Path) -> None:
    checkpoint = narrow / "checkpoints" / "best.pt"
    trained = load_trained(checkpoint, torch.device("cpu"))
    assert trained.config.width == 0.5
    assert trained.model.get_parameter("fc.weight").shape == (2, 256)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8))
    (prediction,) = hpcgender.load(checkpoint).predict([image])
    assert prediction.label in ("female", "male")


def test_a_run_of_another_width_trains_resumes_and_is_evaluated_and_explained(
    run: Run, shards: Path, tmp_path: Path
) -> None:
    small = ("--image-size", 32, "--batch-size", 32, "--warmup-epochs", 0, "--backend", "torchvision")
    begin = ("train", "--data", shards, "--model", "compact", "--width", 0.25, *small, "--name", "narrow")
    goes_on = ("train", "--name", "narrow", "--resume", "--data", shards, "--epochs", 2)
    of_it = ("--checkpoint", "narrow", "--data", shards, "--backend", "torchvision")
    for words in ((*begin, "--epochs", 1), goes_on, ("evaluate", *of_it), ("cam", *of_it), ("report", "narrow")):
        done = run("hpcgender", *words, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    narrow = tmp_path / "runs" / "narrow"
    trained = load_trained(narrow / "checkpoints" / "best.pt", torch.device("cpu"))
    assert trained.model.get_parameter("gender.convolution.0.weight").shape == (32, 64, 3, 3)
    assert (narrow / "cams" / "shards-test" / "cam.json").exists()
    assert "width 0.25" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_exports_hold_another_width_or_refuse_it(narrow: Path, shards: Path) -> None:
    for form in ("timm", "torchvision"):
        with pytest.raises(UserError, match=f"^{form} has no resnet18 with --width 0.5 that computes the same: export"):
            exported(narrow, shards, form)
    expected = load_trained(narrow / "checkpoints" / "best.pt", torch.device("cpu")).model.state_dict()
    found = load_file(exported(narrow, shards, "safetensors"))
    assert {key: value.shape for key, value in found.items()} == {key: value.shape for key, value in expected.items()}
    exported(narrow, shards, "torch")
    session = onnxruntime.InferenceSession(exported(narrow, shards, "onnx"), providers=["CPUExecutionProvider"])
    assert session.run(None, {"images": np.zeros((1, 3, 32, 32), np.uint8)})[0].shape == (1, 2)


def exported(run_dir: Path, shards: Path, form: Any) -> Path:
    """Writes the file, which export compares with the checkpoint."""
    config = ExportConfig(checkpoint=run_dir, data=shards, images=8, format=form)
    config.check()
    export(config)
    return config.file


def test_weights_of_another_width_do_not_fit(narrow: Path) -> None:
    config = ModelConfig(model="resnet18", pretrained=str(narrow), width=0.5)
    assert "pretrained from" in load_pretrained(create(config, 2), config)
    config = ModelConfig(model="resnet18", pretrained=str(narrow))
    with pytest.raises(UserError, match=r"conv1.weight is \(32, 3, 7, 7\) there .* the --model, --stem and --width"):
        load_pretrained(create(config, 2), config)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("train --width 0", "--width 0 must be above 0 and at most 4"),
        ("train --width -1", "--width -1 must be above 0 and at most 4"),
        ("train --width nan", "--width nan must be above 0 and at most 4"),
        ("train --width 4.5", "--width 4.5 must be above 0 and at most 4"),
        ("models --width 5", "--width 5 must be above 0 and at most 4"),
        ("plan --width 5", "--width 5 must be above 0 and at most 4"),
        ("train --model timm:resnet18 --width 0.5", "timm:resnet18 has no --width 0.5: choose timm's widths by"),
        ("models --filter timm:resnet1* --width 0.5", "has no --width 0.5: choose timm's widths by the model's name"),
        (
            "train --model resnet18 --width 0.5 --pretrained torchvision:IMAGENET1K_V1",
            "torchvision has no weights of resnet18 with --width 0.5: leave it out, or give a file or URL",
        ),
    ],
)
def test_a_width_that_cannot_be_is_one_line(words: str, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert HPCGENDER.run(words.split()) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1


def test_a_checkpoint_of_an_impossible_width_is_refused(tmp_path: Path) -> None:
    path = save_model(tmp_path / "best.pt", model="compact")
    content = {name: value for name, value in read_checkpoint(path).items() if name != "format"}
    for width in (1e9, float("inf"), float("nan"), -1.0):
        content["config"]["width"] = width
        save_checkpoint(path, content)
        with pytest.raises(UserError, match="must be above 0 and at most 4"):
            load_trained(path, torch.device("cpu"))


def test_a_study_varies_the_width(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('[grid]\nmodel = ["resnet18", "vgg11"]\nwidth = [0.5, 1.0]\n')
    trials = read_study(file).trials
    assert list(trials) == ["resnet18-width0.5", "resnet18-width1.0", "vgg11-width0.5", "vgg11-width1.0"]
    assert [trial.width for trial in trials.values()] == [0.5, 1.0, 0.5, 1.0]
