"""The scripts of `jobs/`, as they stand, on two nodes of real schedulers: pack, train, look where the model looks."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from shard_tools.manifest import read_manifest
from tests.cluster.cluster import NODES, Cluster
from tests.cluster.conftest import Rigs
from tests.cluster.training import EPOCHS, Training, read_log, submitted
from tests.shard_tools.pictures import digest
from tests.shard_tools.record_file import write_ms1mv2

LINE = r"epoch {}/{} \| train loss \d\.\d{{4}} acc \d+\.\d\d% \| val loss \d\.\d{{4}} acc .* \| eta \w+"


def test_a_job_trains_on_both_nodes_to_the_end(cluster: Cluster, rigs: Rigs) -> None:
    training: Training = rigs.result("trained", cluster)
    assert training.end.code == 0, training.log
    patterns = [
        r"launch: train on 2 nodes \(node\d, node\d\), 1 process each, 1 thread each, rendezvous node\d:\d+",
        r"training runs/se_resnet152: compact at 32 px, .* from epoch 1",
        *(LINE.format(epoch, EPOCHS) for epoch in range(1, EPOCHS + 1)),
        r"best validation accuracy .*/best\.pt",
    ]
    lines = training.log.splitlines()  # and nothing noisy
    assert len(lines) == len(patterns), training.log
    assert all(map(re.fullmatch, patterns, lines)), training.log


def test_it_leaves_a_record(cluster: Cluster, rigs: Rigs) -> None:
    training: Training = rigs.result("trained", cluster)
    begin, end = training.events
    assert len({*begin["hosts"]} & {*NODES}) == 2
    assert (end["event"], end["code"], end["requeued"]) == ("end", 0, False)
    (record,) = (training.run_dir / "submissions").iterdir()
    assert "train_resnet152" in (record / "job.sh").read_text()


def test_it_can_be_submitted_again_with_the_resources_of_its_script(cluster: Cluster, rigs: Rigs) -> None:
    training: Training = rigs.result("trained", cluster)
    command = ("python", "-m", "hpcgender", "jobs", "resubmit", "se_resnet152", "--dry-run")
    said = cluster.run(*command, cwd=training.project).stdout
    asked = {
        "slurm": ("#SBATCH --partition=debug\n", "#SBATCH --nodes=2\n", "#SBATCH --gpus-per-node=1\n"),
        "sge": (" -pe mpi 2 ", " -l gpu=1 "),
    }[cluster.name]
    assert [words for words in asked if words not in said] == [], said


def test_both_schedulers_train_the_same_weights(rigs: Rigs) -> None:
    slurm, sge = (rigs.all("trained")[name].weights for name in ("slurm", "sge"))
    assert all(slurm[name].equal(value) for name, value in sge.items())


def begin(rigs: Rigs) -> None:
    """The heat maps of the training, and array jobs that pack."""

    def look(cluster: Cluster, data: Path) -> tuple[Path, Path]:
        return looked(cluster, data, rigs.result("trained", cluster))

    rigs.start("looked", look)
    rigs.start("joined", join)


def looked(cluster: Cluster, data: Path, training: Training) -> tuple[Path, Path]:
    """The heat maps by `jobs/cam_morph.sh`, and those of one process."""
    best = training.run_dir / "checkpoints" / "best.pt"
    options = ("--checkpoint", best, "--data", data, "--split", "train")
    job = cluster.submit("jobs/cam_morph.sh", *options, "--out", "two", cwd=training.project)
    cluster.run("python", "-m", "hpcgender", "cam", *options, "--out", "one", cwd=training.project)
    end = cluster.wait(job)
    assert end.code == 0, read_log(training.project, job)
    assert "cam on 2 nodes" in read_log(training.project, job)
    return training.project / "one", training.project / "two"


def test_heat_maps_of_two_nodes_are_those_of_one_process(cluster: Cluster, rigs: Rigs) -> None:
    one, two = rigs.result("looked", cluster)
    names = [path.relative_to(one) for path in (*(one / "maps").iterdir(), one / "averages.npz", one / "maps.csv")]
    assert len(names) > 2
    for name in names:
        assert (two / name).read_bytes() == (one / name).read_bytes(), name
    assert (two / "sheet.png").stat().st_size > 10_000


def packed(project: Path) -> dict[str, str]:
    """The digest of each file of the data set in a project."""
    found = digest(project / "data" / "ms1mv2")
    return {name: value for name, value in found.items() if not name.startswith("submissions/")}


def join(cluster: Cluster, data: Path) -> None:
    """The tasks of an array job that pack, one that joins them, and one job that does all of it."""
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


def test_the_tasks_of_an_array_job_pack_what_one_job_does(rigs: Rigs) -> None:
    rigs.all("joined")
