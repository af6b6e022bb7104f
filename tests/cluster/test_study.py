"""A study on real schedulers: an array of trainings, of which each is requeued by itself, evaluations, and a result."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path

from tests.cluster.cluster import Cluster
from tests.cluster.conftest import Rigs
from tests.cluster.training import read_events, read_log, signal_ranks

STUDY = """[base]
model = "compact"
image_size = 32
batch_size = 16
lr = 0.02
epochs = {epochs}
data = "{data}"
backend = "torchvision"
[grid]
seed = [0, 1]
[evaluate]
data = ["{data}"]
[compare]
on = ["faces-test"]
"""


def begin(rigs: Rigs) -> None:
    """A small study, on each cluster."""
    rigs.start("study", carry_out, second=True)


def test_a_study_is_requeued_task_by_task_and_has_a_result(rigs: Rigs) -> None:
    rigs.all("study")


def carry_out(cluster: Cluster, data: Path) -> None:
    project = cluster.project()
    (project / "site.toml").write_text(cluster.site)
    (project / "mine.toml").write_text(STUDY.format(data=data, epochs=40))
    runs = project / "runs" / "mine"

    def ours(*words: object) -> str:
        return cluster.run("python", "-m", "hpcgender", *words, cwd=project).stdout

    assert {"slurm": "#SBATCH --array=0-1%2\n", "sge": " -t 1-2 -tc 2 "}[cluster.name] in ours(
        "study", "mine.toml", "--dry-run", "--at-once", 2
    )
    said = ours("study", "mine.toml", "--at-once", 2)
    array, evaluations, last = re.findall(r"^job (\d+) ", said, re.MULTILINE)
    tasks = {"slurm": (f"{array}_0", f"{array}_1"), "sge": (f"{array}.1", f"{array}.2")}[cluster.name]

    def logs() -> str:
        return "\n".join((said, ours("jobs", "mine"), *(read_log(project, task) for task in (*tasks, last))))

    cluster.wait_until(
        lambda: all(list(runs.glob(f"seed{seed}/checkpoints/step-*.pt")) for seed in (0, 1)) or cluster.end(array),
        120,
        "both have a checkpoint",
        logs,
    )
    signal_ranks(cluster, signal.SIGTERM)  # as where a node is to be drained
    assert ours("jobs").splitlines()[1].split("\t")[3] in ("running", "stopping", "pending")
    again = ours("study", "mine.toml")
    assert again == "study mine: 2 runs, 0 finished, 2 at work; nothing to start, see hpcgender jobs mine\n"
    cluster.wait_until(lambda: cluster.end(last), 300, "the study has ended", logs)
    for seed, task in enumerate(tasks):
        (begin, stopped, resumed, end) = read_events(runs / f"seed{seed}", task)
        assert (begin["event"], stopped["requeued"], resumed["attempt"], end["code"]) == ("start", True, 2, 0)
        lines = (runs / f"seed{seed}" / "metrics.jsonl").read_text().splitlines()
        assert [json.loads(line)["epoch"] for line in lines] == list(range(1, 41))
    result = json.loads((runs / "result.json").read_text())
    assert (result["looked_at"], [list(trial["evaluations"]) for trial in result["trials"]]) == (
        2,
        [["faces-test"]] * 2,
    )
    assert result["compared"] == ["faces-test"]
    assert "models over their seeds" in (runs / "compare-faces-test.html").read_text()
    folded = ours("jobs").splitlines()[1].split("\t")
    assert (folded[0], folded[3]) == ("mine", "done")
    assert cluster.end(evaluations)
    assert ours("study", "mine.toml").endswith("2 finished; nothing to start, see runs/mine/result.json\n")
    cluster.wait_until_idle()
