"""The pictures of pages, of drawn faces and small models: python -m docs.site.figures [--work DIR] [--all DIR].

--work keeps faces and models, to be used again. Where `bash jobs/demo.sh` has run, its faces are taken, and its heat
maps become docs/heat_maps.png. --all gets every page whole, 400 and 1600 pixels wide, light and dark, to be looked at.
Needs Chromium.
"""

from __future__ import annotations

import argparse
import io
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Literal

from PIL import Image

from tests.hpcgender.app.serving import served
from tests.hpcgender.report.browser import NAMES, Browser, chromium

DOCS = Path(__file__).parents[1]
FIGURES = DOCS / "figures"
MODELS = {"compact": 48, "small": 32}
"""Names of the runs, and the height and width of their images, pixels."""
WIDTHS = (400, 1600)
PLACE = "[...document.querySelectorAll('h2')].find(title => title.textContent == 'gender').closest('.card')"
"""Where a report has what its picture begins with."""
BYTES = 150_000
"""The size of a picture in the repository."""
PHOTO = "input[type=file]"
Scheme = Literal["light", "dark"]
SCHEMES: tuple[Scheme, ...] = ("light", "dark")


def small(picture: bytes, rows: slice = slice(None)) -> bytes:
    """A PNG of some rows of a picture, with 256 colours."""
    with Image.open(io.BytesIO(picture)) as image:
        top, bottom, _ = rows.indices(image.height)
        cut = image.convert("RGB").crop((0, top, image.width, bottom))
    colours = cut.quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=3, dither=Image.Dither.NONE)  # none is far off
    packed = io.BytesIO()
    colours.save(packed, "PNG", optimize=True)
    return packed.getvalue()


def keep(target: Path, picture: bytes, rows: slice = slice(None)) -> None:
    """Writes a picture for the repository. Exits with a message if it is too large."""
    content = small(picture, rows)
    if len(content) > BYTES:
        sys.exit(f"{target} would have {len(content)} bytes, more than {BYTES}")
    target.parent.mkdir(exist_ok=True)
    target.write_bytes(content)
    print(f"{target}: {len(content) // 1000} kB")


def command(work: Path, *words: str) -> None:
    """Runs a command of hpcgender or shard_tools in a directory."""
    subprocess.run([sys.executable, "-m", *words], cwd=work, check=True)


def model(work: Path, name: str, size: int) -> None:
    """Trains a compact CNN on drawn faces, evaluates it and draws its heat maps, unless that is done."""
    if not (work / "data" / "demo" / "manifest.json").exists():
        faces = ("--out", "data/demo-faces", "--count", "2000", "--size", "64")
        command(work, "shard_tools", "synthetic", *faces)
        command(work, "shard_tools", "pack", "morph", "--images", "data/demo-faces", "--out", "data/demo")
    if not (work / "runs" / name / "cams" / "demo-test" / "cam.json").exists():
        compact = (
            "--model",
            "compact",
            "--image-size",
            str(size),
            "--batch-size",
            "32",
            "--lr",
            "0.01",
            "--epochs",
            "3",
        )
        command(work, "hpcgender", "train", "--data", "data/demo", "--name", name, *compact)
        test = ("--checkpoint", name, "--data", "data/demo", "--split", "test")
        command(work, "hpcgender", "evaluate", *test, "--errors", "--temperature-from", "val")
        command(work, "hpcgender", "cam", *test)


def shoot(browser: Browser, name: str, show: Callable[[int, Scheme], int], height: int, out: Path, every: Path) -> None:
    """Takes pictures of a page in all widths and schemes, and keeps of the wide ones as many rows as `height`.

    `show` opens the page for a width and a scheme, and returns the first row to keep.
    """
    for scheme in SCHEMES:
        for width in WIDTHS:
            top = show(width, scheme)
            picture = every / f"{name}-{width}-{scheme}.png"
            browser.shoot(picture)
            if width == WIDTHS[-1]:
                keep(out / f"{name}-{scheme}.png", picture.read_bytes(), slice(top, top + height))


def show_report(browser: Browser, page: Path, width: int, scheme: Scheme) -> int:
    """Opens a report with all of its images; returns the row at which its scores begin."""
    browser.open(page, width, scheme)
    return int(browser.value(f"Math.round({PLACE}.getBoundingClientRect().top + scrollY)")) - 8


def show_app(browser: Browser, address: str, photo: Path, width: int, scheme: Scheme) -> int:
    """Opens the page of `hpcgender app`, gives it a photo and waits for the answers; returns its first row."""
    browser.look(width, scheme)
    browser.visit(address)
    browser.until(f"document.querySelector('{PHOTO}')")
    browser.give(PHOTO, photo)
    browser.until("document.querySelectorAll('.answers').length == 1")
    images = "[...document.querySelectorAll('.hpcgender img')].filter(image => image.offsetParent)"
    browser.until(f"{images}.length && {images}.every(image => image.naturalWidth)")
    return 0


@contextmanager
def photos(work: Path) -> Iterator[Path]:
    """A drawn face, large enough for a page."""
    with tempfile.TemporaryDirectory() as scratch:
        command(work, "shard_tools", "synthetic", "--out", f"{scratch}/face", "--count", "1", "--size", "160")
        yield next(Path(scratch, "face").glob("*.JPG"))


def figures(work: Path, out: Path, every: Path) -> None:
    """Makes all pictures."""
    sheet = work / "runs" / "demo" / "cams" / "demo-test" / "sheet.png"
    if sheet.exists():
        keep(DOCS / "heat_maps.png", sheet.read_bytes())
    for name, size in MODELS.items():
        model(work, name, size)
    picture, page = every / "compare.png", every / "report.html"
    command(work, "hpcgender", "compare", *MODELS, "--picture", str(picture))
    keep(out / "compare.png", picture.read_bytes())
    command(work, "hpcgender", "report", next(iter(MODELS)), "--out", str(page))
    with (
        tempfile.TemporaryDirectory() as profile,
        chromium(Path(profile)) as browser,
        photos(work) as photo,
        served(work, "--checkpoint", *MODELS) as served_page,
    ):
        browser.call("Emulation.setScrollbarsHidden", hidden=True)
        shoot(browser, "report", partial(show_report, browser, page), 1324, out, every)
        shoot(browser, "app", partial(show_app, browser, served_page.address, photo), 900, out, every)


def main() -> None:
    """Reads the options."""
    parser = argparse.ArgumentParser(prog="python -m docs.site.figures", description=__doc__)
    parser.add_argument("--work", type=Path, help="directory for faces and models")
    parser.add_argument("--all", type=Path, help="directory for all pictures")
    options = parser.parse_args()
    if not any(map(shutil.which, NAMES)):
        sys.exit(f"no {' or '.join(NAMES)} in PATH: install one, as by apt-get install chromium")
    with tempfile.TemporaryDirectory() as scratch:
        work, every = options.work or Path(scratch, "work"), options.all or Path(scratch, "all")
        for directory in (work, every):
            directory.mkdir(parents=True, exist_ok=True)
        figures(work.absolute(), FIGURES, every.absolute())


if __name__ == "__main__":
    main()
