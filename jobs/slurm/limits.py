"""Whether a job could ever start: the limits of its partition, its quality of service and its association.

`sbatch --test-only` does not tell. It refuses what has to wait for nodes that are drained at present, and takes what
is above the limits of a partition, or of a quality of service without DenyOnLimit, and then waits forever.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from jobs.command import answer, call
from jobs.records import user_name
from jobs.scheduler import Request
from jobs.slurm import tres, usage
from jobs.slurm.answers import seconds
from shard_tools.base.text import plural

NOT_NOW = "Requested node configuration is not available"
"""What --test-only says of nodes that are too few or too small, and of such that are drained or down at present."""

_NODES = "%N|%c|%m|%T|%f|%G"
_QOS = ("name", "flags", "maxwall", "maxtresperjob", "maxtrespernode", "maxtrespu", "grptres")
_ASSOCIATION = (
    "cluster",
    "account",
    "partition",
    "defaultqos",
    "maxwall",
    "maxtresperjob",
    "maxtrespernode",
    "grptres",
)
_ACCOUNT = ("cluster", "account", "parentname", "grptres")
_AMOUNTS = {
    "maxtresperjob": "a job at most {}",
    "maxtrespernode": "a job at most {} on a node",
    "maxtrespu": "all jobs of a user at most {}",
    "grptres": "all of its jobs together at most {}",
}
_UNUSABLE = ("down", "drain", "fail", "maint", "reserved", "unknown", "no_respond")


@dataclass(frozen=True)
class Wanted:
    """What a request asks of Slurm at least, by Slurm's names of it: of a node, and of the whole job."""

    nodes: int
    per_node: Mapping[str, float]
    per_job: Mapping[str, float]
    time: float
    """Seconds; 0 is the partition's default."""
    features: str = ""
    """What --constraint names; only a single one is understood here."""

    @classmethod
    def of(cls, request: Request) -> Wanted:
        asked = request.resources
        gpus = {f"gres/gpu:{request.site.gpu}": asked.gpus_per_node} if request.site.gpu else {}
        per_node = {"cpu": max(1, asked.cpus), "mem": math.ceil(1024 * asked.mem), "gres/gpu": asked.gpus_per_node}
        per_node |= gpus
        per_job = {"node": asked.nodes, **{name: asked.nodes * amount for name, amount in per_node.items()}}
        features = options(request).get("constraint", "")
        return cls(asked.nodes, per_node, per_job, 60 * asked.time_min, features)


@dataclass(frozen=True)
class Cluster:
    """What Slurm's commands print of partitions, nodes and accounts."""

    partitions: Sequence[Mapping[str, str]]
    nodes: Mapping[str, str]
    """The lines of sinfo by partition."""
    qos: Mapping[str, Mapping[str, str]]
    association: Mapping[str, str]
    accounts: Sequence[Mapping[str, str]] = ()
    """That of the association, that which it belongs to, and so on."""


def options(request: Request) -> dict[str, str]:
    """The site's further options with their values."""
    return dict(option.removeprefix("--").split("=", 1) for option in request.site.options if "=" in option)


def look(request: Request) -> Cluster:
    """Asks Slurm about the partitions that a request may run in; what it does not answer stays empty."""
    site = request.site
    given = options(request)
    names = [name for name in given.get("partition", site.queue).split(",") if name]
    show = ("scontrol", "-a", "-o", "show", "partition")
    text = "".join(answer(call, *show, name) for name in names) if names else answer(call, *show)
    partitions = [fields for line in text.splitlines() if "PartitionName" in (fields := _fields(line))]
    if not names:
        partitions = [fields for fields in partitions if fields.get("Default") == "YES"]
    nodes = {
        name: answer(call, "sinfo", "-h", "-N", "-p", name, "-o", _NODES)
        for name in (fields["PartitionName"] for fields in partitions)
    }
    account, qos = given.get("account", site.account), given.get("qos", site.qos)
    return Cluster(partitions, nodes, *look_at_accounts(account, qos, [row["PartitionName"] for row in partitions]))


Accounts = tuple[Mapping[str, Mapping[str, str]], Mapping[str, str], Sequence[Mapping[str, str]]]


