"""Images: through `pack`, `predict` and the app's uploads."""

from __future__ import annotations

import csv
import io
import os
import random
import re
import struct
import zlib
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from hpcgender.app import fragments
from hpcgender.app.answers import answers
from hpcgender.app.shown import ShownModel, opened
from hpcgender.commands import HPCGENDER
from hpcgender.commands.app import AppConfig
from hpcgender.data.augment import centred
from hpcgender.data.decoders import create_decoder
from hpcgender.data.decoders.decoder import BadImages
from shard_tools.commands import SHARD_TOOLS
from shard_tools.manifest import read_manifest
from tests.hostile.base import Base
from tests.hostile.mutations import damaged
from tests.hostile.workers import REFUSED, RIGHT, command
from tests.hpcgender.app.hostile import bomb, saved
from tests.shard_tools.image_files import image_files, jpeg_with
from tests.violations import ViolationError

AT_ONCE = 10
"""Images of one attempt."""
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".JPG", "", ".gif", ".txt")
NAMES = (
    *("plain", "with space", "quo'te", 'double"quote', "new\nline", "-dash", "--help", "$(touch CANARY)", "`x`", ";ls"),
    *(
        "über",
        "日本",
        "\u202egnp",
        "a" * 200,
        "%s%n",
        "<script>alert(1)</script>",
        "[0-9]",
        "*",
        "?",
        "a\tb",
        "\x1b[2J",
    ),
    *("=1+1", "@sum", "\udcff\udcfe", "..", "...", "~", "#x", "\\", "a,b", "CON", "é", "e\u0301", "\U0001f600"),
)


