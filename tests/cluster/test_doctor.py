"""`hpcgender doctor --nodes 2`: the nodes of a job examine themselves and each other, and the job is requeued once."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cluster.cluster import Cluster
from tests.cluster.conftest import Rigs
from tests.cluster.training import read_events, read_log, submitted

OPTIONS = ("--model", "resnet18", "--image-size", 32, "--batch-size", 8, "--backend", "torchvision")


def begin(rigs: Rigs) -> None:
    """An examination of two nodes, on a Slurm, and on a Grid Engine whose accounting is not late."""
    rigs.start("examined", examine, second=True, only="slurm")
    rigs.start("examined", examine, only="sge")


def test_the_nodes_of_a_job_are_examined(rigs: Rigs) -> None:
    rigs.all("examined")


def examine(cluster: Cluster, data: Path) -> None:
    project = cluster.project()
    (project / "site.toml").write_text(cluster.site)
    command = ("python", "-m", "hpcgender", "doctor", "--nodes", 2, "--data", data, *OPTIONS)
    (job,) = submitted(cluster.run(*command, cwd=project).stdout)
    end = cluster.wait(job)
    log = read_log(project, job)
    assert end.code == 0, log
    results = project / "runs" / "doctor"
    starts = [event for event in read_events(results, job) if event["event"] == "start"]
    assert len(starts) == 2, log
    examination = json.loads((results / "examination.json").read_text())
    assert sorted(examination["hosts"]) == sorted(starts[0]["hosts"])
    found = {(finding["check"], finding["state"]): finding["found"] for finding in examination["findings"]}
    expected = {"requeue", "rendezvous", "clocks", "log on other nodes", "all-reduce across nodes", "interface"}
    assert {check for check, state in found if state != "red"} >= expected, log
    assert "signalled, saved, requeued and resumed" in found["requeue", "green"]
    assert "is asked to stop" in found["time limit", "green"]
    assert log.count("signalled, saved, requeued") == 1, log
    assert not (results / "interrupted.json").exists()
