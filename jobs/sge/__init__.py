"""Grid Engine for submitit: `submitit.AutoExecutor(folder, cluster="sge")` runs any Python function there.

The plugin is this package without `scheduler` and `request`, with `jobs.hosts` and `jobs.command`; it imports nothing
else but submitit and the standard library. `script.Parameters` lists the executor's parameters: submitit's generic
ones, and the others as `sge_<name>`.

For programs that start processes on other hosts themselves, `sge_use_qrsh=False` starts one task, on the first host
only (the counterpart of `slurm_use_srun=False`), `sge_signal_delay_s=0` turns off the watchdog, and `requeue.put_back`
requeues a job of several hosts, which exit code 99 alone does badly. It, `qstat` and `hostfile` do not import submitit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .environment import SgeJobEnvironment
    from .executor import SgeExecutor
    from .job import SgeJob

__all__ = ["SgeExecutor", "SgeJob", "SgeJobEnvironment"]


def __getattr__(name: str) -> object:
    # submitit takes a quarter of a second to import, which those who only ask for jobs and hosts need not wait for.
    if name == "SgeExecutor":
        from .executor import SgeExecutor

        return SgeExecutor
    if name == "SgeJob":
        from .job import SgeJob

        return SgeJob
    if name == "SgeJobEnvironment":
        from .environment import SgeJobEnvironment

        return SgeJobEnvironment
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
