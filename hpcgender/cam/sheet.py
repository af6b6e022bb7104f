"""Pictures of heat maps: averages over mean faces, differences and single images, each picture on one colour scale."""

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
from matplotlib.patches import Rectangle

from hpcgender.cam.overlays import COLOURS, opacity, smooth
from hpcgender.cam.results import Array, Average, Cam, Deletion
from shard_tools.base.figures import as_png
from shard_tools.base.files import write_whole
from shard_tools.base.text import plural

MOST_GROUPS = 10
"""Groups that are drawn: those with most images. cam.json has all."""


@dataclass(frozen=True)
class Panel:
    """A face (size, size, 3) in [0, 255] with the map (h, w) drawn over it, and where the map is significant."""

    title: str
    face: npt.NDArray[np.generic]
    map: npt.NDArray[np.floating]
    significant: npt.NDArray[np.bool_] | None = None


Rows = Sequence[Sequence[Panel | None]]


def draw_panel(axes: Axes, panel: Panel, limit: float) -> None:
    """The face in gray with the map in colour over it, from -limit to limit, and clear where it is near zero.

    Cells that are not significant are hatched.
    """
    height, width = panel.face.shape[:2]
    evidence = np.clip(smooth(panel.map, height, width) / limit, -1, 1)
    axes.imshow(np.asarray(panel.face, dtype=np.float64).mean(2), cmap="gray", vmin=0, vmax=255)
    axes.imshow(evidence, cmap=COLOURS, vmin=-1, vmax=1, alpha=opacity(evidence))
    if panel.significant is not None:
        down, across = panel.significant.shape
        for row, column in np.argwhere(~panel.significant).tolist():
            corner = (column * width / across - 0.5, row * height / down - 0.5)
            cell = {"width": width / across, "height": height / down}
            axes.add_patch(Rectangle(corner, **cell, fill=False, hatch="////", edgecolor="0.35", linewidth=0))
    axes.set_title(panel.title, fontsize=8)
    axes.set_axis_off()


def draw_rows(figure: FigureBase, rows: Rows, classes: Sequence[str], limit: float) -> None:
    """Rows of panels on one colour scale, with its bar on the right."""
    grid = np.atleast_2d(figure.subplots(len(rows), max(len(row) for row in rows), squeeze=False))
    for axes_row, row in zip(grid, rows, strict=True):
        for axes in axes_row:
            axes.set_axis_off()
        for axes, panel in zip(axes_row, row, strict=False):
            if panel:
                draw_panel(axes, panel, limit)
    bar = figure.colorbar(ScalarMappable(Normalize(-limit, limit), COLOURS), ax=grid, fraction=0.03, pad=0.02)
    bar.set_label(f"evidence: {classes[0]} < 0 < {classes[1]}", fontsize=7)
    bar.ax.tick_params(labelsize=7)


def draw_grid(path: Path, title: str, rows: Rows, classes: Sequence[str], limit: float) -> None:
    """Writes rows of panels as PNG."""
    columns = max(len(row) for row in rows)
    figure = Figure(figsize=(max(1.5 * columns + 0.9, 7.0), 1.9 * len(rows) + 0.4), dpi=120, layout="constrained")
    figure.suptitle(title, fontsize=9)
    draw_rows(figure, rows, classes, limit)
    write_whole(path, as_png(figure, dpi=120))


def draw_sheet(
    path: Path,
    title: str,
    averages: Sequence[Panel],
    examples: Rows,
    classes: Sequence[str],
    limits: tuple[float, float],
) -> None:
    """Writes the sheet as PNG: the averages, and below them a row for each sequence of examples.

    Averages have a colour scale of their own, the first of `limits`: single maps are much stronger.
    """
    columns = max((len(row) for row in examples), default=0)
    heights = (2.6, 1.45 * max(len(examples), 1))
    figure = Figure(figsize=(max(1.3 * columns, 7.0) + 0.8, sum(heights) + 0.3), dpi=120, layout="constrained")
    figure.suptitle(title, fontsize=10)
    top, bottom = figure.subfigures(2, 1, height_ratios=heights)  # type: ignore[misc]
    draw_rows(top, [averages], classes, limits[0])
    draw_rows(bottom, examples, classes, limits[1])
    write_whole(path, as_png(figure, dpi=120))


