"""Writes all pages, those of docs/ and those made of the source, and has Zensical make the site of them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import tomlkit

from docs.site.help import command_pages
from docs.site.message_page import message_page
from docs.site.messages import ROOT
from docs.site.python_api import api_page
from docs.site.settings import augmentation_page, mappings_page, presets_page, site_page

DOCS = ROOT / "docs"
SITE = Path(__file__).parent
HTML = DOCS / "html"
COPIED = (".md", ".png", ".svg")


def write_pages(pages: Path) -> list[str | dict[str, list[str]]]:
    """Writes all pages into a directory; returns the navigation of the reference."""
    for path in DOCS.rglob("*"):
        if path.suffix in COPIED and not path.is_relative_to(HTML):
            target = pages / path.relative_to(SITE if path.is_relative_to(SITE) else DOCS)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    (pages / "messages.md").write_text(message_page(), encoding="utf-8")
    reference = pages / "reference"
    reference.mkdir()
    commands = command_pages()
    files = {
        "site-profile.md": site_page(),
        "presets.md": presets_page(),
        "augmentation.md": augmentation_page(),
        "mappings.md": mappings_page(),
    }
    made = {"python.md": api_page(), **files}
    for of_program in commands.values():
        made |= of_program
    for name, text in made.items():
        (reference / name).write_text(text, encoding="utf-8")
    listed = {**commands, "Files": files}
    return [
        *({title: [f"reference/{name}" for name in names]} for title, names in listed.items()),
        "reference/python.md",
    ]


def build(out: Path) -> None:
    """Builds the site into a directory, which is replaced. Exits with a message if a link leads nowhere."""
    if find_spec("zensical") is None:
        sys.exit("the site needs the extra docs: .venv/bin/pip install -c constraints.txt -e '.[docs]'")
    with tempfile.TemporaryDirectory() as scratch:
        stage = Path(scratch)
        (stage / "pages").mkdir()
        config = tomlkit.parse((SITE / "zensical.toml").read_text(encoding="utf-8"))
        nav: list[dict[str, object]] = config.unwrap()["project"]["nav"]
        nav[-1]["Reference"] = write_pages(stage / "pages")
        config["project"]["nav"] = nav
        (stage / "zensical.toml").write_text(tomlkit.dumps(config), encoding="utf-8")
        command = [sys.executable, "-m", "zensical", "build", "--strict"]
        done = subprocess.run(
            command, cwd=stage, env={**os.environ, "NO_COLOR": "1"}, capture_output=True, text=True, check=False
        )
        if done.returncode:
            sys.exit(f"{done.stdout}{done.stderr}")
        if out.exists():
            shutil.rmtree(out)
        shutil.copytree(stage / "html", out)
