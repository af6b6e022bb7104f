"""What the scheduler is asked for: the text of scripts and command lines, by site, and what is made of refusals."""

import dataclasses
import os
import shlex
from itertools import pairwise
from pathlib import Path

import pytest

from jobs.preflight import refusal, try_script
from jobs.records import Resources
from jobs.scheduler import Request
from jobs.schedulers import SCHEDULERS
from jobs.sge.request import command, options, unlike_the_complex
from jobs.site import Site
from jobs.sites import parse_site, read_site
from shard_tools.base.documents import parse_toml
from shard_tools.base.errors import UserError
from tests.programs import put

FOLDER = Path("/home/a b/$(x)'s/submissions/20260101T000000-%j")


def request(site: Site, after: tuple[str, ...] = (), **wanted: float) -> Request:
    return Request(name="train_a", site=site, resources=Resources(**wanted), after=after)  # type: ignore[arg-type]


def script(asked: Request, record: Path = FOLDER) -> str:
    return SCHEDULERS[asked.site.scheduler].preview(asked, record)


def qsub(asked: Request) -> dict[str, str]:
    words = command(asked, FOLDER, "job.sh")
    return {word: following for word, following in pairwise(words) if word.startswith("-")}


@pytest.mark.parametrize("scheduler", ["slurm", "sge"])
def test_a_request_to_stop_cannot_end_a_job_that_is_being_set_up(scheduler: str) -> None:
    lines = script(request(Site(name="x", scheduler=scheduler, modules=("cuda",)))).splitlines()
    heard = next(number for number, line in enumerate(lines) if line.startswith("trap '' USR1 USR2"))
    assert heard < next(number for number, line in enumerate(lines) if line.startswith("module load"))


def test_slurm_is_asked_for_everything() -> None:
    site = parse_site(
        "lab",
        parse_toml(
            'scheduler = "slurm"\nqueue = "gpu"\naccount = "vision"\nqos = "long"\ngpu = "a100"\nmodules = ["cuda"]\n'
            'options = ["--constraint=ib", "--exclusive"]',
            "lab",
        ),
    )
    asked = request(site, ("6", "7"), nodes=2, gpus_per_node=4, cpus=16, mem=64, time_min=90.5)
    text = script(asked, FOLDER)
    assert set(text.splitlines()) > {
        "#SBATCH --job-name=train_a",
        "#SBATCH --partition=gpu",
        "#SBATCH --account=vision",
        "#SBATCH --qos=long",
        "#SBATCH --constraint=ib",
        "#SBATCH --exclusive",
        "#SBATCH --nodes=2",
        "#SBATCH --ntasks-per-node=1",
        "#SBATCH --cpus-per-task=16",
        "#SBATCH --gpus-per-node=a100:4",
        "#SBATCH --mem=65536M",
        "#SBATCH --time=91",
        "#SBATCH --dependency=afterok:6:7",
        "#SBATCH --kill-on-invalid-dep=yes",
        "#SBATCH --requeue",
        "#SBATCH --open-mode=append",
        "#SBATCH --output=logs/train_a.o%j",
        "module load cuda || stop 'modules: cuda cannot be loaded'",
    }
    assert "srun" not in text
    assert shlex.split(text.splitlines()[-1])[-1] == str(FOLDER)


def test_an_array_has_a_task_for_each_call_and_so_many_at_once() -> None:
    wanted = dataclasses.replace(request(read_site("slurm"), ("6",)), tasks=9, at_once=4, after_end=("7", "8"))
    assert set(script(wanted).splitlines()) > {
        "#SBATCH --array=0-8%4",
        "#SBATCH --output=logs/train_a.o%A_%a",
        "#SBATCH --dependency=afterok:6,afterany:7:8",
    }
    assert "#SBATCH --array=0-8%9" in script(dataclasses.replace(wanted, at_once=0))
    asked = qsub(dataclasses.replace(wanted, site=read_site("sge")))
    assert (asked["-t"], asked["-tc"], asked["-hold_jid"]) == ("1-9", "4", "6,7,8")
    assert asked["-o"] == ":logs/train_a.o$JOB_ID.$TASK_ID"
    assert "-t" not in qsub(request(read_site("sge")))
    assert "--array" not in script(request(read_site("slurm")))


def test_what_is_not_said_is_left_to_slurm() -> None:
    text = script(request(read_site("slurm")), FOLDER)
    for option in ("--time", "--partition", "--gpus", "--mem", "--cpus", "--dependency", "--wckey"):
        assert option not in text


