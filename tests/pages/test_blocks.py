"""Files and programs on the pages: TOML is what its reader takes, and Python compiles."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hpcgender.study.file import read_study
from jobs.sites import parse_site
from shard_tools.base.documents import parse_toml
from tests.pages.commands import PAGES, ROOT, parts


def blocks(language: str) -> list[tuple[str, str]]:
    """Each block of a language in README and on the pages, with the page that it is on."""
    return [
        (str(page.relative_to(ROOT)), "\n".join([*part.lines, ""]))
        for page in PAGES
        for part in parts(page)
        if part.language == language
    ]


@pytest.mark.parametrize(("page", "text"), blocks("toml"))
def test_a_file_on_a_page_can_be_read(page: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    if "scheduler =" in text:
        assert parse_site("site", parse_toml(text, page)).scheduler in ("slurm", "sge")
    elif re.search(r"^name = ", text, re.MULTILINE):
        (tmp_path / "study.toml").write_text(text)
        assert read_study(tmp_path / "study.toml").trials
    else:  # a part of a file
        assert parse_toml(text, page).content


@pytest.mark.parametrize(("page", "text"), blocks("python"))
def test_a_program_on_a_page_compiles(page: str, text: str) -> None:
    compile(text, page, "exec")
