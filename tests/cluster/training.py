"""A small training on two nodes, which several tests look at: as a user starts it, and what it leaves behind."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tests.cluster.cluster import PATIENCE, Cluster, End
from tests.cluster.hosts import USER

EPOCHS = 12
OPTIONS = (
    *("--model", "compact", "--image-size", 32, "--output-stride", 32),
    *("--batch-size", 16, "--lr", 0.02, "--epochs", EPOCHS),
)
"""Options of `train` for seconds of work; there is a checkpoint after every epoch."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """A job that has trained, and where."""

    job: str
    project: Path
    end: End
    run_dir: Path

    @property
    def log(self) -> str:
        """What the job's `.o` file says."""
        return read_log(self.project, self.job)

    @property
    def weights(self) -> dict[str, torch.Tensor]:
        """The weights of the last checkpoint."""
        last = torch.load(self.run_dir / "checkpoints" / "last.pt", weights_only=True)
        weights: dict[str, torch.Tensor] = last["model"]
        return weights

    @property
    def events(self) -> list[dict[str, Any]]:
        """What the launcher noted of this job's attempts."""
        return read_events(self.run_dir, self.job)


def read_log(project: Path, job: str) -> str:
    """A job's `.o` file; empty while there is none."""
    return "".join(path.read_text() for path in (project / "logs").glob(f"*.o{job}"))


def read_events(results: Path, job: str) -> list[dict[str, Any]]:
    """What the launcher noted of a job's attempts."""
    files = results.glob(f"submissions/*-{job}/attempts.jsonl")
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def train(cluster: Cluster, data: Path) -> Training:
    """Submits the main training script, with its options for a small one, and waits until nothing of it runs."""
    project = cluster.project()
    job = cluster.submit("jobs/train_resnet152.sh", "--data", data, *OPTIONS, cwd=project)
    end = cluster.wait(job)
    cluster.wait_until_idle()
    return Training(job=job, project=project, end=end, run_dir=project / "runs" / "se_resnet152")


def launch(cluster: Cluster, project: Path, *arguments: object, user: str = USER) -> list[str]:
    """The ids of the jobs that `python -m hpcgender.launch` submits from a project."""
    done = cluster.run("python", "-m", "hpcgender.launch", *arguments, user=user, cwd=project)
    assert submitted(done.stdout), done.stdout + done.stderr
    return submitted(done.stdout)


def submitted(said: str) -> list[str]:
    """The ids of the jobs that a launch says it has submitted."""
    return re.findall(r"^job (\d+) ", said, re.MULTILINE)


def launch_training(cluster: Cluster, data: Path, *options: object, user: str = USER) -> tuple[str, Path]:
    """Launches the small training on two nodes as a new project's `runs/small`; returns the job and the project."""
    project = cluster.project(user)
    (project / "site.toml").write_text(cluster.site)
    command = ("train", "--data", data, *OPTIONS, "--name", "small")
    (job,) = launch(cluster, project, "--nodes", 2, *options, "--", *command, user=user)
    return job, project


def wait_for_checkpoint(
    cluster: Cluster, project: Path, job: str, meanwhile: Callable[[Cluster], None] = lambda _: None
) -> None:
    """Waits until the training of `launch_training` has its first checkpoint, which is seconds before its end."""
    began, asked = time.monotonic(), 0.0
    while not list((project / "runs" / "small" / "checkpoints").glob("step-*.pt")):
        if time.monotonic() > asked + 2:
            asked = time.monotonic()
            meanwhile(cluster)
            assert not cluster.end(job), read_log(project, job)
        assert asked < began + PATIENCE * 180, f"no checkpoint: {cluster.state(job)}\n{read_log(project, job)}"
        time.sleep(0.05)


def ranks(cluster: Cluster) -> list[int]:
    """The pids of all ranks on all nodes."""
    return [pid for node in cluster.nodes for pid, line in cluster.job_processes(node).items() if " jobs.rank " in line]


def signal_ranks(cluster: Cluster, number: signal.Signals) -> None:
    """Sends a signal to all ranks."""
    for pid in ranks(cluster):
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def hurry(cluster: Cluster) -> None:
    """Puts the processes of jobs before those of other tests, which may keep the machine busy: these have seconds."""
    for node in cluster.nodes:
        for pid in cluster.job_processes(node):
            for thread in Path(f"/proc/{pid}/task").glob("*"):
                with suppress(ProcessLookupError, PermissionError):  # it has ended meanwhile; root without CAP_SYS_NICE
                    os.setpriority(os.PRIO_PROCESS, int(thread.name), -15)


def are_asked_to_stop(cluster: Cluster) -> bool:
    """Whether all ranks, which are stopped by SIGSTOP, have a SIGTERM waiting for them."""
    pending = []
    for pid in ranks(cluster):
        with suppress(FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
            status = Path(f"/proc/{pid}/status").read_text()
            found = re.search(r"^ShdPnd:\s+(\w+)$", status, re.MULTILINE)
            pending.append(found is not None and bool(int(found[1], 16) & 1 << signal.SIGTERM - 1))
    return bool(pending) and all(pending)
