from __future__ import annotations

import numpy as np
import torch

from hpcgender.cam.maps import FaceSums, activation_maps, class_averages
from hpcgender.cam.run import examples
from hpcgender.data.decoders import to_pixels
from hpcgender.distributed import Ranks
from hpcgender.models.config import ModelConfig
from hpcgender.models.registry import create


def test_a_map_adds_up_to_the_difference_of_the_logits() -> None:
    torch.manual_seed(0)
    model = create(ModelConfig(model="se_resnet18", output_stride=16), 2).eval()
    with torch.inference_mode():
        features = model.features(torch.randn(3, 3, 64, 64))
        maps = activation_maps(model, features)
        logits = model.classify(features).gender
        bias = model.get_parameter("fc.bias")
    assert logits is not None
    assert maps.shape == (3, 4, 4)
    torch.testing.assert_close(maps.mean((1, 2)) + bias[1] - bias[0], logits[:, 1] - logits[:, 0])


def test_a_map_is_grad_cam_of_the_difference_of_the_logits() -> None:
    torch.manual_seed(0)
    model = create(ModelConfig(model="se_resnet18"), 2).eval()
    features = model.features(torch.randn(2, 3, 96, 96)).detach().requires_grad_()
    logits = model.classify(features).gender
    assert logits is not None
    (gradient,) = torch.autograd.grad((logits[:, 1] - logits[:, 0]).sum(), features)
    grad_cam = (gradient.sum((2, 3), keepdim=True) * features).sum(1)
    torch.testing.assert_close(activation_maps(model, features), grad_cam)


def test_averages_are_of_raw_maps() -> None:
    maps = np.array([[[1.0, -2.0]], [[3.0, 4.0]], [[-8.0, 0.0]]], dtype=np.float32)
    female, male = class_averages(maps, np.array([1, 1, 0]), 2)
    assert (male.mean.tolist(), male.count) == ([[2.0, 1.0]], 2)
    assert (female.mean.tolist(), female.count) == ([[-8.0, 0.0]], 1)


def test_mean_faces_are_the_means_of_the_pixels() -> None:
    pixels = torch.randint(0, 256, (7, 3, 5, 5), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    images = (pixels.float() - 127.5) / 127.5
    gender = torch.tensor([0, 1, 1, -1, 0, 1, 0])
    assert torch.equal(to_pixels(images), pixels)
    faces = FaceSums(2, 5, torch.device("cpu"))
    faces.add(images[:3], gender[:3])
    faces.add(images[3:], gender[3:])
    means = faces.means(Ranks(0, 1, torch.device("cpu")))
    for value in (0, 1):
        expected = pixels[gender == value].double().mean(0).permute(1, 2, 0).numpy()
        np.testing.assert_allclose(means[value], expected)


def test_examples_are_of_each_class_and_distinct() -> None:
    gender = np.array([0] * 10 + [1] * 3 + [-1] * 5)
    chosen = examples(gender, 4, 2)
    assert gender[chosen].tolist() == [0] * 4 + [1] * 3
    assert len(set(chosen.tolist())) == 7