@cache
def odd_files() -> list[bytes]:
    """Files of every kind that cameras, programs and accidents make, and those that are meant to harm."""
    image = Image.new("RGB", (40, 36), (200, 30, 90))
    jpeg = saved(image, "JPEG")
    huge = struct.pack(">HH", 30_000, 30_000)
    at = jpeg.index(b"\xff\xc0") + 5
    gigantic_webp = b"RIFF\xff\xff\xff\x7fWEBPVP8X\x0a\0\0\0\x10\0\0\0\xff\xff\xff\xff\xff\xff" + bytes(40)
    text_bomb = zlib.compress(bytes(200 << 20), 9)
    whole = saved(image, "PNG")

    def with_chunk(kind: bytes, content: bytes) -> bytes:
        made = struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        return whole[:33] + made + whole[33:]

    return [
        *(file for file, _ in image_files().values()),
        *(bomb(), bomb(30_000), bomb(7000), b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM", b"RIFF\0\0\0\0WEBP"),
        *(jpeg[:at] + huge + jpeg[at + 4 :], jpeg + bytes(1 << 20), gigantic_webp),
        *(saved(Image.new("RGB", size), form) for size in ((1, 1), (1, 2000), (2000, 1)) for form in ("JPEG", "PNG")),
        *(saved(Image.new("1", (1, 1)), "PNG"), saved(Image.new("RGB", (3000, 2500)), "WEBP", quality=1)),
        saved(image, "JPEG", icc_profile=bytes(3 << 20)),
        saved(image, "JPEG", exif=b"Exif\0\0" + bytes(65_000)),
        jpeg_with(*(b"Exif\0\0" + bytes(65_000) for _ in range(40))),
        with_chunk(b"zTXt", b"Comment\0\0" + text_bomb),
        with_chunk(b"iTXt", b"Comment\0\1\0\0\0" + text_bomb),
        with_chunk(b"iCCP", b"icc\0\0" + text_bomb),
        b"<svg onload='alert(1)'/>",
        b"%!PS-Adobe-3.0\n(touch) run\n",
        b"GIF89a" + bytes(30),
        *(saved(image, form) for form in ("GIF", "TIFF", "ICO", "PPM", "TGA", "PCX")),
    ]


def drawn_file(base: Base, draw: random.Random) -> bytes:
    """One input: an odd file, or a face in some format, whole or damaged."""
    if draw.random() < 0.3:
        raw = draw.choice(odd_files())
        return damaged(raw, draw) if draw.random() < 0.3 and len(raw) < 1 << 20 else raw
    raw = draw.choice(base.photos).read_bytes()
    if draw.random() < 0.5:
        with Image.open(io.BytesIO(raw)) as image:
            mode = draw.choice(("RGB", "RGB", "L", "RGBA", "P", "CMYK", "1", "I;16"))
            form = draw.choice({"CMYK": ("JPEG",), "I;16": ("PNG",)}.get(mode, ("PNG", "WEBP", "BMP", "JPEG")))
            plain = image.convert("L") if mode == "I;16" else image.convert(mode)
            if mode == "I;16":
                plain = Image.fromarray(np.asarray(plain).astype(np.uint16) * 257)
            if form == "JPEG" and mode in ("RGBA", "P", "1"):
                plain = plain.convert("RGB")
            options = (
                {"progressive": draw.random() < 0.5, "quality": draw.choice((5, 80, 100))} if form == "JPEG" else {}
            )
            raw = saved(plain, form, **options)
    return damaged(raw, draw) if draw.random() < 0.8 else raw


def named(directory: Path, draw: random.Random, number: int, canary: Path) -> Path:
    """A path for an image whose name may be odd."""
    name = draw.choice(NAMES).replace("CANARY", str(canary).replace("/", "_")) if draw.random() < 0.4 else "x"
    name = os.fsencode(name.replace("/", "|"))[:200].decode("utf-8", "surrogateescape")
    return directory / f"{name}{number}{draw.choice(SUFFIXES)}"


def packed_images(base: Base, work: Path, draw: random.Random) -> Counter[str]:
    """`pack folders`: each image is packed as it is, so that both decoders see the same in it, or left out by name."""
    files = []
    for number, gender in enumerate(("female", "male") * (AT_ONCE // 2 + 1)):
        directory = work / "images" / gender
        directory.mkdir(parents=True, exist_ok=True)
        whole = number < 2
        path = directory / f"good{number}.jpg" if whole else named(directory, draw, number, base.canary)
        path.write_bytes(base.photos[number].read_bytes() if whole else drawn_file(base, draw))
        files.append(path)
    out = work / "out"
    options = ("--val", 0, "--test", 0, "--workers", 1, *draw.choice(((), (), ("--quality", 90), ("--resize", 24))))
    done = command(SHARD_TOOLS, "pack", "folders", "--images", work / "images", "--out", out, *options)
    if done.code:
        raise ViolationError(f"pack refuses all because of some: {done.err}")
    manifest = read_manifest(out)
    index = manifest.index("train")
    left_out = quarantined(out)
    not_taken = done.out.partition("not taken below ")[2].partition(": ")[2].partition("\n")[0]
    others = sum(map(int, re.findall(r"(?:^|, )(\d+) (?:files? of|hidden)", not_taken)))
    if len(index) + len(left_out) + others != len(files):
        raise ViolationError(
            f"{len(files)} images, of which {len(index)} are packed and {len(left_out)} left out: {done.out}"
        )
    with manifest.shard_paths("train")[0].open("rb") as file:
        encoded = []
        for row in index:
            file.seek(int(row["offset"]))
            encoded.append(file.read(int(row["length"])))
    originals = {path.read_bytes() for path in files}
    if not options[6:] and not set(encoded) <= originals:
        raise ViolationError("an image was packed that is none of the inputs")
    same_pictures(encoded)
    return Counter({RIGHT: len(index) - 2, REFUSED: len(files) - len(index)})


def quarantined(out: Path) -> list[dict[str, str]]:
    """The rows of the list of images that were left out."""
    path = out / "quarantine" / "quarantine.csv"
    if not path.exists():
        return []
    with path.open(newline="", errors="surrogateescape") as file:
        return list(csv.DictReader(file))


def same_pictures(encoded: list[bytes]) -> None:
    """ViolationError unless both decoders read each image alike: less than 2 gray levels apart on average."""
    arrays = [np.frombuffer(one, dtype=np.uint8) for one in encoded]
    looks = []
    for backend in ("dali", "torchvision"):
        decoder = create_decoder(backend, len(arrays), 32, torch.device("cpu"), None, 1)
        decoder.submit(arrays, centred(len(arrays)))
        try:
            looks.append(decoder.result())
        except BadImages as bad:
            raise ViolationError(f"{backend} cannot decode what was packed: {bad.reasons}") from None
    far = (looks[0] - looks[1]).abs().mean((1, 2, 3)) * 127.5
    if far.max() > 2:
        worst = int(far.argmax())
        raise ViolationError(
            f"the decoders see other pictures, {float(far[worst]):.1f} gray levels apart: {encoded[worst][:64]!r}"
        )


def predicted(base: Base, work: Path, draw: random.Random) -> Counter[str]:
    """`predict` of files, by names that may be odd: a row for each image, and a line for each that cannot be used."""
    paths = [named(work, draw, number, base.canary) for number in range(AT_ONCE)]
    for path in paths:
        path.write_bytes(drawn_file(base, draw))
    table = work / "found.csv"
    given = [f"./{path.name}" if draw.random() < 0.5 and path.name.startswith("-") else path for path in paths]
    given = [work / path if isinstance(path, str) else path for path in given]
    done = command(HPCGENDER, "predict", "--checkpoint", base.run, "--backend", "torchvision", "--csv", table, *given)
    with table.open(newline="", errors="surrogateescape") as file:
        rows = list(csv.DictReader(file))
    bad = [row for row in rows if row["error"]]
    if len(rows) != len(paths):
        raise ViolationError(f"{len(rows)} rows for {len(paths)} images: {done.err}")
    if done.code != (2 if len(bad) == len(paths) else 1 if bad else 0):
        raise ViolationError(f"exit code {done.code} with {len(bad)} of {len(paths)} images that cannot be used")
    if "\x1b" in done.out + done.err:
        raise ViolationError("a name controls the terminal")
    good = [row for row in rows if not row["error"]]
    if not all(row["label"] in ("female", "male") and 50 <= float(row["confidence_percent"]) <= 100 for row in good):
        raise ViolationError(f"a prediction is none: {good}")
    return Counter({RIGHT: len(good), REFUSED: len(bad)})


@cache
def shown(checkpoint: Path) -> tuple[ShownModel, ...]:
    """The models of the app's page."""
    return opened(AppConfig(checkpoint=(checkpoint,)))


def uploaded(base: Base, work: Path, draw: random.Random) -> Counter[str]:
    """What the app's page makes of an upload: an answer or a sentence why there is none, and a name that stays text."""
    name = draw.choice(NAMES) + draw.choice(SUFFIXES)
    found = answers(shown(base.checkpoint), drawn_file(base, draw))
    page = fragments.photo(name, found)
    if "<script" in page or "\0" in page:
        raise ViolationError(f"the name {name!r} is not escaped")
    for answer in found:
        if bool(answer.error) == bool(answer.headline):
            raise ViolationError(f"neither an answer nor a reason, or both: {answer}")
    return Counter({REFUSED if found[0].error else RIGHT: 1})