def test_grid_engine_is_asked_for_everything() -> None:
    site = parse_site(
        "lab",
        parse_toml(
            'scheduler = "sge"\nqueue = "gpu"\naccount = "vision"\npe = "mpi-{slots_per_node}"\ngpu = "gpu_card"\n'
            'memory = "h_vmem"\nmemory_per = "slot"\noptions = ["-l", "os=rocky9", "-l", "ib=1", "-m", "n"]',
            "lab",
        ),
    )
    asked = qsub(request(site, ("6", "7"), nodes=2, gpus_per_node=4, cpus=16, mem=64, time_min=90))
    assert asked["-pe"] == "mpi-16"
    assert asked["-q"] == "gpu"
    assert asked["-P"] == "vision"
    assert asked["-hold_jid"] == "6,7"
    assert asked["-r"] == "y"
    assert asked["-o"] == ":logs/train_a.o$JOB_ID"
    words = command(request(site, nodes=2, gpus_per_node=4, cpus=16, mem=64, time_min=90), FOLDER, "x")
    assert "h_rt=1:30:00,gpu_card=4,h_vmem=4G" in words
    assert "os=rocky9,ib=1" in words
    assert "-notify" in words


@pytest.mark.parametrize(
    ("complexes", "asked"),
    [
        ("h_vmem h_vmem MEMORY <= YES YES 0 0\nmem_free mf MEMORY <= YES NO 0 0", "mem_free=8G"),
        ("mem_free mf MEMORY <= YES YES 0 0", "mem_free=2G"),  # a consumable counts per slot
        ("m_mem_free mm MEMORY <= YES YES 0 0\nmem_free mf MEMORY <= YES NO 0 0", "m_mem_free=2G"),
        ("", "mem_free=8G"),  # not asked for here
    ],
)
def test_memory_is_that_which_is_used_where_no_complex_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, complexes: str, asked: str
) -> None:
    put(tmp_path, "qconf", f"[ $1 = -sc ] && echo '{complexes}'")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert asked in command(request(read_site("sge"), nodes=1, cpus=4, mem=8), FOLDER, "x")


@pytest.mark.parametrize(
    ("kind", "per", "wanted", "says"),
    [
        (
            "JOB",
            "host",
            {"nodes": 2},
            "gpu counts per job (JOB in qconf -sc), so GPUs are reserved on the first host alone",
        ),
        ("JOB", "host", {"nodes": 1, "cpus": 4}, ""),
        ("JOB", "slot", {"nodes": 1, "cpus": 4}, 'gpu counts per job (JOB in qconf -sc): set gpu_per = "host"'),
        ("YES", "host", {"nodes": 2, "cpus": 4}, 'gpu counts per slot (YES in qconf -sc): set gpu_per = "slot"'),
        ("YES", "host", {"nodes": 2, "cpus": 1}, ""),
        ("YES", "slot", {"nodes": 2, "cpus": 4}, ""),
        ("NO", "host", {"nodes": 2, "cpus": 4}, ""),
    ],
)
def test_a_complex_for_gpus_that_counts_otherwise_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, per: str, wanted: dict[str, int], says: str
) -> None:
    put(tmp_path, "qconf", f"[ $1 = -sc ] && echo 'gpu gpu INT <= YES {kind} 0 0'")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    site = dataclasses.replace(read_site("sge"), gpu="gpu", gpu_per=per)  # type: ignore[arg-type]
    assert unlike_the_complex(request(site, (), gpus_per_node=4, **wanted)) == says


def test_what_a_person_should_know_of_a_request_is_beside_the_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, "qconf", "[ $1 = -sc ] && echo 'gpu gpu INT <= YES JOB 0 0'")
    put(tmp_path, "qsub", "echo 'verification: found suitable queue(s)'")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    site = dataclasses.replace(read_site("sge"), gpu="gpu", gpu_per="host", pe="mpi")
    verdict = SCHEDULERS["sge"].check(request(site, gpus_per_node=4, nodes=2), FOLDER)
    warning = "gpu counts per job (JOB in qconf -sc), so GPUs are reserved on the first host alone"
    assert (verdict.answer, verdict.warnings) == ("found suitable queue(s)", (warning,))
    assert str(verdict) == f"found suitable queue(s); but {warning}"


