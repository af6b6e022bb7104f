"""A job that somebody submitted with qsub is submitted again with the same queue, slots and resources."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from jobs.records import Resources
from jobs.scheduler import Request
from jobs.sge.asked import asked_for
from jobs.sge.request import command
from jobs.sites import read_site, stored_site

LISTING = """\
==============================================================
job_number:                 1
owner:                      student
account:                    sge
merge:                      y
hard resource_list:         gpu=1,mem_free=1M,h_rt=3600
soft resource_list:         arch=lx-amd64
notify:                     FALSE
job_name:                   x.sh
hard_queue_list:            gpu,all.q@node1
project:                    vision
env_list:                   TERM=NONE
script_file:                x.sh
parallel environment:  mpi range: 2
binding:                    NONE
"""
"""`qstat -j` of 8.1.9."""

PROFILE = read_site("sge").plain() | {"queue": "long", "memory_gb": 64.0, "options": ["-m", "be"]}


def again(asked: dict[str, Any], profile: dict[str, Any] = PROFILE, **resources: Any) -> str:
    """The command that submits a job of a site once more."""
    site = stored_site({**profile, **asked}, Path("record"))
    return " ".join(command(Request(name="x", site=site, resources=Resources(**resources)), Path("record"), "x.sh"))


def test_it_asks_for_what_it_had_and_nothing_of_the_profile() -> None:
    words = again(asked_for(LISTING, {}), nodes=2, gpus_per_node=1, cpus=1, time_min=60)
    for part in ("-pe mpi 2", "-q gpu,all.q@node1", "-P vision", "-l gpu=1,mem_free=1M"):
        assert f" {part} " in f"{words} "
    assert words.count("gpu=") == 1  # GPUs that were granted are among the resources
    assert "-l h_rt=1:00:00 " in words
    assert "be" not in words.split()


@pytest.mark.parametrize("name", ["hard resource_list", "parallel environment", "hard_queue_list"])
def test_what_it_did_not_ask_for_is_not_asked_for(name: str) -> None:
    listing = "".join(line for line in LISTING.splitlines(keepends=True) if not line.startswith(name))
    words = again(asked_for(listing, {}), nodes=1, cpus=1)
    assert {"hard resource_list": "-l", "parallel environment": "-pe", "hard_queue_list": "-q"}[
        name
    ] not in words.split()


def test_a_resource_type_is_asked_for_once() -> None:
    asked = asked_for(LISTING.replace("gpu=1,mem_free=1M", "rt_F=2"), {})
    words = again(asked, read_site("abci").plain(), nodes=2, gpus_per_node=4)
    assert words.count("rt_F=2") == 1
    assert words.count("rt_") == 1


def test_its_variables_tell_of_queue_and_parallel_environment_where_qstat_does_not_answer() -> None:
    words = again(asked_for("", {"QUEUE": "gpu", "PE": "mpi"}), nodes=2, cpus=1)
    assert "-pe mpi 2" in words
    assert "-q gpu " in words
