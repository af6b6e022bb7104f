from __future__ import annotations

import argparse
import hashlib
import threading
import zipfile
from collections.abc import Iterator
from datetime import datetime, timezone
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
import torchvision
from torch import nn
from torchvision.transforms import functional

from hpcgender.models.config import ModelConfig
from hpcgender.models.create import create
from hpcgender.models.network import Network
from hpcgender.models.pretrained import load_pretrained
from hpcgender.models.read_weights import IMAGENET_MEAN, IMAGENET_STD
from shard_tools.base.errors import UserError
from tests.hostile.checkpoints import rewritten, saved
from tests.hpcgender.test_models import gender, randomise


@pytest.fixture(autouse=True)
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory that downloads are looked for in."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "torch" / "hub" / "checkpoints"


def begin(source: object, model: str = "resnet18", **options: object) -> tuple[Network, str]:
    """A new network with the pretrained weights loaded, and the line on what was loaded."""
    config = ModelConfig(model=model, pretrained=str(source), **options)  # type: ignore[arg-type]
    config.check()
    torch.manual_seed(1)
    network = create(config, 2)
    line = load_pretrained(network, config)
    assert "\n" not in line
    return network.eval(), line


def theirs(model: str = "resnet18", classes: int = 1000) -> nn.Module:
    torch.manual_seed(0)
    network: nn.Module = torchvision.models.get_model(model, num_classes=classes)
    randomise(network)
    return network.eval()


def pixels(size: int = 64) -> torch.Tensor:
    """Images in [0, 1]."""
    return torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))


def imagenet(images: torch.Tensor) -> torch.Tensor:
    normalised: torch.Tensor = functional.normalize(images, list(IMAGENET_MEAN), list(IMAGENET_STD))
    return normalised


def ours(path: Path, model: str = "resnet18", **options: object) -> Network:
    """A network of ours, saved as a checkpoint."""
    config = ModelConfig(model=model, **options)  # type: ignore[arg-type]
    torch.manual_seed(0)
    network = create(config, 2).eval()
    randomise(network)
    torch.save({"format": "hpcgender-checkpoint-1", "model": network.state_dict(), "classes": ["female", "male"]}, path)
    return network


@pytest.mark.parametrize(
    ("model", "suffix"),
    [("resnet18", "pth"), ("resnet50", "safetensors"), pytest.param("vgg11_bn", "pth", marks=pytest.mark.slow)],
)
def test_torchvisions_weights_see_what_they_were_trained_on(tmp_path: Path, model: str, suffix: str) -> None:
    expected = theirs(model, classes=2)
    path = tmp_path / f"weights.{suffix}"
    if suffix == "pth":
        torch.save(expected.state_dict(), path)
    else:
        safetensors.torch.save_file(expected.state_dict(), path)
    network, line = begin(path, model)
    with torch.inference_mode():
        torch.testing.assert_close(
            gender(network, pixels() * 2 - 1), expected(imagenet(pixels())), rtol=1e-4, atol=1e-5
        )
    tensors = sum("num_batches" not in key for key in expected.state_dict())
    assert f"{tensors} of {tensors} tensors loaded" in line
    head = "fc" if model.startswith("resnet") else "classifier.6"
    assert line.endswith(f"{head} loaded too, pixels normalised with mean 0.485 0.456 0.406 and std 0.229 0.224 0.225")


def test_timms_weights_wrapped_as_a_trainer_leaves_them(tmp_path: Path) -> None:
    expected = timm.create_model("seresnet18", num_classes=1000)
    randomise(expected)
    wrapped = {"state_dict": {f"module.{key}": value for key, value in expected.state_dict().items()}, "epoch": 3}
    torch.save(wrapped, tmp_path / "last.pth.tar")
    network, line = begin(tmp_path / "last.pth.tar", "se_resnet18", tasks=("gender", "age"))
    with torch.inference_mode():
        features = network.features(pixels() * 2 - 1)
        torch.testing.assert_close(features, expected.eval().forward_features(imagenet(pixels())), rtol=1e-4, atol=1e-4)
    assert "fc new, as it has 1,000 outputs there and 2 here, fc_age new" in line


def test_our_checkpoint_goes_on_with_another_task(tmp_path: Path) -> None:
    before = ours(tmp_path / "best.pt", "compact")
    network, line = begin(tmp_path / "best.pt", "compact", tasks=("gender", "age"))
    with torch.inference_mode():
        assert torch.equal(gender(network, pixels()), gender(before, pixels()))
    assert "gender loaded too, age new" in line
    _, line = begin(tmp_path / "best.pt", "compact", tasks=("age",))
    assert "gender ignored, as it is not a task, age new" in line
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "best.pt").rename(tmp_path / "run" / "checkpoints" / "best.pt")
    _, line = begin(tmp_path / "run", "compact")
    assert "gender loaded too" in line


