"""The page in a real Chromium: photos to answers, hostile files, mistakes, and nothing that leaves this machine."""

from __future__ import annotations

import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

from tests.hpcgender.app.hostile import bomb, saved
from tests.hpcgender.app.serving import Served, served
from tests.hpcgender.report.browser import Browser, chromium

FILES = "input[type=file]"
ANSWERED = "document.querySelectorAll('.answers').length"
ACROSS = "document.documentElement.scrollWidth - innerWidth"
WIDEST = "Math.max(...[...document.querySelectorAll('.hpcgender')].map(part => part.getBoundingClientRect().right))"
PICTURES = "[...document.querySelectorAll('.hpcgender img')].filter(image => image.offsetParent)"
SCROLLED = "document.querySelector('[data-testid=stMain]').scrollBy(0, 600)"
NOTICE = "document.querySelector('.notice').getBoundingClientRect().top"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.fixture(scope="module")
def page(shown: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The page of both models, although the user's environment wants another address and statistics."""
    directory = tmp_path_factory.mktemp("served")
    (directory / "runs").symlink_to(shown / "runs")
    wishes = {"STREAMLIT_SERVER_ADDRESS": "0.0.0.0", "STREAMLIT_BROWSER_GATHER_USAGE_STATS": "true"}
    with served(directory, "--checkpoint", "crops", "whole", "--port", free_port(), **wishes) as page:
        yield page


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory, photos: list[Path]) -> Iterator[Browser]:
    """A browser whose camera shows the first photo."""
    film = tmp_path_factory.mktemp("camera") / "film.mjpeg"
    with Image.open(photos[0]) as photo:
        film.write_bytes(saved(photo.resize((640, 640)), "JPEG", quality=95))
    camera = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
    profile = tmp_path_factory.mktemp("browser") / "profile"
    with chromium(profile, *camera, f"--use-file-for-fake-video-capture={film}") as browser:
        yield browser


def visit(browser: Browser, page: Served) -> None:
    browser.visit(page.address)
    browser.until(f"document.querySelector('{FILES}') && document.querySelector('.notice')")


def tab(browser: Browser, name: str) -> None:
    browser.value(
        f"[...document.querySelectorAll('[role=tab]')].find(tab => tab.textContent.includes('{name}')).click()"
    )


def test_photos_to_answers_of_two_models_at_any_width_light_and_dark(
    browser: Browser, page: Served, photos: list[Path]
) -> None:
    papers = set()
    for width, scheme in ((400, "light"), (1600, "dark")):
        browser.look(width, scheme)  # type: ignore[arg-type]
        visit(browser, page)
        browser.give(FILES, *photos[:2])
        browser.until(f"{ANSWERED} == 2")
        assert browser.value("document.querySelectorAll('.headline').length") == 4
        names = browser.value(f"{PICTURES}.map(image => image.alt)")
        assert len(names) == 12
        assert len([name for name in names if name.startswith("heat map over the face, strongest for ")]) == 4
        browser.until(f"{PICTURES}.every(image => image.naturalWidth)")
        assert browser.value(ACROSS) <= 0, "it scrolls sideways"
        assert browser.value(WIDEST) <= width, "it is cut off"
        browser.value(SCROLLED)
        assert -5 <= browser.value(NOTICE) < 100, "the limits are out of sight"
        assert browser.value("document.querySelector('#model-card') !== null")
        assert "Deploy" not in browser.value("document.body.innerText")
        papers.add(browser.value("getComputedStyle(document.querySelector('.card')).backgroundColor"))
        assert browser.complaints == []
    assert len(papers) == 2


def test_hostile_files_have_a_message_and_the_page_goes_on(
    browser: Browser, page: Served, photos: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "bomb.png").write_bytes(bomb())
    (tmp_path / "notes.jpg").write_text("these are notes\n" * 50)
    (tmp_path / "half.jpg").write_bytes(photos[0].read_bytes()[:900])
    visit(browser, page)
    browser.give(FILES, tmp_path / "bomb.png", tmp_path / "notes.jpg", tmp_path / "half.jpg", photos[1])
    browser.until(f"{ANSWERED} == 4")
    messages = browser.value("[...document.querySelectorAll('[role=alert].error')].map(line => line.textContent)")
    assert messages[:2] == ["It has more than 50000000 pixels.", "It is not an image."]
    assert messages[2].startswith("It does not decode: ")
    assert browser.value("document.querySelectorAll('.headline').length") == 2
    assert browser.complaints == []


