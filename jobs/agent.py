"""One node's agent: torch.distributed.run with plain exit codes, one-line failures, and a lifeline to its launcher.

`python -m jobs.agent [--lifeline[=NODE@HOST:PORT]] [TORCHRUN OPTIONS] -m MODULE [ARGUMENTS]` is torchrun, but for this:

* It exits with the code of the rank that failed first: 0, 2 and 99 as they are, 99 for the 75 of failed storage, and 1
  for anything else; with `PORT_TAKEN` if another program listens at the rendezvous; and with `--lifeline`, `REPORTED`
  instead of 1 where it has reported what failed, so that a launcher can tell this from an agent that could not start;
  with `FIRST_LOST` if the launcher's host is lost.
* A failure is one line, after the traceback of a rank above 0, from torch's `record` or its log; rank 0 writes its own.
  Codes 2 and 99 need no line: the rank has written one.
* Where a rank fails, the others have `GRACE_SECONDS` to end.
* TERM, INT, HUP, USR1 and USR2 all reach the ranks as TERM, and the ranks' own exit codes still count afterwards. To
  die of it, as a rank does that is importing torch, counts as 99, and so does a stop before there are ranks.
* Where the first host gives no answer at the rendezvous port for a minute it ends with a line, instead of waiting on.
* With `--lifeline` standard input asks for the same signals, and its end, or that of the launcher's host, ends the
  ranks in bounded time: see `jobs.hosts.processes`.
* Where a scheduler lists the granted GPUs in a variable of its own (`jobs.machine.visible_gpus`), CUDA_VISIBLE_DEVICES
  is set to them.
* With `--alone` instead of torchrun's options one process runs the module, without torch.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, Protocol

from jobs import machine
from jobs.hosts import presence, processes
from jobs.hosts.supervisor import FIRST_LOST, REPORTED
from shard_tools.base.errors import BAD_INPUT, FAILED, REQUEUE, STORAGE
from shard_tools.base.files import tail
from shard_tools.base.storage import open_files_limit

PORT_TAKEN = 98
"""Exit code of an agent: the rendezvous port belongs to another program."""

GRACE_SECONDS = 15
"""How long ranks have from TERM to KILL once another has failed: half of torchrun's time. NCCL waits in C, where no
Python handler of TERM runs."""

END_SECONDS = 10.0
"""How long ranks have from TERM to KILL once the launcher is gone."""

_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)

# In the traceback of a rank whose peer died first.
_PEER_LOST = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "DistBackendError", "DistNetwork")


class Overseer(threading.Thread):
    """Passes requests to stop on to the ranks while the main thread is inside torchrun, which may block in C++."""

    def __init__(self, line: processes.Lifeline, scratch: str, reported: int) -> None:
        super().__init__(daemon=True)
        self.scratch = scratch
        self.reported = reported
        """The exit code of a failure that this agent has reported."""
        self.stopping = False
        self.ending = threading.Event()
        self._line = line
        self._ranks_seen = False

    def run(self) -> None:
        # Ranks are looked for until they are there; from then on this thread sleeps.
        while (numbers := self._line.read(None if self._ranks_seen else 0.5)) is not None:
            ranks = processes.leaders()
            self._ranks_seen = self._ranks_seen or bool(ranks)
            if numbers:
                self.stopping = True
                for pid in ranks:
                    processes.signal_process(pid, signal.SIGTERM)
                if not self._ranks_seen:  # none to ask: still at the rendezvous
                    leave(REQUEUE, self.scratch)
        self.ending.set()
        processes.end(processes.leaders(), END_SECONDS)
        lost = self._line.lost.is_set()
        if self._ranks_seen and not lost:
            time.sleep(1.0)  # the main thread leaves by itself, unless it is waiting for other nodes
        leave(FIRST_LOST if lost else FAILED, self.scratch)


def leave(code: int, scratch: str) -> NoReturn:
    """Ends this process immediately: other nodes wait for its code, and taking torch down first would delay it."""
    shutil.rmtree(scratch, ignore_errors=True)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def await_answer(address: str, port: int, overseer: Overseer) -> None:
    """Ends this agent, with a line, if the first host gives no answer at the rendezvous port for a minute."""
    if presence.stays_silent(address, port) and not overseer.ending.is_set():
        _print(
            f"agent on {socket.gethostname()}: no answer from {address} at TCP port {port} for "
            f"{presence.MEET_SECONDS:.0f} s: a firewall drops it, or that host is lost; have all TCP ports opened "
            "between the hosts of a job, or exclude one of these two"
        )
        leave(overseer.reported, overseer.scratch)


def run_agent(argv: Sequence[str], overseer: Overseer) -> int:
    """Runs torchrun's `argv`, reports a failure, and returns the exit code of the rank that failed first."""
    import torch.distributed as dist
    from torch.distributed import run as torchrun
    from torch.distributed.elastic.multiprocessing import PContext, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    parser = torchrun.get_args_parser()
    parser.add_argument("--rank-log", default="", help="where a rank above 0 writes its output, with {rank} in it")
    parser.set_defaults(shutdown_timeout=GRACE_SECONDS)
    args = parser.parse_args(list(argv))
    if not args.module:
        parser.error("give the ranks' program as -m MODULE")
    args.signals_to_handle = "SIGQUIT"  # the overseer has the others
    open_files_limit()  # the store has a connection to each rank, and each rank without a GPU one to each other
    close = PContext.close

    def close_sooner(context: PContext, death_sig: signal.Signals | None = None, timeout: int = GRACE_SECONDS) -> None:
        close(context, death_sig, timeout)

    PContext.close = close_sooner  # type: ignore[assignment, method-assign]  # --shutdown-timeout is not for ranks that fail
    args.training_script, args.training_script_args = "jobs.rank", [args.training_script, *args.training_script_args]
    os.environ["JOBS_AGENT_PID"] = str(os.getpid())
    host = socket.gethostname()
    args.log_dir = args.log_dir or overseer.scratch
    if args.node_rank:
        first = (args.master_addr, args.master_port, overseer)
        threading.Thread(target=await_answer, args=first, daemon=True).start()
    try:
        torchrun.run(args)  # type: ignore[no-untyped-call]
    except ChildFailedError as error:
        rank, failure = first_failure(error.failures, overseer.stopping)
        report = failure_report(rank, host, failure, args.rank_log)
        asked_for = overseer.stopping and failure.exitcode == -signal.SIGTERM
        if report and not asked_for and not overseer.ending.wait(report.patience):
            _print(report.text)
        return REQUEUE if asked_for else plain_code(failure.exitcode)
    except SignalException:
        return FAILED
    except dist.DistError as error:
        if "EADDRINUSE" in str(error):
            return PORT_TAKEN
        if not overseer.ending.is_set():
            _print(f"agent on {host}: no rendezvous with the other nodes: {str(error).splitlines()[0]}")
        return FAILED
    return 0