def test_hidden_layers_of_a_head_are_loaded_where_they_fit(tmp_path: Path) -> None:
    torch.manual_seed(3)
    deep = create(ModelConfig(model="resnet18", head_layers=(16,), tasks=("gender", "age")), 2)
    torch.save(deep.state_dict(), tmp_path / "deep.pth")
    same, line = begin(tmp_path / "deep.pth", head_layers=(16,), tasks=("gender", "age"))
    assert "fc loaded too, fc_age loaded too" in line
    assert all(torch.equal(value, deep.state_dict()[key]) for key, value in same.state_dict().items() if "fc" in key)
    _, line = begin(tmp_path / "deep.pth")
    assert "fc new, as its layers differ, fc_age ignored, as it is not a task" in line


def test_the_normalisation_stays_with_the_weights(tmp_path: Path) -> None:
    expected = theirs(classes=2)
    torch.save(expected.state_dict(), tmp_path / "a.pth")
    network, _ = begin(tmp_path / "a.pth")
    assert set(network.state_dict()) - set(expected.state_dict()) == {"pixels.scale", "pixels.shift"}
    again = create(ModelConfig(model="resnet18"), 2).eval()
    again.load_state_dict(network.state_dict())
    torch.save({"format": "hpcgender-checkpoint-1", "model": network.state_dict()}, tmp_path / "best.pt")
    third, _ = begin(tmp_path / "best.pt")
    with torch.inference_mode():
        predicted = [gender(other, pixels() * 2 - 1) for other in (network, again, third)]
    assert torch.equal(predicted[0], predicted[1])
    assert torch.equal(predicted[0], predicted[2])


def test_grey_networks_sum_the_first_layer_over_the_colours(tmp_path: Path) -> None:
    before = ours(tmp_path / "best.pt")
    network, _ = begin(tmp_path / "best.pt", grayscale=True)
    grey = (pixels() * 2 - 1).mean(1, keepdim=True).expand(-1, 3, -1, -1)
    with torch.inference_mode():
        torch.testing.assert_close(gender(network, grey), gender(before, grey), rtol=1e-4, atol=1e-5)
    assert network.state_dict()["conv1.weight"].shape[1] == 1


def test_another_backbone_is_refused(tmp_path: Path) -> None:
    torch.save(theirs().state_dict(), tmp_path / "a.pth")
    for model, options, message in (
        ("se_resnet18", {}, r"layer1.0.se.fc1.weight is missing there and \(8, 64, 1, 1\) here"),
        ("resnet34", {}, r"layer1.2.conv1.weight is missing there"),
        ("resnet50", {}, r"layer1.0.conv1.weight is \(64, 64, 3, 3\) there and \(64, 64, 1, 1\) here"),
        ("resnet18", {"stem": "small"}, r"conv1.weight is \(64, 3, 7, 7\) there and \(64, 3, 3, 3\) here"),
    ):
        with pytest.raises(UserError, match=f"does not fit {model}: {message}"):
            begin(tmp_path / "a.pth", model, **options)
    ours(tmp_path / "best.pt", "se_resnet18")
    with pytest.raises(UserError, match=r"layer1.0.se.fc1.weight is \(8, 64, 1, 1\) there and missing here"):
        begin(tmp_path / "best.pt", "resnet18")
    state = create(ModelConfig(model="se_resnet18"), 2).state_dict()
    of = {"format": "hpcgender-checkpoint-1", "model": state, "config": {"model": "se_resnet18"}}
    torch.save(of, tmp_path / "named.pt")
    with pytest.raises(UserError, match=r"; give --model se_resnet18 that it was trained with, or other weights$"):
        begin(tmp_path / "named.pt", "resnet18")
    with pytest.raises(UserError, match=r"does not fit timm:test_vit .*: give --model se_resnet18 that it was trained"):
        begin(tmp_path / "named.pt", "timm:test_vit")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x80\x02 no weights", "a.pt is damaged, or holds objects that are not read"),
        ({}, "holds no weights"),
        ([1, 2], "holds no weights"),
        ({"epoch": 3, "lr": 0.1}, "holds no tensors, but epoch, lr"),
        ({"epoch": 3, "conv1.weight": torch.ones(1)}, "holds more than weights, epoch"),
        ({"a": Path("x")}, "holds no tensors, but a"),
        ({"student": {"a": torch.ones(1)}, "teacher": {"a": torch.ones(1)}}, "several state dicts, student, teacher"),
        (nn.Linear(1, 1), r"holds a whole object, torch.nn.modules.linear.Linear, not its weights: .*state_dict\(\)"),
        ({"model": nn.Linear(1, 1)}, "holds a whole object, torch.nn.modules.linear.Linear, as model"),
        (b"<html><body>404</body></html>", "a.pt is a web page, not the file itself: was a login page saved"),
        (b"\n<!DOCTYPE html>", "a.pt is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git-lfs pointer, not the file itself: .* git lfs pull"),
        (b"", "a.pt is empty: copy or download it again"),
        (b"lr,epoch\n", "a.pt is text, not weights"),
        (b"PK\x03\x04 cut", "a.pt is cut short or damaged: copy or download it again"),
        (
            rewritten(saved({"a": torch.zeros(1 << 20)}), compression=zipfile.ZIP_DEFLATED),
            "a.pt is compressed, or its records are larger than the file: load it, and torch.save",
        ),
        (b"\xff\x00\x00\x00\x00\x00\x00\x00{", "a.pt is cut short"),
        (b"\x89HDF\r\n", "an HDF5 file, as Keras writes"),
    ],
)
def test_a_file_without_weights_is_refused(tmp_path: Path, content: Any, message: str) -> None:
    if isinstance(content, bytes):
        (tmp_path / "a.pt").write_bytes(content)
    else:
        torch.save(content, tmp_path / "a.pt")
    with pytest.raises(UserError, match=message) as raised:
        begin(tmp_path / "a.pt")
    assert "\n" not in str(raised.value)
    assert "\x1b" not in str(raised.value)
    assert "weights_only" not in str(raised.value)


