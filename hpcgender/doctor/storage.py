"""Checks of storage: scratch space and its speed, the results' directory, how soon other nodes see what a log gets."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from tempfile import NamedTemporaryFile

from hpcgender.doctor.finding import Finding, green, red, yellow
from shard_tools.base.text import byte_size

BLOCK = 1 << 22
SCRATCH_BYTES = 1 << 27
"""Bytes that are written to measure scratch."""
ENOUGH_SCRATCH = 1e9
SLOW_SCRATCH = 50e6
"""Bytes per second."""
LOG_SECONDS = 30.0
"""How long a node waits to see what another has written into a file."""
SLOW_LOG_SECONDS = 5.0
CLOCK_SECONDS, CLOCK_MANY_SECONDS = 2.0, 60.0
"""Differences of clocks: that make times in logs doubtful; and by which --stop-after would stop too late."""


def scratch(directory: Path, needed: float = ENOUGH_SCRATCH, size: int = SCRATCH_BYTES) -> Finding:
    """Free space and speed of the directory for temporary files; `needed` bytes are those of the data set."""
    advice = "give a directory on the node's own disk as scratch in the site profile, or as TMPDIR"
    try:
        free = shutil.disk_usage(directory).free
        speed = write_speed(directory, min(size, max(BLOCK, free // 4)))
    except OSError as error:
        return red("scratch", f"{directory} cannot be written ({error.strerror})", advice)
    found = f"{directory}: {byte_size(free)} free, written with {byte_size(speed)}/s"
    numbers = {"free_bytes": free, "write_bytes_per_s": speed}
    if free < needed:
        return yellow("scratch", found, f"{byte_size(needed)} would be needed for --stage-to: {advice}", **numbers)
    if speed < SLOW_SCRATCH:
        return yellow("scratch", found, f"{advice}, if this is not one already", **numbers)
    return green("scratch", found, **numbers)


def write_speed(directory: Path, size: int) -> float:
    """Bytes per second with which a file of `size` bytes reaches the disk."""
    block = os.urandom(BLOCK)
    with NamedTemporaryFile(dir=directory, prefix="hpcgender-doctor-") as file:
        begin = time.perf_counter()
        written = 0
        while written < size:
            written += file.write(block)
        file.flush()
        os.fsync(file.fileno())
        return written / (time.perf_counter() - begin)


def results(directory: Path) -> Finding:
    """Whether results can be written, and how the file server's clock differs from this node's."""
    begin = time.time()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=directory, prefix=".doctor-") as file:
            file.write(b"x")
            file.flush()
            os.fsync(file.fileno())
            modified = Path(file.name).stat().st_mtime
        end = time.time()
        free = shutil.disk_usage(directory).free
    except OSError as error:
        return red("results", f"{directory} cannot be written ({error.strerror})", "correct its permissions or quota")
    ahead = 0.0 if begin - 1 <= modified <= end + 1 else modified - end
    return judge_results(directory, free, ahead)


def judge_results(directory: Path, free: int, ahead: float, enough: float = 10e9) -> Finding:
    """What `free` bytes, and a file server whose clock is `ahead` seconds of this node's, mean."""
    found = f"{directory.absolute()}: {byte_size(free)} free"
    if abs(ahead) > CLOCK_SECONDS:
        found += f", its server's clock is {abs(ahead):.0f} s {'ahead' if ahead > 0 else 'behind'}"
        return yellow("results", found, "have the clocks synchronised: ages of files are wrong", free_bytes=free)
    if free < enough:
        return yellow("results", found, "checkpoints fill it: see hpcgender plan, --keep and df -h", free_bytes=free)
    return green("results", found, free_bytes=free)


def wait_for_text(path: Path, text: str, seconds: float = LOG_SECONDS) -> float | None:
    """Seconds until a file that another node appends to has `text`; None if it has not after `seconds`."""
    begin = time.monotonic()
    while time.monotonic() - begin < seconds:
        try:
            if text in path.read_text():
                return time.monotonic() - begin
        except OSError:  # it is not seen at all yet
            pass
        time.sleep(0.1)
    return None


def judge_log(seconds: dict[str, float | None]) -> Finding:
    """What it means that hosts see a line of a log after so many seconds, or (None) do not."""
    blind = [host for host, after in seconds.items() if after is None]
    if blind:
        return red(
            "log on other nodes",
            f"{', '.join(blind)}: not seen within {LOG_SECONDS:.0f} s",
            "start from a directory that all nodes share; where files are shown only once they are synced (AFS), set "
            "log_sync in the site profile",
        )
    slowest = max(seconds.values(), key=lambda after: after or 0.0) or 0.0
    found = f"lines are seen after {slowest:.1f} s"
    if slowest > SLOW_LOG_SECONDS:
        return yellow("log on other nodes", found, "tail -f lags behind: set log_sync in the site profile")
    return green("log on other nodes", found, log_seconds=slowest)


def judge_clocks(offsets: dict[str, float]) -> Finding:
    """What the hosts' clocks mean: seconds of Unix time that each showed at the same moment."""
    apart = max(offsets.values()) - min(offsets.values())
    last = max(offsets, key=lambda host: offsets[host])
    found = f"{apart:.1f} s apart" + (f", {last} is ahead" if apart > CLOCK_SECONDS else "")
    advice = "have the clocks synchronised (chrony, ntpd): time limits, --stop-after and times in logs would be wrong"
    if apart > CLOCK_MANY_SECONDS:
        return red("clocks", found, advice, apart_s=apart)
    if apart > CLOCK_SECONDS:
        return yellow("clocks", found, advice, apart_s=apart)
    return green("clocks", found, apart_s=apart)
