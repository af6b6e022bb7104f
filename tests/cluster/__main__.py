"""A shell on the head of a test cluster, to try things by hand: `python -m tests.cluster slurm`, or sge; needs root."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from tests.cluster.cluster import NODES, Cluster
from tests.cluster.hosts import USER
from tests.cluster.sge import GridEngine
from tests.cluster.slurm import Slurm

KINDS: dict[str, type[Cluster]] = {"slurm": Slurm, "sge": GridEngine}

if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in KINDS:
        sys.exit(f"usage: python -m tests.cluster {{{','.join(KINDS)}}}")
    with KINDS[sys.argv[1]](Path(tempfile.mkdtemp(prefix="cluster-shell-"))) as cluster:
        print(f"you are {USER} in a new project on the head, nodes: {', '.join(NODES)}; all of it ends with the shell")
        subprocess.run(cluster.command("bash", "-l", cwd=cluster.project()), check=False)
