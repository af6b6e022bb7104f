"""Why jobs are in error state or wait, as `qstat -j` says it."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from fnmatch import fnmatch
from xml.etree import ElementTree

from ..command import SchedulerError

_DROPPED = re.compile(r'queue instance "(.+)" dropped because it is (.+)')
_PLAIN = {
    "not all array tasks may be started due to 'max_aj_instances'": "as many tasks of its array run as may at once: "
    "the number after -tc of qsub, or max_aj_instances of `qconf -sconf`"
}
"""Messages that need other words."""
_NAMED = 4  # queue instances that are named for each reason


def parse_why(xml: str) -> dict[str, tuple[str, ...]]:
    """Reasons by id of `qstat -j ... -xml`: errors by task where the job is an array, the scheduler's by job."""
    root = parse_xml(xml)
    reasons: dict[str, list[str]] = {}
    for job in root.iterfind("djob_info/element"):
        number = job.findtext("JB_job_number", "")
        for task in job.iterfind("JB_ja_tasks/*"):
            # "11/22/2026 22:47:50 [5000:318]: " goes before the host's message
            lines = [
                re.sub(r"^\d\S+ \S+ \[[\d:]+\]: ", "", line.text or "")
                for line in task.iter("QIM_message")
                if line.text
            ]
            if lines:
                reasons.setdefault(number, []).extend(lines)
                reasons.setdefault(f"{number}.{task.findtext('JAT_task_number', '')}", []).extend(lines)
    broken = set(reasons)
    for message in root.iterfind("messages/*/SME_message_list/element"):
        if message.findtext("MES_message") == "Job is in error state":
            continue  # the errors are listed above
        for listed in message.iterfind("MES_job_number_list/*/ULNG_value"):
            if listed.text:
                text = message.findtext("MES_message", "")
                reasons.setdefault(listed.text, []).append(_PLAIN.get(text, text))
    texts = [message.text or "" for message in root.iterfind("messages/*/SME_global_message_list/*/MES_message")]
    for job in root.iterfind("djob_info/element"):
        queues = [name.text or "" for name in job.iterfind("JB_hard_queue_list/*/QR_name")]
        number = job.findtext("JB_job_number", "")
        if number not in broken and (lines := closed_queues(texts, queues)):
            reasons.setdefault(number, []).extend(lines)
    return {job_id: tuple(dict.fromkeys(lines)) for job_id, lines in reasons.items()}


def closed_queues(messages: Iterable[str], wanted: Collection[str] = ()) -> list[str]:
    """What the scheduler says of queues to all jobs, a line for each reason; of `wanted` queues only, if any.

    The numbers of a load that is too high differ for each host: the first host's stand for all.
    """
    instances: dict[str, list[str]] = {}
    first: dict[str, str] = {}
    lines = []
    for message in messages:
        found = _DROPPED.match(message)
        if not found and not message.startswith("All queues dropped"):  # those are listed
            lines.append(message)
        elif not found:
            continue
        elif not wanted or any(_is_of(found[1], queue) for queue in wanted):
            kind = found[2].partition(":")[0]
            first.setdefault(kind, found[2])
            instances.setdefault(kind, []).append(found[1])
    summed = []
    for kind, names in instances.items():
        shown = ", ".join(sorted(names)[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
        summed.append(f"no job starts in {shown}, which {'is' if len(names) == 1 else 'are'} {first[kind]}")
    return [*summed, *lines]


def _is_of(instance: str, queue: str) -> bool:
    """Whether a queue instance is one of those that were asked for, as gpu, gpu*, gpu@node1 or gpu@@rack."""
    name, _, host = queue.partition("@")
    return fnmatch(instance, f"{name}@{host if host and not host.startswith('@') else '*'}")


def parse_xml(xml: str) -> ElementTree.Element:
    """An answer of qstat. Raises SchedulerError if it is cut off."""
    try:
        return ElementTree.fromstring(xml)
    except ElementTree.ParseError as error:
        raise SchedulerError(f"qstat's answer is not XML: {error}: {xml[:80]!r}") from error
