"""Programs of sh that answer as a scheduler's do, for tests that put them where commands are found."""

from __future__ import annotations

from pathlib import Path

_QACCT = """\
==============================================================
qname        all.q
hostname     node1
owner        rig
jobname      early
jobnumber    12
taskid       {task}
start_time   Sun Nov 22 22:54:50 2026
end_time     Sun Nov 22 22:54:56 2026
failed       0
exit_status  {code}
"""


def put(folder: Path, name: str, script: str = "") -> None:
    """Puts a program into a directory; it replaces one of that name."""
    program = folder / name
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


def cat(text: str) -> str:
    """The lines of a script that print a text, whatever it holds and whatever is on PATH."""
    lines = "".join(f"{line}\n" for line in text.splitlines())
    return f"/bin/cat <<'END'\n{lines}END\n"


def qacct(*codes: int) -> str:
    """What `qacct -j 12` prints of an array whose tasks have ended with these exit codes, from task 1 on."""
    return "".join(_QACCT.format(task=task, code=code) for task, code in enumerate(codes, start=1))
