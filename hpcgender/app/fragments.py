"""The parts of the page as HTML: pure functions of what is shown, by the templates of reports."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from threading import Lock

import numpy as np

from hpcgender.app.answers import Answer
from hpcgender.app.shown import ShownModel
from hpcgender.evaluate.errors import SHEET, faces_of, mistakes
from hpcgender.evaluate.finished import FinishedEvaluation
from hpcgender.evaluate.predictions import Predictions
from hpcgender.report.evaluation import group_content, limits
from hpcgender.report.heat_maps import heat_map_section
from hpcgender.report.sources import Part
from hpcgender.report.training import manifest_of
from hpcgender.report.words import interval
from shard_tools.base.errors import StorageError, UserError
from shard_tools.base.page import in_base64, render
from shard_tools.base.text import percent

APP, REPORT, BASE = "hpcgender.app", "hpcgender.report", "shard_tools.base"
SHOWN = 24
"""Mistakes at a time."""


@lru_cache
def style() -> str:
    """The style of reports, for what is within `.hpcgender` alone, and that of the page."""
    reports = render(BASE, "page.css") + render(REPORT, "report.css")
    return f"<style>.hpcgender {{ {reports.replace(':root', '&')} }}\n{render(APP, 'app.css')}</style>"


def within(html: str) -> str:
    return f'<div class="hpcgender">{html}</div>'


def with_images(html: str) -> str:
    """Charts as images, which have the page's colours, light and dark, in themselves: Streamlit removes `svg`."""
    look = f"{render(BASE, 'page.css')} text {{ font-family: system-ui, sans-serif; }}"

    def image(found: re.Match[str]) -> str:
        name = re.search(r'aria-label="([^"]*)"', found[0])
        assert name
        drawn = found[0].replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
        drawn = drawn.replace("</svg>", f"<style><![CDATA[{look}]]></style></svg>")
        return f'<img alt="{name[1]}" src="data:image/svg+xml;base64,{in_base64(drawn.encode())}">'

    return re.sub(r"<svg .*?</svg>", image, html, flags=re.DOTALL)


def notice() -> str:
    """What is always in sight."""
    return within(render(APP, "notice.html"))


def photo(name: str, found: Sequence[Answer]) -> str:
    """A photo by its name, and what each model says of it."""
    return within(render(APP, "answers.html", name=name, answers=found))


@lru_cache
def card(models: tuple[ShownModel, ...]) -> str:
    """The models, and the model card with what their evaluations say of their limits."""
    parts = [Part(one.name, None, {each.directory: each.results for each in one.evaluated}) for one in models]
    facts = {shown.name: facts_of(shown) for shown in models}
    limited = render(REPORT, "model_card.html", it={"limits": list(limits(parts))})
    return within(f'<div id="model-card">{limited}</div>{render(APP, "models.html", models=facts)}')


def facts_of(shown: ShownModel) -> dict[str, str]:
    """A model in a few lines."""
    model = shown.model
    lines = {
        "checkpoint": str(shown.checkpoint),
        "faces": model.crop.description if model.crop else "photos are taken as they are, their middle square",
    }
    if model.network.has_gender:
        by, temperature = model.decision.calibrated_by, model.decision.temperature
        lines["confidence"] = f"calibrated by {by}, temperature {temperature:.3g}" if by else "not calibrated"
        lines["threshold"] = f"male is predicted above {model.decision.probability_threshold:.4g}"
    for one in shown.evaluated:
        scores = []
        if gender := one.results.gender:
            at = " at a threshold of 0.5" if model.decision.threshold else ""
            scores.append(f"accuracy{at} {percent(gender.accuracy.value)} ({interval(gender.accuracy)})")
        if age := one.results.age:
            scores.append(f"age MAE {age.mae.value:.1f} years ({interval(age.mae, fraction=False)})")
        title = one.title if one.title not in lines else f"{one.title} ({one.directory_name})"
        lines[title] = ", ".join(scores)
    return lines


_one_at_a_time = Lock()
"""For charts: the settings of matplotlib are the same for all windows."""


@lru_cache
def groups(evaluated: FinishedEvaluation) -> str:
    """Scores by the values of columns, with their gaps."""
    with _one_at_a_time:
        found = [group_content(evaluated.results, table) for table in evaluated.results.tables]
    return within(with_images(render(REPORT, "groups.html", it={"groups": found})))


@lru_cache(maxsize=8)
def heat_maps(directory: Path) -> str:
    """Average heat maps and their differences; UserError if they cannot be read."""
    with _one_at_a_time:
        content = heat_map_section(directory)
    facts = content["facts"]
    assert isinstance(facts, dict)
    content["facts"] = {name: facts[name] for name in ("data", "method", "cells")}
    return within(with_images(render(REPORT, "heat_maps.html", it=content)))


KINDS = ("all mistakes", "women taken for men", "men taken for women")


@lru_cache(maxsize=32)
def chosen_mistakes(evaluated: FinishedEvaluation, kind: str, group: str) -> Predictions:
    """The mistakes of a kind, and of a group unless that is empty, the most confident first."""
    wrong = mistakes(evaluated.predictions)
    if kind != KINDS[0]:
        wrong = wrong.rows(wrong.label == KINDS.index(kind) - 1)
    return wrong.rows(wrong.group == group) if group else wrong


@lru_cache(maxsize=32)
def faces(evaluated: FinishedEvaluation, kind: str, group: str, page: int) -> str:
    """A page, from 0, of such mistakes: the images of the data set if it still exists, else the evaluation's sheet."""
    data, wrong = evaluated.results.data, chosen_mistakes(evaluated, kind, group)
    first = page * SHOWN
    shown = wrong.rows(np.arange(first, min(first + SHOWN, len(wrong))))
    manifest = manifest_of(Path(data.path), data.manifest)
    sheet = evaluated.directory / SHEET
    why = f"{data.path} is missing, or packed anew: the images cannot be shown."
    found = None
    if manifest:
        try:
            found = faces_of(shown, manifest, data.split)
        except (UserError, StorageError) as error:
            why = str(error)
    return within(
        render(
            APP,
            "mistakes.html",
            faces=found,
            why=why,
            sheet=sheet.read_bytes() if found is None and sheet.is_file() else None,
            keys=shown.key.tolist(),
        )
    )
