"""Models of timm: through training, evaluation and heat maps, and against timm itself."""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnxruntime
import pytest
import timm
import timm.optim
import torch
import torch.distributed as dist
from pytorch_grad_cam import GradCAM
from safetensors.torch import save, save_file
from torch.nn.parallel import DistributedDataParallel

from hpcgender.cam.heat_maps import cam
from hpcgender.cam.maps import evidence_maps
from hpcgender.cam.results import read_cam
from hpcgender.checkpoint import load_trained, read_checkpoint
from hpcgender.commands.cam import CamConfig
from hpcgender.commands.export import ExportConfig
from hpcgender.commands.train import TrainConfig
from hpcgender.export.export import export
from hpcgender.export.parity import chosen_pixels, expected
from hpcgender.models.config import ModelConfig
from hpcgender.models.create import create
from hpcgender.models.network import Network
from hpcgender.models.pretrained import load_pretrained
from hpcgender.models.registry import check_model, matching, timm_names
from hpcgender.models.timm_network import Timm
from hpcgender.models.transfer import freeze, freeze_untouched, parameter_groups
from hpcgender.predict.model import load
from hpcgender.run_directory import newest_first
from hpcgender.train.loop import train
from shard_tools.base.commands import parse_options
from shard_tools.base.errors import UserError
from shard_tools.manifest import read_manifest
from tests.benchmarks.cam import Logits, male_minus_female
from tests.conftest import Run
from tests.hpcgender.evaluate.evaluating import evaluated

