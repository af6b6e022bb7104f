"""Weights of timm: from files of its own and by their tags."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import timm
import timm.optim
import torch
from safetensors.torch import save, save_file

from hpcgender.models.config import ModelConfig
from hpcgender.models.create import create
from hpcgender.models.pretrained import load_pretrained
from shard_tools.base.errors import UserError
from tests.conftest import Run
from tests.hpcgender.timm_models import CONVNEXT, IMAGES, MOBILENET, SIZE, VIT


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
    small: tuple[object, ...] = (
        *("--model", "timm:test_vit", "--pretrained", "timm:r160_in1k", "--data", shards, "--backend", "torchvision"),
        *("--image-size", 48, "--batch-size", 32, "--epochs", 1, "--limit", 96, "--lr", 0.01),
    )
    with hub({path: save(released.state_dict())}) as url:
        environment = {"HF_ENDPOINT": url, "HF_HOME": str(tmp_path / "home")}
        done = run("hpcgender", "train", *small, "--name", "a", cwd=tmp_path, **environment)
    assert done.returncode == 0, done.stderr
    assert "pretrained from timm:r160_in1k: " in done.stdout
    assert "gender new, as it has 1,000 outputs there and 2 here, pixels normalised with mean 0.5" in done.stdout
    done = run("hpcgender", "train", *small, "--name", "b", cwd=tmp_path, **{**environment, "HF_HUB_OFFLINE": "1"})
    assert done.returncode == 0, done.stderr  # from the cache
    nowhere = {"HF_HOME": str(tmp_path / "nowhere"), "HF_HUB_OFFLINE": "1"}
    done = run("hpcgender", "train", *small, "--name", "c", cwd=tmp_path, **nowhere)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "cannot load timm:r160_in1k for timm:test_vit" in done.stderr
    assert "on a machine with network access, download timm/test_vit.r160_in1k" in done.stderr
