from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from hpcgender.data.augment import Draws, centred, draw
from hpcgender.data.augmentation import PRESETS, Augmentation
from hpcgender.data.config import Backend
from hpcgender.data.decoders import create_decoder, decoder_threads
from hpcgender.data.decoders.decoder import PREFETCH, BadImages
from hpcgender.data.shards import Encoded
from hpcgender.distributed import Ranks
from shard_tools.base.errors import UserError
from tests.hpcgender.data.image_kinds import encode, kinds, picture

CPU = torch.device("cpu")
SIZE = 64
BACKENDS: list[Backend] = ["dali", "torchvision"]
ALL = Augmentation(
    crop=0.9,
    crop_area=0.5,
    crop_ratio=1.3,
    flip=0.5,
    rotation=0.8,
    rotation_degrees=30,
    colour=0.9,
    brightness=0.3,
    contrast=0.3,
    saturation=0.3,
    hue=20,
    grayscale=0.2,
    blur=0.8,
    blur_sigma=(0.3, 3),
    erase=0.8,
)
AUGMENTATIONS = {**PRESETS, "all": ALL}


def read(files: Sequence[Path]) -> list[Encoded]:
    return [np.frombuffer(file.read_bytes(), dtype=np.uint8) for file in files]


def decode(
    backend: Backend,
    encoded: list[Encoded],
    draws: Draws | None = None,
    augmentation: Augmentation | None = None,
    *,
    size: int = SIZE,
    threads: int = 1,
    device: torch.device = CPU,
) -> torch.Tensor:
    """One batch through a decoder of its own."""
    decoder = create_decoder(backend, len(encoded), size, device, augmentation, threads)
    decoder.submit(encoded, draws or centred(len(encoded)))
    return decoder.result()


def levels(images: torch.Tensor) -> torch.Tensor:
    """Images as the network sees them, in whole gray levels."""
    return (images * 127.5 + 127.5).round()


def assert_agree(a: torch.Tensor, b: torch.Tensor) -> None:
    """What the docstring of hpcgender.data.decoders.vision promises."""
    difference = (levels(a) - levels(b)).abs()
    assert difference.mean((1, 2, 3)).max() < 0.5
    assert difference.max() <= 8


@pytest.fixture(scope="module")
def drawn(faces: Path) -> list[Encoded]:
    """Drawn faces, of 48x48 pixels."""
    return read(sorted(faces.iterdir())[:40])


@pytest.fixture(scope="module")
def face() -> Image.Image:
    return picture()


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_backends_agree_on_drawn_faces(name: str, drawn: list[Encoded]) -> None:
    augmentation = AUGMENTATIONS[name]
    draws = draw(augmentation, 1, 2, np.arange(len(drawn)))
    dali, vision = (decode(backend, drawn, draws, augmentation) for backend in BACKENDS)
    assert dali.shape == (len(drawn), 3, SIZE, SIZE)
    assert dali.dtype == vision.dtype == torch.float32
    assert_agree(dali, vision)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_backends_agree_on_real_faces(name: str, real_faces: Path) -> None:
    images = read(sorted(real_faces.iterdir())[::40])
    augmentation = AUGMENTATIONS[name]
    draws = draw(augmentation, 1, 2, np.arange(len(images)))
    assert_agree(*(decode(backend, images, draws, augmentation, size=112) for backend in BACKENDS))


@pytest.mark.parametrize("size", [7, 48, 90, 200])
def test_backends_agree_on_smaller_and_larger_inputs(size: int, face: Image.Image) -> None:
    images = [encode(face, "PNG"), encode(face.rotate(90, expand=True), "PNG")]
    assert_agree(*(decode(backend, images, size=size) for backend in BACKENDS))


