"""From a photo's bytes to what a model says of it, with pictures and sentences for people."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from threading import Lock

import numpy as np
from PIL import Image, ImageDraw

from hpcgender.app.shown import ShownModel
from hpcgender.app.words import age_words, confidence_words
from hpcgender.cam.overlays import overlay
from hpcgender.evaluate.errors import below_100
from hpcgender.predict.model import Prediction
from shard_tools.base.errors import UserError
from shard_tools.base.text import byte_size, plural, printable
from shard_tools.images import ImageError, decoded, opened

MAX_MB = 20
"""Of a file; Streamlit refuses larger ones."""
MOST = 12
"""Photos at a time."""
SIDE = 320
"""Longer side of a photo as it is shown, pixels."""
MARK = "#ffd400"
"""Of the landmarks in it."""

_one_at_a_time = Lock()
"""So that several windows do not share the cores of this machine."""


@dataclass(frozen=True)
class Picture:
    """A picture to show."""

    jpeg: bytes
    description: str
    """For those who cannot see it."""
    caption: str


@dataclass(frozen=True)
class Answer:
    """What a model says of a photo."""

    model: str
    error: str = ""
    """Why it says nothing, as a sentence; all else is then empty."""
    headline: str = ""
    """Such as `male, 93 %`."""
    sentences: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    pictures: tuple[Picture, ...] = ()


def answers(models: tuple[ShownModel, ...], encoded: bytes) -> list[Answer]:
    """What each of the models says of an encoded image, whatever its bytes are."""
    if error := unusable(encoded):
        return [Answer(model.name, error=error) for model in models]
    with _one_at_a_time:
        return [answer(model, encoded) for model in models]


def unusable(encoded: bytes) -> str:
    """Why bytes are no photo, seen from their size and their header; empty if they are one."""
    if len(encoded) > MAX_MB << 20:
        return f"This file has {byte_size(len(encoded))}: more than the {MAX_MB} MB that are read here."
    try:
        with opened(encoded):
            return ""
    except ImageError as error:
        return sentence(error)


def answer(shown: ShownModel, encoded: bytes) -> Answer:
    """What one model says of an image that can be opened."""
    try:
        (found,) = shown.model.predict([encoded], heat_maps=shown.model.network.has_maps)
    except UserError as error:  # as when memory is short
        return Answer(shown.name, error=sentence(error))
    if found.error:
        return Answer(shown.name, error=sentence(found.error))
    headline, sentences = [], []
    if found.label:
        headline.append(f"{found.label}, {below_100(found.confidence)}")
        sentences += confidence_words(shown, found.label, found.confidence)
    if not math.isnan(found.age):
        headline.append(f"about {plural(round(found.age), 'year')}")
        sentences.append(age_words(shown))
    return Answer(
        shown.name,
        headline="; ".join(headline),
        sentences=tuple(sentences),
        notes=tuple(notes(shown, found, encoded)),
        pictures=tuple(pictures(found, encoded)),
    )


def notes(shown: ShownModel, found: Prediction, encoded: bytes) -> list[str]:
    """What else is to be known of how the photo was read."""
    lines = []
    if found.faces is None:
        lines.append(
            "No face was looked for: how this model's training images were cropped is not known, so the middle of the "
            "photo was used. Give a photo that shows one face alone."
        )
    if shown.model.network.has_gender and not shown.model.network.has_maps:
        lines.append("An exported model has no heat maps: its checkpoint has.")
    if found.note:
        lines.append(sentence(found.note))
    with opened(encoded) as image:
        if getattr(image, "n_frames", 1) > 1:
            lines.append(f"The file has {getattr(image, 'n_frames', 1)} pictures: the first one was used.")
    return lines


def pictures(found: Prediction, encoded: bytes) -> list[Picture]:
    """The photo with the face that was found, what the network saw of it, and the heat map over that."""
    shown = [photo(found, encoded)]
    if found.face is not None and found.heat_map is not None:
        size = len(found.face)
        face = Image.fromarray(found.face).resize((224, 224), Image.Resampling.BICUBIC)
        shown.append(Picture(as_jpeg(face), "the face as the network saw it", f"what the network saw: {size} pixels"))
        limit = float(np.abs(found.heat_map).max()) or 1.0
        over = overlay(found.face, found.heat_map, limit)
        caption = f"evidence: red for female, blue for male; strongest {limit:.2g} in log-odds"
        shown.append(Picture(as_jpeg(over), f"heat map over the face, {where(found)}", caption))
    return shown


def where(found: Prediction) -> str:
    """In which part of a heat map the evidence for the label is strongest."""
    assert found.heat_map is not None
    evidence = found.heat_map if found.label == "male" else -found.heat_map
    row, column = np.unravel_index(int(evidence.argmax()), evidence.shape)
    down = ("upper", "middle", "lower")[int(3 * (row + 0.5) / evidence.shape[0])]
    across = ("left", "centre", "right")[int(3 * (column + 0.5) / evidence.shape[1])]
    return f"strongest for {found.label} at the {down} {across}"


def photo(found: Prediction, encoded: bytes) -> Picture:
    """The photo, small, with the landmarks of the face that was used."""
    image = decoded(encoded).convert("RGB")
    scale = min(SIDE / max(image.size), 1.0)
    small = image.resize((max(round(image.width * scale), 1), max(round(image.height * scale), 1)), reducing_gap=2)
    if found.landmarks is None:
        return Picture(as_jpeg(small), "the photo", "the photo")
    draw, radius = ImageDraw.Draw(small), max(small.size) / 90
    for x, y in ((found.landmarks + 0.5) * scale - 0.5).tolist():
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=MARK, outline="black")
    count = "one face was found" if found.faces == 1 else f"{found.faces} faces were found"
    return Picture(as_jpeg(small), f"the photo: {count}, with eyes, nose and mouth marked", f"the photo: {count}")


def as_jpeg(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def sentence(text: object) -> str:
    """A reason as a sentence."""
    line = printable(str(text)).strip().rstrip(".")
    return f"{line[:1].upper()}{line[1:]}."
