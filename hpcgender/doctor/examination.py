"""An examination from start to end: on the spot, or by the ranks of a job, which at its end is requeued once."""

from __future__ import annotations

import json
import os
import signal
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict, dataclass, field, replace
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import NoReturn

import torch

from hpcgender.commands.doctor import DOCTOR, DoctorConfig
from hpcgender.commands.train import TrainConfig
from hpcgender.distributed import Ranks, choose_interface, end, leave, redirect_output, select_device, torchrun_ranks
from hpcgender.doctor import devices, machine, network, report, scheduler, storage, together
from hpcgender.doctor.finding import Finding, examined, green, red, yellow
from hpcgender.doctor.report import Examination
from hpcgender.precision import Precision
from hpcgender.stop import StopSignal
from jobs.scheduler import Allocation
from jobs.schedulers import find_allocation, schedulers_here
from shard_tools.base.documents import read_document, restored, write_document
from shard_tools.base.errors import FAILED, REQUEUE, UserError, one_line
from shard_tools.base.text import duration
from shard_tools.manifest import read_manifest
from shard_tools.pack import pack
from shard_tools.sources.synthetic import Synthetic

INTERRUPTED = "interrupted.json"
"""What the job's next attempt goes on with, in the directory of the results."""
LOOPBACK = "127.0.0.1"
"""The address at which the launcher's ranks meet where all are on one host."""
REPORT_SECONDS = 10.0
"""How long a rank that has lost others waits before it ends, and its agent ends all: rank 0 reports meanwhile."""
STOP_SECONDS = 60.0
"""How long ranks wait for the signal that one of them has asked for."""
_FORM = "hpcgender-interrupted-examination-1"


@dataclass(frozen=True, kw_only=True)
class Interrupted:
    """What a job's attempt saves before it is requeued."""

    examination: Examination
    job_id: str
    json: bool
    time: float
    """Unix time of the signal."""


def examine(config: DoctorConfig) -> int:
    """Examines this machine or a job's nodes, as this process is one of its ranks or not; 1 if anything is red."""
    with ranks_of(os.environ) as (ranks, first):
        redirect_output(DOCTOR / "logs", ranks.rank)
        allocation = find_allocation(os.environ)
        if first and first.state == "red":  # the ranks cannot tell each other anything
            print(f"{first.check}: {first.found}: {first.advice}", flush=True)
            return FAILED
        interrupted = ranks.broadcast(read_interrupted(allocation) if ranks.is_first else None)
        if interrupted:
            code = conclude(interrupted, ranks)
        else:
            code = begin(config, ranks, allocation, [first] if first else [])
        if ranks.world_size > 1:  # a thread may still wait for an all-reduce, and the end of its group would, too
            end(code)
        return code


@contextmanager
def ranks_of(environ: dict[str, str] | os._Environ[str]) -> Iterator[tuple[Ranks, Finding | None]]:
    """This process among the ranks, which meet, and what is found of that; None for a single one.

    Its device is the CPU where its GPU cannot be used, which the check of GPUs reports.
    """
    rank, world_size, local_rank, local_world_size = torchrun_ranks()
    try:
        device = select_device(local_rank)
    except UserError:
        device = torch.device("cpu")
    ranks = Ranks(rank, world_size, device, local_rank, local_world_size)
    if world_size == 1:
        yield ranks, None
        return
    if local_world_size < world_size:
        choose_interface()
    finding = examined("rendezvous", network.join, ranks)
    try:
        yield ranks, finding
    except BaseException as error:
        leave(error)


class Stopped(BaseException):
    """SIGTERM: another rank has failed, or the job is cancelled. No check takes it for its own failure."""


@dataclass
class SoFar:
    """What has been examined so far."""

    config: DoctorConfig
    ranks: Ranks
    findings: list[Finding]
    hosts: tuple[str, ...]
    skipped: dict[str, str] = field(default_factory=dict)

    def examination(self) -> Examination:
        config, device = self.config, self.ranks.device
        return Examination(
            time=time.time(),
            hosts=self.hosts,
            processes=self.ranks.local_world_size,
            device=torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
            precision=Precision("auto", device).name,
            cores_per_process=len(os.sched_getaffinity(0)) / self.ranks.local_world_size,
            model=config.model,
            image_size=config.image_size,
            batch_size=images_in_step(config, self.ranks),
            findings=report.in_order(self.findings),
            skipped=dict(self.skipped),
        )


