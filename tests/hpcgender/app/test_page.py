"""What the page does when people use it, by Streamlit's own tests: no browser, and no server."""

from __future__ import annotations

import runpy
import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
from streamlit import config
from streamlit.testing.v1 import AppTest

from hpcgender.app.answers import MOST
from hpcgender.app.command import LOOPBACK, SCRIPT
from tests.hpcgender.app.hostile import refused


@pytest.fixture
def page(shown: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AppTest]:
    """The page of both models, as it is first seen."""
    runs = shown / "runs"
    monkeypatch.setattr("sys.argv", [str(SCRIPT), "--checkpoint", str(runs / "crops"), str(runs / "whole")])
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])  # Streamlit puts the script there
    config.set_option("server.address", LOOPBACK)
    yield AppTest.from_file(str(SCRIPT), default_timeout=300).run()
    config.set_option("server.address", None)


def html(page: AppTest) -> str:
    """All that the page shows as HTML, but its style."""
    assert not page.exception, page.exception
    return "".join(part.value for part in page.get("html") if "<style" not in part.value)


def test_a_process_that_the_page_starts_is_no_visitor(
    page: AppTest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert sys.modules["__main__"].__file__ == str(SCRIPT)
    monkeypatch.chdir(tmp_path)  # without a model: the page would refuse to be drawn
    monkeypatch.setattr("sys.argv", [str(SCRIPT)])
    runpy.run_path(str(SCRIPT), run_name="__mp_main__")
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        assert pool.submit(abs, -1).result() == 1


def test_the_limits_are_there_from_the_beginning(page: AppTest) -> None:
    text = html(page)
    assert "No decision about a person may rest on it." in text
    assert "no decision about a person may rest on a prediction of such a model" in text
    assert "crops on shards-val: expected calibration error" in text
    assert [tab.label for tab in page.tabs] == ["Photos", "Mistakes", "Groups", "Heat maps"]
    assert 'class="answers"' not in text


def test_photos_are_answered_and_forgotten(page: AppTest, photos: list[Path]) -> None:
    given = [(path.name, path.read_bytes(), "image/jpeg") for path in photos[:2]]
    page.file_uploader[0].set_value(given).run()
    text = html(page)
    assert text.count('class="answers"') == 2
    assert text.count('class="headline"') == 4
    assert "heat map over the face" in text
    kept = page.session_state["answers"]
    assert len(kept) == 2
    page.toggle[0].set_value(True).run()  # the page runs again: answers are the same objects
    assert [page.session_state["answers"][name] is answer for name, answer in kept.items()] == [True, True]
    assert page.camera_input[0].label == "Your camera"
    page.file_uploader[0].set_value(None).run()
    assert 'class="answers"' not in html(page)
    assert page.session_state["answers"] == {}


def test_files_that_are_no_photos_have_messages_and_names_are_escaped(page: AppTest, photos: list[Path]) -> None:
    files = list(refused(photos[0]))
    page.file_uploader[0].set_value([(name, encoded, "image/jpeg") for name, encoded, _ in files]).run()
    text = html(page)
    assert text.count('role="alert"') == len(files)  # once, not for each model
    assert "&lt;img src=x onerror=alert(1)&gt;.jpg" in text
    assert "<img src=x" not in text


def test_too_many_photos_are_not_all_looked_at(page: AppTest) -> None:
    page.file_uploader[0].set_value([(f"{n}.jpg", b"no photo", "image/jpeg") for n in range(MOST + 3)]).run()
    assert html(page).count('class="answers"') == MOST
    assert page.warning[0].value.startswith(f"The first {MOST} of {MOST + 3} photos are shown")


def test_mistakes_groups_and_heat_maps_are_browsed(page: AppTest) -> None:
    evaluation, which = page.selectbox[0], page.selectbox[1]
    assert evaluation.options == ["crops: shards-val", "whole: shards-val"]
    every = html(page).count("taken for ")
    counts = []
    for kind in which.options[1:]:
        page.selectbox[1].set_value(kind).run()
        counts.append(html(page).count("taken for "))
    assert sum(counts) == every > 0
    page.selectbox[0].set_value("whole: shards-val").run()
    text = html(page)
    assert "accuracy by gender" in text
    assert "averages, over the mean face of the same images" in text
    assert page.selectbox[-1].options == ["crops: shards-val"]


def test_a_model_without_evaluations_says_so(shown: Path, tmp_path: Path, page: AppTest, photos: list[Path]) -> None:
    alone = shutil.copy(shown / "runs" / "whole" / "checkpoints" / "best.pt", tmp_path / "alone.pt")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", [str(SCRIPT), "--checkpoint", str(alone)])
        page = AppTest.from_file(str(SCRIPT), default_timeout=300).run()
        page.file_uploader[0].set_value((photos[0].name, photos[0].read_bytes(), "image/jpeg")).run()
    assert [line.value.partition(":")[0] for line in page.info] == [
        "There is no evaluation of these checkpoints",
        "There is no evaluation of these checkpoints",
        "There are no heat maps of these checkpoints",
    ]
    assert "No evaluation tells how often this model is right" in html(page)
    assert "The confidence is not calibrated" in html(page)


def test_another_address_than_loopback_is_refused(page: AppTest) -> None:
    config.set_option("server.address", "0.0.0.0")
    page.run()
    assert page.error[0].value == "This page is served on 127.0.0.1 alone: start it with hpcgender app."
    assert not page.file_uploader
