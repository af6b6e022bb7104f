"""The pictures in the repository are small, each is on a page, and what makes them keeps their colours."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from docs.site.figures import BYTES, DOCS, FIGURES, small
from tests.pages.commands import PAGES


def test_every_picture_is_small_and_on_a_page() -> None:
    pictures = [DOCS / "heat_maps.png", *FIGURES.iterdir()]
    assert {path.name for path in pictures if path.suffix != ".png" or path.stat().st_size > BYTES} == set()
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert {path.name for path in pictures if path.name not in text} == set()


def test_a_picture_is_cut_and_keeps_its_colours() -> None:
    ramp = np.linspace(0, 255, 400).astype(np.uint8)
    pixels = np.stack(np.broadcast_arrays(ramp[:, None], ramp[None, :], np.uint8(128)), axis=-1)
    whole = io.BytesIO()
    Image.fromarray(pixels).save(whole, "PNG")
    with Image.open(io.BytesIO(small(whole.getvalue(), slice(50, 350)))) as image:
        assert (image.size, image.mode) == ((400, 300), "P")
        assert np.abs(np.asarray(image.convert("RGB")).astype(int) - pixels[50:350]).max() < 24