@contextmanager
def reported(so_far: SoFar) -> Iterator[None]:
    """A context in which ranks that are lost, or a stop, end the process with a report of what was found until then."""
    if so_far.ranks.world_size == 1:
        yield
        return

    def stop(number: int, _: object) -> NoReturn:
        raise Stopped(f"{signal.Signals(number).name}: another process has failed, or the job was stopped")

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except (RuntimeError, Stopped) as error:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if not so_far.ranks.is_first:
            time.sleep(REPORT_SECONDS)
            raise
        advice = f"see what is said above and in {DOCTOR / 'logs'}"
        so_far.findings.append(red("processes", f"{type(error).__name__}: {one_line(error)}"[:500], advice))
        print_report(so_far.config.json, so_far.examination())
        end(FAILED)
    signal.signal(signal.SIGTERM, before)


def begin(config: DoctorConfig, ranks: Ranks, allocation: Allocation, findings: list[Finding]) -> int:
    """All checks; then the job is signalled and requeued, if it is one that can be."""
    so_far = SoFar(config=config, ranks=ranks, findings=findings, hosts=(socket.gethostname(),))
    with reported(so_far):
        return check_all(so_far, allocation)


def check_all(so_far: SoFar, allocation: Allocation) -> int:
    """All checks, each added to what was found so far."""
    config, ranks, findings, skipped = so_far.config, so_far.ranks, so_far.findings, so_far.skipped
    (host,) = so_far.hosts
    gathered = ranks.gather([replace(finding, host=host) for finding in of_node(config, ranks, allocation)])
    so_far.hosts = tuple(dict.fromkeys(ranks.gather(host))) or so_far.hosts
    findings += [finding for of_rank in gathered for finding in of_rank]
    usable = ranks.broadcast(not any(f.check == "GPUs" and f.state == "red" for f in findings))
    training = train_config(config, ranks)
    several = ranks.world_size > 1
    if several:
        findings += together.clocks_and_logs(ranks, host, so_far.hosts)
    else:
        skipped["all-reduce, clocks, log on other nodes"] = "one process; give --nodes 2"
    if usable:
        judged, own = together.judge_speeds(together.measure(training, ranks, host), ranks)
        findings += judged
        if several and ranks.broadcast(own is not None):
            if ranks.is_first:  # NCCL may end the process
                path = report.write(so_far.examination())
                if not config.json:
                    print(f"examined so far: {path}; next the all-reduce, {network.PATIENCE:.0f} s at most", flush=True)
            findings += together.all_reduce(ranks, host, own)
    else:
        skipped["speed"] = "its GPUs cannot be used"
    requeues = ranks.broadcast(bool(ranks.is_first and can_requeue(allocation)))
    if not config.data:
        skipped["your shards"] = "drawn faces were read; give --data"
    if ranks.is_first and not requeues:
        findings.append(examined("signals", tried_interruption))
    if not requeues:  # the others have nothing to do meanwhile
        ranks.barrier(timedelta(seconds=2 * (scheduler.START_SECONDS + scheduler.STOP_SECONDS) + 120))
    if ranks.is_first and allocation.scheduler.has_queue and not requeues:
        because = allocation.scheduler.cannot_requeue(allocation) or "it was not started by the launcher"
        findings.append(yellow("requeue", because, "submit trainings with python -m hpcgender.launch, or resume them"))
    examination = so_far.examination()
    if requeues:
        with StopSignal() as stop:
            ranks.barrier(network.TIMEOUT)  # all are ready for the signal
            return interrupt(config, examination, ranks, stop, allocation)
    if ranks.is_first:
        print_report(config.json, examination)
    return int(ranks.broadcast(examination.code))


def of_node(config: DoctorConfig, ranks: Ranks, allocation: Allocation) -> list[Finding]:
    """The checks of this node by its first rank, of its GPUs by each, and of the scheduler by the first of all."""
    if ranks.local_rank:
        return devices.here(config.backend, ranks)
    environ = os.environ
    apart = environ.get("MASTER_ADDR", LOOPBACK) != LOOPBACK
    needed = storage.ENOUGH_SCRATCH
    if config.data:
        needed = sum(shard.bytes for split in read_manifest(config.data).splits.values() for shard in split.shards)
    found = [
        examined("packages", machine.packages, config.backend),
        examined("driver", machine.driver, torch.version.cuda),
        *devices.here(config.backend, ranks),
        examined("cores", machine.cores, ranks.local_world_size, environ),
        examined("open files", machine.open_files),
        examined("shared memory", machine.shared_memory),
        examined("scratch", storage.scratch, Path(tempfile.gettempdir()), needed),
        examined("results", storage.results, DOCTOR),
        examined("interface", network.interface, apart, environ),
    ]
    if ranks.is_first:
        found.append(examined("ports", network.ports, allocation.job_id))
        found.append(examined("time limit", scheduler.time_limit, allocation, environ, time.time()))
        if not allocation.scheduler.has_queue and schedulers_here(environ):
            found.append(examined("job", scheduler.accepts, 1))
    return found


