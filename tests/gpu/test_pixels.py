"""Pixels on a GPU: those of a CPU but for rounding, whatever is decoded beside them, and kept as long as needed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch

from hpcgender.commands.train import TrainConfig
from hpcgender.data.augment import centred, draw
from hpcgender.data.config import Backend, BatchConfig, ReadConfig
from hpcgender.data.decoders import create_decoder
from hpcgender.data.decoders.decoder import BadImages
from hpcgender.data.evaluation import EvaluationLoader
from hpcgender.data.loader import Batch
from hpcgender.data.packs import read_packs
from hpcgender.data.shards import Encoded
from hpcgender.data.training import TrainingLoader
from hpcgender.data.waiting import Waiting
from hpcgender.distributed import Ranks
from hpcgender.inference.validation import validate
from hpcgender.models.create import create
from hpcgender.precision import Precision
from shard_tools.manifest import read_manifest
from tests.hpcgender.data.image_kinds import kinds, picture
from tests.hpcgender.data.test_decoders import ALL, AUGMENTATIONS, SIZE, assert_agree, decode, levels, read

pytestmark = pytest.mark.gpu

BUSY = 2_000_000_000
"""Cycles, about a second."""


@pytest.fixture(scope="module")
def drawn(faces: Path) -> list[Encoded]:
    return read(sorted(faces.iterdir())[:40])


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_a_gpu_sees_what_a_cpu_sees(backend: Backend, name: str, drawn: list[Encoded], device: torch.device) -> None:
    augmentation = AUGMENTATIONS[name]
    draws = draw(augmentation, 1, 2, np.arange(len(drawn)))
    seen = decode(backend, drawn, draws, augmentation, device=device)
    assert seen.device.type == device.type
    assert_agree(seen.cpu(), decode(backend, drawn, draws, augmentation))


def test_so_it_does_in_every_kind_of_file(backend: Backend, device: torch.device) -> None:
    images = list(kinds(picture()).values())
    assert_agree(decode(backend, images, device=device).cpu(), decode(backend, images))


def test_company_threads_and_the_first_batch_change_no_bit(
    backend: Backend, drawn: list[Encoded], device: torch.device
) -> None:
    draws = draw(ALL, 1, 2, np.arange(len(drawn)))
    whole = decode(backend, drawn, draws, ALL, device=device)
    chosen = [31, 2, 17]
    few = [drawn[place] for place in chosen]
    assert torch.equal(decode(backend, few, draws.rows(chosen), ALL, threads=4, device=device), whole[chosen])
    decoder = create_decoder(backend, len(drawn), SIZE, device, ALL, 2)
    decoder.submit(drawn[:1], draws.rows([0]))
    decoder.submit(drawn, draws)
    decoder.result()
    assert torch.equal(decoder.result(), whole)


def test_pixels_outlive_dalis_memory(dali: None, drawn: list[Encoded], gpu: torch.device) -> None:
    """What is still to be read by a busy GPU is not overwritten by the batches after it."""
    expected = decode("dali", drawn, device=gpu).cpu()
    decoder = create_decoder("dali", len(drawn), SIZE, gpu, None, 4)
    decoder.submit(drawn, centred(len(drawn)))
    torch.cuda._sleep(BUSY)  # type: ignore[no-untyped-call]
    pixels = decoder.result()
    seen = pixels.clone()
    del pixels
    for _ in range(20):
        decoder.submit(drawn[::-1], centred(len(drawn)))
        decoder.result()
    assert torch.equal(seen.cpu(), expected)


@pytest.mark.parametrize("fault", ["cut short", "no image"])
def test_bad_images_are_told(backend: Backend, fault: str, drawn: list[Encoded], device: torch.device) -> None:
    bad = drawn[3][: len(drawn[3]) // 2] if fault == "cut short" else np.frombuffer(b"no image" * 50, dtype=np.uint8)
    images = [*drawn[:3], bad.copy(), *drawn[4:8]]
    decoder = create_decoder(backend, len(images), SIZE, device, None, 2)
    decoder.submit(images, centred(len(images)))
    with pytest.raises(BadImages) as told:
        decoder.result()
    assert list(told.value.reasons) == [3]
    rest = [image for place, image in enumerate(images) if place != 3]
    decoder.resubmit(rest, centred(len(rest)))
    assert torch.equal(decoder.result(), decode(backend, rest, device=device))


def test_decoded_on_the_gpu_they_are_near(dali: None, gpu: torch.device) -> None:
    images = [image for name, image in kinds(picture()).items() if name in ("JPEG 4:4:4", "PNG", "BMP")]
    assert_agree(decode("dali-mixed", images, device=gpu).cpu(), decode("dali", images))


def test_so_they_are_with_chroma_at_half_resolution_but_at_edges_of_colours(dali: None, gpu: torch.device) -> None:
    """The GPU repeats chroma where a CPU interpolates it; what is bright and what is dark stays the same."""
    images = [image for name, image in kinds(picture()).items() if name in ("JPEG", "JPEG progressive")]
    ours, expected = levels(decode("dali-mixed", images, device=gpu).cpu()), levels(decode("dali", images))
    assert (ours - expected).abs().mean((1, 2, 3)).max() < 4
    gray = torch.tensor([0.299, 0.587, 0.114])[:, None, None]
    difference = ((ours - expected) * gray).sum(1).abs()
    assert difference.mean((1, 2)).max() < 2
    assert difference.max() <= 8


def test_training_batches_are_those_of_a_cpu(backend: Backend, shards: Path, device: torch.device) -> None:
    config = BatchConfig(data=shards, batch_size=24, image_size=40, seed=9, backend=backend)
    ours, expected = (
        TrainingLoader(config, read_packs(shards), Ranks(0, 1, where)) for where in (device, torch.device("cpu"))
    )
    with closing(ours), closing(expected):
        for batch, its in zip(ours.epoch(1), expected.epoch(1), strict=True):
            assert np.array_equal(batch.samples, its.samples)
            assert torch.equal(batch.gender.cpu(), its.gender)
            assert_agree(batch.images.cpu(), its.images)


def test_a_wait_for_pixels_is_that_of_the_device(device: torch.device) -> None:
    """A call that only queues kernels waits for nothing, and the GPU for a second; busy with steps it waits not."""
    waiting = Waiting(device)
    for wait in (False, True):
        if device.type == "cuda":
            torch.cuda._sleep(BUSY)  # type: ignore[no-untyped-call]
        with waiting:
            if wait and device.type == "cuda":
                torch.cuda._sleep(BUSY)  # type: ignore[no-untyped-call]
            elif wait:
                time.sleep(0.5)
        assert (waiting.seconds > 0.3) == wait


def test_validation_is_that_of_one_that_waits_for_each_batch(
    backend: Backend, shards: Path, device: torch.device
) -> None:
    config = TrainConfig(data=shards, model="resnet18", image_size=40, tasks=("gender", "age"))
    torch.manual_seed(0)
    model = create(config, 2).to(device).to(memory_format=torch.channels_last)
    torch.backends.cudnn.deterministic = True
    ranks, precision = Ranks(0, 1, device), Precision("fp32", device)

    def waiting(batches: Iterator[Batch]) -> Iterator[Batch]:
        for batch in batches:
            if device.type == "cuda":
                torch.cuda.synchronize()
            yield batch

    scores = []
    for wait in (False, True):
        reading = ReadConfig(data=shards, backend=backend)
        loader = EvaluationLoader(reading, read_manifest(shards), "train", batch_size=8, image_size=40, ranks=ranks)
        if device.type == "cuda" and not wait:
            torch.cuda._sleep(BUSY)  # type: ignore[no-untyped-call]
        with closing(loader):
            batches = loader.epoch(0)
            scores += validate(model, [waiting(batches) if wait else batches], ranks, precision, config)
    assert scores[0] == scores[1]