def look_at_accounts(account: str, qos: str, partitions: Collection[str]) -> Accounts:
    """What limits this user's jobs: all qualities of service, an association and its accounts; nothing if unenforced.

    An empty account or quality of service is the default one.
    """
    config = answer(call, "scontrol", "show", "config")
    if not re.search(r"^AccountingStorageEnforce\s*=.*\b(limits|safe|all)\b", config, re.MULTILINE):
        return {}, {}, ()
    cluster = re.search(r"^ClusterName\s*=\s*(\S+)", config, re.MULTILINE)

    def show(what: str, names: Sequence[str], *where: str) -> list[dict[str, str]]:
        text = answer(call, "sacctmgr", "-n", "-P", "show", what, *where, f"format={','.join(names)}")
        rows = [dict(zip(names, line.split("|"), strict=False)) for line in text.splitlines()]
        return [row for row in rows if not cluster or row.get("cluster", cluster[1]) == cluster[1]]

    user = user_name()
    if not account:  # of which sacctmgr lists no association first
        default = answer(call, "sacctmgr", "-n", "-P", "show", "user", user, "format=defaultaccount")
        account = default.partition("\n")[0].strip()
    fit = [
        row
        for row in show("assoc", _ASSOCIATION, f"user={user}")
        if (not account or row["account"] == account) and row["partition"] in ("", *partitions)
    ]
    fit.sort(key=lambda row: not row["partition"])  # that of the partition goes before that of all
    association = dict(fit[0]) if fit else {}
    accounts = {row["account"]: row for row in show("assoc", _ACCOUNT, "where", "user=")} if association else {}
    chain: list[Mapping[str, str]] = []
    name = association.get("account", "")
    while (row := accounts.pop(name, None)) is not None:
        chain.append(row)
        name = row.get("parentname", "")
    if qos:
        association["defaultqos"] = qos
    return {row["name"]: row for row in show("qos", _QOS)}, association, chain


def of_job(job: str) -> list[str]:
    """What the limits of its quality of service and its account are to a job in the words of `scontrol -o show job`."""
    fields = _fields(job)
    account, qos, named = (fields.get(field, "").replace("(null)", "") for field in ("Account", "QOS", "Partition"))
    names = named.split(",")  # it starts in the first that has room
    partitions = [_fields(answer(call, "scontrol", "-a", "-o", "show", "partition", name)) for name in names]
    cluster = Cluster(partitions, {}, *look_at_accounts(account, qos, names))
    asked = tres.parse(fields.get("ReqTRES") or fields.get("TRES", ""))  # as newer and older Slurm call it
    nodes = int(asked.get("node", 1))
    each = {kind: amount / nodes for kind, amount in asked.items()}
    wanted = Wanted(nodes, each, asked, seconds(fields.get("TimeLimit", "")) or 0.0)
    reasons = [list(_of_accounts(wanted, cluster, partition)) for partition in partitions]
    if all(reasons):
        return [f"it will never start: {'; '.join(reasons[0])}"]
    user, _, uid = fields.get("UserId", "").rstrip(")").partition("(")
    waiting = usage.Waiting(
        user=user,
        uid=uid,
        account=account or cluster.association.get("account", ""),
        qualities=_distinct(quality["name"] for row in partitions for quality in _qos_of(cluster, row)),
        asked=asked,
        minutes=wanted.time / 60,
        reason=fields.get("Reason", ""),
    )
    if reached := usage.reached(waiting, usage.parse(answer(call, *usage.SHOW))):
        return reached
    limits = (limit for partition in partitions for limit in _limits(cluster, partition))
    return _distinct(f"{who} gives {what}" for who, row in limits for what in _words(row))


def _distinct(texts: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(texts))


def never(wanted: Wanted, cluster: Cluster) -> list[str]:
    """Why such a job would wait forever, in plain words; nothing if it would start in one of its partitions."""
    found = [
        [*_of_partition(wanted, cluster, partition), *_of_accounts(wanted, cluster, partition)]
        for partition in cluster.partitions
    ]
    return [] if not all(found) else found[0] if found else []


def most_tasks() -> float:
    """How many tasks an array may have; infinite if unknown."""
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", answer(call, "scontrol", "show", "config"), re.MULTILINE)
    return int(found[1]) if found else math.inf


def missing_now(wanted: Wanted, cluster: Cluster) -> list[str]:
    """The nodes that would do, but take no jobs at present, if too few do without them; else none."""
    rows = [row for name in cluster.nodes for row in _rows_of(cluster, name) if _fits(wanted, row)]
    away = {row[0] for row in rows if row[3].startswith(_UNUSABLE) or row[3].endswith("*")}
    few = len({row[0] for row in rows} - away) < wanted.nodes
    return sorted(away) if few or not _is_one(wanted.features) else []


