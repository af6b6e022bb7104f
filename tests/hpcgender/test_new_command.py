"""A new command is one file: launcher, records, status and resubmit learn from it all that they need."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from hpcgender.commands import PROGRAMS
from jobs.records import Submission, read_submissions
from shard_tools.base.commands import find_call
from tests.conftest import Run

COUNT = '''
"""`hpcgender count`: counts the images of a data set; fails at half of them until it is resumed."""

from dataclasses import dataclass
from pathlib import Path

from shard_tools.base.commands import Command, Made, Shown
from shard_tools.manifest import read_manifest


@dataclass(frozen=True, kw_only=True)
class CountConfig:
    data: Path
    out: Path
    again: bool = False


class Count(Command[CountConfig]):
    def results(self, options):
        return options.out

    def data(self, options):
        return options.data

    def progress(self, options):
        counted = options.out / "counted"
        return int(counted.read_text()) if counted.exists() else 0

    def shown(self, results, log, running, now):
        return Shown(epochs_done=0.5, epochs=1, images_per_s=float((results / "counted").read_text()))

    def made(self, options):
        return Made(data=options.data)

    def following(self, made):
        return ("count", "--data", str(made.data), "--out", "runs/next", "--again")


COMMANDS = (
    Count(
        name="count",
        alias="cnt",
        summary="count images",
        options=CountConfig,
        work="hpcgender.commands.count:count",
        resume="again",
    ),
)


def count(options):
    images = sum(split.samples for split in read_manifest(options.data).splits.values())
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "counted").write_text(str(images if options.again else images // 2))
    return None if options.again else 1
'''


@pytest.fixture
def place(tmp_path: Path, shards: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose Python finds the command's file beside those of hpcgender; there is no scheduler."""
    commands = tmp_path / "commands"
    commands.mkdir()
    (commands / "count.py").write_text(COUNT)
    startup = f"import hpcgender.commands\n\nhpcgender.commands.__path__.append({str(commands)!r})\n"
    (tmp_path / "sitecustomize.py").write_text(startup)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))
    monkeypatch.delenv("SGE_ROOT", raising=False)
    (tmp_path / "data").symlink_to(shards)
    return tmp_path


def submissions(place: Path) -> list[Submission]:
    return read_submissions(place / "runs")[0]


def test_a_new_command_is_launched_recorded_shown_and_resubmitted(place: Path, run: Run) -> None:
    assert "\n  count " in run("hpcgender", "--help", cwd=place).stdout

    launched = run("hpcgender.launch", "--", "count", "--data", "data", "--out", "runs/mine", cwd=place)
    assert launched.returncode == 1, launched.stderr
    (first,) = submissions(place)
    assert first.directory.parent == place / "runs" / "mine" / "submissions"
    assert (first.name, first.command[0], len(first.manifest)) == ("count_mine", "count", 64)
    assert [(event["event"], event["progress"]) for event in first.attempts] == [("start", 0), ("end", 160)]

    header, row = (line.split("\t") for line in run("hpcgender", "jobs", cwd=place).stdout.splitlines())
    shown = dict(zip(header, row, strict=True))
    assert (shown["run"], shown["state"], shown["epoch"], shown["img/s"]) == ("mine", "failed", "0.5/1", "160")

    again = run("hpcgender", "jobs", "resubmit", "mine", cwd=place)
    assert again.returncode == 0, again.stderr
    second = submissions(place)[-1]
    assert second.command == (*first.command, "--again")
    assert second.attempts[-1]["progress"] == 320
    listed = json.loads(run("hpcgender", "jobs", "--json", cwd=place).stdout)["runs"]
    assert [(entry["state"], entry["images_per_s"]) for entry in listed] == [("done", 320.0)]


def test_a_new_command_follows_another_in_a_chain(place: Path, run: Run) -> None:
    command = ("count", "--data", "data", "--out", "runs/mine", "--again")
    done = run("hpcgender.launch", "--chain", "cnt", "--", *command, cwd=place)
    assert done.returncode == 0, done.stderr
    assert [submission.name for submission in submissions(place)] == ["count_mine", "count_next"]
    assert (place / "runs" / "next" / "counted").read_text() == "320"


def test_evaluations_and_heat_maps_progress_by_their_shards(tmp_path: Path) -> None:
    for words, of_pass in (("evaluate", "work/test"), ("cam", "maps")):
        out = tmp_path / words
        call = find_call(PROGRAMS, (words, "--checkpoint", "runs/a/checkpoints/best.pt", "--out", str(out)))
        assert call.progress() == 0
        for shard in range(2):
            (out / of_pass).mkdir(parents=True, exist_ok=True)
            (out / of_pass / f"keys-{shard:06d}.npy").touch()
            assert call.progress() == shard + 1
