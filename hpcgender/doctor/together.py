"""The checks that all ranks make together: clocks, logs, speeds and all-reduces; on rank 0 what they found."""

from __future__ import annotations

import time
from dataclasses import replace
from io import StringIO
from statistics import median

import torch.distributed as dist

from hpcgender.commands.doctor import DOCTOR
from hpcgender.commands.train import TrainConfig
from hpcgender.distributed import Ranks
from hpcgender.doctor import network, speed, storage
from hpcgender.doctor.finding import Finding, examined
from hpcgender.doctor.speed import Speeds
from hpcgender.precision import Precision


def clocks_and_logs(ranks: Ranks, host: str, hosts: tuple[str, ...]) -> list[Finding]:
    """How the nodes' clocks differ, and when they see what another has written."""
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


def measure(config: TrainConfig, ranks: Ranks, host: str) -> list[tuple[str, Speeds | Finding]]:
    """What each rank measures while all others do the same, as they train; on rank 0, with the hosts."""
    return ranks.gather((host, examined("step", speed.measure, config, ranks)))


def judge_speeds(gathered: list[tuple[str, Speeds | Finding]], ranks: Ranks) -> tuple[list[Finding], Speeds | None]:
    """What was measured means, and the speeds of a usual rank; without them if any rank has failed."""
    failed = [replace(one, host=where) for where, one in gathered if isinstance(one, Finding)]
    by_host = [(where, one) for where, one in gathered if isinstance(one, Speeds)]
    if failed or not by_host:  # as on ranks other than the first
        return failed, None
    by_step = sorted((one.step_images_per_s, where) for where, one in by_host)
    own = replace(by_host[0][1], step_images_per_s=median(per_s for per_s, _ in by_step))
    on_gpu = ranks.device.type == "cuda"
    reader = min((one for _, one in by_host), key=lambda one: one.read_images_per_s)
    own = replace(
        own,
        decoded_images_per_s=min(one.decoded_images_per_s for _, one in by_host),
        loaded_images_per_s=min(one.loaded_images_per_s for _, one in by_host),
        read_images_per_s=reader.read_images_per_s,
        read_bytes_per_s=reader.read_bytes_per_s,
    )
    return [
        speed.judge_reading(own),
        speed.judge_decoding(own, on_gpu),
        speed.judge_step(own, *by_step[0], Precision("auto", ranks.device).name),
        speed.judge_loading(own, on_gpu),
    ], own


def all_reduce(ranks: Ranks, host: str, own: Speeds | None) -> list[Finding]:
    """How fast the ranks all-reduce, on rank 0 beside its own speeds, or which of them did not."""
    gathered = ranks.gather((host, network.within(network.PATIENCE, ranks)))
    failed = [replace(one, host=where) for where, one in gathered if isinstance(one, Finding)]
    if failed or not own:
        return failed
    (_, rates), *_ = gathered
    return [network.judge_bandwidth(where, rate, own.gradient_bytes, own.step_s) for where, rate in rates.items()]
