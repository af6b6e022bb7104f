"""Writes the report: one HTML file with a section for each training, evaluation and directory of heat maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hpcgender.commands.report import ReportConfig
from hpcgender.matrix.cells import is_validation, matrix_of, test_sets
from hpcgender.matrix.tables import section
from hpcgender.report.comparison import comparison_section
from hpcgender.report.evaluation import evaluation_section, largest_gap, limits, summary_table
from hpcgender.report.heat_maps import heat_map_section
from hpcgender.report.sources import Part, find_parts
from hpcgender.report.training import data_section, training_section
from hpcgender.report.words import time_spent
from hpcgender.study.result_file import looked_at
from shard_tools.base.files import write_file
from shard_tools.base.page import render
from shard_tools.base.text import percent, plural, printable


@dataclass(frozen=True)
class Section:
    """A section of the page: a template and its content."""

    title: str
    template: str
    content: Mapping[str, object]


def report(config: ReportConfig) -> None:
    """Writes the page that `config` asks for; UserError for what the user can correct."""
    config.check()
    parts = find_parts(config.inputs)
    title = config.title or f"Report on {', '.join(part.name for part in parts)}"
    content = page(parts, printable(title), config.faces).encode()
    write_file(config.out, content)
    evaluations, cams = (sum(map(len, found)) for found in ([p.evaluations for p in parts], [p.cams for p in parts]))
    print(f"models: {len(parts)}, evaluations: {evaluations}, heat maps: {cams}")
    print(f"page: {printable(str(config.out))} ({len(content) / 1e6:.1f} MB)")


def page(parts: Sequence[Part], title: str, faces: int) -> str:
    """The page as HTML, with at most `faces` mistakes of each evaluation. UserError if something cannot be read."""
    return render(
        "hpcgender.report",
        "report.html",
        title=title,
        tiles=tiles(parts),
        summary=summary_table(parts),
        studies=looked_at(part.run.directory for part in parts if part.run),
        sections=sections(parts, faces),
    )


def sections(parts: Sequence[Part], faces: int) -> list[Section]:
    """The sections in their order."""
    found = []
    if compared := comparison_section(parts):
        found.append(Section("comparison", "comparison.html", compared))
    if several := matrix_section(parts):
        found.append(Section("models and test sets", "matrix.html", several))
    for part in parts:
        if part.run:
            found.append(Section(f"{part.name}: training", "training.html", training_section(part, part.run)))
        for directory, evaluation in part.evaluations.items():
            content = evaluation_section(directory, evaluation, faces)
            found.append(Section(f"{part.name}: {directory.resolve().name}", "evaluation.html", content))
        for directory in part.cams:
            title = f"{part.name}: heat maps of {directory.resolve().name}"
            found.append(Section(title, "heat_maps.html", heat_map_section(directory)))
    found.append(Section("data", "data.html", data_section(parts)))
    found.append(Section("model card", "model_card.html", {"limits": list(limits(parts))}))
    return found


def matrix_section(parts: Sequence[Part]) -> dict[str, object] | None:
    """The content of matrix.html; None of one model, or of one test set."""
    scored = [one for part in parts for one in part.evaluations.values() if one.gender and not is_validation(one)]
    if len({one.checkpoint.digest for one in scored}) < 2 or len(test_sets(scored)) < 2:
        return None
    matrix = matrix_of(parts)
    return section(matrix) if len(matrix.models) > 1 else None


def tiles(parts: Sequence[Part]) -> list[tuple[str, str]]:
    """The few numbers that come first: of one run those of its first evaluation, of several the accuracy of each."""
    if len(parts) > 1:
        return [tile for part in parts for tile in tiles_of(part)]
    first = next(iter(parts[0].evaluations.values()), None)
    run = parts[0].run
    found = []
    if first:
        found.append((f"images of {Path(first.data.path).name}, {first.data.split}", f"{first.data.images:,}"))
        if gender := first.gender:
            found.append(("accuracy", percent(gender.accuracy.value, 2)))
            if gender.baseline:
                found.append((f"baseline: always {gender.baseline.name}", percent(gender.baseline.accuracy, 2)))
            found.append(("ROC AUC", f"{gender.roc_auc.value:.4f}"))
        if gap := largest_gap(first):
            found.append(("points, largest gap", f"{gap.score.value * 100:.1f}"))
        if age := first.age:
            found.append(("years, age MAE", f"{age.mae.value:.2f}"))
    if run and run.records:
        found.append((f"training, {plural(len(run.records), 'epoch')}", time_spent(run.seconds)))
    return found


def tiles_of(part: Part) -> list[tuple[str, str]]:
    """The numbers of one of several runs, each with the run's name: of its first evaluation, or of its training."""
    first = next(iter(part.evaluations.values()), None)
    if first is None:
        records = part.run.records if part.run else ()
        return [(f"{part.name}: epochs of training", f"{len(records)}")]
    on = f"{part.name} on {Path(first.data.path).name}, {first.data.split}"
    found = [(f"accuracy, {on}", percent(first.gender.accuracy.value, 2))] if first.gender else []
    return found + ([(f"years of age MAE, {on}", f"{first.age.mae.value:.2f}")] if first.age else [])