def test_backends_agree_on_every_kind_of_file(face: Image.Image) -> None:
    images = kinds(face)
    dali, vision = (decode(backend, list(images.values())) for backend in BACKENDS)
    assert_agree(dali, vision)

    looks = dict(zip(images, levels(dali), strict=True))
    gray = (torch.tensor([0.299, 0.587, 0.114])[:, None, None] * looks["PNG"]).sum(0).expand(3, -1, -1)
    for name, look in looks.items():
        expected = gray if "gray" in name or "bit" in name else looks["PNG"]
        far = (look - expected).abs().mean()
        assert far < (1 if name in ("BMP", "PNG alpha", "PNG gray", "PNG 16 bit", "WebP lossless, alpha") else 7), name


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_images_are_upright_whatever_exif_says(backend: Backend, format: str, face: Image.Image) -> None:
    turns = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }
    images, upright = [], []
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x112] = orientation
        images.append(encode(face, format, quality=95, exif=exif.tobytes()))
        turned = face.transpose(turns[orientation]) if orientation in turns else face
        upright.append(encode(turned, format, quality=95))
    draws = draw(Augmentation(crop_area=0.5, crop_ratio=1.2), 0, 0, np.arange(8))
    difference = levels(decode(backend, images, draws)) - levels(decode(backend, upright, draws))
    assert difference.abs().mean((1, 2, 3)).max() < 3  # a JPEG's chroma blocks lie otherwise


@pytest.mark.parametrize("backend", BACKENDS)
def test_threads_and_company_change_no_bit(backend: Backend, drawn: list[Encoded]) -> None:
    draws = draw(ALL, 1, 2, np.arange(len(drawn)))
    whole = decode(backend, drawn, draws, ALL)
    assert torch.equal(decode(backend, drawn, draws, ALL, threads=3), whole)
    chosen = [31, 2, 17]
    assert torch.equal(decode(backend, [drawn[i] for i in chosen], draws.rows(chosen), ALL), whole[chosen])


@pytest.mark.parametrize("backend", BACKENDS)
def test_batches_come_in_order_and_may_be_small(backend: Backend, drawn: list[Encoded]) -> None:
    decoder = create_decoder(backend, 8, SIZE, CPU, None, 2)
    sizes = [8, 1, 3, 8, 2]
    begins = np.cumsum([0, *sizes[:-1]])
    batches = [drawn[begin : begin + size] for begin, size in zip(begins, sizes, strict=True)]
    results = []
    for step, batch in enumerate(batches):
        decoder.submit(batch, centred(len(batch)))
        if step >= PREFETCH - 1:
            results.append(decoder.result().clone())
    results += [decoder.result().clone() for _ in range(PREFETCH - 1)]
    assert torch.equal(torch.cat(results), decode(backend, drawn[: sum(sizes)]))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_decoder_keeps_what_it_reads_until_it_has_ended(backend: Backend) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (600, 600, 3), dtype=np.uint8)
    large = encode(Image.fromarray(noise), "PNG")
    expected = decode(backend, [large])
    for results in (PREFETCH, 1):  # of 1, the decoder ends while it decodes the others
        decoder = create_decoder(backend, 4, SIZE, CPU, None, threads=2)
        for _ in range(PREFETCH):
            decoder.submit([large.copy() for _ in range(4)], centred(4))
        others = [np.zeros_like(large) for _ in range(4 * PREFETCH)]  # in memory that the caller let go of
        for _ in range(results):
            assert torch.equal(decoder.result(), expected.expand(4, -1, -1, -1))
        del decoder, others


def bad_image(kind: str, good: Encoded) -> Encoded:
    return {
        "garbage": np.frombuffer(b"garbage" * 40, dtype=np.uint8),
        "truncated": good[: len(good) // 2],
        "header only": good[:10],
        "empty": good[:0],
    }[kind]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", ["garbage", "truncated", "header only", "empty"])
@pytest.mark.parametrize("positions", [[0], [3], [1, 2], [0, 1, 2, 3]])
def test_a_bad_image_is_told_by_its_place(
    backend: Backend, kind: str, positions: list[int], drawn: list[Encoded]
) -> None:
    draws = [draw(ALL, 0, epoch, np.arange(4)) for epoch in range(PREFETCH)]
    batches = [drawn[4 * k : 4 * k + 4] for k in range(PREFETCH)]
    expected = [decode(backend, batch, of, ALL) for batch, of in zip(batches, draws, strict=True)]

    decoder = create_decoder(backend, 4, SIZE, CPU, ALL, 1)
    spoiled = [bad_image(kind, image) if i in positions else image for i, image in enumerate(batches[1])]
    decoder.submit(batches[0], draws[0])
    decoder.submit(spoiled, draws[1])
    decoder.submit(batches[2], draws[2])
    assert torch.equal(decoder.result(), expected[0])
    with pytest.raises(BadImages, match=r"\w") as caught:
        decoder.result()
    assert list(caught.value.reasons) == positions
    good = [i for i in range(4) if i not in positions]
    decoder.resubmit([batches[1][i] for i in good], draws[1].rows(good))
    decoder.submit(batches[0], draws[0])
    if good:
        assert torch.equal(decoder.result(), expected[1][good])
    assert torch.equal(decoder.result(), expected[2])
    assert torch.equal(decoder.result(), expected[0])


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_batch_under_way_may_have_bad_images(backend: Backend, drawn: list[Encoded]) -> None:
    decoder = create_decoder(backend, 2, SIZE, CPU, None, 2)
    for k in range(PREFETCH):
        decoder.submit([drawn[k], drawn[k][:100]], centred(2))
    for k in range(PREFETCH):
        for replacement in (drawn[k][:50], drawn[20 + k]):  # what takes its place may be bad as well
            with pytest.raises(BadImages) as caught:
                decoder.result()
            assert list(caught.value.reasons) == [1]
            decoder.resubmit([drawn[k], replacement], centred(2))
        assert torch.equal(decoder.result(), decode(backend, [drawn[k], drawn[20 + k]]))


def test_without_dali_the_other_backend_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "hpcgender.data.decoders.dali", raising=False)
    monkeypatch.setitem(sys.modules, "nvidia.dali", None)  # as Python notes that there is none
    with pytest.raises(UserError, match=r"DALI cannot be imported.*use --backend torchvision"):
        create_decoder("dali", 1, SIZE, CPU, None, 1)


