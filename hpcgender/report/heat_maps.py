"""A report's section about heat maps: averages over mean faces, their differences, deletion check and regions."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from hpcgender.cam.overlays import COLOURS, overlay
from hpcgender.cam.results import Cam, Deletion, Masked, read_cam
from hpcgender.evaluate.resample import Z
from hpcgender.report.words import number, when
from shard_tools.base.colours import ACCENTS, FAINT
from shard_tools.base.figures import chart_style, charts, new_figure, percent_axis
from shard_tools.base.text import Table, percent, plural

NOT_SIGNIFICANT = 0.2
"""Fraction of its colour that a difference keeps where it is not significant."""

METHODS = {
    "cam": "class activation maps: the feature maps, weighted by the classifier's weights of male minus female",
    "grad-cam": "Grad-CAM of the log-odds of male, without its ReLU",
}


@dataclass(frozen=True)
class Tile:
    """A map over its mean face."""

    name: str
    line: str
    """Below the name."""
    jpeg: bytes


def heat_map_section(directory: Path) -> dict[str, object]:
    """The content of heat_maps.html; UserError if the directory cannot be read."""
    cam = read_cam(directory)
    averages = [
        tile(cam, average.name, "mean", f"{plural(average.images, 'image')}{', few' if average.small else ''}")
        for average in cam.averages
    ]
    differences = [
        tile(
            cam,
            difference.name,
            "difference",
            f"{difference.images[0]:,} and {plural(difference.images[1], 'image')}, "
            + (
                "too few for a test"
                if difference.small
                else f"significant: {difference.significant} of {plural(int(np.prod(cam.cells)), 'cell')}"
            ),
        )
        for difference in cam.differences
    ]
    return {
        "facts": facts(directory, cam),
        "scale": scale(cam),
        "averages": averages,
        "differences": differences,
        "deletion": deletion_content(cam.deletion) if cam.deletion else None,
        "regions": regions_table(cam) if cam.regions else None,
    }


def facts(directory: Path, cam: Cam) -> dict[str, str]:
    """Data, checkpoint and method of the maps."""
    data, checkpoint = cam.data, cam.checkpoint
    lines = {
        "heat maps": str(directory),
        "data": f"{data.path}, {data.split}: {plural(data.images - data.left_out, 'image')}",
        "manifest": data.manifest,
        "checkpoint": f"{checkpoint.path}, epoch {checkpoint.epoch}, {checkpoint.model}",
        "method": METHODS[cam.method],
        "cells": f"{' x '.join(map(str, cam.cells))} on {checkpoint.image_size} px",
        "computed in": cam.precision,
        "made": when(cam.run.began) + (f", job {cam.run.job}" if cam.run.job else ""),
    }
    return {name: line for name, line in lines.items() if line}


def scale(cam: Cam) -> dict[str, object]:
    """The colour scale that all maps share, with its ends in units of log-odds."""
    colours = mpl.colormaps[COLOURS]
    female, male = cam.data.classes
    stops = [to_hex(colours(place)) for place in np.linspace(0, 1, 11)]
    return {"female": female, "male": male, "low": f"{-cam.limit:.3g}", "high": f"+{cam.limit:.3g}", "stops": stops}


def tile(cam: Cam, name: str, kind: str, line: str) -> Tile:
    """The array `<name>/<kind>` of `cam` over the face of the same name."""
    face, evidence = cam.arrays[f"{name}/face"], cam.arrays[f"{name}/{kind}"]
    if f"{name}/significant" in cam.arrays:
        evidence = np.where(cam.arrays[f"{name}/significant"], evidence, NOT_SIGNIFICANT * evidence)
    picture = io.BytesIO()
    overlay(np.clip(np.rint(face), 0, 255).astype(np.uint8), evidence, cam.limit).save(picture, "JPEG", quality=90)
    return Tile(name, line, picture.getvalue())


def deletion_content(deletion: Deletion) -> dict[str, object]:
    """How accuracy and log-odds change when the cells with most evidence are masked, beside random ones."""
    drawn = {
        "accuracy with cells masked": deletion_chart(deletion, "accuracy"),
        "log-odds of the label with cells masked": deletion_chart(deletion, "log_odds"),
    }
    return {"verdict": verdict(deletion), "charts": charts(drawn)}


def verdict(deletion: Deletion) -> str:
    """The result of the check at the step that masks about a third of the picture."""
    step = min(deletion.steps, key=lambda step: abs(step.fraction - 1 / 3))
    half = Z * step.gap_standard_error
    result = (
        "the maps show where the evidence is"
        if step.gap > half
        else "the maps do NOT find the evidence better than chance"
    )
    masked = percent(step.fraction, 0)
    return (
        f"{plural(deletion.images, 'image')}. Accuracy is {percent(deletion.unmasked.accuracy)}; with {masked} of the "
        f"cells masked, {percent(step.hottest.accuracy)} where these have most evidence and "
        f"{percent(step.random.accuracy)} where they are random. The log-odds of the label then differ by "
        f"{number(step.gap)} (95 %: {step.gap - half:.2f} to {step.gap + half:.2f}): {result}."
    )


def deletion_chart(deletion: Deletion, what: str) -> Figure:
    """Accuracy, or the mean log-odds of the label with their intervals, by the fraction of cells masked."""
    fractions = [0.0, *(step.fraction for step in deletion.steps)]
    with chart_style():
        figure, axes = new_figure()
        for name, masked, look in (
            ("random cells", [step.random for step in deletion.steps], {"color": FAINT, "linestyle": "--"}),
            ("hottest cells", [step.hottest for step in deletion.steps], {"color": ACCENTS[0], "marker": "o"}),
        ):
            values = [getattr(one, what) for one in (deletion.unmasked, *masked)]
            ends = [interval_of(one) if what == "log_odds" else 0.0 for one in (deletion.unmasked, *masked)]
            axes.errorbar(fractions, values, yerr=ends, markersize=4, capsize=2, label=name, **look)  # type: ignore[arg-type]
        axes.set_xlabel("fraction of cells masked")
        percent_axis(axes, "x")
        if what == "accuracy":
            percent_axis(axes, "y")
            axes.axhline(0.5, color=FAINT, linestyle=":", linewidth=1.2)
        axes.set_ylabel("accuracy" if what == "accuracy" else "mean log-odds of the label")
        axes.legend()
    return figure


def interval_of(masked: Masked) -> float:
    return 0.0 if np.isnan(masked.standard_error) else Z * masked.standard_error


def regions_table(cam: Cam) -> Table:
    """The evidence by region of the face."""
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
    columns = ("region", "images", "of the picture", "of the evidence", "evidence")
    caption = f"{plural(cam.masks, 'image')} with a mask. Evidence is its mean in the region, with its 95 % interval."
    return Table(columns, tuple(rows), "regions of the face", caption)
