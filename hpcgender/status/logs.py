"""Printing a run's log, and following it: through requeues, and before it is there."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from hpcgender.commands.jobs import LogsConfig
from hpcgender.status.direct import named as find_direct
from hpcgender.status.runs import (
    RunRecord,
    ask,
    choose,
    has_ended,
    judge_all,
    matching,
    no_run,
    read_direct,
    read_records,
)
from hpcgender.status.state import read_history
from hpcgender.status.unrecorded import find_log
from jobs.records import read_events
from jobs.schedulers import named
from shard_tools.base.errors import UserError

LOOK_S = 0.5
"""How often a log is looked at."""

ASK_S = 60.0
"""How often the scheduler is asked whether a run whose record has no end has ended."""

OVER_S = 5.0
"""How often it is asked about a run whose record has an end."""

_GRACE_S = 3.0  # what another host wrote last may be seen late


class Tail:
    """What a file has that was not read yet. It may be missing, grow, be cut, or be another file than before.

    It is opened anew each time: network file systems then show what other hosts wrote.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offset = 0
        self._inode = 0

    def read(self) -> bytes:
        """What is new; nothing while there is no file."""
        try:
            with self.path.open("rb") as file:
                status = os.fstat(file.fileno())
                if status.st_ino != self._inode or status.st_size < self._offset:
                    self._inode, self._offset = status.st_ino, 0
                file.seek(self._offset)
                new = file.read()
        except FileNotFoundError:
            return b""
        self._offset += len(new)
        return new


def show_logs(config: LogsConfig) -> None:
    """Prints the log, and with --follow what is added to it until the run has ended. UserError if there is none."""
    records = read_records(config.within)
    found = matching(records, config.run)
    if not found:
        direct = find_direct(read_direct(config.within, records, ()), config.run)
        path = direct.results / rank_log(config.rank) if direct and config.rank else None
        path = path or (None if config.rank else find_log(config.run))
        if not path or not path.is_file():
            raise no_run(config.run, records, config.within)
        write(b"".join(path.read_bytes().splitlines(keepends=True)[-config.lines :]))
        return
    record, waiting = _last_with_log(found, config.rank), ""
    if config.follow:
        run, queues = choose(records, config.run, config.within)
        record = run.record
        if not has_ended(run, queues):
            waiting = ", ".join(filter(None, (run.status.state, run.status.reason)))
    path = log_file(record, config.rank)
    log = Tail(path)
    try:
        text = log.read()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    if not path.exists():
        if not waiting:
            raise UserError(_no_rank(record, path, config.rank) if config.rank else _no_log(record, path))
        _report(f"waiting for {path}; the run is {waiting}")
    write(b"".join(text.splitlines(keepends=True)[-config.lines :]))
    if waiting:
        follow(log, Watch(record))


def log_file(record: RunRecord, rank: int) -> Path:
    """The log of a rank; UserError if a local run's went to a terminal."""
    if rank:
        return record.results / rank_log(rank)
    if not record.submission.log:
        raise UserError(f"run {record.run} wrote to a terminal: only other ranks have logs, as --rank 1")
    return Path(record.submission.log)


def rank_log(rank: int) -> str:
    """The log of a rank above 0, within the directory of its run."""
    return f"logs/rank-{rank}.log"


def _last_with_log(records: Iterable[RunRecord], rank: int) -> RunRecord:
    newest = list(records)[::-1]
    for record in newest:
        if (rank or record.submission.log) and log_file(record, rank).exists():
            return record
    return newest[0]


def _no_rank(record: RunRecord, path: Path, rank: int) -> str:
    ranks = sorted(int(file.stem[5:]) for file in path.parent.glob("rank-*.log") if file.stem[5:].isdigit())
    have = f"it has those of ranks 0 and {', '.join(map(str, ranks))}" if ranks else "only rank 0 has one so far"
    return f"run {record.run} has no log of rank {rank}: {have}"


def _no_log(record: RunRecord, path: Path) -> str:
    queues = ask([record])
    (run,) = judge_all([record], queues)
    what = ", ".join(filter(None, (run.status.state, run.status.reason)))
    if has_ended(run, queues):
        return f"run {record.run} has no log {path}: it is {what}"
    return f"no log {path} yet: run {record.run} is {what}; --follow waits for it"


class Watch:
    """Watches for the end of a run, in its record at each look and by the scheduler now and then; reports requeues."""

    def __init__(self, record: RunRecord) -> None:
        self._record = record
        self._events = len(record.submission.attempts)
        self._asked = time.monotonic()

    def ended(self) -> bool:
        """Whether the run has ended for good."""
        events = read_events(self._record.submission.directory)
        for event in events[self._events :]:
            if event.get("requeued"):
                _report(f"attempt {event.get('attempt')} is requeued: waiting for the next")
            elif event.get("event") == "start" and event.get("attempt") != 1:
                _report(f"attempt {event['attempt']} begins on {', '.join(event.get('hosts', []))}")
            elif event.get("event") == "skipped":
                _report(f"it was skipped: {event.get('because')}")
        self._events = len(events)
        history = read_history(events)
        if history.succeeded or (history.over and not named(self._record.submission.scheduler).has_queue):
            return True
        # What ended otherwise may still go back into the queue: its scheduler knows.
        if time.monotonic() < self._asked + (OVER_S if history.over else ASK_S):
            return False
        self._asked = time.monotonic()
        fresh = replace(self._record, submission=replace(self._record.submission))  # which has not read its events
        queues = ask([fresh])
        (run,) = judge_all([fresh], queues)
        if has_ended(run, queues):
            _report(f"it has ended: {run.status.state}{f', {run.status.reason}' if run.status.reason else ''}")
            return True
        return False


def follow(log: Tail, watch: Watch, sleep: Callable[[float], None] = time.sleep) -> None:
    """Prints what is added to the log until the run has ended and nothing more comes."""
    silent_since: float | None = None
    while True:
        over = watch.ended()
        new = log.read()
        write(new)
        now = time.monotonic()
        if new or not over:
            silent_since = None
        elif silent_since is None:
            silent_since = now
        elif now > silent_since + _GRACE_S:
            return
        sleep(LOOK_S)


def write(text: bytes) -> None:
    """Prints bytes as they are."""
    sys.stdout.buffer.write(text)
    sys.stdout.flush()


def _report(text: str) -> None:
    print(f"hpcgender jobs: {text}", file=sys.stderr, flush=True)