def test_one_node_needs_no_parallel_environment_for_one_slot() -> None:
    assert "-pe" not in qsub(request(read_site("sge"), nodes=1, gpus_per_node=1))
    assert qsub(request(read_site("sge"), nodes=1, cpus=4))["-pe"] == "smp"
    assert "h_rt" not in str(qsub(request(read_site("sge"), nodes=1)))


def test_resource_types_are_asked_for_whole() -> None:
    site = parse_site(
        "x",
        parse_toml(
            'scheduler = "sge"\naccount = "grp"\naccount_option = "-g"\n'
            "[resource_types.rt_F]\ngpus = 4\nseveral_nodes = true",
            "x",
        ),
    )
    asked = qsub(request(site, nodes=2, gpus_per_node=4, time_min=60))
    assert asked["-l"] == "h_rt=1:00:00,rt_F=2"
    assert asked["-g"] == "grp"
    assert "-pe" not in asked
    assert "-P" not in asked


@pytest.mark.parametrize(
    ("settings", "wanted", "says"),
    [
        ({}, {"nodes": 2}, "site x has no pe, the parallel environment for several nodes: qconf -spl lists"),
        ({"pe": "mpi"}, {"cpus": 4}, "site x has no pe_one_node, the parallel environment for several slots on one"),
        (
            {"pe_one_node": "smp", "gpu": "gpu", "gpu_per": "slot"},
            {"cpus": 4, "gpus_per_node": 2},
            "site x: gpu = 'gpu' counts per slot, and the 4 slots of a node (--cpus, cpus_per_node) cannot share 2",
        ),
    ],
)
def test_what_a_profile_lacks_is_said_in_its_own_words(
    settings: dict[str, str], wanted: dict[str, int], says: str, tmp_path: Path
) -> None:
    asked = request(Site(name="x", scheduler="sge", **settings), **wanted)  # type: ignore[arg-type]
    for ask in (SCHEDULERS["sge"].preview, SCHEDULERS["sge"].check):
        with pytest.raises(UserError) as caught:
            ask(asked, tmp_path)
        assert str(caught.value).startswith(says)
        assert "sge_" not in str(caught.value)


def test_options_of_a_site_that_cannot_be_told_are_refused() -> None:
    with pytest.raises(UserError, match="give options as"):
        options(Site(name="x", scheduler="sge", options=("os=rocky9",)))
    with pytest.raises(UserError, match="--name=value"):
        script(request(Site(name="x", scheduler="slurm", options=("-C", "a100"))), FOLDER)


def test_the_log_is_for_the_command(tmp_path: Path) -> None:
    text = script(request(read_site("sge"), nodes=1), tmp_path / "x-%j")
    assert text.index('exec >>"$SGE_STDOUT_PATH" 2>&1') < text.index("submitit.core._submit")
    assert "export SUBMITIT_LOG_LEVEL=CRITICAL" in text


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        (
            "sbatch: error: invalid partition specified: nope\nallocation failure: Invalid partition name specified\n",
            "invalid partition specified: nope; Invalid partition name specified",
        ),
        (
            'Unable to run job: Job was rejected because job requests unknown queue "nope"\nExiting.\n',
            'Job was rejected because job requests unknown queue "nope"',
        ),
        (
            'Unable to run job: Job 7 cannot run in PE "mpi" because it only offers 4 slots\n'
            "verification: no suitable queues\nExiting.\n",
            'Job 7 cannot run in PE "mpi" because it only offers 4 slots',
        ),
        ("\x1b[31msbatch: error: no such partition\x1b[0m\n\x07", "no such partition; \N{REPLACEMENT CHARACTER}"),
        ("", "no reason given"),
    ],
)
def test_refusals_are_one_line_in_the_schedulers_words(said: str, kept: str) -> None:
    assert refusal(said) == kept


@pytest.mark.parametrize(
    ("script", "says"),
    [
        (
            "#!/bin/sh\necho 'sbatch: fatal: Could not establish a configuration source' >&2; exit 1\n",
            "does not answer here",
        ),
        ("#!/nowhere/sh\n", "there is no try here"),
        ("neither a script nor a program", "cannot run try: Exec format error"),
    ],
)
def test_a_scheduler_that_cannot_be_asked_is_one_line(script: str, says: str, tmp_path: Path) -> None:
    program = tmp_path / "try"
    program.write_text(script)
    program.chmod(0o755)
    with pytest.raises(UserError, match=says) as caught:
        try_script("Slurm", "check", "", lambda file: (str(program), file))
    assert "\n" not in str(caught.value)
