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
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from io import StringIO
from pathlib import Path
from statistics import median

import torch
import torch.distributed as dist

from hpcgender.commands.doctor import DOCTOR, DoctorConfig
from hpcgender.commands.train import TrainConfig
from hpcgender.distributed import Ranks, choose_interface, leave, redirect_output, select_device, torchrun_ranks
from hpcgender.doctor import devices, machine, network, report, scheduler, speed, storage
from hpcgender.doctor.finding import Finding, examined, green, red, yellow
from hpcgender.doctor.report import Examination
from hpcgender.precision import Precision
from hpcgender.stop import StopSignal
from jobs.scheduler import Allocation
from jobs.schedulers import find_allocation, schedulers_here
from shard_tools.base.documents import read_document, restored, write_document
from shard_tools.base.errors import FAILED, REQUEUE, UserError
from shard_tools.base.text import duration
from shard_tools.manifest import read_manifest
from shard_tools.pack import pack
from shard_tools.sources.synthetic import Synthetic

INTERRUPTED = "interrupted.json"
"""What the job's next attempt goes on with, in the directory of the results."""
LOOPBACK = "127.0.0.1"
"""The address at which the launcher's ranks meet where all are on one host."""
STOP_SECONDS = 60.0
"""How long ranks wait for the signal that one of them has asked for."""
_FORM = "hpcgender-interrupted-examination-1"


@dataclass(frozen=True, kw_only=True)
class Interrupted:
    """What a job's attempt saves before it is requeued."""

    examination: Examination
    skipped: dict[str, str]
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
            return conclude(interrupted, ranks)
        return begin(config, ranks, allocation, [first] if first else [])


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
    if dist.is_initialized():
        dist.destroy_process_group()


def begin(config: DoctorConfig, ranks: Ranks, allocation: Allocation, findings: list[Finding]) -> int:
    """All checks; then the job is signalled and requeued, if it is one that can be."""
    host = socket.gethostname()
    gathered = ranks.gather([replace(finding, host=host) for finding in of_node(config, ranks, allocation)])
    hosts = tuple(dict.fromkeys(ranks.gather(host)))
    findings += [finding for of_rank in gathered for finding in of_rank]
    usable = ranks.broadcast(not any(f.check == "GPUs" and f.state == "red" for f in findings))
    training = train_config(config, ranks)
    skipped: dict[str, str] = {}
    if ranks.world_size > 1:
        findings += together(ranks, host, hosts)
    else:
        skipped["all-reduce, clocks, log on other nodes"] = "one process; give --nodes 2"
    if usable:
        findings += speeds(training, ranks, host)
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
    examination = Examination(
        time=time.time(),
        hosts=hosts,
        processes=ranks.local_world_size,
        device=torch.cuda.get_device_name(ranks.device) if ranks.device.type == "cuda" else "cpu",
        precision=Precision("auto", ranks.device).name,
        cores_per_process=len(os.sched_getaffinity(0)) / ranks.local_world_size,
        model=config.model,
        image_size=config.image_size,
        batch_size=images_in_step(config, ranks),
        findings=report.in_order(findings),
    )
    if requeues:
        with StopSignal() as stop:
            ranks.barrier(network.TIMEOUT)  # all are ready for the signal
            return interrupt(config, examination, skipped, ranks, stop, allocation)
    if ranks.is_first:
        print_report(config.json, examination, skipped)
    return int(ranks.broadcast(examination.code))


