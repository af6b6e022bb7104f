"""Which pictures of heat maps are drawn, and the pixels of the single images among them."""

from __future__ import annotations

import csv
import shutil
from itertools import chain

import numpy as np
import numpy.typing as npt

from hpcgender.cam.deletion import draw_images
from hpcgender.cam.overlays import write_overlay
from hpcgender.cam.passes import Inputs, loaded
from hpcgender.cam.results import Cam
from hpcgender.cam.shards import Plan, read_rows
from hpcgender.cam.sheet import (
    Panel,
    draw_averages,
    draw_deletion,
    draw_differences,
    draw_sheet,
    single_limit,
    summary_panels,
)
from hpcgender.data.decoders import to_pixels
from hpcgender.data.order import Samples

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


def faces_of(inputs: Inputs, samples: Samples) -> Pixels:
    """The pixels of images, on rank 0; the ranks share the decoding, so every one must ask."""
    own = own_faces(inputs, samples)
    return dict(chain.from_iterable(part.items() for part in inputs.ranks.gather(own)))


def own_faces(inputs: Inputs, samples: Samples) -> Pixels:
    """The pixels of this rank's part of images."""
    pixels: Pixels = {}
    with loaded(inputs, samples[inputs.ranks.rank :: inputs.ranks.world_size]) as batches:
        for batch in batches:
            faces = to_pixels(batch.images).permute(0, 2, 3, 1).cpu().numpy()
            pixels |= dict(zip(batch.samples.tolist(), faces, strict=True))
    return pixels


def draw_overlays(inputs: Inputs, plan: Plan, log_odds: Floats) -> None:
    """Writes the random and the chosen images with their maps, and overlays.csv. Every rank must ask.

    One colour scale for all of them. Images that do not decode are left out.
    """
    config, out = inputs.config, inputs.config.out_dir / "overlays"
    random = draw_images(np.flatnonzero(~np.isnan(log_odds)), config.overlays, config.seed, "overlays")
    keys = np.array([key.encode() for key in config.keys], dtype=plan.keys.dtype)
    chosen = np.union1d(random, np.flatnonzero(np.isin(plan.keys, keys) & ~np.isnan(log_odds)))
    if inputs.ranks.is_first:
        shutil.rmtree(out, ignore_errors=True)
        if len(chosen):
            out.mkdir()
    inputs.ranks.broadcast(None)
    if not len(chosen):
        return
    maps = read_rows(out.parent / "maps", plan, "maps", chosen)
    limit = single_limit(maps)
    for sample, face in own_faces(inputs, chosen).items():
        (place,) = np.flatnonzero(chosen == sample)
        write_overlay(out / f"{plan.keys[sample].decode()}.jpg", face, maps[place], limit)
    if inputs.ranks.is_first:
        classes = inputs.trained.classes
        with (out / "overlays.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("key", "gender", "prediction", "log_odds", "colours_end_at"))
            for sample, said in zip(chosen.tolist(), log_odds[chosen].tolist(), strict=True):
                gender = int(inputs.index["gender"][sample])
                label, prediction = classes[gender] if gender >= 0 else "", classes[int(said > 0)]
                writer.writerow((plan.keys[sample].decode(), label, prediction, f"{said:.6f}", f"{limit:.6f}"))
    inputs.ranks.gather(None)  # the last is written


def draw_pictures(inputs: Inputs, found: Cam, plan: Plan, shown: Samples, pixels: Pixels, log_odds: Floats) -> None:
    """Writes the PNG pictures; `shown` are the examples of the sheet, `log_odds` all images'."""
    out, index, classes = inputs.config.out_dir, inputs.index, inputs.trained.classes
    maps = dict(zip(shown.tolist(), read_rows(out / "maps", plan, "maps", shown), strict=True))
    rows = [
        [
            Panel(f"{name}: {said(float(log_odds[sample]), classes)}", pixels[sample], maps[sample])
            for sample in shown.tolist()
            if index["gender"][sample] == value and sample in pixels
        ]
        for value, name in enumerate(classes)
    ]
    draw_sheet(
        out / "sheet.png",
        f"Where {found.checkpoint.model} (epoch {found.checkpoint.epoch}) sees {' and '.join(classes)} in "
        f"{found.data.split} of {inputs.config.data.resolve().name}. Single images have their label, and what it says",
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


def said(log_odds: float, classes: tuple[str, ...]) -> str:
    """The class that log-odds stand for, and how sure that is."""
    male = 1 / (1 + np.exp(-np.float64(log_odds)))
    return f"{classes[int(log_odds > 0)]} {max(male, 1 - male):.0%}"
