"""Which limits of accounts and qualities of service are reached, and by whom, as `scontrol show assoc_mgr` prints them.

Each limit is followed by what is in use of it: `GrpTRES=cpu=4(2),mem=N(0)`, where N is no limit.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from jobs.slurm import tres
from shard_tools.base.text import plural

SHOW = ("scontrol", "show", "assoc_mgr", "flags=assoc,qos")
JOBS = ""
"""Stands for jobs among what limits count."""

_MINUTES = "GrpTRESMins"
_RUNNING_MINUTES = "GrpTRESRunMins"
_OF_ALL = {
    "GrpTRES": "all of its jobs together at most {}",
    "GrpJobs": "all of its jobs together at most {} at once",
    _MINUTES: "all of its jobs together at most {}",
}
_OF_USERS = {"MaxTRESPU": "all jobs of a user at most {}", "MaxJobsPU": "a user at most {} at once"}
_OF_ACCOUNTS = {"MaxTRESPA": "all jobs of an account at most {}", "MaxJobsPA": "an account at most {} at once"}
_OF_ASSOCIATION = {
    "GrpTRES": "all of your jobs at most {}",
    "GrpJobs": "you at most {} at once",
    "MaxJobs": "you at most {} at once",
}
_COUNTS_FIRST = {"MaxJobs": "MaxJobsPU"}
"""Limits of a quality of service that go before one of an account with another name."""


class Use(NamedTuple):
    """What a limit allows, None if anything, and what is in use of it."""

    most: float | None
    used: float


Uses = dict[str, dict[str, Use]]
"""By the names of limits, and by what they count."""


@dataclass(frozen=True, kw_only=True)
class Association:
    """An account, or a user in an account."""

    account: str
    user: str
    parent: str
    uses: Uses


@dataclass(frozen=True, kw_only=True)
class Quality:
    """A quality of service: its limits for all jobs, and for those of each user and account."""

    uses: Uses
    users: dict[str, Uses] = field(default_factory=dict)
    """By their numbers."""
    accounts: dict[str, Uses] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What slurmctld counts."""

    associations: list[Association]
    qualities: dict[str, Quality]

    def within(self, account: str) -> set[str]:
        """An account with those that belong to it."""
        found = {account}
        parents = {one.account: one.parent for one in self.associations if not one.user}
        while more := {name for name, parent in parents.items() if parent in found} - found:
            found |= more
        return found


def parse(text: str) -> Usage:
    """What SHOW prints."""
    usage = Usage(associations=[], qualities={})
    uses: Uses = {}
    groups: Mapping[str, dict[str, Uses]] = {}
    group: dict[str, Uses] = {}
    for line in text.splitlines():
        if found := re.match(r"ClusterName=\S+ Account=(\S*) UserName=([^(\s]*)", line):
            uses = {}
            usage.associations.append(Association(account=found[1], user=found[2], parent="", uses=uses))
            groups = {}
        elif found := re.match(r"QOS=([^(\s]+)", line):
            quality = Quality(uses={})
            usage.qualities[found[1]] = quality
            uses, groups = quality.uses, {"User Limits": quality.users, "Account Limits": quality.accounts}
        elif line.strip() in groups:
            group = groups[line.strip()]
        elif groups and (found := re.fullmatch(r"\s+([^=\s(]+)(?:\((\d+)\))?", line)):  # lab, 5000, me(5000)
            uses = group.setdefault(found[2] or found[1], {})
        elif not groups and (found := re.search(r"\bParentAccount=([^(\s]+)", line)):
            one = usage.associations[-1]
            usage.associations[-1] = Association(account=one.account, user=one.user, parent=found[1], uses=uses)
        for name, value in re.findall(r"\b([A-Z]\w+)=(\S+)", line):
            uses.setdefault(name, {}).update(_uses(value))
    return usage


def _uses(text: str) -> dict[str, Use]:
    # 4(2), or cpu=4(2),mem=N(0),gres/gpu=1(1)
    found = re.findall(r"(?:([a-z][\w/:.-]*)=)?(N|[\d.]+)([KMGT]?)\(([\d.]+)([KMGT]?)\)", text)
    return {
        kind or JOBS: Use(
            None if most == "N" else tres.number(kind, most, unit),
            tres.number(kind, used, used_unit),
        )
        for kind, most, unit, used, used_unit in found
    }


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """A job that waits."""

    user: str
    uid: str
    account: str
    qualities: Sequence[str]
    """The qualities of service that limit it, the one that counts first."""
    asked: Mapping[str, float]
    """By Slurm's names."""
    minutes: float
    """Its time limit."""
    reason: str
    """In Slurm's words."""