def run_alone(argv: Sequence[str], overseer: Overseer) -> int:
    """Runs `-m MODULE ARGUMENTS` as one process without torchrun, and so without torch; returns its exit code."""
    os.environ["JOBS_AGENT_PID"] = str(os.getpid())
    command = [sys.executable, "-m", "jobs.rank", *argv[1:]]
    code = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True).wait()
    if overseer.stopping and code == -signal.SIGTERM:
        return REQUEUE
    if code < 0:
        _print(f"agent on {socket.gethostname()}: {argv[1]} failed: {processes.exit_words(code)}")
    return plain_code(code)


class Failure(Protocol):
    """What is read of torch's ProcessFailure: exit code, Unix time in whole seconds, and what `record` noted."""

    @property
    def exitcode(self) -> int: ...

    @property
    def timestamp(self) -> int: ...

    @property
    def message(self) -> str | dict[str, Any]: ...


@dataclass(frozen=True, kw_only=True)
class Report:
    """What to print about a failure, after `patience` seconds in which another node may have reported the cause."""

    text: str
    patience: float


def plain_code(exitcode: int) -> int:
    """A rank's exit code in the contract's terms: 0, 2 and 99 as they are, 99 for failed storage, 1 for others."""
    return REQUEUE if exitcode == STORAGE else exitcode if exitcode in (0, BAD_INPUT, REQUEUE) else FAILED


