"""A command on another host of a Grid Engine job, through qrsh: its command line, and its exit code on the way back."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence

from ..hosts.supervisor import FIRST_LOST, KILLED, Exit
from .qstat import DONE_ELSEWHERE, REQUEUE, REQUEUE_ELSEWHERE

_EXITS = {0: KILLED, DONE_ELSEWHERE: 0, REQUEUE_ELSEWHERE: REQUEUE}
_ENCODE = (
    f"[ $code -lt 128 ] || code={KILLED}; "
    f"case $code in 0) code={DONE_ELSEWHERE};; {REQUEUE}) code={REQUEUE_ELSEWHERE};; esac; exit $code"
)
"""Grid Engine deletes a job whose task dies of a signal, and takes 99 for itself. qrsh's own 0 may mean a lost host."""


def on_host(host: str, argv: Sequence[str], directory: str, leaving: Sequence[str] = ()) -> tuple[str, ...]:
    """The command that runs `argv` in `directory` on another host of this job.

    `leaving` are the hosts that the job leaves for others when it loses the first: one of them sees to that.
    """
    # The shell, and a Python that is starting, must outlive signals: USR1 and USR2 are qsub's -notify, HUP means
    # that the first host is lost.
    leave = shlex.join((sys.executable, "-m", f"{__package__}.requeue", *leaving))
    lost = f"[ $code != {FIRST_LOST} ] || {leave}; " if leaving else ""
    script = f"trap '' HUP USR1 USR2; cd {shlex.quote(directory)} && {shlex.join(argv)}; code=$?; {lost}{_ENCODE}"
    # qrsh joins its arguments, and the user's login shell, whichever it is, reads them on the host. Without -nostdin:
    # standard input is the lifeline.
    return ("qrsh", "-inherit", "-V", host, f"exec /bin/sh -c {shlex.quote(script)}")


def of_this_host(environ: Mapping[str, str]) -> dict[str, None]:
    """What names GPUs of the first host alone, by name: qrsh's -V must not carry it to others, which have their own."""
    return {name: None for name in environ if name == "CUDA_VISIBLE_DEVICES" or name.startswith("SGE_HGR_")}


def read_exit(code: int) -> Exit:
    """What qrsh's exit code means, after the shell on the host has encoded that of the command."""
    return Exit(_EXITS.get(code, code), unreachable=code == 0, deletes_job=code > 128)
