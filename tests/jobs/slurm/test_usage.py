"""Which limits a job waits for and who uses them, on answers of Slurm 22.05 to an ordinary user.

Recorded while user 0 ran 2 cores of account lab, which belongs to faculty, and student (5000) 2 cores by the quality of
service busy; and after the minutes of account spent and of the quality of service paid were used up.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.schedulers import SCHEDULERS
from jobs.slurm import usage
from tests.programs import put

DATA = Path(__file__).parent / "data"
SLURM = SCHEDULERS["slurm"]

TOGETHER = "gives all of its jobs together at most"
MINUTE = "1 minute of cores"
ASKS = "and this job asks for 2"


@pytest.fixture
def answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with answers of which some are replaced by a test; the programs that give them are found alone."""
    monkeypatch.setenv("PATH", str(tmp_path))
    for file in DATA.iterdir():
        (tmp_path / file.name).symlink_to(file)
    programs = {
        "scontrol": f'case "$*" in *config) f=config ;; *partition*,*) exit 1 ;; *partition*) f=partition ;; '
        f'"{" ".join(usage.SHOW[1:])}") f=usage ;; *) f=job ;; esac',
        "sacctmgr": 'case "$*" in *qos*name,*) f=qos ;; *user=\\ *) f=accounts ;; *) f=assoc ;; esac',
    }
    for name, script in programs.items():
        put(tmp_path, name, f"{script}\nexec /bin/cat {tmp_path}/$f.txt")
    return tmp_path


def details(answers: Path, job: str, use: str, **replaced: str) -> tuple[str, ...]:
    """What is said of the recorded `job`, with `replaced` in what is in use."""
    text = (DATA / f"{use}.txt").read_text()
    for old, new in replaced.items():
        assert old in text
        text = text.replace(old, new)
    (answers / "usage.txt").write_text(text)
    (answers / "job.txt").write_text((DATA / f"{job}.txt").read_text())
    return SLURM.details("3")


def test_all_limits_that_are_reached_are_told_with_who_uses_them(answers: Path) -> None:
    assert details(answers, "share_job", "share_usage") == (
        f"quality of service busy gives all jobs of a user at most 3 cores: you use 2, {ASKS}",
        "quality of service busy gives a user at most 1 job at once: you have 1",
        f"account lab {TOGETHER} 4 cores: you use 2, others 2, {ASKS}",
        f"account faculty {TOGETHER} 5 cores: you use 2, others 2, {ASKS}",
    )


def test_a_job_may_have_several_partitions(answers: Path) -> None:
    said = details(answers, "share_job", "share_usage")
    job = (DATA / "share_job.txt").read_text().replace("QOS=busy", "QOS=normal")
    (answers / "partition.txt").unlink()
    (answers / "partition.txt").write_text((DATA / "partition.txt").read_text().replace("QoS=N/A", "QoS=busy"))
    (answers / "job.txt").write_text(job.replace(" Partition=debug", " Partition=debug,second"))
    assert SLURM.details("3") == said  # busy is that of the partition now


def test_a_limit_that_leaves_room_is_not_told(answers: Path) -> None:
    said = details(answers, "share_job", "share_usage", **{"cpu=5(4)": "cpu=6(4)", "MaxJobsPU=1(1)": "MaxJobsPU=2(1)"})
    assert [line.partition(":")[0] for line in said] == [
        "quality of service busy gives all jobs of a user at most 3 cores",
        f"account lab {TOGETHER} 4 cores",
    ]


def test_a_quality_of_service_goes_before_accounts(answers: Path) -> None:
    """Its own limit for all of its jobs is the one that counts, whether it is reached or not."""
    said = details(answers, "share_job", "share_usage", **{"GrpTRES=cpu=N(2),": "GrpTRES=cpu=8(2),"})
    assert not any("account" in line for line in said)


def test_limits_of_a_user_in_an_account_and_of_each_account(answers: Path) -> None:
    changed = {
        "MaxTRESPA=cpu=N(2),": "MaxTRESPA=cpu=3(2),",
        "GrpJobs=N(2)": "GrpJobs=2(2)",
    }
    said = details(answers, "share_job", "share_usage", **changed)
    assert f"quality of service busy gives all jobs of an account at most 3 cores: 2 in use, {ASKS}" in said
    assert f"account lab {TOGETHER} 2 jobs at once: you have 1, others 1" in said


@pytest.mark.parametrize(
    ("job", "reason", "says"),
    [
        ("minutes_job", "AssocGrpCPUMinutesLimit", f"account spent {TOGETHER} {MINUTE}: you have used 1, others 0"),
        ("minutes_qos_job", "QOSGrpCPUMinutesLimit", f"quality of service paid {TOGETHER} {MINUTE}: 1 used up"),
    ],
)
def test_minutes_that_are_used_up_are_told(answers: Path, job: str, reason: str, says: str) -> None:
    assert f"Reason={reason} " in (DATA / f"{job}.txt").read_text()
    assert details(answers, job, "minutes_usage") == (says,)
    assert "is used up: ask an administrator for more" in SLURM.meaning("7", reason)


def test_minutes_that_would_not_do_count_where_slurm_says_so(answers: Path) -> None:
    """With `safe` in AccountingStorageEnforce a job waits that would use more than is left."""
    left = {"GrpTRESMins=cpu=1(1)": "GrpTRESMins=cpu=21(2)"}
    said = f"account spent {TOGETHER} 21 minutes of cores: you have used 1, others 1"
    assert details(answers, "minutes_job", "minutes_usage", **left) == (said,)
    enough = {"GrpTRESMins=cpu=1(1)": "GrpTRESMins=cpu=22(2)"}
    assert not any("have used" in line for line in details(answers, "minutes_job", "minutes_usage", **enough))


def test_where_slurm_does_not_tell_what_is_in_use_all_limits_are_listed(answers: Path) -> None:
    (answers / "job.txt").write_text((DATA / "share_job.txt").read_text())
    (answers / "usage.txt").write_text("slurm_load_assoc_mgr_info error: Access/permission denied\n")
    assert SLURM.details("3") == (
        "quality of service busy gives all jobs of a user at most 3 cores",
        "quality of service busy gives all jobs of a user at most 1 GPU",
        f"account lab {TOGETHER} 4 cores",
        f"account faculty {TOGETHER} 5 cores",
    )