def augmented(backend: Backend, image: Image.Image, augmentation: Augmentation, **draws: object) -> torch.Tensor:
    """An image of the network's size, augmented by what `draws` gives: uint8 levels (3, size, size)."""
    row = centred(1)
    fields = {name: np.array([value], dtype=getattr(row, name).dtype) for name, value in draws.items()}
    drawn = Draws(**{**{name: getattr(row, name) for name in Draws.__dataclass_fields__}, **fields})
    return levels(decode(backend, [encode(image, "PNG")], drawn, augmentation, size=image.width)[0])


@pytest.fixture(scope="module")
def square(face: Image.Image) -> Image.Image:
    return face.crop((0, 0, 80, 80))


@pytest.fixture(scope="module")
def plain(square: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.asarray(square).copy()).permute(2, 0, 1).float()


@pytest.mark.parametrize("backend", BACKENDS)
class TestVariations:
    def test_none_is_the_image_itself(self, backend: Backend, square: Image.Image, plain: torch.Tensor) -> None:
        for augmentation in (None, PRESETS["none"], ALL):
            assert (augmented(backend, square, augmentation or PRESETS["none"]) - plain).abs().max() == 0

    def test_a_crop_shows_the_drawn_window(self, backend: Backend, square: Image.Image) -> None:
        window = augmented(backend, square, ALL, size=(0.5, 0.25), corner=(1.0, 0.5))
        expected = np.asarray(square.crop((30, 40, 50, 80)).resize((80, 80), Image.Resampling.BILINEAR))
        assert (window - torch.from_numpy(expected.copy()).permute(2, 0, 1)).abs().max() <= 1

    def test_a_mirror_flips_left_and_right(self, backend: Backend, square: Image.Image, plain: torch.Tensor) -> None:
        assert (augmented(backend, square, PRESETS["light"], mirror=1) - plain.flip(2)).abs().max() == 0

    def test_rotation_is_counter_clockwise(self, backend: Backend, square: Image.Image, plain: torch.Tensor) -> None:
        for turns in (1, 2, -1):
            turned = augmented(backend, square, ALL, angle=90.0 * turns)
            assert (turned - torch.rot90(plain, turns, (1, 2))).abs().max() <= 1

    def test_rotation_repeats_the_border(self, backend: Backend) -> None:
        gray = Image.new("RGB", (40, 40), (90, 100, 110))
        turned = augmented(backend, gray, ALL, angle=33.0)
        assert turned.amin((1, 2)).tolist() == turned.amax((1, 2)).tolist() == [90, 100, 110]

    def test_brightness_and_contrast(self, backend: Backend, square: Image.Image, plain: torch.Tensor) -> None:
        brighter = augmented(backend, square, ALL, colour=(1.5, 1, 1, 0))
        assert (brighter - (1.5 * plain).clamp(max=255)).abs().max() <= 1
        flatter = augmented(backend, square, ALL, colour=(1, 0.5, 1, 0))
        assert (flatter - (128 + 0.5 * (plain - 128))).abs().max() <= 1

    def test_no_saturation_is_gray(self, backend: Backend, square: Image.Image) -> None:
        gray = augmented(backend, square, ALL, colour=(1, 1, 0, 0))
        assert (gray.amax(0) - gray.amin(0)).max() <= 1  # DALI's conversion is not exact
        assert (gray[0] - torch.from_numpy(np.asarray(square.convert("L")).copy())).abs().max() <= 1

    def test_the_hue_turns_at_the_same_luminance(self, backend: Backend) -> None:
        red = Image.new("RGB", (8, 8), (150, 90, 90))
        turned = augmented(backend, red, ALL, colour=(1, 1, 1, 120))[:, 0, 0]
        assert turned[1:].max() > turned[0]
        weights = torch.tensor([0.299, 0.587, 0.114])
        assert abs((weights * turned).sum() - (weights * torch.tensor([150.0, 90, 90])).sum()) < 1.5

    def test_a_blur_is_gaussian(self, backend: Backend) -> None:
        dot = Image.new("RGB", (41, 41))
        dot.putpixel((20, 20), (255, 255, 255))
        row = augmented(backend, dot, ALL, sigma=0.8)[0].sum(0)
        place = torch.arange(-20, 21)
        width = ((row * place**2).sum() / row.sum()) ** 0.5
        assert abs(width - 0.8) < 0.1
        assert row[20 - 4] == 0  # the window's radius is ceil(3 * 0.8)

    def test_a_blur_lowers_high_frequencies(self, backend: Backend, square: Image.Image, plain: torch.Tensor) -> None:
        def high(image: torch.Tensor) -> float:
            return float(torch.fft.rfft2(image).abs()[:, 20:60, 20:].mean())

        soft, softer = (augmented(backend, square, ALL, sigma=sigma) for sigma in (0.7, 2.0))
        assert high(softer) < 0.5 * high(soft) < 0.25 * high(plain)
        assert abs(softer.mean() - plain.mean()) < 1

    def test_a_blur_may_be_wider_than_the_image(self, backend: Backend, square: Image.Image) -> None:
        small = square.resize((12, 12))
        assert augmented(backend, small, ALL, sigma=10.0).std((1, 2)).max() < 3

    def test_erasing_zeroes_the_drawn_rectangle(self, backend: Backend, square: Image.Image) -> None:
        row = centred(2)
        row.erase[1] = (0.25, 0.5, 0.1, 0.3)
        row.mirror[1] = 1
        image = encode(square, "PNG")
        whole, erased = decode(backend, [image, image], row, ALL, size=80)
        assert (erased[:, 20:28, 40:64] == 0).all()
        erased[:, 20:28, 40:64] = whole.flip(2)[:, 20:28, 40:64]
        assert torch.equal(erased, whole.flip(2))


