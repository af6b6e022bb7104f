"""The heat-map sheet: average maps over mean faces, their difference, and single images, on one colour scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure, FigureBase
from PIL import Image

COLOURS = "RdBu"
"""Diverging and safe for the colour-blind: red is evidence for the first class, blue for the second."""


@dataclass(frozen=True)
class Panel:
    """One picture with the map drawn over it: face (size, size, 3) in [0, 255], map (h, w)."""

    title: str
    face: npt.NDArray[np.generic]
    map: npt.NDArray[np.floating]


def draw_panel(axes: Axes, panel: Panel, limit: float) -> None:
    """The face in gray with the map in colour over it, from -limit to limit, and clear where it is near zero."""
    height, width = panel.face.shape[:2]
    smooth = Image.fromarray(panel.map.astype(np.float32)).resize((width, height), Image.Resampling.BICUBIC)
    evidence = np.asarray(smooth) / limit
    axes.imshow(np.asarray(panel.face, dtype=np.float64).mean(2), cmap="gray", vmin=0, vmax=255)
    axes.imshow(evidence, cmap=COLOURS, vmin=-1, vmax=1, alpha=0.8 * np.minimum(np.abs(evidence), 1))
    axes.set_title(panel.title, fontsize=8)
    axes.set_axis_off()


def draw_rows(figure: FigureBase, rows: Sequence[Sequence[Panel]], classes: Sequence[str]) -> None:
    """Rows of panels on one colour scale, with its bar on the right; it ends where one cell in fifty is stronger."""
    cells = np.concatenate([np.abs(panel.map).ravel() for row in rows for panel in row])
    limit = float(np.nanquantile(cells, 0.98)) or 1.0
    grid = np.atleast_2d(figure.subplots(len(rows), max(len(row) for row in rows), squeeze=False))
    for axes_row, row in zip(grid, rows, strict=True):
        for axes in axes_row[len(row) :]:
            axes.set_axis_off()
        for axes, panel in zip(axes_row, row, strict=False):
            draw_panel(axes, panel, limit)
    bar = figure.colorbar(ScalarMappable(Normalize(-limit, limit), COLOURS), ax=grid, fraction=0.03, pad=0.02)
    bar.set_label(f"evidence: {classes[0]} < 0 < {classes[1]}", fontsize=7)
    bar.ax.tick_params(labelsize=7)


def draw_sheet(
    path: Path, title: str, averages: Sequence[Panel], examples: Sequence[Sequence[Panel]], classes: Sequence[str]
) -> None:
    """Writes the sheet as PNG: the averages, and below them a row for each sequence of examples.

    Averages have a colour scale of their own: single maps are much stronger.
    """
    columns = max(len(row) for row in examples)
    heights = (2.6, 1.45 * len(examples))
    figure = Figure(figsize=(max(1.3 * columns, 7.0) + 0.8, sum(heights) + 0.3), dpi=120, layout="constrained")
    figure.suptitle(title, fontsize=10)
    top, bottom = figure.subfigures(2, 1, height_ratios=heights)  # type: ignore[misc]
    draw_rows(top, [averages], classes)
    draw_rows(bottom, examples, classes)
    figure.savefig(path)
