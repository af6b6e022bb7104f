"""What a job asked of qsub, as settings of a site by which it can be submitted again."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any


def asked_for(listing: str, environ: Mapping[str, str]) -> dict[str, Any]:
    """What the job around this process asked for, in the words of its `qstat -j`: not its hosts, slots and time.

    Empty settings were not asked for. Where qstat did not answer, as on a host that may not submit, the job's variables
    tell its queue and parallel environment, but not its resources.
    """
    if not listing:
        queue, pe = environ.get("QUEUE", ""), environ.get("PE", "")
        return {name: value for name, value in (("queue", queue), ("pe", pe), ("pe_one_node", pe)) if value}
    environment = re.search(r"^parallel environment:\s+(\S+)", listing, re.MULTILINE)
    pe = environment[1] if environment else ""
    found: dict[str, Any] = {"queue": _field(listing, "hard_queue_list"), "pe": pe, "pe_one_node": pe, "memory_gb": 0.0}
    if project := _field(listing, "project"):
        found["account"] = project
    resources = _field(listing, "hard resource_list").split(",")
    kept = [resource for resource in resources if resource and not resource.startswith("h_rt=")]
    return found | {"options": ("-l", ",".join(kept)) if kept else ()}


def _field(listing: str, name: str) -> str:
    found = re.search(rf"^{name}:\s+(\S+)", listing, re.MULTILINE)
    return found[1] if found else ""