def first_failure(failures: Mapping[int, Failure], stopping: bool) -> tuple[int, Failure]:
    """The global rank and the failure most likely to be the cause; `stopping` if the ranks were asked to stop.

    Bad input comes first, then storage that failed. 99 and death by TERM come next if ranks were asked to stop; if not,
    they can be the answer to the TERM that follows another's crash, and come last. That a signal ended a rank is known
    a moment after its peers noticed, which the two seconds make up for: times are whole seconds.
    """

    def order(rank: int) -> tuple[int, int]:
        failure = failures[rank]
        if failure.exitcode in (BAD_INPUT, STORAGE):
            place = -2 if failure.exitcode == BAD_INPUT else -1
        elif failure.exitcode in (REQUEUE, -signal.SIGTERM):
            place = 1 if stopping else 3 if failure.exitcode == REQUEUE else 4
        else:
            place = 2
        return place, failure.timestamp - (2 if failure.exitcode < 0 else 0)

    rank = min(failures, key=order)
    return rank, failures[rank]


def failure_report(rank: int, host: str, failure: Failure, rank_log: str) -> Report | None:
    """What to print about a failed rank: one line, after its traceback if only a file has that; None for nothing.

    `rank_log` is the path of the logs of ranks above 0, with `{rank}` in it; empty if they write to the agent's output.
    """
    log = Path(rank_log.replace("{rank}", str(rank))) if rank and rank_log else None
    how = processes.exit_words(failure.exitcode)
    line = f"agent on {host}: rank {rank} failed: {how}" + (f"; its log: {log}" if log else "")
    if plain_code(failure.exitcode) != FAILED:  # the rank has written one line, which only a file hides
        if failure.exitcode == REQUEUE or not log:
            return None
        # Bad input is mostly bad for all, and rank 0 reports it.
        return Report(text="\n".join(filter(None, (tail(log).rstrip().rpartition("\n")[2], line))), patience=0.7)
    if failure.exitcode < 0:
        return Report(text=line, patience=0.0)
    traceback = recorded_traceback(failure.message) or (last_traceback(log) if log else "")
    follows = not traceback or any(lost in traceback for lost in _PEER_LOST)
    return Report(text="\n".join(filter(None, (traceback if rank else "", line))), patience=2.0 if follows else 0.0)


def recorded_traceback(message: str | dict[str, Any]) -> str:
    """The traceback that torch's `record` left for the agent, or nothing."""
    return str(message.get("extraInfo", {}).get("py_callstack", "")).rstrip() if isinstance(message, dict) else ""


def last_traceback(log: Path) -> str:
    """The traceback at the end of a rank's log, or nothing."""
    text = tail(log)
    start = text.rfind("Traceback (most recent call last)")
    return text[text.rfind("\n", 0, start) + 1 :].rstrip() if start >= 0 else ""


def _print(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _quiet_torch() -> None:
    """Keeps torchrun's log and its store's errors away: the agent reports what matters of them in one line."""
    if "LOGLEVEL" not in os.environ:  # torchrun's own switch
        logging.disable(logging.CRITICAL)
    if "TORCH_CPP_LOG_LEVEL" not in os.environ:
        os.environ["TORCH_CPP_LOG_LEVEL"] = "FATAL"
        import torch.distributed  # noqa: F401  # reads the level as it is loaded

        os.environ["TORCH_CPP_LOG_LEVEL"] = "ERROR"  # for the ranks: no warning for each host that has no reverse DNS


def main(argv: Sequence[str]) -> NoReturn:
    """Runs the agent in this process, and ends it with the agent's exit code."""
    word, _, supervisor = argv[0].partition("=") if argv else ("", "", "")
    lifeline = word == "--lifeline"
    scratch = tempfile.mkdtemp(prefix="jobs-agent-")  # for error files, which torchrun would leave behind
    if os.environ.get(machine.GPU_VARIABLE) and (gpus := machine.visible_gpus(os.environ)):
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
    line = processes.Lifeline(stdin=lifeline, supervisor=supervisor if lifeline else "", signals=_STOP_SIGNALS)
    reported = REPORTED if lifeline else FAILED
    overseer = Overseer(line, scratch, reported)
    overseer.start()
    options = argv[1:] if lifeline else argv
    if options[:1] == ["--alone"]:
        code = run_alone(options[1:], overseer)
    else:
        _quiet_torch()
        code = run_agent(options, overseer)
    leave(FIRST_LOST if line.lost.is_set() else reported if code == FAILED else code, scratch)


if __name__ == "__main__":
    main(sys.argv[1:])