def test_decoding_on_a_gpu_needs_one() -> None:
    with pytest.raises(UserError, match="there is none: give --backend dali"):
        create_decoder("dali-mixed", 1, SIZE, CPU, None, 1)


def test_what_a_gpu_decodes_alone_after_its_batch_failed_is_bad_if_it_is_damaged(
    drawn: list[Encoded], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else no image would be bad, and the run would end with DALI's error."""
    decoder: Any = create_decoder("dali", 4, SIZE, CPU, None, 1)
    decoder.mixed = True
    monkeypatch.setattr(decoder, "build", lambda size: None)
    monkeypatch.setattr(decoder, "run", lambda *arguments: None)  # as nvJPEG may
    images = [drawn[0], drawn[1][: len(drawn[1]) // 2], drawn[2]]
    assert list(decoder.bad_images(images, centred(3))) == [1]
    assert not decoder.bad_images(drawn[:3], centred(3))


@pytest.mark.parametrize(
    ("workers", "noted", "device", "threads"),
    [(3, "8", "cuda", 3), (None, "8", "cuda", 8), (None, "8", "cpu", 1), (None, "", "cpu", 1), (2, "", "cpu", 2)],
)
def test_a_gpu_is_fed_by_all_cores_of_its_rank(
    workers: int | None, noted: str, device: str, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", noted)
    assert decoder_threads(workers, Ranks(0, 1, torch.device(device))) == threads


def test_ranks_of_a_node_share_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(12))
    assert [decoder_threads(None, Ranks(0, n, torch.device("cuda"), 0, n)) for n in (1, 4, 16)] == [12, 3, 1]