def single_limit(maps: npt.NDArray[np.floating]) -> float:
    """The end of the colour scale of single maps (n, h, w): one cell in fifty is stronger."""
    return float(np.nanquantile(np.abs(maps), 0.98)) or 1.0


def average_panel(average: Average, arrays: dict[str, Array], title: str = "") -> Panel:
    """An average over its mean face."""
    name, few = average.name, ", few" if average.small else ""
    title = f"{title or name}\nn={average.images:,}{few}"
    return Panel(title, arrays[f"{name}/face"], arrays[f"{name}/mean"])


def summary_panels(cam: Cam) -> list[Panel]:
    """The average of each gender, and the difference of both, of those there are."""
    panels = [average_panel(a, cam.arrays, f"average {a.name}") for a in cam.averages if not a.group and not a.outcome]
    return panels + difference_panels(cam, "gender")


def difference_panels(cam: Cam, *kinds: str, gender: str = "") -> list[Panel]:
    """Differences of some kinds and of one gender over the mean faces of both sides; those of groups that are drawn."""
    return [
        Panel(
            difference.name.replace(": ", ":\n") + f"\nn={', '.join(f'{images:,}' for images in difference.images)}",
            cam.arrays[f"{difference.name}/face"],
            cam.arrays[f"{difference.name}/difference"],
            cam.arrays[f"{difference.name}/significant"],
        )
        for difference in cam.differences
        if difference.kind in kinds and difference.gender == gender and difference.group in ("", *drawn_groups(cam))
    ]


def drawn_groups(cam: Cam) -> tuple[str, ...]:
    """The groups with most images, sorted."""
    images = {group: sum(a.images for a in cam.averages if a.group == group) for group in cam.data.groups}
    return tuple(sorted(sorted(images, key=lambda group: -images[group])[:MOST_GROUPS]))


def draw_averages(path: Path, cam: Cam) -> None:
    """Writes averages.png: a row for each gender: all, by group, classified correctly and wrongly."""
    by_name = {average.name: average_panel(average, cam.arrays) for average in cam.averages}
    endings = ("", *(f" x {group}" for group in drawn_groups(cam)), " correct", " wrong")
    rows = [[by_name.get(gender + ending) for ending in endings] for gender in cam.data.classes]
    title = f"Average evidence of {cam.checkpoint.model}, over the mean faces of the same images"
    draw_grid(path, title, rows, cam.data.classes, cam.limit)


def draw_differences(path: Path, cam: Cam) -> bool:
    """Writes differences.png if there is any: male minus female, of all and in each group; then for each gender its
    groups, and its misclassified images."""
    rows = [difference_panels(cam, "gender", "gender in group")]
    rows += [difference_panels(cam, "group", "outcome", gender=gender) for gender in cam.data.classes]
    if max(map(len, rows)) < 2:
        rows = [[panel for row in rows for panel in row]]
    rows = [row for row in rows if row]
    if rows:
        title = "Differences of average evidence; hatched: not significant (5 % false discoveries), or few images"
        draw_grid(path, title, rows, cam.data.classes, cam.limit)
    return bool(rows)


def draw_deletion(path: Path, deletion: Deletion) -> None:
    """Writes deletion.png: accuracy and log-odds against the fraction of masked cells."""
    figure = Figure(figsize=(7.6, 3.1), dpi=120, layout="constrained")
    figure.suptitle(
        f"Deletion check: {plural(deletion.images, 'image')}, masked cells get the image's mean colour; bars: 95 %",
        fontsize=10,
    )
    left, right = figure.subplots(1, 2)
    fractions = [0.0, *(step.fraction for step in deletion.steps)]
    for label, style in (("hottest", "o-"), ("random", "s--")):
        points = [deletion.unmasked, *(getattr(step, label) for step in deletion.steps)]
        errors = [1.96 * point.standard_error for point in points]
        left.plot(fractions, [point.accuracy for point in points], style, label=f"{label} cells masked")
        right.errorbar(fractions, [point.log_odds for point in points], errors, fmt=style, capsize=2)
    left.set_ylabel("accuracy")
    left.legend(fontsize=8)
    right.set_ylabel("mean log-odds of the label")
    for axes in (left, right):
        axes.set_xlabel("fraction of cells masked")
        axes.grid(alpha=0.3)
    write_whole(path, as_png(figure, dpi=120))
