"""Records of submissions: written, found, and told apart from what a kill left half done."""

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from jobs import records
from jobs.records import Resources, Submission
from shard_tools.base.contracts import SUBMISSIONS

TREE = ("runs/a", "runs/a/evaluations/x-test", "runs/a/cams/x-test", "runs/b")


def submission(results: Path, job_id: str) -> Submission:
    return Submission(
        name="train_a",
        command=("train", "--name", "it's $(a)"),
        argv=("python", "-m", "hpcgender.launch"),
        script="jobs/train.sh",
        scheduler="slurm",
        job_id=job_id,
        site={"name": "slurm", "options": ["--constraint=a100"]},
        resources=Resources(nodes=2, time_min=90.0),
        after=("6",),
        log="/logs/train_a.o7",
        revision="abc+",
        manifest="",
        directory=results / SUBMISSIONS / f"{records.stamp(0)}-{job_id}",
        **records.who_and_where(),
    )


def write(results: Path, job_id: str, code: Path) -> Submission:
    written = submission(results, job_id)
    around = records.surroundings({"LOADEDMODULES": "gcc/12:cuda/13.0"}, code)
    records.write_submission(written, "echo it\n", around)
    return written


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    written = write(tmp_path / "runs" / "a", "7", tmp_path)
    assert written.directory.name == "19700101T000000-7"
    assert records.find_record(tmp_path / "runs" / "a", "slurm", "7") == written.directory
    assert records.find_record(tmp_path / "runs" / "a", "slurm", "77") is None
    assert records.find_record(tmp_path / "runs" / "a", "sge", "7") is None
    (read,), faults = records.read_submissions(tmp_path / "runs")
    assert faults == []
    # JSON has no tuples
    assert read.site == {"name": "slurm", "options": ["--constraint=a100"]}
    assert (read.command, read.after, read.resources) == (written.command, ("6",), written.resources)
    assert (read.directory / "job.sh").read_text() == "echo it\n"
    assert (read.directory / "modules.txt").read_text() == "gcc/12\ncuda/13.0\n"
    assert "\nsubmitit==" in (read.directory / "packages.txt").read_text()
    assert read.attempts == []


def test_records_of_all_results_of_a_run_are_found(tmp_path: Path) -> None:
    for number, results in enumerate(TREE):
        write(tmp_path / results, str(number), tmp_path)
    for nothing in ("runs/a/checkpoints/submissions/x", "runs/b/submissions/20260101T000000-9"):
        (tmp_path / nothing).mkdir(parents=True)  # the second is being made
    found, faults = records.read_submissions(tmp_path / "runs")
    assert (sorted(read.job_id for read in found), faults) == (["0", "1", "2", "3"], [])
    assert list(records.find_anywhere([tmp_path / "none", tmp_path / "runs"], "slurm", "2")) == ["2"]
    assert records.find_anywhere([tmp_path / "runs"], "slurm", "12") == {}
    assert records.read_submissions(tmp_path / "none") == ([], [])


def test_linked_runs_are_found_once_and_a_circle_ends(tmp_path: Path) -> None:
    write(tmp_path / "scratch" / "a", "1", tmp_path)
    write(tmp_path / "runs" / "b", "2", tmp_path)
    (tmp_path / "runs" / "a").symlink_to(tmp_path / "scratch" / "a")
    (tmp_path / "runs" / "latest").symlink_to("b")
    (tmp_path / "runs" / "b" / "all").symlink_to("..")
    (tmp_path / "scratch" / "a" / "self").symlink_to(".")
    (tmp_path / "runs" / "dangling").symlink_to("nowhere")
    found, faults = records.read_submissions(tmp_path / "runs")
    assert (sorted(read.job_id for read in found), faults) == (["1", "2"], [])
    assert [read.directory.parent.parent for read in found if read.job_id == "2"] == [tmp_path / "runs" / "b"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('{"name": "x"}', r"submission.json is damaged \(command is missing.*\): it is no record"),
        ("", r"submission.json is damaged \(Expecting value.*\): it is no record"),
        ("\0" * 100, r"submission.json is damaged \(Expecting value.*\): it is no record"),
        (None, "19700101T000000-7 has no submission.json"),
        ({"submitted": "yesterday"}, "submitted: 'yesterday' is no time"),
        ({"job_id": 7}, "job_id must be text in quotes, not 7"),
    ],
)
def test_a_record_that_is_none_is_one_line_and_the_others_are_read(
    content: str | dict[str, Any] | None, says: str, tmp_path: Path
) -> None:
    record = write(tmp_path / "runs" / "a", "7", tmp_path).directory
    good = write(tmp_path / "runs" / "b", "8", tmp_path)
    file = record / "submission.json"
    if content is None:
        file.unlink()
        os.utime(record, (0, 0))
    else:
        file.write_text(
            content if isinstance(content, str) else json.dumps({**json.loads(file.read_text()), **content})
        )
    found, (fault,) = records.read_submissions(tmp_path)
    assert found == [good]
    assert re.search(says, fault)
    assert "\n" not in fault


def test_events_of_another_shape_are_passed_over(tmp_path: Path) -> None:
    record = write(tmp_path / "runs" / "a", "7", tmp_path).directory
    (record / "attempts.jsonl").write_bytes(
        b'{"event": "start", "hosts": null}\n{"event": 3}\n[1]\n\xff\n{"event": "end"}\n'
    )
    assert [event["event"] for event in records.read_events(record)] == ["start", "end"]
    assert records.read_events(record)[0]["hosts"] == []


def test_a_record_of_a_later_version_is_read(tmp_path: Path) -> None:
    written = write(tmp_path / "runs" / "a", "7", tmp_path)
    file = written.directory / "submission.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "added_later": [1]}))
    assert records.read_submissions(tmp_path) == ([written], [])


def test_events_are_kept_in_order_and_a_torn_line_is_passed_over(tmp_path: Path) -> None:
    records.append_event(tmp_path, event="start", attempt=1)
    with (tmp_path / "attempts.jsonl").open("a") as file:
        file.write('{"event": "en')
    records.append_event(tmp_path, event="end", attempt=1, code=0)
    assert [event["event"] for event in records.read_events(tmp_path)] == ["start", "end"]
    assert records.succeeded(records.read_events(tmp_path))
    records.append_event(tmp_path, event="skipped", because="job 6 failed")
    assert not records.succeeded(records.read_events(tmp_path))
    assert not records.succeeded([])


def test_the_code_is_told_with_what_was_changed(tmp_path: Path) -> None:
    def git(*arguments: str) -> None:
        identity = ("-c", "user.name=x", "-c", "user.email=x@example.org")
        subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True)

    git("init")
    (tmp_path / "a.py").write_text("one\n")
    git("add", "a.py")
    git("commit", "-m", "first")
    clean = records.revision(tmp_path)
    assert len(clean) == 40
    assert records.changes(tmp_path) == ""
    (tmp_path / "a.py").write_text("two\n")
    (tmp_path / "new.py").write_text("three\n")
    assert records.revision(tmp_path) == f"{clean}+"
    assert "+two\n" in records.changes(tmp_path)
    assert "new file: new.py\n" in records.changes(tmp_path)


def test_without_a_checkout_there_is_no_revision(tmp_path: Path) -> None:
    assert records.revision(tmp_path) == ""
    assert json.dumps(records.packages()).startswith('["python==')