def reached(job: Waiting, usage: Usage) -> list[str]:
    """Each limit that keeps a job waiting now, with what is in use of it and by whom.

    What a quality of service limits, those after it and accounts do not; accounts all count, up to the root.
    """
    lines: list[str] = []
    limited: set[tuple[str, str]] = set()
    for name in job.qualities:
        if quality := usage.qualities.get(name):
            who, yours = f"quality of service {name}", quality.users.get(job.uid, {})
            of_account = quality.accounts.get(job.account, {})
            # What a user uses of what all may have together is what counts for the limit of each user.
            shares = {"GrpTRES": yours.get("MaxTRESPU", {}), "GrpJobs": yours.get("MaxJobsPU", {})}
            lines += _reached(job, who, quality.uses, _OF_ALL, limited, shares)
            lines += _reached(job, who, yours, _OF_USERS, limited, yours)
            lines += _reached(job, who, of_account, _OF_ACCOUNTS, limited)
            for uses in (quality.uses, yours, of_account):
                limited |= set(_limited(uses))
    account = job.account
    while account:
        who, below = f"account {account}", usage.within(account)
        rows = [one for one in usage.associations if one.account == account]
        own = [one for one in usage.associations if one.user == job.user and one.account in below]
        for one in rows:
            if not one.user:
                lines += _reached(job, who, one.uses, _OF_ALL, limited, _sum(each.uses for each in own))
            elif one.user == job.user and account == job.account:
                lines += _reached(job, who, one.uses, _OF_ASSOCIATION, limited, one.uses)
        account = next((one.parent for one in rows if not one.user), "")
    return lines


def _reached(
    job: Waiting,
    who: str,
    uses: Uses,
    words: Mapping[str, str],
    limited: Collection[tuple[str, str]],
    shares: Mapping[str, Mapping[str, Use]] | None = None,
) -> Iterator[str]:
    """The limits among `words` that are reached; `shares` are what the user uses of what all may have together."""
    for limit, sentence in words.items():
        for kind, use in uses.get(limit, {}).items():
            if use.most is None or {(limit, kind), (_COUNTS_FIRST.get(limit, ""), kind)} & set(limited):
                continue
            asked = 1.0 if kind == JOBS else job.asked.get(kind, 0.0)
            if not asked or use.used + _needed(job, limit, kind, asked, uses) <= use.most:
                continue
            share = (shares or {}).get(limit, {}).get(kind)
            yours = share.used if share else None
            others = use.used - yours if yours is not None and words is _OF_ALL else None
            by_whom = _by_whom(limit, kind, use.used, yours, others)
            ask = f", and this job asks for {_number(kind, asked)}" if limit != _MINUTES and kind != JOBS else ""
            yield f"{who} gives {sentence.format(_amount(limit, kind, use.most))}: {by_whom}{ask}"


def _limited(uses: Uses) -> Iterator[tuple[str, str]]:
    """The limits that are set, with what they count."""
    for limit, found in uses.items():
        yield from ((limit, kind) for kind, use in found.items() if use.most is not None)


def _amount(limit: str, kind: str, amount: float) -> str:
    if kind == JOBS:
        return plural(int(amount), "job")
    if limit == _MINUTES:
        return f"{plural(int(amount), 'minute')} of {tres.name(kind)}"
    return tres.words(kind, amount)


def _number(kind: str, amount: float) -> str:
    return f"{amount / 1024 if kind == 'mem' else amount:,.6g}"


def _needed(job: Waiting, limit: str, kind: str, asked: float, uses: Uses) -> float:
    """What would be in use besides, if the job began."""
    if limit != _MINUTES:
        return asked
    if "Minutes" not in job.reason:  # a job may begin as long as any are left,
        return 1e-9
    running = uses.get(_RUNNING_MINUTES, {}).get(kind, Use(None, 0.0))  # unless AccountingStorageEnforce has `safe`
    return running.used + asked * job.minutes


def _by_whom(limit: str, kind: str, used: float, yours: float | None, others: float | None) -> str:
    past = limit == _MINUTES
    if yours is None:
        return f"{_number(kind, used)} {'used up' if past else 'in use'}"
    you = f"you {'have used' if past else 'use' if kind != JOBS else 'have'} {_number(kind, yours)}"
    return you if others is None else f"{you}, others {_number(kind, others)}"


def _sum(of: Iterable[Uses]) -> Uses:
    """What several use together."""
    total: Uses = {}
    for uses in of:
        for limit, found in uses.items():
            so_far = total.setdefault(limit, {})
            for kind, use in found.items():
                so_far[kind] = Use(None, use.used + (so_far[kind].used if kind in so_far else 0.0))
    return total
