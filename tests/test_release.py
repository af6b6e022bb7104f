"""What a release says of itself is the same everywhere: its version, its notes, and how to cite it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from hpcgender.version import __version__
from shard_tools.base.documents import read_toml
from tests.conftest import REPOSITORY

PROJECT: dict[str, Any] = read_toml(REPOSITORY / "pyproject.toml").content["project"]


def test_the_version_is_one() -> None:
    assert PROJECT["version"] == __version__


def test_the_citation_is_of_this_version() -> None:
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= set(citation)  # what CFF 1.2.0 requires
    assert citation["cff-version"] == "1.2.0"
    said = {key: citation[key] for key in ("type", "title", "version", "abstract", "license", "keywords")}
    described = {"title": PROJECT["name"], "abstract": PROJECT["description"]}
    same = {key: PROJECT[key] for key in ("version", "license", "keywords")}
    assert said == {"type": "software", **described, **same}
    assert all(set(author) == {"name"} and author["name"] for author in citation["authors"])


def test_the_notes_begin_with_what_comes_next_and_then_this_version() -> None:
    headings = re.findall(r"^## (.*)$", Path(REPOSITORY, "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert headings[:2] == ["Unreleased", __version__]
