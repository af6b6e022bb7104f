"""A scheduler that answers nonsense: one line, and nothing is taken for an answer that is none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hpcgender.commands.jobs import JobsConfig
from hpcgender.status.table import list_jobs
from jobs.command import SchedulerError
from jobs.records import Resources
from jobs.scheduler import Allocation, Host, Request
from jobs.schedulers import SCHEDULERS
from jobs.sge import qstat
from jobs.sge.executor import max_array_tasks
from jobs.site import Site
from jobs.slurm import answers
from shard_tools.base.errors import UserError
from tests.hpcgender.status_records import make_record
from tests.programs import cat, put

PAGE = "<html><body>502 Bad Gateway</body></html>\n"


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory whose programs are found before others."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    return tmp_path / "bin"


@pytest.mark.parametrize("answer", [PAGE, "12|RUNNING|1:00\n", "\x1b[2J\n"])
def test_what_slurm_cannot_have_meant(answer: str) -> None:
    with pytest.raises(SchedulerError, match=r"^squeue's answer cannot be read: '[ -~]+'$"):
        answers.parse_squeue(answer)
    with pytest.raises(SchedulerError, match=r"^sacct's answer cannot be read: '[ -~]+'$"):
        answers.parse_sacct(answer)


def test_what_grid_engine_cannot_have_meant() -> None:
    job = "<job_list><JB_job_number>1</JB_job_number><state>r</state><slots>two</slots></job_list>"
    for answer in (job, job.replace("two", "2")):  # which has no time
        with pytest.raises(SchedulerError, match=r"^qstat's answer cannot be read: '<job_info><job_list>"):
            qstat.parse_qstat(f"<job_info>{answer}</job_info>")
    with pytest.raises(SchedulerError, match=r"^qacct's answer cannot be read: 'jobnumber 3"):
        qstat.parse_qacct("jobnumber 3\nexit_status soon\n")


def test_runs_are_listed_by_their_records(commands: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_record(tmp_path / "runs" / "mine", "12", "slurm")
    put(commands, "squeue", cat(PAGE))
    list_jobs(JobsConfig(within=(tmp_path / "runs",)))
    said = capsys.readouterr()
    assert said.out.splitlines()[1].split("\t")[3] == "unknown"
    assert said.err == (
        "hpcgender jobs: squeue's answer cannot be read: '<html><body>502 Bad Gateway</body></html>'; states are those "
        "in the records\n"
    )


def test_a_request_is_not_refused_because_of_nonsense(commands: Path, tmp_path: Path) -> None:
    put(
        commands,
        "scontrol",
        cat("PartitionName=debug Default=YES MaxNodes=4\nDefault=YES\nEndTime=2026-99-99T00:00:00"),
    )
    put(commands, "sinfo", cat("node1|many|0|idle\n"))
    put(commands, "sacctmgr", cat(PAGE))
    put(commands, "sbatch", "echo 'sbatch: Job 1 to start at 2026-11-29T06:47:09' >&2")
    site = Site(name="x", scheduler="slurm")
    slurm = SCHEDULERS["slurm"]
    assert "to start" in str(slurm.check(Request(name="t", site=site, resources=Resources(nodes=2)), tmp_path / "%j"))
    assert slurm.end_time(Allocation(scheduler=slurm, job_id="1", hosts=(Host("node1", 1),)), {}) is None


def test_an_array_is_refused_in_one_line_where_grid_engine_is_silent(
    commands: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SGE_ROOT", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    put(commands, "qsub")
    put(commands, "qconf", "echo 'error: commlib error' >&2; exit 1")
    max_array_tasks.cache_clear()
    site = Site(name="x", scheduler="sge", pe_one_node="smp")
    request = Request(name="t", site=site, resources=Resources(time_min=5), tasks=2)
    with pytest.raises(UserError, match=r"^Grid Engine did not take the job: qconf: error: commlib error$"):
        SCHEDULERS["sge"].submit(request, tmp_path / "record" / "%j", print, [["a"], ["b"]])