def test_the_camera_is_asked_only_if_people_want_it(browser: Browser, page: Served) -> None:
    visit(browser, page)
    assert not browser.value("document.querySelector('[data-testid=stCameraInput]')")
    browser.value("document.querySelector('[data-testid=stCheckbox] input').click()")
    buttons = "[...document.querySelectorAll('[data-testid=stCameraInput] button')]"
    button = f"{buttons}.find(one => /take photo/i.test(one.innerText))"
    browser.until(f"{button} && !{button}.disabled && document.querySelector('video')?.videoWidth")
    browser.value(f"{button}.click()")
    browser.until(f"{ANSWERED} == 1")
    assert "one face was found" in browser.value("document.querySelector('.answers').innerText")


def test_mistakes_groups_and_heat_maps_are_browsed(browser: Browser, page: Served) -> None:
    browser.look(1600, "light")
    visit(browser, page)
    for name, words in (("Mistakes", "taken for"), ("Groups", "accuracy by gender"), ("Heat maps", "mean face")):
        tab(browser, name)
        shown = "[...document.querySelectorAll('.hpcgender')].filter(part => part.offsetParent)"
        browser.until(f"{shown}.some(part => part.innerText.includes('{words}'))")
        browser.until(f"{PICTURES}.length && {PICTURES}.every(image => image.naturalWidth)")
        assert browser.value(ACROSS) <= 0
    assert browser.complaints == []


def test_nothing_leaves_this_machine_and_no_upload_reaches_the_disk(
    browser: Browser, page: Served, photos: list[Path], tmp_path: Path
) -> None:
    with Image.open(photos[0]) as photo:
        pixels = np.asarray(photo.resize((1600, 1600))).astype(int)
    noise = np.random.default_rng(0).integers(-9, 9, pixels.shape)
    large = tmp_path / "large.png"
    large.write_bytes(saved(Image.fromarray((pixels + noise).clip(0, 255).astype(np.uint8)), "PNG"))
    assert large.stat().st_size > 3_000_000
    visit(browser, page)
    before = len(page.noted())
    browser.give(FILES, large)
    browser.until(f"{ANSWERED} == 1")
    assert browser.value("document.querySelectorAll('.headline').length") == 2

    secret = urlsplit(page.address).path
    for address in browser.asked:
        if not address.startswith("data:"):
            assert urlsplit(address).netloc == urlsplit(page.address).netloc
            assert urlsplit(address).path.startswith(secret)
    noted = page.noted()
    bound = {what for event, what in noted if event == "socket.bind"}
    assert {what.partition(",")[0] for what in bound} == {"('127.0.0.1'"}
    assert [what for event, what in noted if event == "socket.connect" and "127.0.0.1" not in what] == []
    assert [(event, what) for event, what in noted[before:] if event == "write" and what != "/dev/null"] == []


def test_without_the_secret_there_is_nothing(page: Served) -> None:
    root = "{0.scheme}://{0.netloc}".format(urlsplit(page.address))
    for path in ("/", "/_stcore/host-config", "/index.html"):
        with pytest.raises(urllib.error.HTTPError) as error:
            urllib.request.urlopen(root + path, timeout=30)
        assert error.value.code == 404
        error.value.close()
    assert page.told[-1].startswith(f"from another machine, first: ssh -L {urlsplit(root).port}:127.0.0.1:")


def test_a_photo_of_a_real_person_is_cropped(browser: Browser, page: Served, real_faces: Path) -> None:
    visit(browser, page)
    browser.give(FILES, sorted(real_faces.glob("*.jpg"))[0])
    browser.until(f"{ANSWERED} == 1")
    assert "one face was found" in browser.value("document.querySelector('.answers').innerText")