class Runs:
    """Creates a file when it is unpickled without care."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return open, (str(self.path), "w")


@pytest.mark.parametrize(
    ("key", "prefix"),
    [
        ("state_dict", ""),
        ("state_dict", "module."),
        ("model", ""),
        ("model_state_dict", ""),
        ("state_dict", "model."),
        ("state_dict", "model.net._orig_mod."),
        ("backbone", "encoder."),
    ],
)
def test_weights_in_the_checkpoints_of_other_programs(tmp_path: Path, key: str, prefix: str) -> None:
    expected = theirs().state_dict()
    beside = {
        "args": argparse.Namespace(lr=0.1, out=Path("out")),
        "hyper_parameters": {"seed": np.float64(1), "when": datetime.now(tz=timezone.utc), "path": Path("x")},
        "optimizer": torch.optim.SGD([nn.Parameter(torch.ones(1))]).state_dict(),
        "runs": Runs(tmp_path / "ran"),
    }
    named = {f"{prefix}{name}": value for name, value in expected.items()}
    torch.save({key: named, "epoch": 5, **beside}, tmp_path / "last.ckpt")
    network, line = begin(tmp_path / "last.ckpt")
    state = network.state_dict()
    assert torch.equal(state["layer4.1.conv2.weight"], expected["layer4.1.conv2.weight"])
    assert (f"those below {prefix.rstrip('.')}" in line) == bool(prefix)
    assert not (tmp_path / "ran").exists()


def test_the_ema_weights_are_taken_if_there_are_any(tmp_path: Path) -> None:
    expected = theirs().state_dict()
    averaged = {**{f"module.{name}": value for name, value in expected.items()}, "n_averaged": torch.tensor(3)}
    other = {name: value + 1 for name, value in expected.items()}
    torch.save({"model": other, "model_ema": averaged}, tmp_path / "model.pth")
    network, line = begin(tmp_path / "model.pth")
    assert torch.equal(network.state_dict()["conv1.weight"], expected["conv1.weight"])
    assert f"pretrained from {tmp_path / 'model.pth'} (model_ema): 100 of 102 tensors" in line


def test_a_network_among_other_parts_is_taken_and_two_are_refused(tmp_path: Path) -> None:
    expected = theirs().state_dict()
    named = {f"model.{name}": value for name, value in expected.items()}
    torch.save({"state_dict": {**named, "loss.weight": torch.ones(2)}}, tmp_path / "a.ckpt")
    network, line = begin(tmp_path / "a.ckpt")
    assert torch.equal(network.state_dict()["conv1.weight"], expected["conv1.weight"])
    assert "those below model, 1 other left out" in line
    torch.save({**named, **{f"teacher.{name}": value for name, value in expected.items()}}, tmp_path / "b.ckpt")
    with pytest.raises(UserError, match=r"holds several networks, model\., teacher\.: save the weights of one"):
        begin(tmp_path / "b.ckpt")


def test_what_holds_no_weights_is_refused_before_work_begins(tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_text("<html>")
    with pytest.raises(UserError, match="is a web page"):
        ModelConfig(pretrained=str(tmp_path / "a.pt")).check_pretrained()


def test_weights_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    state = theirs().state_dict()
    state["layer2.0.conv1.weight"][0, 0] = float("nan")
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(UserError, match=r"NaN or infinite values in layer2.0.conv1.weight"):
        begin(tmp_path / "a.pth")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no file .*nothing.pth"):
        begin(tmp_path / "nothing.pth")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A web server, and the directory that it serves."""
    served = tmp_path / "served"
    served.mkdir()

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(served))) as serving:
        thread = threading.Thread(target=serving.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{serving.server_port}", served
        serving.shutdown()
        thread.join()


def test_weights_are_downloaded_once(server: tuple[str, Path], hub: Path) -> None:
    url, served = server
    torch.save(theirs().state_dict(), served / "a.pth")
    first, line = begin(f"{url}/a.pth")
    assert "fc new, as it has 1,000 outputs there and 2 here" in line
    (served / "a.pth").unlink()
    assert (hub / "a.pth").is_file()
    second, _ = begin(f"{url}/a.pth")
    assert all(torch.equal(value, second.state_dict()[key]) for key, value in first.state_dict().items())
    with pytest.raises(UserError, match=r"cannot download .*b.pth \(HTTP Error 404: File not found\)") as raised:
        begin(f"{url}/b.pth")
    assert f"download it to {hub / 'b.pth'}" in str(raised.value)
    (served / "c.pth").write_text("<html>log in</html>")
    with pytest.raises(UserError, match=rf"{url}/c.pth is a web page"):
        begin(f"{url}/c.pth")
    assert [path.name for path in hub.iterdir()] == ["a.pth"]


def test_torchvisions_weights_are_downloaded_by_name_and_checked(
    server: tuple[str, Path], hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From where torchvision says, but for the address: the file's name ends with the beginning of its SHA-256."""
    url, served = server
    expected = theirs()
    torch.save(expected.state_dict(), served / "weights")
    digest = hashlib.sha256((served / "weights").read_bytes()).hexdigest()
    name, wrong = f"resnet18-{digest[:8]}.pth", "resnet18-00000000.pth"
    for other in (name, wrong):
        (served / other).hardlink_to(served / "weights")
    of_imagenet = torchvision.models.ResNet18_Weights.IMAGENET1K_V1.value
    monkeypatch.setattr(of_imagenet, "url", f"{url}/{wrong}")
    with pytest.raises(UserError, match=r"cannot download .*invalid hash value \(expected \"00000000\""):
        begin("torchvision:IMAGENET1K_V1")
    assert list(hub.iterdir()) == []
    monkeypatch.setattr(of_imagenet, "url", f"{url}/{name}")
    network, line = begin("torchvision:IMAGENET1K_V1", head_layers=(16,))
    assert "pretrained from torchvision:IMAGENET1K_V1: 100 of 104 tensors loaded" in line
    assert "fc new, as it has 1,000 outputs there and 2 here" in line
    state = network.state_dict()
    for key, value in expected.state_dict().items():
        if not key.startswith("fc.") and not key.endswith("num_batches_tracked"):
            assert torch.equal(state[key], value), key
    assert [path.name for path in hub.iterdir()] == [name]


def test_torchvisions_weights_are_found_where_they_were_put_beforehand(hub: Path) -> None:
    hub.mkdir(parents=True)
    expected = theirs()
    torch.save(expected.state_dict(), hub / "resnet18-f37072fd.pth")
    network, _ = begin("torchvision:IMAGENET1K_V1")
    state = network.state_dict()
    assert torch.equal(state["layer4.1.conv2.weight"], expected.state_dict()["layer4.1.conv2.weight"])
    torch.testing.assert_close(state["pixels.scale"].flatten(), 0.5 / torch.tensor(IMAGENET_STD))
    with pytest.raises(UserError, match="unknown torchvision weights of resnet18 'IMAGENET1K_V2': did you mean"):
        begin("torchvision:IMAGENET1K_V2")


def test_without_a_network_it_says_what_to_download_where(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for scheme in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(scheme, "http://127.0.0.1:9")  # nobody listens there
    with pytest.raises(UserError, match=r"cannot download https://\S+/resnet50-11ad3fa6.pth") as raised:
        begin("torchvision:IMAGENET1K_V2", "resnet50")
    assert f"on a machine with network access, download it to {hub / 'resnet50-11ad3fa6.pth'}" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_home_that_nobody_has_does_not_become_a_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: "~/.cache/torch/hub")  # as torch has it without HOME and a user
    with pytest.raises(UserError, match="HOME is not set: set TORCH_HOME to a directory for it"):
        begin("torchvision:IMAGENET1K_V2", "resnet50")
    assert not list(tmp_path.iterdir())


def test_a_cache_that_cannot_be_written_is_named(hub: Path) -> None:
    hub.parent.mkdir(parents=True)
    hub.write_text("no directory")
    with pytest.raises(UserError, match=r"set TORCH_HOME to a directory that can be written"):
        begin("torchvision:IMAGENET1K_V2", "resnet50")
