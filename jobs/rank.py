"""One rank: runs a module as `python -m` does, and dies with its agent.

`python -m jobs.rank MODULE ARGUMENTS`. A rank leads its own session. Without this, an agent that is killed, by a
scheduler that deletes the job or by the kernel when memory is short, would leave ranks that hold GPUs and wait.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys

from jobs.hosts import processes

if __name__ == "__main__":
    processes.die_with_parent()
    if os.getppid() != int(os.environ["JOBS_AGENT_PID"]):  # it was killed before the line above
        os.kill(os.getpid(), signal.SIGKILL)
    for number in (signal.SIGUSR1, signal.SIGUSR2):  # Slurm sends them to all processes; the agent makes them a TERM
        signal.signal(number, signal.SIG_IGN)
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
