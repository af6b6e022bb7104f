"""What launching costs on real schedulers: against a bare script with torchrun, before submission, and for a requeue.

    python -m tests.benchmarks.cluster [--quick] [--scheduler slurm|sge]

brings up two nodes of namespaces for each scheduler, as the tests do, so it needs root and their Debian packages. Times
are of whole jobs, from the command that submits to the end that the scheduler knows. Contenders take turns.
"""

from __future__ import annotations

import os
import re
import signal
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Literal

import tyro

from shard_tools.pack import pack
from shard_tools.sources.synthetic import Synthetic
from tests.benchmarks.ratios import measure, print_ratio
from tests.cluster.cluster import NODES, Cluster
from tests.cluster.sge import GridEngine
from tests.cluster.slurm import Slurm
from tests.cluster.training import launch, read_events, read_log
from tests.hpcgender.status_records import end, make_record, metrics, start

TRAIN = ("--model", "compact", "--image-size", "32", "--batch-size", "16")

BARE = """#!/bin/bash
#$ -cwd -j y -o logs/ -S /bin/bash -pe mpi1 2
#SBATCH --output=logs/%x.o%j --nodes=2 --ntasks-per-node=1
cd "${{SLURM_SUBMIT_DIR:-$SGE_O_WORKDIR}}"
. .venv/bin/activate
export OMP_NUM_THREADS=1
run() {{ echo "cd '$PWD' && exec torchrun --nnodes=2 --node-rank=$1 --nproc-per-node=1 --master-addr=$2 \\
    --master-port=29400 -m hpcgender.train {options} --name bare-$3"; }}
if [ -n "$SLURM_JOB_ID" ]; then
    first=$(scontrol show hostnames | head -1)
    for rank in 0 1; do
        host=$(scontrol show hostnames | sed -n $((rank + 1))p)
        srun --nodes=1 --ntasks=1 --nodelist="$host" --overlap bash -c "$(run $rank "$first" "$SLURM_JOB_ID")" &
    done
else
    mapfile -t hosts < <(awk '{{print $1}}' "$PE_HOSTFILE")
    for rank in 0 1; do
        qrsh -inherit -nostdin -V "${{hosts[rank]}}" "$(run $rank "${{hosts[0]}}" "$JOB_ID")" &
    done
fi
wait
"""
"""What a person writes who has torchrun and a scheduler only."""


@dataclass(frozen=True, kw_only=True)
class ClusterBenchmark:
    """What launching costs: beside a bare script with torchrun, before submission, in a list of jobs, for a requeue."""

    quick: bool = False
    """One round: to see that it runs, not how fast."""
    scheduler: Literal["both", "slurm", "sge"] = "both"
    """Which one."""


def main(benchmark: ClusterBenchmark) -> None:
    kinds: dict[str, type[Cluster]] = {"slurm": Slurm, "sge": GridEngine}
    for name, kind in kinds.items():
        if benchmark.scheduler in ("both", name):
            with kind(Path(tempfile.mkdtemp(prefix=f"benchmark-{name}-"))) as cluster:
                compare(cluster, 1 if benchmark.quick else 5)


