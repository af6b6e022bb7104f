"""One node's agent: torch.distributed.run with plain exit codes, one-line failures, and a line to its launcher.

`python -m jobs.agent [--lifeline[=NODE@HOST:PORT]] [TORCHRUN OPTIONS] -m MODULE [ARGUMENTS]` is torchrun, but for this:

* It exits with the code of the rank that failed first: 0, 2 and 99 as they are, 1 for anything else, `PORT_TAKEN` if
  another program listens at the rendezvous, and with `--lifeline` `SAID` instead of 1 where it has said what failed, so
  that a launcher can tell this from an agent that could not start at all.
* A failure is one line, after the traceback of a rank above 0, from torch's `record` or its log; rank 0 writes its own.
  Codes 2 and 99 need no word: the rank has said it.
* TERM, INT, HUP, USR1 and USR2 all reach the ranks as TERM, and the ranks' own exit codes still count afterwards. To
  die of it, as a rank does that is importing torch, counts as 99, and so does a stop before there are ranks.
* With `--lifeline` standard input is the line to the launcher: a byte asks the ranks to stop as TERM does, and its end
  means that the launcher is gone or done, and ends the ranks in bounded time.
* Where Univa's Grid Engine tells which GPUs were granted (`jobs.machine.visible_gpus`), CUDA_VISIBLE_DEVICES says so.
* With `--alone` instead of torchrun's options one process runs the module, without torch.
"""

from __future__ import annotations

import logging
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from typing import NoReturn

from jobs import heartbeat, machine, processes
from jobs.failures import PORT_TAKEN, SAID, failure_report, first_failure, plain_code, signal_name
from shard_tools.base.errors import FAILED, REQUEUE

END_SECONDS = 10.0
"""How long ranks have from TERM to KILL once the launcher is gone."""

_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


class Overseer(threading.Thread):
    """Passes requests to stop on to the ranks while the main thread is inside torchrun, which may block in C++."""

    def __init__(self, lifeline: int | None, scratch: str) -> None:
        super().__init__(daemon=True)
        self.scratch = scratch
        self.stopping = False
        self.ending = threading.Event()
        self._lifeline = lifeline
        self._ranks_seen = False
        self._signals, write_end = os.pipe()
        os.set_blocking(write_end, False)
        signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
        for number in _STOP_SIGNALS:
            signal.signal(number, lambda *_: None)

    def run(self) -> None:
        watched = [self._signals] if self._lifeline is None else [self._signals, self._lifeline]
        while True:
            # Ranks are looked for until they are there; from then on this thread sleeps.
            ready, _, _ = select.select(watched, [], [], None if self._ranks_seen else 0.5)
            self._ranks_seen = self._ranks_seen or bool(self._ranks())
            if any(os.read(source, 64) == b"" for source in ready):
                self.end()
            elif ready:
                self.stopping = True
                self._ask()
                if not self._ranks_seen:  # nobody to ask: still at the rendezvous
                    leave(REQUEUE, self.scratch)

    def _ranks(self) -> list[int]:
        return [pid for pid in processes.children() if processes.leads_session(pid)]

    def _ask(self) -> None:
        for pid in self._ranks():
            processes.signal_process(pid, signal.SIGTERM)  # not its group: a rank that saves its work needs its loaders

    def end(self) -> NoReturn:
        """Ends the ranks in bounded time, and this process."""
        self.ending.set()
        self._ask()
        deadline = time.monotonic() + END_SECONDS
        while self._ranks() and time.monotonic() < deadline:
            time.sleep(0.05)
        for pid in self._ranks():
            processes.signal_group(pid, signal.SIGKILL)
        if self._ranks_seen:
            time.sleep(1.0)  # the main thread leaves by itself, unless it is waiting for other nodes
        leave(FAILED, self.scratch)


def leave(code: int, scratch: str) -> NoReturn:
    """Ends this process at once: other nodes wait for its code, and taking torch down first would hold it back."""
    shutil.rmtree(scratch, ignore_errors=True)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def run_agent(argv: Sequence[str], overseer: Overseer) -> int:
    """Runs torchrun's `argv` and returns the exit code of the rank that failed first, having said what failed."""
    import torch.distributed as dist
    from torch.distributed import run as torchrun
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    parser = torchrun.get_args_parser()
    parser.add_argument("--rank-log", default="", help="where a rank above 0 writes its output, with {rank} in it")
    args = parser.parse_args(list(argv))
    if not args.module:
        parser.error("give the ranks' program as -m MODULE")
    args.signals_to_handle = "SIGQUIT"  # the overseer has the others
    args.training_script, args.training_script_args = "jobs.rank", [args.training_script, *args.training_script_args]
    os.environ["JOBS_AGENT_PID"] = str(os.getpid())
    host = socket.gethostname()
    args.log_dir = args.log_dir or overseer.scratch
    try:
        torchrun.run(args)  # type: ignore[no-untyped-call]
    except ChildFailedError as error:
        rank, failure = first_failure(error.failures, overseer.stopping)
        report = failure_report(rank, host, failure, args.rank_log)
        asked_for = overseer.stopping and failure.exitcode == -signal.SIGTERM
        if report and not asked_for and not overseer.ending.wait(report.patience):
            _say(report.text)
        return REQUEUE if asked_for else plain_code(failure.exitcode)
    except SignalException:
        return FAILED
    except dist.DistError as error:
        if "EADDRINUSE" in str(error):
            return PORT_TAKEN
        if not overseer.ending.is_set():
            _say(f"agent on {host}: no rendezvous with the other nodes: {str(error).splitlines()[0]}")
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
        _say(f"agent on {socket.gethostname()}: {argv[1]} ended with {signal_name(-code)}")
    return plain_code(code)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _take_stdin() -> int:
    """Moves standard input to another descriptor, so that no rank inherits or reads it."""
    lifeline = os.dup(0)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    return lifeline


def _quiet_torch() -> None:
    """Keeps torchrun's log and its store's errors away: what matters of them is said in one line here."""
    if "LOGLEVEL" not in os.environ:  # torchrun's own switch
        logging.disable(logging.CRITICAL)
    if "TORCH_CPP_LOG_LEVEL" not in os.environ:
        os.environ["TORCH_CPP_LOG_LEVEL"] = "FATAL"
        import torch.distributed  # noqa: F401  # reads the level as it is loaded

        os.environ["TORCH_CPP_LOG_LEVEL"] = "ERROR"  # for the ranks: no warning for each host that has no reverse DNS


def main(argv: Sequence[str]) -> NoReturn:
    """Runs the agent in this process, and ends it with the agent's exit code."""
    word, _, launcher = argv[0].partition("=") if argv else ("", "", "")
    lifeline = word == "--lifeline"
    scratch = tempfile.mkdtemp(prefix="jobs-agent-")  # for error files, which torchrun would leave behind
    if os.environ.get(machine.GPU_COMPLEX) and (gpus := machine.visible_gpus(os.environ)):
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
    overseer = Overseer(_take_stdin() if lifeline else None, scratch)
    overseer.start()
    if lifeline and launcher:
        node, _, address = launcher.partition("@")
        heartbeat.watch_launcher(address, int(node), overseer.end)
    options = argv[1:] if lifeline else argv
    if options[:1] == ["--alone"]:
        code = run_alone(options[1:], overseer)
    else:
        _quiet_torch()
        code = run_agent(options, overseer)
    leave(SAID if lifeline and code == FAILED else code, scratch)


if __name__ == "__main__":
    main(sys.argv[1:])
