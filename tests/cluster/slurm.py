"""A real Slurm on test hosts: slurmctld on the head, a slurmd on each node, no accounting database."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import ClassVar

from tests.cluster.cluster import CPUS, GPUS, HEAD, NODES, Cluster, End
from tests.cluster.hosts import USER

_CONF = """
ClusterName=test
SlurmctldHost={head}({head_address})
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
# A requeued job waits for cred_expire, 120 s elsewhere.
AuthInfo=socket={directory}/munge.socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={directory}/state
SlurmdSpoolDir={directory}/spool.%n
SlurmctldPidFile={directory}/slurmctld.pid
SlurmdPidFile={directory}/slurmd.%n.pid
SlurmctldLogFile={directory}/slurmctld.log
SlurmdLogFile={directory}/slurmd.%n.log
PlugStackConfig={directory}/plugstack.conf
MailProg=/bin/true
MpiDefault=none
SwitchType=switch/none
# Neither cgroups nor binding: works in any container.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
# The nodes claim more than the machine has.
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=batch_sched_delay=0,sched_interval=5,sched_min_interval=0,bf_interval=1,bf_resolution=1
GresTypes=gpu
JobRequeue=1
ReturnToService=2
MinJobAge=86400
KillWait=5
EpilogMsgTime=0
SlurmdTimeout=20
MessageTimeout=15
{nodes}
PartitionName=debug Nodes=ALL Default=YES DefaultTime=10 MaxTime=INFINITE State=UP
"""
_RUNNING = {"PENDING", "RUNNING", "COMPLETING", "CONFIGURING", "REQUEUED", "SUSPENDED", "SIGNALING", "STAGE_OUT"}


class Slurm(Cluster):
    """Two nodes in partition `debug`, requeues within seconds, and no `sacct`, as where no accounts are kept."""

    name = "slurm"
    daemons: ClassVar[frozenset[str]] = frozenset({"munged", "slurmctld", "slurmscriptd", "slurmd"})
    site = 'scheduler = "slurm"\n'
    programs = ("munged", "slurmctld", "slurmd", "sbatch")

    def configure(self) -> None:
        gpus = []
        for number in range(GPUS):  # each must be a device of its own: copies of /dev/null
            device = self.directory / f"gpu{number}"
            os.mknod(device, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
            gpus.append(str(device))
        nodes = [
            f"NodeName={name} NodeAddr={self.hosts.address(name)} CPUs={CPUS} RealMemory=16000 Gres=gpu:{GPUS}"
            for name in NODES
        ]
        conf = _CONF.format(
            directory=self.directory, head=HEAD, head_address=self.hosts.address(HEAD), nodes="\n".join(nodes)
        )
        files = {
            "slurm.conf": conf,
            "gres.conf": f"NodeName={','.join(NODES)} Name=gpu File={','.join(gpus)}\n",
            # slurmd 22.05 ends where it cannot tell the kind of /sys/fs/cgroup by itself.
            "cgroup.conf": "CgroupPlugin=cgroup/v1\nCgroupAutomount=no\n",
            "plugstack.conf": "",
        }
        for name, text in files.items():
            (self.directory / name).write_text(text)
        (self.directory / "munge.key").touch(0o600)
        (self.directory / "munge.key").write_bytes(os.urandom(1024))
        self.environ = {"SLURM_CONF": str(self.directory / "slurm.conf")}

    def start_daemons(self, host: str) -> None:
        if host != HEAD:
            (self.directory / f"spool.{host}").mkdir(exist_ok=True)
            self.run("slurmd", "-N", host, user="root", host=host)
            return
        files = [f"--{kind}-file={self.directory}/munge.{kind}" for kind in ("key", "pid", "log", "seed")]
        self.run("munged", "--force", *files, f"--socket={self.directory}/munge.socket", user="root")
        self.run("slurmctld", "-i", user="root")

    def is_ready(self) -> bool:
        idle = self.run("sinfo", "-h", "-N", "-t", "idle", "-o", "%N", user="root", check=False).stdout
        return set(idle.split()) == set(NODES)

    def submit(self, *arguments: object, user: str = USER, cwd: Path) -> str:
        said = self.run("sbatch", "--parsable", *arguments, user=user, cwd=cwd).stdout
        return said.strip().partition(";")[0]

    def cancel(self, job: str, user: str = USER) -> None:
        self.run("scancel", job, user=user)

    def records(self, job: str) -> list[dict[str, str]]:
        """What slurmctld says of the job, or of each task of an array that has begun."""
        said = self.run("scontrol", "-o", "show", "job", job, user="root").stdout
        return [dict(re.findall(r"(\w[\w/:]*)=(\S*)", line)) for line in said.splitlines()]

    def state(self, job: str) -> str:
        return ", ".join(f"{record['JobState']} ({record['Reason']})" for record in self.records(job))

    def end(self, job: str) -> End | None:
        records = self.records(job)
        if any(record["JobState"] in _RUNNING for record in records):
            return None
        codes = [[int(number) for number in record["ExitCode"].split(":")] for record in records]
        states = sorted({record["JobState"] for record in records} - {"COMPLETED"})
        return End(",".join(states) or "COMPLETED", max(128 + killed if killed else code for code, killed in codes))
