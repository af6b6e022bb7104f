"""A real Grid Engine on test hosts: the master on the head, an execution daemon on each node, its own SGE_ROOT."""

from __future__ import annotations

import re
from pathlib import Path
from typing import ClassVar

from jobs.sge.qstat import DONE_ELSEWHERE, REQUEUE_ELSEWHERE
from tests.cluster.cluster import CPUS, GPUS, HEAD, NODES, Cluster, End
from tests.cluster.hosts import USER

_PROGRAMS = Path("/usr/lib/gridengine")
_SHARED = Path("/usr/share/gridengine")

_BOOTSTRAP = """admin_user none
default_domain none
ignore_fqdn true
spooling_method classic
spooling_lib libspoolc
spooling_params {cell};{spool}/qmaster
binary_path /usr/sbin
qmaster_spool_dir {spool}/qmaster
security_mode none
listener_threads 2
worker_threads 2
scheduler_threads 1
"""
_GLOBAL = {
    "mailer": "/bin/true",
    "administrator_mail": "none",
    "shell_start_mode": "unix_behavior",
    "min_uid": "0",  # root's jobs
    "min_gid": "0",
    "load_report_time": "00:00:05",
    "max_unheard": "00:00:30",  # a lost node is noticed within a minute, and its jobs start elsewhere
    "reschedule_unknown": "00:00:30",
    "execd_params": "ENABLE_ADDGRP_KILL=TRUE",
    "finished_jobs": "1000",
}
_SCHEDULER = {
    "schedule_interval": "0:0:1",
    "flush_submit_sec": "1",
    "flush_finish_sec": "1",
    "schedd_job_info": "true",
    "job_load_adjustments": "NONE",
    "load_adjustment_decay_time": "0:0:0",
    "load_formula": "slots",
    "queue_sort_method": "seqno",
}
_HOST = {
    "load_scaling": "NONE",
    "complex_values": f"slots={CPUS},gpu={GPUS},gpu_card={GPUS}",
    "user_lists": "NONE",
    "xuser_lists": "NONE",
    "projects": "NONE",
    "xprojects": "NONE",
    "usage_scaling": "NONE",
    "report_variables": "NONE",
}
_PE = {
    "slots": "999",
    "user_lists": "NONE",
    "xuser_lists": "NONE",
    "start_proc_args": "/bin/true",
    "stop_proc_args": "/bin/true",
    "control_slaves": "TRUE",
    "job_is_first_task": "FALSE",
    "urgency_slots": "min",
    "accounting_summary": "FALSE",
    "qsort_args": "NONE",
}
_PES = {"smp": "$pe_slots", "mpi": "$round_robin", "mpi1": "1", "mpi2": "2", "mpi4": "4"}
_QUEUE = {
    "hostlist": "@allhosts",
    "load_thresholds": "NONE",
    "qtype": "BATCH INTERACTIVE",
    "ckpt_list": "NONE",
    "pe_list": " ".join(_PES),
    "slots": str(CPUS),
    "shell": "/bin/bash",
    "shell_start_mode": "unix_behavior",
    "notify": "00:00:30",
}


