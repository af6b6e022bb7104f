"""The report as one page that needs no other file."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from hpcgender.report.evaluation import SUMMARY, evaluation_cards, summary_row
from hpcgender.report.figures import STYLE
from hpcgender.report.heat_maps import heat_map_cards
from hpcgender.report.model_card import model_card
from hpcgender.report.sources import Part
from hpcgender.report.training import data_cards, training_cards
from hpcgender.report.words import percent, time_spent
from shard_tools.base.page import card, document, text_table, tile_list

REPORT_STYLE = """
.part { margin: 2.2rem 0 1rem; font-size: 1.35rem; overflow-wrap: anywhere; }
.part small { color: var(--faint); font-size: .95rem; font-weight: 400; }
h3 { margin: 0 0 .4rem; font-size: .95rem; }
.model-card { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 380px), 1fr)); gap: 1.2rem 2rem; }
.model-card ul { margin: 0; padding-left: 1.1rem; } .model-card li { margin-bottom: .35rem; }
.contents { display: flex; flex-wrap: wrap; gap: .3rem 1.2rem; margin-bottom: 1.2rem; }
.contents a { color: var(--ink); text-underline-offset: .2em; overflow-wrap: anywhere; }
.card > .chart { max-width: 460px; margin: 0 auto .6rem; }
.side { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 480px), 1fr)); gap: 0 16px;
  align-items: start; } .side > * { min-width: 0; }
tbody th:first-child { min-width: 6rem; max-width: 16rem; white-space: normal; overflow-wrap: anywhere; }
.card > p { margin-bottom: .7rem; } .card > dl + .scroll { margin-top: .9rem; }
.faces figcaption div { white-space: normal; }
.maps { display: grid; grid-template-columns: repeat(auto-fill, minmax(150px, 1fr)); gap: 14px; margin-bottom: .8rem; }
.maps img { display: block; width: 100%; height: auto; border-radius: 9px; }
.maps figcaption { margin-top: .3rem; overflow-wrap: anywhere; } .maps p { font-size: .92em; }
.scale { display: flex; align-items: center; gap: .7rem; max-width: 460px; margin-bottom: .9rem; color: var(--faint); }
.scale i { flex: 1; height: .8rem; border-radius: 4px; } .scale span { white-space: nowrap; }
.wide { display: block; width: 100%; min-width: 900px; height: auto; border-radius: 9px; }
@media print { .maps figcaption { margin-top: .3rem; overflow-wrap: anywhere; } .maps p { font-size: .92em; }
.scale { display: flex; align-items: center; gap: .7rem; max-width: 460px; margin-bottom: .9rem; color: var(--faint); }
.scale i { flex: 1; height: .8rem; border-radius: 4px; } .scale span { white-space: nowrap; }
.wide { min-width: 0; } .contents { display: none; } }
"""


def page(parts: Sequence[Part], title: str, faces: int) -> str:
    """The page as HTML; `faces` mistakes of each evaluation at most. UserError if something cannot be read."""
    sections: dict[str, str] = {}
    for part in parts:
        if part.run:
            sections[f"{part.name}: training"] = training_cards(part, part.run)
        for directory, evaluation in part.evaluations.items():
            sections[f"{part.name}: {directory.resolve().name}"] = evaluation_cards(directory, evaluation, faces)
        for directory in part.cams:
            sections[f"{part.name}: heat maps of {directory.resolve().name}"] = heat_map_cards(directory)
    sections["data"] = data_cards(parts)
    sections["model card"] = model_card(parts)
    rows = [summary_row(part.name, evaluation) for part in parts for evaluation in part.evaluations.values()]
    names = list(sections)
    contents = "".join(f'<a href="#s{number}">{escape(name)}</a>' for number, name in enumerate(names))
    body = "".join(
        f'<h2 class="part" id="s{number}">{escape(name)}</h2>\n{sections[name]}' for number, name in enumerate(names)
    )
    return document(
        title,
        tile_list(tiles(parts))
        + f'<nav class="contents" aria-label="contents">{contents}</nav>\n'
        + (card("summary", text_table(SUMMARY, rows)) if rows else "")
        + body,
        STYLE + REPORT_STYLE,
    )


def tiles(parts: Sequence[Part]) -> list[tuple[str, str]]:
    """The few numbers that come first: of the first evaluation, or else of the first run."""
    first = next((evaluation for part in parts for evaluation in part.evaluations.values()), None)
    run = parts[0].run
    found = []
    if first:
        found.append((f"images of {Path(first.data.path).name}, {first.data.split}", f"{first.data.images:,}"))
        if gender := first.gender:
            found.append(("accuracy", percent(gender.accuracy.value, 2)))
            found.append(("ROC AUC", f"{gender.roc_auc.value:.4f}"))
        gaps = [table.gap for table in first.tables if table.gap and table.measure == "accuracy"]
        if gaps:
            found.append(("points, largest gap", f"{max(gap.score.value for gap in gaps) * 100:.1f}"))
        if age := first.age:
            found.append(("years, age MAE", f"{age.mae.value:.2f}"))
    if run and run.records:
        found.append((f"training, {len(run.records)} epochs", time_spent(run.seconds)))
    return found
