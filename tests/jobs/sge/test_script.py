"""What is asked of Grid Engine, and the script that it is given."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from jobs.sge.script import Parameters, job_name, qsub_command, script_text

FOLDER = Path("/home/lab/jobs")


def asked(parameters: Parameters, folder: Path = FOLDER, array: int | None = None) -> str:
    return " ".join(qsub_command(parameters, folder, Path("script.sh"), array=array))


def test_a_plain_function_asks_for_a_slot_and_five_minutes() -> None:
    command = asked(Parameters())
    assert "-pe" not in command
    assert "-l h_rt=0:05:00 " in command
    assert "-o :/home/lab/jobs/$JOB_ID_0_log.out -e :/home/lab/jobs/$JOB_ID_0_log.err" in command
    assert "-r y" in command


def test_generic_parameters_are_said_in_the_sites_own_words() -> None:
    site = Parameters(
        nodes=2,
        tasks_per_node=4,
        cpus_per_task=4,
        gpus_per_node=4,
        mem_gb=64,
        timeout_min=24 * 60,
        pe="mpi-{slots_per_node}",
        gpu_complex="gpu_card",
        mem_complex="h_vmem",
        mem_per="slot",
        queue="gpu@@lab",
        project="faces",
        complexes={"arch": "lx-amd64"},
    )
    command = asked(site)
    assert "-pe mpi-16 32 -l h_rt=24:00:00,gpu_card=4,h_vmem=4G,arch=lx-amd64 -q gpu@@lab -P faces" in command


def test_gpus_that_count_per_slot_are_shared_out() -> None:
    per_slot = Parameters(tasks_per_node=2, gpus_per_node=4, pe="smp", gpu_per="slot")
    assert "-pe smp 2 " in asked(per_slot)
    assert ",gpu=2 " in asked(per_slot)
    with pytest.raises(ValueError, match="gpu counts per slot, and the 4 slots of a node cannot share GPUs, 1 in all"):
        asked(Parameters(cpus_per_task=4, gpus_per_node=1, pe="smp", gpu_per="slot"))


def test_a_site_where_complexes_alone_grant_nodes_has_no_pe() -> None:
    command = asked(Parameters(nodes=2, gpus_per_node=4, pe="", gpu_complex="", complexes={"rt_F": 2}))
    assert "-pe" not in command
    assert "-l h_rt=0:05:00,rt_F=2 " in command


def test_more_than_one_slot_needs_a_pe() -> None:
    with pytest.raises(ValueError, match="set sge_pe to one of `qconf -spl`"):
        asked(Parameters(cpus_per_task=2))


def test_arrays_ids_and_other_options() -> None:
    parameters = Parameters(
        array_parallelism=4, hold_jid=["7", "12_3", "12_4"], additional_parameters={"m": "be", "now": True}
    )
    command = asked(parameters, array=9)
    assert "-hold_jid 7,12 -t 1-9 -tc 4 -m be -now script.sh" in command
    assert "$JOB_ID_$TASK_ID_0_log.out" in command


def test_paths_that_grid_engine_would_change_are_refused() -> None:
    with pytest.raises(ValueError, match=re.escape("fills in '$JOB_ID' in paths")):
        asked(Parameters(), Path("/home/lab/$JOB_ID"))


@pytest.mark.parametrize(
    ("name", "clean"),
    [
        ("train_resnet152", "train_resnet152"),
        ("152 layers: $(rm -rf ~)/é", "j152_layers_rm_-rf"),
        ("none", "none_"),
        ("--", "j--"),
        ("***", "job"),
    ],
)
def test_names_are_made_fit(name: str, clean: str) -> None:
    assert job_name(name) == clean


def test_the_script_ends_with_the_code_of_its_command_after_the_teardown(tmp_path: Path) -> None:
    parameters = Parameters(setup=["greeting='hello there'"], teardown=["echo bye"])
    text = script_text(parameters, FOLDER, 'echo "$greeting"; kill -USR2 $$; (exit 99)')
    done = subprocess.run(["bash", "-c", text], capture_output=True, text=True, timeout=20, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (99, "hello there\nbye\n", "")


@pytest.mark.parametrize("array", [False, True])
def test_a_folder_with_the_id_in_it_is_made_by_the_job(tmp_path: Path, array: bool) -> None:
    folder = tmp_path / 'a "b" $(touch harm) `c`' / ("%A/%a" if array else "%j")
    text = script_text(Parameters(), folder, "echo out; echo err >&2", array=array)
    environ = {"PATH": "/usr/bin:/bin", "JOB_ID": "12", "SGE_TASK_ID": "3" if array else "undefined"}
    done = subprocess.run(
        ["bash", "-c", text], capture_output=True, text=True, timeout=20, check=False, cwd=tmp_path, env=environ
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    made = folder.parent.parent / "12" / "3" if array else folder.parent / "12"
    job = "12_3" if array else "12"
    assert (made / f"{job}_0_log.out").read_text() == "out\n"
    assert (made / f"{job}_0_log.err").read_text() == "err\n"
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize(("timeout_min", "delay", "after"), [(60, 90, 3510), (1, 90, 30), (5, 0, None)])
def test_it_is_asked_to_checkpoint_in_time(timeout_min: int, delay: int, after: int | None) -> None:
    assert Parameters(timeout_min=timeout_min, signal_delay_s=delay).stop_after_s == after


def test_one_task_needs_no_starter_and_may_have_many_hosts() -> None:
    assert "jobs.sge.tasks" in script_text(Parameters(nodes=2, pe="mpi1"), FOLDER, "run")
    alone = Parameters(nodes=2, tasks_per_node=4, pe="mpi4", use_qrsh=False)
    assert "jobs.sge.tasks" not in script_text(alone, FOLDER, "run")
    assert alone.tasks == 1
    assert "-pe mpi4 8 " in asked(alone)
