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
from matplotlib.figure import Figure

COLOURS = "RdBu"
"""Diverging and safe for the colour-blind: red is evidence for the first class, blue for the second."""


@dataclass(frozen=True)
class Panel:
    """One picture with the map drawn over it: face (size, size, 3) in [0, 255], map (h, w)."""

    title: str
    face: npt.NDArray[np.generic]
    map: npt.NDArray[np.floating]


def draw_panel(axes: Axes, panel: Panel, limit: float) -> None:
    """The face in gray with the map in colour over it, from -limit to limit."""
    height, width = panel.face.shape[:2]
    axes.imshow(np.asarray(panel.face, dtype=np.float64).mean(2), cmap="gray", vmin=0, vmax=255)
    axes.imshow(
        panel.map,
        cmap=COLOURS,
        vmin=-limit,
        vmax=limit,
        alpha=0.5,
        interpolation="bicubic",
        extent=(-0.5, width - 0.5, height - 0.5, -0.5),
    )
    axes.set_title(panel.title, fontsize=8)
    axes.set_axis_off()


def draw_sheet(
    path: Path, title: str, averages: Sequence[Panel], examples: Sequence[Sequence[Panel]], classes: Sequence[str]
) -> None:
    """Writes the sheet as PNG: the averages in the first row, then a row for each sequence of examples."""
    columns = max(len(averages), *(len(row) for row in examples))
    rows = 1 + len(examples)
    figure = Figure(figsize=(1.5 * columns + 0.9, 1.65 * rows + 0.5), dpi=150, layout="constrained")
    figure.suptitle(title, fontsize=9)
    grid = figure.add_gridspec(rows, columns)
    scales = []
    for number, row in enumerate([averages, *examples]):
        # Single maps are stronger than averages: each kind has a scale of its own, shared by all of the kind.
        kind = averages if number == 0 else [panel for row in examples for panel in row]
        limit = max((float(np.nanmax(np.abs(panel.map))) for panel in kind), default=0.0) or 1.0
        row_axes = []
        for column, panel in enumerate(row):
            axes = figure.add_subplot(grid[number, column])
            draw_panel(axes, panel, limit)
            row_axes.append(axes)
        scales.append((row_axes, limit))
    shown = [(scales[0][0], scales[0][1]), ([a for axes, _ in scales[1:] for a in axes], scales[-1][1])]
    for axes_of_kind, limit in shown:
        if axes_of_kind:
            bar = figure.colorbar(ScalarMappable(Normalize(-limit, limit), COLOURS), ax=axes_of_kind, fraction=0.04)
            bar.set_label(f"{classes[0]}  -  evidence  -  {classes[1]}", fontsize=6)
            bar.ax.tick_params(labelsize=6)
    figure.savefig(path)