def of_node(config: DoctorConfig, ranks: Ranks, allocation: Allocation) -> list[Finding]:
    """The checks of this node, by its first rank; of the scheduler by the first of all."""
    if ranks.local_rank:
        return []
    environ = os.environ
    apart = environ.get("MASTER_ADDR", LOOPBACK) != LOOPBACK
    needed = storage.ENOUGH_SCRATCH
    if config.data:
        needed = sum(shard.bytes for split in read_manifest(config.data).splits.values() for shard in split.shards)
    found = [
        examined("packages", machine.packages, config.backend),
        examined("driver", machine.driver, torch.version.cuda),
        *devices.here(config.backend),
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


def together(ranks: Ranks, host: str, hosts: tuple[str, ...]) -> list[Finding]:
    """The checks that all ranks make together; on rank 0 what they found."""
    offsets = network.clocks(ranks, host)
    found = [storage.judge_clocks(offsets)] if ranks.is_first and len(hosts) > 1 else []
    if len(hosts := ranks.broadcast(hosts)) > 1:
        seen = ranks.gather((host, seen_line(ranks)))
        if ranks.is_first:
            found.append(storage.judge_log({where: after for where, after in seen if where != host and after != -1.0}))
    return found


def seen_line(ranks: Ranks) -> float | None:
    """After how many seconds this node sees a line that rank 0 writes; -1 on ranks that do not look."""
    path = DOCTOR / "seen-by-other-nodes"
    line = f"{ranks.broadcast(time.time())}"
    with path.open("a") if ranks.is_first else StringIO() as file:
        file.write(line)
        file.flush()
        dist.barrier()
        seen = -1.0 if ranks.local_rank else storage.wait_for_text(path, line)
        dist.barrier()  # the file stays open until all have looked, as a log does
    if ranks.is_first:
        path.unlink()
    return seen


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


def speeds(config: TrainConfig, ranks: Ranks, host: str) -> list[Finding]:
    """What all ranks measure at the same time, as they train; on rank 0 what that means."""
    measured = examined("step", speed.measure, config, ranks)
    gathered = ranks.gather((host, measured))
    failed = ranks.broadcast(any(isinstance(one, Finding) for _, one in gathered))
    bandwidths = {} if failed else examined("all-reduce", network.bandwidths, ranks)
    if not ranks.is_first:
        return []
    if failed:
        return [replace(one, host=where) for where, one in gathered if isinstance(one, Finding)]
    by_step = sorted((one.step_images_per_s, where) for where, one in gathered)
    own = replace(gathered[0][1], step_images_per_s=median(per_s for per_s, _ in by_step))
    reader = min((one for _, one in gathered), key=lambda one: one.read_images_per_s)
    own = replace(
        own,
        loaded_images_per_s=min(one.loaded_images_per_s for _, one in gathered),
        read_images_per_s=reader.read_images_per_s,
        read_bytes_per_s=reader.read_bytes_per_s,
    )
    found = [
        speed.judge_reading(own),
        speed.judge_decoding(own),
        speed.judge_step(own, *by_step[0], Precision("auto", ranks.device).name),
        speed.judge_loading(own, ranks.device.type == "cuda"),
    ]
    if isinstance(bandwidths, Finding):
        return [*found, bandwidths]
    return found + [
        network.judge_bandwidth(where, rate, own.gradient_bytes, own.step_s) for where, rate in bandwidths.items()
    ]


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
    skipped: dict[str, str],
    ranks: Ranks,
    stop: StopSignal,
    allocation: Allocation,
) -> int:
    """Signals this job's agent as a scheduler does near the time limit, saves, and ends with 99."""
    if ranks.is_first:
        state = Interrupted(
            examination=examination,
            skipped=skipped,
            job_id=allocation.job_id,
            json=config.json,
            time=time.time(),
        )
        write_document(DOCTOR / INTERRUPTED, _FORM, asdict(state))
        if config.json:
            report.write(examination)
        else:  # also where the next attempt never comes
            print_report(config.json, examination, skipped)
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
        print_report(
            config.json, replace(examination, findings=report.in_order((*examination.findings, lost))), skipped
        )
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
        print_report(state.json, examination, state.skipped)
    return examination.code


def print_report(as_json: bool, examination: Examination, skipped: dict[str, str]) -> None:
    """Prints an examination, and writes it, which may be what fails."""
    if as_json:
        print(json.dumps(asdict(examination), indent=1), flush=True)
    else:
        report.show(examination, skipped)
    path = report.write(examination)
    if not as_json:
        print(f"written to {path}", flush=True)
