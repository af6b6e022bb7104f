"""The parts of the page as HTML: pure functions of what is shown, by the templates of reports."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from hpcgender.app.answers import Answer
from hpcgender.app.shown import Evaluated, ShownModel
from hpcgender.evaluate.errors import SHEET, faces_of, mistakes
from hpcgender.evaluate.predictions import Predictions
from hpcgender.report.evaluation import group_content, limits
from hpcgender.report.heat_maps import heat_map_section
from hpcgender.report.sources import Part
from hpcgender.report.training import manifest_of
from hpcgender.report.words import interval
from shard_tools.base.errors import UserError
from shard_tools.base.page import render
from shard_tools.base.text import percent

APP, REPORT = "hpcgender.app", "hpcgender.report"
SHOWN = 24
"""Mistakes at a time."""


@lru_cache
def style() -> str:
    """The style of reports, for what is within `.hpcgender` alone, and that of the page."""
    reports = render("shard_tools.base", "page.css") + render(REPORT, "report.css")
    return f"<style>.hpcgender {{ {reports.replace(':root', '&')} }}\n{render(APP, 'app.css')}</style>"


def within(html: str) -> str:
    return f'<div class="hpcgender">{html}</div>'


def notice() -> str:
    """What is always in sight."""
    return within(render(APP, "notice.html"))


def photo(name: str, found: Sequence[Answer]) -> str:
    """A photo by its name, and what each model says of it."""
    return within(render(APP, "answers.html", name=name, answers=found))


@lru_cache
def card(models: tuple[ShownModel, ...]) -> str:
    """The models, and the model card with what their evaluations say of their limits."""
    parts = [Part(one.name, None, {each.directory: each.evaluation for each in one.evaluated}) for one in models]
    facts = {shown.name: facts_of(shown) for shown in models}
    limited = render(REPORT, "model_card.html", it={"limits": list(limits(parts))})
    return within(render(APP, "models.html", models=facts) + limited)


def facts_of(shown: ShownModel) -> dict[str, str]:
    """A model in a few lines."""
    about = shown.model.network
    lines = {
        "checkpoint": str(shown.checkpoint),
        "tells": "gender and age" if about.has_gender and shown.age else "gender" if about.has_gender else "age",
        "reads": shown.model.words,
    }
    for one in shown.evaluated:
        scores = []
        if gender := one.evaluation.gender:
            scores.append(f"accuracy {percent(gender.accuracy.value)} ({interval(gender.accuracy)})")
        if age := one.evaluation.age:
            scores.append(f"age MAE {age.mae.value:.1f} years ({interval(age.mae, fraction=False)})")
        lines[one.data] = ", ".join(scores)
    return lines


@lru_cache
def groups(evaluated: Evaluated) -> str:
    """Scores by the values of columns, with their gaps."""
    found = [group_content(evaluated.evaluation, table) for table in evaluated.evaluation.tables]
    return within(render(REPORT, "groups.html", it={"groups": found}))


@lru_cache(maxsize=8)
def heat_maps(directory: Path) -> str:
    """Average heat maps and their differences; UserError if they cannot be read."""
    return within(render(REPORT, "heat_maps.html", it=heat_map_section(directory)))


KINDS = ("all mistakes", "women taken for men", "men taken for women")


def chosen_mistakes(evaluated: Evaluated, kind: str, group: str) -> Predictions:
    """The mistakes of a kind, and of a group unless that is empty, the most confident first."""
    wrong = mistakes(evaluated.predictions)
    if kind != KINDS[0]:
        wrong = wrong.rows(wrong.label == KINDS.index(kind) - 1)
    return wrong.rows(wrong.group == group) if group else wrong


def faces(evaluated: Evaluated, wrong: Predictions, page: int) -> str:
    """A page, from 0, of mistakes: the images of the data set if it still exists, else the sheet of the evaluation."""
    data = evaluated.evaluation.data
    first = page * SHOWN
    shown = wrong.rows(np.arange(first, min(first + SHOWN, len(wrong))))
    manifest = manifest_of(Path(data.path), data.manifest)
    sheet = evaluated.directory / SHEET
    why = f"{data.path} is missing, or packed anew: the images cannot be shown."
    found = None
    if manifest:
        try:
            found = faces_of(shown, manifest, data.split)
        except UserError as error:
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
