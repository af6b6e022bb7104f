"""The scripts of `jobs/`, as they stand, on two nodes of real schedulers: pack, train, look where the model looks."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path

import pytest

from shard_tools.manifest import read_manifest
from tests.cluster.cluster import NODES, Cluster
from tests.cluster.conftest import OnBoth
from tests.cluster.training import Training, read_log, submitted
from tests.shard_tools.pictures import digest
from tests.shard_tools.record_file import write_ms1mv2

LINE = r"epoch {}/4 \| train loss \d\.\d{{4}} acc \d+\.\d\d% \| val loss \d\.\d{{4}} acc .* \| eta \w+"


def test_a_job_trains_on_both_nodes_to_the_end(cluster: Cluster, trained: Mapping[str, Future[Training]]) -> None:
    training = trained[cluster.name].result()
    assert training.end.code == 0, training.log
    patterns = [
        r"launch: train on 2 nodes \(node\d, node\d\), 1 process each, 1 thread each, rendezvous node\d:\d+",
        r"training runs/se_resnet152: se_resnet18 at 32 px, .* from epoch 1",
        *(LINE.format(epoch) for epoch in range(1, 5)),
        r"best validation accuracy .*/best\.pt",
    ]
    lines = training.log.splitlines()  # and nothing noisy
    assert len(lines) == len(patterns), training.log
    assert all(map(re.fullmatch, patterns, lines)), training.log


def test_it_leaves_a_record(cluster: Cluster, trained: Mapping[str, Future[Training]]) -> None:
    training = trained[cluster.name].result()
    begin, end = training.events
    assert len({*begin["hosts"]} & {*NODES}) == 2
    assert (end["event"], end["code"], end["requeued"]) == ("end", 0, False)
    (record,) = (training.run_dir / "submissions").iterdir()
    assert "train_resnet152" in (record / "job.sh").read_text()


def test_it_can_be_submitted_again_with_the_resources_of_its_script(
    cluster: Cluster, trained: Mapping[str, Future[Training]]
) -> None:
    training = trained[cluster.name].result()
    command = ("python", "-m", "hpcgender", "jobs", "resubmit", "se_resnet152", "--dry-run")
    said = cluster.run(*command, cwd=training.project).stdout
    asked = {
        "slurm": ("#SBATCH --partition=debug\n", "#SBATCH --nodes=2\n", "#SBATCH --gpus-per-node=1\n"),
        "sge": (" -pe mpi 2 ", " -l gpu=1 "),
    }[cluster.name]
    assert [words for words in asked if words not in said] == [], said


def test_both_schedulers_train_the_same_weights(trained: Mapping[str, Future[Training]]) -> None:
    slurm, sge = (trained[name].result().weights for name in ("slurm", "sge"))
    assert all(slurm[name].equal(value) for name, value in sge.items())


@pytest.fixture(scope="module")
def looked(
    on_both: OnBoth, trained: Mapping[str, Future[Training]], data: Mapping[Cluster, Path]
) -> Mapping[str, Future[tuple[Path, Path]]]:
    """On each cluster the heat maps by `jobs/cam_morph.sh`, and those of one process."""

    def look(cluster: Cluster) -> tuple[Path, Path]:
        training = trained[cluster.name].result()
        best = training.run_dir / "checkpoints" / "best.pt"
        options = ("--checkpoint", best, "--data", data[cluster], "--split", "train")
        job = cluster.submit("jobs/cam_morph.sh", *options, "--out", "two", cwd=training.project)
        cluster.run("python", "-m", "hpcgender", "cam", *options, "--out", "one", cwd=training.project)
        end = cluster.wait(job)
        assert end.code == 0, read_log(training.project, job)
        assert "cam on 2 nodes" in read_log(training.project, job)
        return training.project / "one", training.project / "two"

    return on_both(look)


def test_heat_maps_of_two_nodes_are_those_of_one_process(
    cluster: Cluster, looked: Mapping[str, Future[tuple[Path, Path]]]
) -> None:
    one, two = looked[cluster.name].result()
    names = [path.relative_to(one) for path in (*(one / "maps").iterdir(), one / "averages.npz", one / "maps.csv")]
    assert len(names) > 2
    for name in names:
        assert (two / name).read_bytes() == (one / name).read_bytes(), name
    assert (two / "sheet.png").stat().st_size > 10_000


def packed(project: Path) -> dict[str, str]:
    """The digest of each file of the data set in a project."""
    found = digest(project / "data" / "ms1mv2")
    return {name: value for name, value in found.items() if not name.startswith("submissions/")}


@pytest.fixture(scope="module", autouse=True)
def joined(on_both: OnBoth, looked: object) -> Mapping[str, Future[None]]:
    """The tasks of an array job that pack, one that joins them, and one job that does all of it."""

    def pack(cluster: Cluster) -> None:
        alone, project = cluster.project(), cluster.project()
        for folder in (alone, project):
            write_ms1mv2(folder / "data" / "faces_emore")
            shutil.chown(folder / "data", cluster.hosts.uid)
        array, after = {
            "slurm": (["--array=1-3"], ["--dependency=singleton"]),
            "sge": (["-t", "1-3"], ["-hold_jid", "pack_ms1mv2", "-N", "join_ms1mv2"]),
        }[cluster.name]
        tasks = cluster.submit(*array, "jobs/pack_ms1mv2.sh", cwd=project)
        joined = cluster.submit(*after, "jobs/pack_ms1mv2.sh", "finalize", cwd=project)
        (whole,) = submitted(cluster.run("bash", "jobs/pack_ms1mv2.sh", cwd=alone).stdout)
        for job in (tasks, joined, whole):
            logs = [*(project / "logs").iterdir(), *(alone / "logs").iterdir()]
            assert cluster.wait(job).code == 0, "".join(f"{log.name}\n{log.read_text()}" for log in logs)
        assert sum(split.samples for split in read_manifest(project / "data" / "ms1mv2").splits.values()) == 28
        assert packed(project) == packed(alone)

    return on_both(pack)


def test_the_tasks_of_an_array_job_pack_what_one_job_does(joined: Mapping[str, Future[None]]) -> None:
    for outcome in joined.values():
        outcome.result()
