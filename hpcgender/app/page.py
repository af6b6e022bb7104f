"""The page, drawn by Streamlit: photos and answers, mistakes, groups, heat maps, and the model card beside all."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeVar

import streamlit as st

from hpcgender.app import fragments
from hpcgender.app.answers import MAX_MB, MOST, Answer, answers
from hpcgender.app.command import LOOPBACK
from hpcgender.app.shown import ShownModel
from hpcgender.evaluate.finished import FinishedEvaluation
from shard_tools.base.errors import StorageError, UserError
from shard_tools.base.text import plural
from shard_tools.images import EXTENSIONS, MAX_PIXELS

Shown = TypeVar("Shown")

SUFFIXES = sorted({*EXTENSIONS.values(), "jpeg"})
KEPT = "answers"
"""In the session's state: the answers of each photo that is there, by its id."""


def draw(models: tuple[ShownModel, ...]) -> None:
    """Draws the page of these models."""
    st.set_page_config(page_title="hpcgender", layout="wide", initial_sidebar_state="collapsed")
    if st.get_option("server.address") != LOOPBACK:
        st.error(f"This page is served on {LOOPBACK} alone: start it with hpcgender app.")
        st.stop()
    st.html(fragments.style())
    with st.container(key="notice"):
        st.html(fragments.notice())
    work, aside = st.columns([5, 2], gap="medium")
    with aside, st.container(key="model-card"):
        st.html(fragments.card(models))
    with work:
        st.header("hpcgender", anchor=False)
        first, wrong, by_group, maps = st.tabs(["Photos", "Mistakes", "Groups", "Heat maps"])
        with first:
            draw_photos(models)
        with wrong:
            draw_mistakes(models)
        with by_group:
            draw_groups(models)
        with maps:
            draw_heat_maps(models)


def draw_photos(models: tuple[ShownModel, ...]) -> None:
    """What people give, and what the models say of it."""
    photos = st.file_uploader(
        f"Photos of faces, JPEG, PNG, WebP or BMP, up to {MAX_MB} MB and {MAX_PIXELS // 1_000_000} megapixels each. "
        "They stay in the memory of this machine, and are forgotten after you close the page.",
        type=SUFFIXES,
        accept_multiple_files=True,
    )
    taken = st.camera_input("Your camera") if st.toggle("Use the camera") else None
    given = [*([taken] if taken else []), *photos]
    if len(given) > MOST:
        st.warning(f"The first {MOST} of {len(given)} photos are shown: remove some to see the others.")
    kept: dict[str, list[Answer]] = st.session_state.get(KEPT, {})
    st.session_state[KEPT] = {}
    for photo in given[:MOST]:
        found = kept.get(photo.file_id)
        if found is None:
            with st.spinner("The network looks at it"):
                found = answers(models, photo.getvalue())
        st.session_state[KEPT][photo.file_id] = found
        st.html(fragments.photo(photo.name, found))


def choose(label: str, found: Iterable[tuple[str, Path, Shown]], key: str) -> Shown:
    """One of the results of models, which people choose by the names of the models and the directories."""
    named: dict[str, Shown] = {}
    for model, directory, one in found:
        name = f"{model}: {directory.resolve().name}"
        named[name if name not in named else f"{model}: {directory}"] = one
    return named[st.selectbox(label, list(named), key=key)]


def choose_evaluation(models: Sequence[ShownModel], key: str) -> FinishedEvaluation | None:
    """An evaluation of one of the models; None, and a line that says so, if there is none."""
    found = [(model.name, one.directory, one) for model in models for one in model.evaluated]
    if not found:
        st.info("There is no evaluation of these checkpoints: make one with hpcgender evaluate.")
        return None
    return choose("Evaluation", found, key)


def draw_mistakes(models: Sequence[ShownModel]) -> None:
    """The mistakes of an evaluation, the most confident first."""
    evaluated = choose_evaluation(models, "of mistakes")
    if not evaluated:
        return
    predictions = evaluated.predictions
    if not predictions.gender_known.any():
        st.info("This evaluation has no scores of gender.")
        return
    kind = st.selectbox("Which", fragments.KINDS)
    names = sorted(set(predictions.group.tolist()) - {""})
    group = st.selectbox("Group", ["", *names], format_func=lambda name: name or "all groups") if names else ""
    wrong = fragments.chosen_mistakes(evaluated, kind, group)
    pages = -(-len(wrong) // fragments.SHOWN)
    labelled = int(predictions.gender_known.sum())
    st.write(
        f"{len(wrong):,} of {plural(labelled, 'labelled image')}, the most confident mistakes first. "
        "The colour is the label."
    )
    page = int(st.number_input(f"Page, of {pages}", 1, pages)) if pages > 1 else 1
    if len(wrong):
        st.html(fragments.faces(evaluated, kind, group, page - 1))


def draw_groups(models: Sequence[ShownModel]) -> None:
    """Scores by group of an evaluation."""
    if evaluated := choose_evaluation(models, "of groups"):
        st.html(fragments.groups(evaluated))


def draw_heat_maps(models: Sequence[ShownModel]) -> None:
    """Average heat maps, if there are any."""
    found = [(model.name, path, path) for model in models for path, _ in model.cams]
    if not found:
        st.info("There are no heat maps of these checkpoints: make some with hpcgender cam.")
        return
    try:
        st.html(fragments.heat_maps(choose("Heat maps", found, "of heat maps")))
    except (UserError, StorageError) as error:
        st.error(str(error))