def _of_partition(wanted: Wanted, cluster: Cluster, partition: Mapping[str, str]) -> Iterator[str]:
    name = partition["PartitionName"]
    flags = ",".join(qos.get("flags", "") for qos in _qos_of(cluster, partition))
    most = seconds(partition.get("MaxTime", ""))
    if most is not None and wanted.time > most and "PartitionTimeLimit" not in flags:
        yield f"partition {name} gives a job at most {partition['MaxTime']} of time"
    nodes = partition.get("MaxNodes", "")
    if nodes.isdigit() and wanted.nodes > int(nodes) and "PartitionMaxNodes" not in flags:
        yield f"partition {name} gives a job at most {plural(int(nodes), 'node')}"
    for field, kind in (("MaxCPUsPerNode", "cpu"), ("MaxMemPerNode", "mem")):
        limit = partition.get(field, "")
        if limit.isdigit() and wanted.per_node[kind] > int(limit):
            yield f"partition {name} gives a job at most {tres.words(kind, int(limit))} on a node"
    rows = _rows_of(cluster, name)
    fit = [row for row in rows if _fits(wanted, row)]
    if rows and len(fit) < wanted.nodes:
        each = ", ".join(tres.words(kind, amount) for kind, amount in wanted.per_node.items() if amount)
        each += f" and {wanted.features}" if wanted.features else ""
        nodes = f"{plural(len(fit), 'node')} of {len(rows)}"
        yield f"partition {name} has {nodes} with {each}, and the job asks for {wanted.nodes}"


def _rows_of(cluster: Cluster, partition: str) -> list[list[str]]:
    rows = [line.split("|", 5) for line in cluster.nodes.get(partition, "").splitlines()]
    return rows if all(len(row) == 6 and row[1].isdecimal() and row[2].isdecimal() for row in rows) else []


def _is_one(features: str) -> bool:
    return re.fullmatch(r"[\w.-]*", features) is not None


def _fits(wanted: Wanted, row: Sequence[str]) -> bool:
    if wanted.features and _is_one(wanted.features) and wanted.features not in row[4].split(","):
        return False
    has = {"cpu": int(row[1]), "mem": int(row[2]), **_gpus(row[5])}
    return all(has.get(kind, 0) >= amount for kind, amount in wanted.per_node.items())


def _gpus(text: str) -> dict[str, int]:
    # gpu:a100:4(S:0-1),gpu:2,gpu:1g.10gb:7,shard:8
    found: dict[str, int] = {}
    for kind, count in re.findall(r"\bgpu:(?:([\w.-]+):)?(\d+)(?![\w.])", text):
        for name in {"gres/gpu", f"gres/gpu:{kind}" if kind else "gres/gpu"}:
            found[name] = found.get(name, 0) + int(count)
    return found


def _qos_of(cluster: Cluster, partition: Mapping[str, str]) -> list[Mapping[str, str]]:
    """The qualities of service that limit a job, the one that counts first."""
    of_job = cluster.qos.get(cluster.association.get("defaultqos", ""), {})
    of_partition = cluster.qos.get(partition.get("QoS", ""), {})
    order = [of_job, of_partition] if "OverPartQOS" in of_job.get("flags", "") else [of_partition, of_job]
    return [qos for qos in order if qos]


def _limits(cluster: Cluster, partition: Mapping[str, str]) -> list[tuple[str, Mapping[str, str]]]:
    """Who limits a job in words, and the limits: what one limits, those after it do not.

    But for what accounts give all of their jobs together, where each counts up to the root.
    """
    limits = [(f"quality of service {qos['name']}", qos) for qos in _qos_of(cluster, partition)]
    if cluster.association:
        limits.append((f"account {cluster.association.get('account', '')}", cluster.association))
    return limits + [(f"account {row['account']}", row) for row in cluster.accounts]


def _of_accounts(wanted: Wanted, cluster: Cluster, partition: Mapping[str, str]) -> Iterator[str]:
    """The limits of quality of service and accounts that a job is above."""
    limits = _limits(cluster, partition)
    for who, row in limits:
        if (most := seconds(row.get("maxwall", ""))) is not None:
            if wanted.time > most:
                yield f"{who} gives {_time_words(row)}"
            break
    for field, words in _AMOUNTS.items():
        asked = wanted.per_node if field == "maxtrespernode" else wanted.per_job
        seen: set[str] = set()
        for who, row in limits:
            for kind, limit in tres.parse(row.get(field, "")).items():
                if kind not in seen and asked.get(kind, 0) > limit:
                    yield f"{who} gives {words.format(tres.words(kind, limit))}"
                if field != "grptres" or who.startswith("quality"):  # of accounts each counts, up to the root
                    seen.add(kind)


def _words(row: Mapping[str, str]) -> Iterator[str]:
    if row.get("maxwall"):
        yield _time_words(row)
    for field, words in _AMOUNTS.items():
        yield from (words.format(tres.words(*limit)) for limit in tres.parse(row.get(field, "")).items())


def _time_words(row: Mapping[str, str]) -> str:
    return f"a job at most {row['maxwall']} of time"


def _fields(line: str) -> dict[str, str]:
    return dict(re.findall(r"(?:^|\s)([A-Z][A-Za-z]+)=(\S*)", line))