def train_config(config: DoctorConfig, ranks: Ranks) -> TrainConfig:
    """The training whose steps are timed; without data on drawn faces, its batch is then of one process."""
    part = images_in_step(config, ranks)
    return TrainConfig(
        data=config.data or Path(),
        model=config.model,
        image_size=config.image_size,
        batch_size=part * (ranks.world_size if config.data else 1),
        backend=config.backend,
    )


def images_in_step(config: DoctorConfig, ranks: Ranks) -> int:
    """Images of a step in each process."""
    return config.batch_size or (256 if ranks.device.type == "cuda" else 16)


def tried_interruption() -> Finding:
    """Signals a small training on drawn faces, and resumes it."""
    with tempfile.TemporaryDirectory(prefix="hpcgender-doctor-") as name:
        data, runs = Path(name) / "shards", Path(name) / "runs"
        with redirect_stdout(StringIO()):
            pack(Synthetic(count=48, size=32, seed=0, out=data, val=0.3, test=0, workers=1))
        return scheduler.interruption(scheduler.training(data, runs))


def can_requeue(allocation: Allocation) -> bool:
    """Whether this process is in a job that its launcher requeues when it is stopped."""
    agent = "JOBS_AGENT_PID" in os.environ
    return agent and allocation.scheduler.has_queue and not allocation.scheduler.cannot_requeue(allocation)


def interrupt(
    config: DoctorConfig,
    examination: Examination,
    ranks: Ranks,
    stop: StopSignal,
    allocation: Allocation,
) -> int:
    """Signals this job's agent as a scheduler does near the time limit, saves, and ends with 99."""
    if ranks.is_first:
        state = Interrupted(
            examination=examination,
            job_id=allocation.job_id,
            json=config.json,
            time=time.time(),
        )
        write_document(DOCTOR / INTERRUPTED, _FORM, asdict(state))
        if config.json:
            report.write(examination)
        else:  # also where the next attempt never comes
            print_report(config.json, examination)
        os.kill(int(os.environ["JOBS_AGENT_PID"]), signal.SIGUSR1)
    for _ in range(int(10 * STOP_SECONDS)):  # all ranks look as often, as looking is collective
        if stop.requested(ranks):
            break
        time.sleep(0.1)
    if stop.reason:
        if ranks.is_first:
            print(f"doctor: stopped by {stop.reason}, to see whether the job is requeued", flush=True)
        return REQUEUE
    if ranks.is_first:
        (DOCTOR / INTERRUPTED).unlink()
        remedy = "see what handles signals here: a wrapper, a container, or a shell without exec"
        lost = red("requeue", f"SIGUSR1 to the agent did not reach its ranks in {STOP_SECONDS:.0f} s", remedy)
        print_report(config.json, replace(examination, findings=report.in_order((*examination.findings, lost))))
    return FAILED


def read_interrupted(allocation: Allocation) -> Interrupted | None:
    """What an earlier attempt of this job has saved; None in its first one. UserError if it is damaged."""
    path = DOCTOR / INTERRUPTED
    if not allocation.scheduler.restarts(os.environ) or not path.exists():
        return None
    again = f"remove it, and {report.AGAIN}"
    state = restored(Interrupted, read_document(path, _FORM, again, again), path, again)
    return state if state.job_id == allocation.job_id else None


def conclude(state: Interrupted, ranks: Ranks) -> int:
    """Prints what the job's first attempt has found, and that it was requeued."""
    after = time.time() - state.time
    requeued = green("requeue", f"signalled, saved, requeued and resumed after {duration(after)}", requeue_s=after)
    findings = report.in_order((*state.examination.findings, requeued))
    examination = replace(state.examination, findings=findings, time=time.time())
    if ranks.is_first:
        (DOCTOR / INTERRUPTED).unlink()
        print_report(state.json, examination)
    return examination.code


def print_report(as_json: bool, examination: Examination) -> None:
    """Prints an examination, and writes it, which may be what fails."""
    if as_json:
        print(json.dumps(asdict(examination), indent=1), flush=True)
    else:
        report.show(examination)
    path = report.write(examination)
    if not as_json:
        print(f"written to {path}", flush=True)
