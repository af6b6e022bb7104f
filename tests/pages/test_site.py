"""The site is built without a warning, loads nothing from elsewhere, and no link of it leads nowhere."""

from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest

import hpcgender
from docs.site import build
from docs.site.drawings import DRAWINGS
from docs.site.help import command_pages, printed_help, read_help
from docs.site.message_page import advice, area_of, places
from docs.site.messages import SAID, Message, messages
from docs.site.python_api import api_page
from hpcgender.commands import PROGRAMS
from tests.pages.commands import ROOT

LOADED = {"script": "src", "img": "src", "iframe": "src", "source": "srcset", "video": "src", "audio": "src"}
"""Elements by which a browser loads something; of `link` all but those that only name this page."""


class Page(HTMLParser):
    """What a page links to, what it loads, and its anchors."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.loaded: set[str] = set()
        self.anchors: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        if "id" in found:
            self.anchors.add(found["id"])
        if tag == "a" and "href" in found:
            self.links.add(found["href"])
        if tag in LOADED and LOADED[tag] in found:
            self.loaded.add(found[LOADED[tag]])
        if tag == "link" and found.get("rel") not in ("canonical", "next", "prev"):
            self.loaded.add(found["href"])
        self.loaded.update(re.findall(r"url\(([^)]+)\)", found.get("style", "")))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site") / "html"
    build.build(out)
    return out


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return {path: Page(path) for path in site.rglob("*.html")}


def test_every_page_is_built(pages: dict[Path, Page], site: Path) -> None:
    by_hand = {path.relative_to(ROOT / "docs").with_suffix(".html") for path in (ROOT / "docs").rglob("*.md")}
    commands = {Path(f"reference/{p.name}-{c.name.replace(' ', '-')}.html") for p in PROGRAMS for c in p.commands()}
    assert by_hand | commands <= {path.relative_to(site) for path in pages}


def test_every_page_is_in_the_navigation() -> None:
    navigation = (ROOT / "docs" / "site" / "zensical.toml").read_text(encoding="utf-8")
    by_hand = {str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")}
    assert {page for page in by_hand if f'"{page}"' not in navigation} == set()


def test_pages_load_nothing_from_elsewhere(pages: dict[Path, Page], site: Path) -> None:
    outside = re.compile(r"(\w+:)?//")
    assert {link for page in pages.values() for link in page.loaded if outside.match(link)} == set()
    loaded = {
        (path.parent / link.partition("?")[0]).resolve()
        for path, page in pages.items()
        if path.name != "404.html"
        for link in page.loaded
    }
    assert [path for path in loaded if not path.exists()] == []
    styles = "".join(path.read_text(encoding="utf-8") for path in site.rglob("*.css"))
    assert re.findall(r"(?:@import\s*[\"']|url\([\"']?)(?:https?:)?//[^)\"']+", styles) == []


def test_every_link_of_the_site_leads_somewhere(pages: dict[Path, Page]) -> None:
    wrong = []
    for path, page in pages.items():
        for link in page.links:
            target, anchor = urldefrag(unquote(link))
            if re.match(r"(https?|mailto):", target) or path.name == "404.html":
                continue
            there = (path.parent / target).resolve() if target else path
            if not there.exists() or (anchor and there in pages and anchor not in pages[there].anchors | {"__skip"}):
                wrong.append(f"{path.name}: {link}")
    assert wrong == []


def heading_anchors(text: str) -> set[str]:
    """The anchors of a Markdown file's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"])
def test_every_link_of_the_repositorys_first_pages_leads_somewhere(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    wrong = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        target, anchor = urldefrag(unquote(link))
        there = ROOT / (target or name)
        if re.match(r"https?:", link):
            continue
        if not there.exists() or (anchor and anchor not in heading_anchors(there.read_text(encoding="utf-8"))):
            wrong.append(link)
    assert wrong == []


def test_readme_is_read_in_a_minute() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 130


def test_the_drawings_are_those_of_the_code() -> None:
    files = {path.stem: path.read_text(encoding="utf-8") for path in (ROOT / "docs" / "drawings").glob("*.svg")}
    assert files == {name: draw().svg() for name, draw in DRAWINGS.items()}  # python -m docs.site.drawings


def test_words_are_spelled_as_they_should_be() -> None:
    texts = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "docs", "hpcgender", "shard_tools", "jobs")
    own = "fpr,reencode,followings,whats"  # as in fpr=0.01; names
    done = subprocess.run(
        [sys.executable, "-m", "codespell_lib", *texts, "--skip", "*.png,*/html/*", "-L", own],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.returncode) == ("", 0)


def test_the_reference_has_every_option_of_help() -> None:
    for program in PROGRAMS:
        for command in program.commands():
            printed = printed_help(program, command)
            page = command_pages()[program.name][f"{program.name}-{command.name.replace(' ', '-')}.md"]
            names = set(re.findall(r"^│ (--[\w-]+)", printed, re.MULTILINE))
            assert {name for name in names if f"`{name}" not in page} == set()
            assert sum(len(section.options) for section in read_help(printed)[1]) >= len(names)
    train = command_pages()["hpcgender"]["hpcgender-train.md"]
    assert "| `--epochs INT` | Number of epochs. More of them with --resume extend a run. | `50` |" in train
    assert "## Batch options\n\nWhat determines every training batch, for any number of ranks.\n" in train


def test_the_python_interface_is_on_its_page() -> None:
    page = api_page()
    offered = {name for name in dir(hpcgender) if not name.startswith("_") and name in hpcgender._MODULES}
    assert offered == {"evaluation", "load", "open"}
    assert {name for name in offered if f"\n## hpcgender.{name}\n" not in page} == set()
    assert "| `heat_map` | `npt.NDArray[np.float32] \\| None` | If asked for, evidence for male" in page
    assert "    batch_size: int = 64,\n" in page


def test_every_message_has_a_place_and_says_what_to_do() -> None:
    found = messages()
    assert len(found) > 600
    lost = [f"{message.module}: {message.words}" for message in found if not area_of(message) or not advice(message)]
    assert lost == []  # give it a place, or what to do, in docs/site/messages.toml


def test_what_messages_toml_says_is_about_messages_that_there_are() -> None:
    silent = [message.words for message in messages() if message.parts[1] in ("", SAID)]
    assert [words for words in places()[1] if not any(re.search(words, text) for text in silent)] == []
    used = {area.title for message in messages() if (area := area_of(message))}
    assert [area.title for area in places()[0] if area.title not in used] == []


def test_messages_are_read_with_their_advice() -> None:
    by_words = {message.words: message for message in messages()}
    missing = by_words["no directory …: give the one with the images as --images"]
    assert missing.parts == ("no directory …", "give the one with the images as --images")
    assert advice(missing) == "Give the one with the images as --images"
    refused = by_words["--quality … is not from 1 to 95"]
    assert refused.parts == ("--quality … is not from 1 to 95", "")
    assert advice(refused) == "Change the option or the value as the message says."
    assert area_of(Message(module="hpcgender/nowhere/new.py", kind="UserError", words="a new one")) is None