SIZE = 64
IMAGES = torch.randn(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
VIT, CONVNEXT, EFFICIENTNET, MOBILENET = (
    *("timm:vit_tiny_patch16_224", "timm:convnext_atto"),
    *("timm:efficientnet_lite0", "timm:mobilenetv3_small_050"),
)
SWIN = "timm:swin_tiny_patch4_window7_224"
TRAINED: dict[str, dict[str, Any]] = {
    VIT: {"drop_path": 0.1, "layer_decay": 0.75},
    CONVNEXT: {"ema": 0.9},
    EFFICIENTNET: {"output_stride": 16},
    MOBILENET: {},
}
SMALL: dict[str, Any] = {"batch_size": 32, "limit": 96, "epochs": 1, "backend": "torchvision"}
METHODS = {VIT: "grad-cam", CONVNEXT: "grad-cam", EFFICIENTNET: "cam", MOBILENET: "grad-cam"}
CELLS = {VIT: (4, 4), CONVNEXT: (2, 2), EFFICIENTNET: (4, 4), MOBILENET: (2, 2)}


def made(name: str, size: int = SIZE, **options: Any) -> Timm:
    """A network in eval mode with statistics, gains and layer scales as after training."""
    config = ModelConfig(model=name, **options)
    config.check()
    torch.manual_seed(0)
    network = create(config, 2, size).eval()
    assert isinstance(network, Timm)
    randomise(network.backbone)
    return network


def randomise(model: torch.nn.Module) -> None:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if value.is_floating_point() and value.ndim == 1:
                value.copy_(torch.rand(value.shape, generator=generator) * 0.5 + (0.5 if "bias" not in name else -0.25))


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


@pytest.mark.parametrize("name", [EFFICIENTNET, SWIN, "timm:vit_small_patch16_dinov3"])
def test_maps_add_up_to_the_log_odds_where_timm_pools_by_the_mean(name: str) -> None:
    size = 112 if name == SWIN else SIZE
    network = made(name, size)
    images = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        maps, log_odds = evidence_maps(network, images)
        logits = network(images).gender
    assert network.gender is not None
    torch.testing.assert_close(log_odds, logits.diff(1)[:, 0])
    bias = network.state_dict()["gender.bias"].diff()
    torch.testing.assert_close(maps.mean((1, 2)) + bias, log_odds, rtol=1e-4, atol=1e-4)


def tokens(prefix: int) -> Any:
    """How pytorch-grad-cam is to see tokens: without those of the class and registers."""

    def reshaped(features: torch.Tensor) -> torch.Tensor:
        side = round((features.shape[1] - prefix) ** 0.5)
        return features[:, prefix:].reshape(len(features), side, side, -1).permute(0, 3, 1, 2)

    return reshaped


@pytest.mark.parametrize(
    ("name", "layer", "reshape"),
    [
        (VIT, "blocks.11.norm1", tokens(1)),
        ("timm:deit_tiny_distilled_patch16_224", "blocks.11.norm1", tokens(2)),
        ("timm:test_vit2", "norm", tokens(1)),
        ("timm:test_vit3", "norm", tokens(1)),
        ("timm:test_mambaout", "stages", lambda features: features.permute(0, 3, 1, 2)),
        (CONVNEXT, "norm_pre", None),
        (MOBILENET, "blocks", None),
        (EFFICIENTNET, "bn2", None),
        (f"{EFFICIENTNET} with a deep head", "bn2", None),
    ],
)
def test_maps_are_those_of_pytorch_grad_cam(name: str, layer: str, reshape: Any) -> None:
    name, _, deep = name.partition(" ")
    network = made(name, head_layers=(16,) if deep else ()).double()
    images = IMAGES[:1].double()
    with torch.no_grad():
        maps, _ = evidence_maps(network, images)
    target = network.backbone.get_submodule(layer)
    with GradCAM(model=Logits(network), target_layers=[target], reshape_transform=reshape) as theirs:
        theirs(input_tensor=images, targets=[male_minus_female])
        seen = theirs.activations_and_grads
        raw = theirs.get_cam_image(images, target, [], seen.activations[0].numpy(), seen.gradients[0].numpy(), False)
    raw *= maps[0].numel()  # its weights are means over the cells, ours are sums
    assert np.abs(raw).max() > 0
    assert np.abs(maps.numpy() - raw).max() <= 1e-5 * np.abs(raw).max()


def test_a_model_whose_features_are_no_square_has_no_heat_maps() -> None:
    network = made("timm:crossvit_9_240", 240)
    with torch.no_grad():
        assert network(torch.zeros(1, 3, 240, 240)).gender.shape == (1, 2)
    with pytest.raises(UserError, match="crossvit_9_240 has no heat maps, as its features are no square of cells"):
        evidence_maps(network, torch.zeros(1, 3, 240, 240))


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


@pytest.mark.parametrize("name", [VIT, CONVNEXT, SWIN])
def test_learning_rates_by_layer_are_timms(name: str) -> None:
    size = 224 if name == SWIN else SIZE
    config = ModelConfig(model=name, tasks=("gender", "age"))
    with torch.device("meta"):
        network = create(config, 2, size)
        theirs = timm.create_model(name[5:], num_classes=2)
    wanted: dict[str, tuple[float, float]] = {}
    names = {id(parameter): key for key, parameter in theirs.named_parameters()}
    for group in timm.optim.param_groups_layer_decay(
        theirs,
        weight_decay=0.05,
        layer_decay=0.75,
        no_weight_decay_list=theirs.no_weight_decay() if name != CONVNEXT else (),
    ):
        wanted |= {names[id(p)]: (group["lr_scale"], group["weight_decay"]) for p in group["params"]}
    found: dict[str, tuple[float, float]] = {}
    names = {id(parameter): key for key, parameter in network.named_parameters()}
    for group in parameter_groups(network, 0.1, 0.05, layer_decay=0.75):
        assert group["lr"] == pytest.approx(0.1 * group["lr_factor"])
        found |= {names[id(p)]: (group["lr_factor"], group["weight_decay"]) for p in group["params"]}
    heads = {key: value for key, value in found.items() if not key.startswith("backbone.")}
    assert heads == {f"{task}.{kind}": (1.0, 0.05 * (kind == "weight")) for task in config.tasks for kind in KINDS}
    classifier = timm.get_pretrained_cfg(name[5:]).classifier
    ours = {key.removeprefix("backbone."): value for key, value in found.items() if key not in heads}
    assert ours == {key: pytest.approx(value) for key, value in wanted.items() if not key.startswith(classifier)}


KINDS = ("weight", "bias")


def test_a_resnet_learns_by_its_blocks_and_a_model_without_groups_is_refused() -> None:
    network = create(ModelConfig(model="resnet18"), 2)
    names = {id(parameter): key for key, parameter in network.named_parameters()}
    factors = {
        names[id(p)]: group["lr_factor"]
        for group in parameter_groups(network, 0.1, 1e-4, 0.5, layer_decay=0.5)
        for p in group["params"]
    }
    assert factors["fc.weight"] == 1
    assert factors["layer4.1.conv2.weight"] == 0.5 * 0.5
    assert factors["layer4.0.conv1.weight"] == 0.5 * 0.5**2
    assert factors["conv1.weight"] == 0.5 * 0.5**9
    with torch.device("meta"):
        poolformer = create(ModelConfig(model="timm:poolformer_s12"), 2, SIZE)
    with pytest.raises(UserError, match=r"--layer-decay 0\.75: the model has no groups of layers"):
        parameter_groups(poolformer, 0.1, 1e-4, layer_decay=0.75)
    with pytest.raises(UserError, match="--freeze 2: the model has no stages: give --freeze backbone"):
        freeze(poolformer, 2)


def step(network: Network) -> set[str]:
    """Trains a step and returns the names of what it moved."""
    before = {key: value.clone() for key, value in network.state_dict().items()}
    optimizer = torch.optim.SGD(parameter_groups(network, 0.1, 1e-2), lr=0.1)
    network.train()
    outputs = network(IMAGES)
    torch.stack([value.sum() for value in outputs if value is not None]).sum().backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return {key for key, value in network.state_dict().items() if not torch.equal(value, before[key])}


@pytest.mark.parametrize("name", [VIT, CONVNEXT, MOBILENET])
def test_frozen_backbones_and_stages_do_not_move(name: str) -> None:
    network = made(name, tasks=("gender", "age"))
    freeze(network, "backbone")
    assert step(network) == {f"{task}.{kind}" for task in ("gender", "age") for kind in KINDS}
    network = made(name)
    freeze(network, 2)
    moved = step(network)
    still = ("blocks.0.", "blocks.1.", "patch_embed", "pos_embed", "stem", "stages.0.", "stages.1.", "conv_stem")
    frozen = {key for key, _ in network.named_parameters() if key.removeprefix("backbone.").startswith(still)}
    assert frozen
    assert not moved & frozen
    assert moved >= {key for key, p in network.named_parameters() if p.requires_grad and key.endswith("weight")}
    with pytest.raises(UserError, match="--freeze 99: the model has stages 1 to"):
        freeze(network, 99)


def test_what_no_prediction_depends_on_is_frozen_so_that_ranks_do_not_wait_for_it(tmp_path: Path) -> None:
    config = ModelConfig(model="timm:efficientvim_m1_dist")
    network = create(config, 2, SIZE)
    with torch.device("meta"):
        described = create(config, 2, SIZE)
    freeze_untouched(network, described, SIZE)
    assert {key for key, p in network.named_parameters() if not p.requires_grad} == {
        "backbone.weights",
        "backbone.weights_dist",
    }
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        parallel = DistributedDataParallel(network)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Grad strides do not match")  # as in training
            for _ in range(2):
                parallel(IMAGES).gender.sum().backward()
    finally:
        dist.destroy_process_group()


def test_synchronised_batch_normalisation_keeps_its_activation() -> None:
    network = made(MOBILENET)
    converted = network.synchronised()
    layer = converted.get_submodule("backbone.bn1")
    assert isinstance(layer, torch.nn.SyncBatchNorm)
    assert isinstance(layer.act, torch.nn.Hardswish)


def test_timms_weights_fit_another_image_size_as_timm_makes_them(tmp_path: Path) -> None:
    torch.manual_seed(3)
    released = timm.create_model(VIT[5:], num_classes=10)
    file = tmp_path / "vit.safetensors"
    save_file(released.state_dict(), file)
    config = ModelConfig(model=VIT, pretrained=str(file), tasks=("gender", "age"))
    network = create(config, 2, SIZE).eval()
    line = load_pretrained(network, config)
    assert "150 of 154 tensors loaded" in line
    assert "gender new, as it has 10 outputs there and 2 here, age new" in line
    assert line.endswith("pixels normalised with mean 0.5 0.5 0.5 and std 0.5 0.5 0.5")
    theirs = timm.create_model(
        VIT[5:], pretrained=True, pretrained_cfg_overlay={"file": str(file)}, num_classes=0, img_size=SIZE
    ).eval()
    with torch.no_grad():
        torch.testing.assert_close(network.features(IMAGES), theirs.forward_features(IMAGES))
    # And from a checkpoint of ours to a third size.
    content = {"format": "hpcgender-checkpoint-1", "model": network.state_dict(), "classes": ["female", "male"]}
    torch.save(content, tmp_path / "best.pt")
    again = ModelConfig(model=VIT, pretrained=str(tmp_path / "best.pt"))
    larger = create(again, 2, 96)
    assert "gender loaded too" in load_pretrained(larger, again)
    assert larger.state_dict()["backbone.pos_embed"].shape == (1, 37, 192)
    assert torch.equal(larger.state_dict()["pixels.scale"], network.state_dict()["pixels.scale"])


@pytest.mark.parametrize("name", ["deit_tiny_distilled_patch16_224", "levit_128s", "efficientvit_m0"])
def test_a_classifier_that_is_more_than_a_linear_layer_is_left_out(name: str, tmp_path: Path) -> None:
    """Of these models it is two, two with batch normalisation, and one with that."""
    torch.manual_seed(3)
    released = timm.create_model(name, num_classes=2)
    torch.save(released.state_dict(), tmp_path / "a.pth")
    config = ModelConfig(model=f"timm:{name}", pretrained=str(tmp_path / "a.pth"))
    network = create(config, 2, 224)
    assert "gender new, pixels normalised" in load_pretrained(network, config)
    state = network.state_dict()
    for key, value in released.state_dict().items():
        assert key.startswith(("head.", "head_dist.")) or torch.equal(state[f"backbone.{key}"], value), key


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    torch.save(timm.create_model(MOBILENET[5:]).state_dict(), tmp_path / "a.pth")
    config = ModelConfig(model=CONVNEXT, pretrained=str(tmp_path / "a.pth"))
    with pytest.raises(UserError, match=r"does not fit timm:convnext_atto .*: give the --model") as error:
        load_pretrained(create(config, 2, SIZE), config)
    assert "\n" not in str(error.value)
    config = ModelConfig(model=CONVNEXT, pretrained="timm:d3_in1k")
    with pytest.raises(UserError, match="unknown timm weights of timm:convnext_atto 'd3_in1k': did you mean d2_in1k"):
        load_pretrained(create(config, 2, SIZE), config)


@contextmanager
def hub(files: dict[str, bytes]) -> Iterator[str]:
    """A server that answers as Hugging Face's hub does for these files, by their paths."""

    class Hub(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer()

        def do_GET(self) -> None:
            self.wfile.write(self.answer())

        def answer(self) -> bytes:
            content = files.get(self.path)
            self.send_response(404 if content is None else 200)
            self.send_header("X-Repo-Commit", "0" * 40)
            self.send_header("ETag", f'"{hashlib.sha256(content or b"").hexdigest()}"')
            self.send_header("Content-Length", str(len(content or b"")))
            if content is None:
                self.send_header("X-Error-Code", "EntryNotFound")
            self.end_headers()
            return content or b""

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as serving:
        thread = threading.Thread(target=serving.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{serving.server_port}"
        serving.shutdown()
        thread.join()


def test_weights_by_timms_tag_are_downloaded_as_timm_does(run: Run, shards: Path, tmp_path: Path) -> None:
    released = timm.create_model("test_vit")
    path = "/timm/test_vit.r160_in1k/resolve/main/model.safetensors"
    small: tuple[object, ...] = ("--model", "timm:test_vit", "--image-size", 48, "--batch-size", 32, "--epochs", 1)
    small = (
        *small,
        "--limit",
        96,
        "--lr",
        0.01,
        "--data",
        shards,
        "--backend",
        "torchvision",
        "--pretrained",
        "timm:r160_in1k",
    )
    with hub({path: save(released.state_dict())}) as url:
        environment = {"HF_ENDPOINT": url, "HF_HOME": str(tmp_path / "home")}
        done = run("hpcgender", "train", *small, "--name", "a", cwd=tmp_path, **environment)
    assert done.returncode == 0, done.stderr
    assert "pretrained from timm:r160_in1k: " in done.stdout
    assert "gender new, as it has 1000 outputs there and 2 here, pixels normalised with mean 0.5" in done.stdout
    done = run("hpcgender", "train", *small, "--name", "b", cwd=tmp_path, **{**environment, "HF_HUB_OFFLINE": "1"})
    assert done.returncode == 0, done.stderr  # from the cache
    nowhere = {"HF_HOME": str(tmp_path / "nowhere"), "HF_HUB_OFFLINE": "1"}
    done = run("hpcgender", "train", *small, "--name", "c", cwd=tmp_path, **nowhere)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "cannot load timm:r160_in1k for timm:test_vit" in done.stderr
    assert "on a machine with network access, download timm/test_vit.r160_in1k" in done.stderr