class GridEngine(Cluster):
    """Three nodes in the queues `all.q` and `gpu`, with the parallel environments smp, mpi, mpi1, mpi2 and mpi4."""

    name = "sge"
    daemons: ClassVar[frozenset[str]] = frozenset({"sge_qmaster", "sge_execd"})
    site = 'scheduler = "sge"\npe = "mpi{slots_per_node}"\npe_one_node = "smp"\ngpu = "gpu"\ngpu_per = "slot"\n'
    programs = ("sge_qmaster", "sge_execd", "qsub")
    accounting_seconds = 0
    """How late ended jobs are accounted for."""

    def configure(self) -> None:
        root, spool = self.directory / "root", self.directory / "spool"
        cell = root / "default" / "common"
        for folder in (self.directory / "config", cell, spool / "qmaster", spool / "execd"):
            folder.mkdir(parents=True)
        arch = self.run(_SHARED / "util" / "arch", user="root").stdout.strip()
        for name in ("bin", "lib", "utilbin"):
            (root / name).mkdir()
            (root / name / arch).symlink_to(_PROGRAMS)
        (root / "util").symlink_to(_SHARED / "util")
        (cell / "bootstrap").write_text(_BOOTSTRAP.format(cell=cell, spool=spool))
        (cell / "act_qmaster").write_text(f"{HEAD}\n")
        (cell / "cluster_name").write_text("test\n")
        self.environ = {"SGE_ROOT": str(root), "SGE_CELL": "default", "SGE_ARCH": arch, "SGE_CLUSTER_NAME": "test"}
        self.environ |= {"SGE_QMASTER_PORT": "6444", "SGE_EXECD_PORT": "6445"}
        # The programs themselves: Debian's scripts around them compile something at each call to learn ARCH.
        self.environ["PATH"] = self.path(_PROGRAMS)
        text = (_SHARED / "default-configuration").read_text()
        reporting = (
            "accounting=true reporting=false joblog=false sharelog=00:00:00 flush_time=00:00:01 "
            f"accounting_flush_time=00:00:{self.accounting_seconds:02d}"
        )
        settings = {**_GLOBAL, "execd_spool_dir": str(spool / "execd"), "reporting_params": reporting}
        own = self._file("global", _changed(text, settings))
        resources = _SHARED / "util" / "resources"
        self._program("spoolinit", "classic", "libspoolc", f"{cell};{spool}/qmaster", "init")
        self._program("spooldefaults", "configuration", own)
        self._program("spooldefaults", "complexes", resources / "centry")
        self._program("spooldefaults", "usersets", resources / "usersets")
        self._program("spooldefaults", "managers", "root")

    def start_daemons(self, host: str) -> None:
        spool = self.directory / "spool"
        if host != HEAD:
            (spool / "execd" / host / "execd.pid").unlink(missing_ok=True)
            self.run("sge_execd", user="root", host=host)
            return
        self.run("sge_qmaster", user="root")
        self.wait_until(
            lambda: self.run("qping", "-info", HEAD, 6444, "qmaster", 1, user="root", check=False).returncode == 0,
            30,
            "the master answers",
            (spool / "qmaster" / "messages").read_text,
        )
        self._add_resources()

    def _add_resources(self) -> None:
        """Tells a new master of the hosts, their GPUs, how often to schedule, the PEs and the queues."""
        for host in self.hosts.names:
            self._program("qconf", "-ah", host)
            self._program("qconf", "-as", host)
        complexes = [line for line in self._program("qconf", "-sc").splitlines() if not line.startswith("#")]
        complexes += [f"{name} {name} INT <= YES YES 0 0" for name in ("gpu", "gpu_card")]
        self._program("qconf", "-Mc", self._file("complexes", "\n".join(complexes) + "\n"))
        scheduler = _changed(self._program("qconf", "-ssconf"), _SCHEDULER)
        self._program("qconf", "-Msconf", self._file("scheduler", scheduler))
        for host in self.nodes:
            self._program("qconf", "-Ae", self._file(host, _changed("", {"hostname": host, **_HOST})))
        hosts = {"group_name": "@allhosts", "hostlist": " ".join(self.nodes)}
        self._program("qconf", "-Ahgrp", self._file("hosts", _changed("", hosts)))
        for name, rule in _PES.items():
            pe = _changed("", {"pe_name": name, "allocation_rule": rule, **_PE})
            self._program("qconf", "-Ap", self._file(f"pe-{name}", pe))
        template = self._program("qconf", "-sq")
        for number, name in enumerate(("all.q", "gpu")):
            queue = {"qname": name, "seq_no": str(number), "tmpdir": "/tmp", **_QUEUE}
            self._program("qconf", "-Aq", self._file(f"queue-{name}", _changed(template, queue)))

    def _program(self, name: str, *arguments: object) -> str:
        return self.run(_PROGRAMS / name, *arguments, user="root").stdout

    def _file(self, name: str, text: str) -> Path:
        path = self.directory / "config" / name
        path.write_text(text)
        return path

    def is_ready(self) -> bool:
        """Whether all queue instances of all.q have reported and have no state of concern."""
        lines = self.run("qstat", "-f", "-q", "all.q", user="root", check=False).stdout.splitlines()
        fields = [line.split() for line in lines if line.startswith("all.q@")]
        return sum(len(line) == 5 and line[3] != "-NA-" for line in fields) == len(self.nodes)

    def submit(self, *arguments: object, user: str = USER, cwd: Path) -> str:
        said = self.run("qsub", "-terse", *arguments, user=user, cwd=cwd).stdout
        return said.split()[-1].partition(".")[0]

    def cancel(self, job: str, user: str = USER) -> None:
        self.run("qdel", job, user=user)

    def state(self, job: str) -> str:
        lines = self.run("qstat", "-u", "*", user="root").stdout.splitlines()
        states = {fields[4] for fields in map(str.split, lines) if len(fields) > 4 and fields[0] == job}
        return ", ".join(sorted(states))

    def end(self, job: str) -> End | None:
        if state := self.state(job):
            assert "E" not in state, self.run("qstat", "-j", job, user="root").stdout
            return None
        said = self.run("qacct", "-j", job, user="root", check=False).stdout  # it may lag a moment
        found = re.findall(r"^(?:taskid|granted_pe|failed|exit_status) +(\S+)", said, re.MULTILINE)
        last: dict[str, tuple[int, int]] = {}  # of each task the last run's failed and exit_status
        for task, pe, failed, status in zip(*(found[field::4] for field in range(4)), strict=True):
            elsewhere = pe != "NONE" and int(status) in (DONE_ELSEWHERE, REQUEUE_ELSEWHERE)
            if not elsewhere:  # a part of the job on another host, which may come first
                last[task] = int(failed), int(status)
        if not last:
            return None
        failed = max(failed for failed, _ in last.values())
        return End(
            f"failed {failed}" if failed else "done", max(status or int(failed > 0) for failed, status in last.values())
        )


class LateGridEngine(GridEngine):
    """Its ended jobs are accounted for every 15 s, as where nobody has changed that, and it has a fourth node."""

    accounting_seconds = 15
    nodes = (*NODES, "node4")


def _changed(text: str, values: dict[str, str]) -> str:
    """Lines `name value`, with other values for the names in `values`; names that are not there are added."""
    kept = [
        line for line in text.replace("\\\n", " ").splitlines() if line.split()[:1] and line.split()[0] not in values
    ]
    return "\n".join([*kept, *(f"{name} {value}" for name, value in values.items())]) + "\n"