def compare(cluster: Cluster, rounds: int) -> None:
    """Prints what one scheduler's jobs take."""
    data = cluster.directory / "faces"
    with redirect_stdout(StringIO()):
        pack(Synthetic(count=96, size=32, seed=7, out=data, test=0))
    project = cluster.project()
    (project / "site.toml").write_text(cluster.site)
    bare = project / "bare.sh"
    bare.write_text(BARE.format(options=" ".join(("--data", str(data), "--epochs", "1", *TRAIN))))

    def launched() -> int:
        command = ("train", "--data", data, "--epochs", 1, *TRAIN, "--name", f"launched-{time.time_ns()}")
        (job,) = launch(cluster, project, "--nodes", 2, "--", *command)
        return whole(cluster, project, job)

    jobs = {
        "bare script with torchrun": lambda: whole(cluster, project, cluster.submit(bare, cwd=project)),
        "hpcgender launch": launched,
        "hpcgender launch, requeued once": lambda: requeued(cluster, project, data, stop=True),
        "the same, not requeued": lambda: requeued(cluster, project, data, stop=False),
    }
    seconds = durations(jobs, rounds)
    commands: dict[str, Callable[[], int]] = {
        "launch --dry-run": lambda: ask(
            cluster, project, "hpcgender.launch", "--nodes", 2, "--dry-run", "--", "train", "--data", data, *TRAIN
        ),
        "jobs, of 1,000": lambda: ask(cluster, many(cluster), "hpcgender", "jobs", "--all"),
    }
    for work in commands.values():
        work()  # Python's files are read once
    seconds |= durations(commands, 4 * rounds)

    print(f"{cluster.name}, {os.cpu_count()} cores for both nodes; seconds")
    for title, values in seconds.items():
        print(f"  {title:34} median {statistics.median(values):7.2f}  (min {min(values):.2f}, max {max(values):.2f})")
    torchrun, launcher, stopped, straight, dry_run, listed = seconds.values()
    print_ratio(f"{cluster.name}_launch_over_torchrun", launcher, torchrun, "about 1")
    print_ratio(f"{cluster.name}_dry_run_over_half_a_second", dry_run, [0.5] * len(dry_run), "below 1")
    print_ratio(f"{cluster.name}_requeued_over_not", stopped, straight, "what starting takes")
    print(f"  seconds of a requeue: {statistics.median(a - b for a, b in zip(stopped, straight, strict=True)):.1f}")
    print(f"  status of 1,000 jobs: {statistics.median(listed):.2f} s")


def durations(contenders: dict[str, Callable[[], int]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each contender in each round."""
    return {name: [1 / speed for speed in speeds] for name, speeds in measure(contenders, rounds, lambda: None).items()}


def whole(cluster: Cluster, project: Path, job: str) -> int:
    """Waits until a job has ended well."""
    found = cluster.wait(job, 600)
    assert found.code == 0, read_log(project, job)
    return 1


def requeued(cluster: Cluster, project: Path, data: Path, *, stop: bool) -> int:
    """A longer training that is asked to stop after its first epoch, as by a time limit, and goes on; or that is not.

    Says how many steps were done twice.
    """
    name = f"requeued-{time.time_ns()}"
    run_dir = project / "runs" / name
    command = ("train", "--data", data, "--epochs", 20, *TRAIN, "--name", name)
    (job,) = launch(cluster, project, "--nodes", 2, "--", *command)
    if stop:
        cluster.wait_until(lambda: list(run_dir.glob("checkpoints/step-*.pt")), 300, "there is a checkpoint")
        for node in NODES:
            for pid, line in cluster.job_processes(node).items():
                if "submitit.core._submit" in line:
                    os.kill(pid, signal.SIGUSR1)
    whole(cluster, project, job)
    if stop:
        events = read_events(run_dir, job)
        assert [event["event"] for event in events] == ["start", "end", "start", "end"], read_log(project, job)
        print(f"  requeued at step {events[1]['progress']}: steps done twice: {steps_done_twice(project, job)}")
    return 1


def steps_done_twice(project: Path, job: str) -> int:
    """How many steps lie between where the first attempt stopped and where the second went on, by their own words."""
    log = read_log(project, job)
    stopped = re.search(r"^stopped by \w+ after step (\d+) of (\d+) of epoch (\d+)", log, re.MULTILINE)
    begun = re.search(r"^resuming .* from epoch (\d+)(?:, after step (\d+) of \d+)?$", log, re.MULTILINE)
    assert stopped, log
    assert begun, log
    done, steps, epoch = map(int, stopped.groups())
    return (epoch - int(begun[1])) * steps + done - int(begun[2] or 0)


def ask(cluster: Cluster, project: Path, *words: object) -> int:
    """Runs a module of the project on the head, to its end."""
    cluster.run("python", "-m", *words, cwd=project)
    return 1


def many(cluster: Cluster) -> Path:
    """A project with the records of 1,000 trainings that have ended, made once."""
    project = cluster.directory / "many"
    if not project.exists():
        for number in range(1000):
            results = project / "runs" / f"run-{number}"
            make_record(results, str(10_000 + number), cluster.name, [start(), end(0)], age=60.0 * number)
            metrics(results, 50, 50, 0.97, 0.0)
        for name in ("hpcgender", "shard_tools", "jobs"):
            (project / name).symlink_to(Path(__file__).parents[2] / name)
    return project


if __name__ == "__main__":
    main(tyro.cli(ClusterBenchmark, config=(tyro.conf.FlagCreatePairsOff,)))
