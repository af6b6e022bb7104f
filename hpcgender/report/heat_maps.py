"""What a report says of heat maps: averages over mean faces, their differences, and whether the maps tell the truth."""

from __future__ import annotations

import io
from collections.abc import Iterable
from html import escape
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from hpcgender.cam.overlays import COLOURS, overlay
from hpcgender.cam.results import Cam, Deletion, Masked, read_cam
from hpcgender.evaluate.resample import Z
from hpcgender.report.evaluation import picture_html
from hpcgender.report.figures import FAINT, drawn_as_here, grid, new_figure, percent_axis
from hpcgender.report.words import number, percent, when
from shard_tools.base.page import ACCENTS, card, fact_list, text_table

NOT_SIGNIFICANT = 0.2
"""The part of its colour that a difference has where it is not significant."""

METHODS = {
    "cam": "class activation maps: the feature maps, weighted by what they mean to male minus female",
    "grad-cam": "Grad-CAM of the log-odds of male, without its ReLU",
}


def heat_map_cards(directory: Path) -> str:
    """The cards of a directory of heat maps; UserError if it cannot be read."""
    cam = read_cam(directory)
    scale = scale_html(cam)
    averages = (
        tile(cam, average.name, "mean", f"{average.images:,} images{', few' if average.small else ''}")
        for average in cam.averages
    )
    differences = (
        tile(
            cam,
            difference.name,
            "difference",
            f"{difference.images[0]:,} and {difference.images[1]:,} images, "
            + (
                "too few to tell"
                if difference.small
                else f"significant: {difference.significant} of {cells(cam)} cells"
            ),
        )
        for difference in cam.differences
    )
    cards = card("heat maps", fact_list(facts(directory, cam)))
    cards += card("averages, over the mean face of the same images", scale, tiles(averages))
    if cam.differences:
        note = (
            "Where a difference is not significant it is pale. A place is called so at a false discovery rate of 5 %."
        )
        cards += card("differences of averages", scale, f"<p>{escape(note)}</p>", tiles(differences))
    if cam.deletion:
        cards += deletion_card(cam.deletion)
    if cam.regions:
        cards += regions_card(cam)
    return cards


def cells(cam: Cam) -> int:
    return int(np.prod(cam.cells))


def facts(directory: Path, cam: Cam) -> dict[str, str]:
    """What the maps are and of what."""
    data, checkpoint = cam.data, cam.checkpoint
    lines = {
        "heat maps": str(directory),
        "data": f"{data.path}, {data.split}: {data.images - data.left_out:,} images",
        "manifest": data.manifest,
        "checkpoint": f"{checkpoint.path}, epoch {checkpoint.epoch}, {checkpoint.model}",
        "they are": METHODS[cam.method],
        "cells": f"{' x '.join(map(str, cam.cells))} on {checkpoint.image_size} px",
        "made": when(cam.run.began) + (f", job {cam.run.job}" if cam.run.job else ""),
    }
    return {name: line for name, line in lines.items() if line}


def scale_html(cam: Cam) -> str:
    """The colour scale that all pictures share, with its ends."""
    colours = mpl.colormaps[COLOURS]
    stops = ", ".join(to_hex(colours(place)) for place in np.linspace(0, 1, 11))
    female, male = cam.data.classes
    return (
        f'<div class="scale"><span>{escape(female)} {-cam.limit:.3g}</span>'
        f'<i style="background: linear-gradient(90deg, {stops})"></i>'
        f"<span>+{cam.limit:.3g} {escape(male)}</span></div>\n"
    )


def tiles(figures: Iterable[str]) -> str:
    return f'<div class="maps">\n{"".join(figures)}</div>'


