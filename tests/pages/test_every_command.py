"""Every command on the pages is run, in a directory with what its page presupposes, or NOT_RUN says why not."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from tests.conftest import Run
from tests.pages.commands import PAGES, ROOT
from tests.pages.imitations import copy
from tests.pages.not_run import NOT_RUN, excused
from tests.pages.presupposed import make
from tests.pages.running import Place, is_step, ours, run_programs
from tests.pages.test_tutorial import README, TUTORIAL, UTKFACE

ONE_MACHINE, PYTHON = ROOT / "docs" / "clusters" / "none.md", ROOT / "docs" / "tasks" / "python.md"
RUN = {
    page: [
        command
        for command in ours(page)
        if not excused(command.words) and not (page in (README, TUTORIAL, UTKFACE) and is_step(command))
    ]
    for page in PAGES
}
"""The commands of each page that are run here; test_tutorial.py has those in blocks of three pages."""


@pytest.fixture(scope="module")
def presupposed(tmp_path_factory: pytest.TempPathFactory, run: Run) -> Path:
    """A directory with all that the pages presuppose."""
    root = tmp_path_factory.mktemp("presupposed")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        make(run)
    return root


@pytest.fixture
def here(presupposed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, which is the working directory."""
    copy(presupposed, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def closed_queue(here: Path) -> dict[str, str]:
    """Makes a scheduler whose queue is a directory, and in which job 123 waits; nothing starts there."""
    queue = here / "queue"
    (queue / "123").mkdir(parents=True)
    (queue / "123" / "job.json").write_text(json.dumps({"name": "before", "state": "pending", "reason": "Closed"}))
    (queue / "closed").touch()
    (here / "site.toml").write_text('scheduler = "directory"\n')
    return {"DIRECTORY_QUEUE": str(queue), "PYTHONPATH": str(ROOT)}


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if RUN[page]], ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_on_a_page_works(page: Path, here: Path, presupposed: Path, run: Run) -> None:
    alone = {"PATH": str(Path(sys.executable).parent)}  # whatever schedulers this machine has
    place = Place(run, presupposed, alone if page == ONE_MACHINE else closed_queue(here))
    try:
        for written in RUN[page]:
            place.carry_out(written)
    finally:
        codes = place.end()
    assert set(codes) <= {99}  # a training that was cancelled is saved


@pytest.mark.slow
def test_the_programs_on_the_page_of_python_work(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_programs(PYTHON, here, monkeypatch)


def test_what_is_not_run_is_on_a_page_and_tested_elsewhere() -> None:
    assert set(NOT_RUN) - {excused(written.words) for page in PAGES for written in ours(page)} == set()
    elsewhere = re.findall(r"tests/[\w/.]+\.py", " ".join(NOT_RUN.values()))
    assert [path for path in elsewhere if not (ROOT / path).is_file()] == []
    assert sum(map(len, RUN.values())) > 120
