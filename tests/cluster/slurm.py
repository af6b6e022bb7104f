"""A real Slurm on test hosts: slurmctld, slurmdbd and its MariaDB on the head, a slurmd on each node."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import ClassVar

from tests.cluster.cluster import CPUS, GPUS, HEAD, Cluster, End
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
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost={head}
AccountingStoragePass={directory}/munge.socket
AccountingStorageTRES=gres/gpu
AccountingStorageEnforce=associations,limits,qos
# The nodes claim more than the machine has.
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=batch_sched_delay=0,sched_interval=5,sched_min_interval=0,bf_interval=1,bf_resolution=1
GresTypes=gpu
JobRequeue=1
ReturnToService=2
# Of an older job only sacct knows.
MinJobAge={min_job_age}
KillWait=30
EpilogMsgTime=0
SlurmdTimeout=20
MessageTimeout=15
{nodes}
PartitionName=debug Nodes=ALL Default=YES DefaultTime=10 MaxTime=INFINITE State=UP
"""
_DATABASE_CONF = """
AuthType=auth/munge
AuthInfo=socket={directory}/munge.socket
DbdHost={head}
SlurmUser=root
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StorageUser=root
LogFile={directory}/slurmdbd.log
PidFile={directory}/slurmdbd.pid
"""
_TABLES = Path("/usr/share/mysql/mysql_system_tables.sql")
"""Of MariaDB's own; without them slurmdbd knows no account."""
_RUNNING = {"PENDING", "RUNNING", "COMPLETING", "CONFIGURING", "REQUEUED", "SUSPENDED", "SIGNALING", "STAGE_OUT"}


class Slurm(Cluster):
    """Three nodes in partition `debug`, requeues within seconds, and accounts whose limits are enforced."""

    name = "slurm"
    min_job_age = 40
    """Seconds after which slurmctld forgets a job that has ended; 0: never."""
    daemons: ClassVar[frozenset[str]] = frozenset(
        {"munged", "mariadbd", "slurmdbd", "slurmctld", "slurmscriptd", "slurmd"}
    )
    site = 'scheduler = "slurm"\n'
    programs = ("munged", "mariadbd", "slurmdbd", "slurmctld", "slurmd", "sbatch")

    def configure(self) -> None:
        gpus = []
        for number in range(GPUS):  # each must be a device of its own: copies of /dev/null
            device = self.directory / f"gpu{number}"
            os.mknod(device, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
            gpus.append(str(device))
        nodes = [
            f"NodeName={name} NodeAddr={self.hosts.address(name)} CPUs={CPUS} RealMemory=16000 Gres=gpu:{GPUS}"
            for name in self.nodes
        ]
        conf = _CONF.format(
            directory=self.directory,
            head=HEAD,
            head_address=self.hosts.address(HEAD),
            nodes="\n".join(nodes),
            min_job_age=self.min_job_age,
        )
        files = {
            "slurm.conf": conf,
            "gres.conf": f"NodeName={','.join(self.nodes)} Name=gpu File={','.join(gpus)}\n",
            # slurmd 22.05 ends where it cannot tell the kind of /sys/fs/cgroup by itself.
            "cgroup.conf": "CgroupPlugin=cgroup/v1\nCgroupAutomount=no\n",
            "plugstack.conf": "",
        }
        for name, text in files.items():
            (self.directory / name).write_text(text)
        (self.directory / "slurmdbd.conf").touch(0o600)  # slurmdbd and munged refuse what others can read
        (self.directory / "slurmdbd.conf").write_text(_DATABASE_CONF.format(directory=self.directory, head=HEAD))
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
        self._start_accounting()
        self.run("slurmctld", "-i", user="root")

    def _start_accounting(self) -> None:
        """Starts the database and what asks it, and opens the accounts of both users."""
        data = self.directory / "database"
        database = f"mariadbd --no-defaults --user=root --datadir={data} --innodb-buffer-pool-size=16M"
        if not data.exists():
            data.mkdir()
            tables = self.directory / "tables.sql"
            tables.write_text(f"create database mysql;\nuse mysql;\n{_TABLES.read_text()}")
            self.run("bash", "-c", f"{database} --bootstrap < {tables}", user="root")
        (data / "socket").unlink(missing_ok=True)
        listens = f"--skip-grant-tables --bind-address=127.0.0.1 --socket={data}/socket"
        self.run("bash", "-c", f"setsid --fork {database} {listens} < /dev/null > {data}/log 2>&1", user="root")
        self.wait_until((data / "socket").exists, 30, "the database listens", (data / "log").read_text)
        self.run("slurmdbd", user="root")

        def manage(*words: str) -> bool:
            return self.run("sacctmgr", "--immediate", *words, user="root", check=False).returncode == 0

        self.wait_until(lambda: manage("show", "cluster"), 30, "slurmdbd answers")
        for words in ("cluster test", "account lab cluster=test", f"user root,{USER} account=lab"):
            manage("add", *words.split())  # which fails if it is there already

    def is_ready(self) -> bool:
        idle = self.run("sinfo", "-h", "-N", "-t", "idle", "-o", "%N", user="root", check=False).stdout
        return set(idle.split()) == set(self.nodes)

    def submit(self, *arguments: object, user: str = USER, cwd: Path) -> str:
        said = self.run("sbatch", "--parsable", *arguments, user=user, cwd=cwd).stdout
        return said.strip().partition(";")[0]

    def cancel(self, job: str, user: str = USER) -> None:
        self.run("scancel", job, user=user)

    def records(self, job: str) -> list[tuple[str, int, str]]:
        """State, exit code, 128 + the signal if one killed it, and reason of the job, or of each task of an array.

        What slurmctld has forgotten is in accounting.
        """
        shown = self.run("scontrol", "-o", "show", "job", job, user="root", check=False)
        if shown.returncode == 0:
            found = [dict(re.findall(r"(\w[\w/:]*)=(\S*)", line)) for line in shown.stdout.splitlines()]
            rows = [(record["JobState"], record["ExitCode"], record["Reason"]) for record in found]
        else:
            columns = ("-X", "-n", "-P", "-o", "State,ExitCode,Reason")
            said = self.run("sacct", *columns, "-j", job, user="root").stdout
            rows = [(row[0].split()[0], row[1], row[2]) for row in (line.split("|") for line in said.splitlines())]
        return [(state, _code(code), reason) for state, code, reason in rows]

    def state(self, job: str) -> str:
        return ", ".join(f"{state} ({reason})" for state, _, reason in self.records(job))

    def end(self, job: str) -> End | None:
        records = self.records(job)
        if not records or any(state in _RUNNING for state, _, _ in records):
            return None  # without records: slurmctld has forgotten it, and accounting lags behind
        states = sorted({state for state, _, _ in records} - {"COMPLETED"})
        return End(",".join(states) or "COMPLETED", max(code for _, code, _ in records))


class ForgetfulSlurm(Slurm):
    """Of its ended jobs slurmctld knows nothing after seconds, as where many end: accounting alone does."""

    min_job_age = 2


def _code(text: str) -> int:
    code, killed = (int(number) for number in text.split(":"))
    return 128 + killed if killed else code