def tile(cam: Cam, name: str, what: str, line: str) -> str:
    """A map over its face, with its name and a line below."""
    face, evidence = cam.arrays[f"{name}/face"], cam.arrays[f"{name}/{what}"]
    if f"{name}/significant" in cam.arrays:
        evidence = np.where(cam.arrays[f"{name}/significant"], evidence, NOT_SIGNIFICANT * evidence)
    picture = io.BytesIO()
    overlay(np.clip(np.rint(face), 0, 255).astype(np.uint8), evidence, cam.limit).save(picture, "JPEG", quality=90)
    image = picture_html(picture.getvalue(), "image/jpeg", f"heat map: {name}, {line}")
    return f"<figure>{image}<figcaption><b>{escape(name)}</b><p>{escape(line)}</p></figcaption></figure>\n"


def deletion_card(deletion: Deletion) -> str:
    """How what is said changes when the hottest cells are masked, beside random ones."""
    charts = {
        "accuracy with cells masked": deletion_chart(deletion, "accuracy"),
        "log-odds of the label with cells masked": deletion_chart(deletion, "log_odds"),
    }
    return card(
        "deletion check: do the maps tell the truth?", f"<p>{escape(deletion_said(deletion))}</p>", grid(charts)
    )


def deletion_said(deletion: Deletion) -> str:
    """The check in words, at the step that masks about a third of the picture."""
    step = min(deletion.steps, key=lambda step: abs(step.fraction - 1 / 3))
    half = Z * step.gap_standard_error
    verdict = (
        "the maps point to where the evidence is"
        if step.gap > half
        else "the maps do NOT point to the evidence better than chance"
    )
    masked = percent(step.fraction, 0)
    return (
        f"{deletion.images:,} images, {percent(deletion.unmasked.accuracy)} of them told right. With {masked} of the "
        f"cells masked it is {percent(step.hottest.accuracy)} if those have most evidence, and "
        f"{percent(step.random.accuracy)} if they are random; the log-odds of the label differ by "
        f"{number(step.gap)} (95 %: {step.gap - half:.2f} to {step.gap + half:.2f}): {verdict}."
    )


def deletion_chart(deletion: Deletion, what: str) -> Figure:
    """Accuracy, or the mean log-odds of the label with their intervals, by the part of the cells that is masked."""
    fractions = [0.0, *(step.fraction for step in deletion.steps)]
    with drawn_as_here():
        figure, axes = new_figure()
        for name, masked, look in (
            ("random cells", [step.random for step in deletion.steps], {"color": FAINT, "linestyle": "--"}),
            ("hottest cells", [step.hottest for step in deletion.steps], {"color": ACCENTS[0], "marker": "o"}),
        ):
            values = [getattr(one, what) for one in (deletion.unmasked, *masked)]
            ends = [interval_of(one) if what == "log_odds" else 0.0 for one in (deletion.unmasked, *masked)]
            axes.errorbar(fractions, values, yerr=ends, markersize=4, capsize=2, label=name, **look)  # type: ignore[arg-type]
        axes.set_xlabel("cells masked")
        percent_axis(axes, "x")
        if what == "accuracy":
            percent_axis(axes, "y")
            axes.axhline(0.5, color=FAINT, linestyle=":", linewidth=1.2)
        axes.set_ylabel("accuracy" if what == "accuracy" else "mean log-odds of the label")
        axes.legend()
    return figure


def interval_of(masked: Masked) -> float:
    return 0.0 if np.isnan(masked.standard_error) else Z * masked.standard_error


def regions_card(cam: Cam) -> str:
    """The evidence by parts of the face."""
    rows = [
        (
            f"{region.average}: {region.region}",
            f"{region.images:,}",
            percent(region.area),
            percent(region.share),
            f"{number(region.evidence, 3)} \N{PLUS-MINUS SIGN} {number(Z * region.standard_error, 3)}",
        )
        for region in cam.regions
    ]
    note = f"{cam.masks:,} images have a mask. Evidence is its mean in the part, with its interval of 95 %."
    columns = ("part of the face", "images", "of the picture", "of the evidence", "evidence")
    return card("parts of the face", f"<p>{escape(note)}</p>", text_table(columns, rows))
