"""Which pictures of heat maps are drawn, and the pixels of the single images among them."""

from __future__ import annotations

import csv
import shutil
from itertools import chain

import numpy as np
import numpy.typing as npt

from hpcgender.cam.deletion import draw_images
from hpcgender.cam.overlays import write_overlay
from hpcgender.cam.results import Cam
from hpcgender.cam.sheet import (
    Panel,
    draw_averages,
    draw_deletion,
    draw_differences,
    draw_sheet,
    single_limit,
    summary_panels,
)
from hpcgender.commands.cam import CamConfig
from hpcgender.data.decoders.decoder import to_pixels
from hpcgender.data.order import Samples
from hpcgender.inference.blocks import Blocks, read_rows
from hpcgender.inference.engine import loaded
from hpcgender.inference.session import Session
from shard_tools.base.files import whole_text

Floats = npt.NDArray[np.float32]
Pixels = dict[int, npt.NDArray[np.uint8]]
"""Of some images, by number, what the network sees of them: (size, size, 3)."""


def examples(gender: npt.NDArray[np.int64], codes: npt.NDArray[np.int64], count: int) -> Samples:
    """Up to `count` images of each class that count in averages, spread over the index: int64, ascending."""
    chosen = []
    for value in (0, 1):
        of_class = np.flatnonzero((gender == value) & (codes >= 0))
        chosen.append(of_class[np.linspace(0, len(of_class) - 1, min(count, len(of_class))).astype(np.int64)])
    return np.sort(np.concatenate(chosen))


def faces_of(session: Session[CamConfig], samples: Samples) -> Pixels:
    """The pixels of images, on rank 0; the ranks share the decoding, so every rank must call it."""
    own = own_faces(session, samples)
    return dict(chain.from_iterable(part.items() for part in session.ranks.gather(own)))


def own_faces(session: Session[CamConfig], samples: Samples) -> Pixels:
    """The pixels of this rank's part of images."""
    pixels: Pixels = {}
    with loaded(session, session.config.split, samples[session.ranks.rank :: session.ranks.world_size]) as batches:
        for batch in batches:
            faces = to_pixels(batch.images).permute(0, 2, 3, 1).cpu().numpy()
            pixels |= dict(zip(batch.samples.tolist(), faces, strict=True))
    return pixels


def draw_overlays(session: Session[CamConfig], blocks: Blocks, log_odds: Floats) -> None:
    """Writes the random and the chosen images with their maps, and overlays.csv. Every rank must call it.

    One colour scale for all of them. Images that do not decode are left out.
    """
    config, out = session.config, session.config.out_dir / "overlays"
    random = draw_images(np.flatnonzero(~np.isnan(log_odds)), config.overlays, config.seed, "overlays")
    keys = np.array([key.encode() for key in config.keys], dtype=blocks.keys.dtype)
    chosen = np.union1d(random, np.flatnonzero(np.isin(blocks.keys, keys) & ~np.isnan(log_odds)))
    if session.ranks.is_first:
        shutil.rmtree(out, ignore_errors=True)
        if len(chosen):
            out.mkdir()
    session.ranks.broadcast(None)
    if not len(chosen):
        return
    maps = read_rows(out.parent / "maps", blocks, "maps", chosen)
    limit = single_limit(maps)
    for sample, face in own_faces(session, chosen).items():
        (place,) = np.flatnonzero(chosen == sample)
        write_overlay(out / f"{blocks.keys[sample].decode()}.jpg", face, maps[place], limit)
    if session.ranks.is_first:
        classes, index = session.trained.classes, session.manifest.index(config.split)
        with whole_text(out / "overlays.csv") as file:
            writer = csv.writer(file)
            writer.writerow(("key", "gender", "prediction", "log_odds", "colours_end_at"))
            for sample, value in zip(chosen.tolist(), log_odds[chosen].tolist(), strict=True):
                gender = int(index["gender"][sample])
                label, prediction = classes[gender] if gender >= 0 else "", classes[int(value > 0)]
                writer.writerow((blocks.keys[sample].decode(), label, prediction, f"{value:.6f}", f"{limit:.6f}"))
    session.ranks.gather(None)  # the last is written


def draw_pictures(
    session: Session[CamConfig], found: Cam, blocks: Blocks, shown: Samples, pixels: Pixels, log_odds: Floats
) -> None:
    """Writes the PNG pictures; `shown` are the examples of the sheet, `log_odds` all images'."""
    config, classes = session.config, session.trained.classes
    out, index = config.out_dir, session.manifest.index(config.split)
    maps = dict(zip(shown.tolist(), read_rows(out / "maps", blocks, "maps", shown), strict=True))
    rows = [
        [
            Panel(f"{name}: {prediction(float(log_odds[sample]), classes)}", pixels[sample], maps[sample])
            for sample in shown.tolist()
            if index["gender"][sample] == value and sample in pixels
        ]
        for value, name in enumerate(classes)
    ]
    draw_sheet(
        out / "sheet.png",
        f"Where {found.checkpoint.model} (epoch {found.checkpoint.epoch}) sees {' and '.join(classes)} in "
        f"{found.data.split} of {session.config.data.resolve().name}. Single images: label, and prediction",
        summary_panels(found),
        [row for row in rows if row],
        classes,
        (found.limit, single_limit(np.stack(list(maps.values())))),
    )
    draw_averages(out / "averages.png", found)
    if not draw_differences(out / "differences.png", found):
        (out / "differences.png").unlink(missing_ok=True)
    if found.deletion:
        draw_deletion(out / "deletion.png", found.deletion)
    else:
        (out / "deletion.png").unlink(missing_ok=True)


def prediction(log_odds: float, classes: tuple[str, ...]) -> str:
    """The predicted class, and its probability."""
    male = 1 / (1 + np.exp(-np.float64(log_odds)))
    return f"{classes[int(log_odds > 0)]} {max(male, 1 - male):.0%}"
