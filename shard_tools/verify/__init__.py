"""Checks packed data sets against their manifests, and for pictures and subjects in two splits or data sets."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import combinations

from shard_tools.base.progress import progress
from shard_tools.base.text import plural
from shard_tools.commands.verify import VerifyConfig
from shard_tools.verify.files import DataSet, check_files, read_data_set
from shard_tools.verify.leaks import NOT_FOUND, check_data_sets, check_keys, check_splits, compared
from shard_tools.verify.report import Report
from shard_tools.verify.shard import ShardTask, check_shard, sha256_of
from shard_tools.workers import Workers


def verify(config: VerifyConfig) -> int:
    """Checks the data sets; prints the problems to stdout, a line each, and returns 1, or a line a data set and 0.

    Raises UserError if a directory holds no data set at all.
    """
    config.check()
    report = Report()
    remarks: list[str] = []  # what could not be checked
    found = [read_data_set(root, report) for root in config.directories]
    sets = [data for data in found if data]
    if config.leaks:
        for data in sets:
            _check_index_hashes(data, report)
        if len(config.directories) == 1:
            remarks = [check_splits(data, report) for data in sets]
        for first, second in combinations(sets, 2):
            remarks.append(check_data_sets(first, second, config.workers, report))
    else:
        for data in sets:
            check_files(data, report)
            if not config.fast:
                _check_index_hashes(data, report)
                _check_shards(data, config.workers, report)
                check_keys(data, report)
                remarks.append(check_splits(data, report))
    remarks = list(filter(None, remarks))
    for remark in remarks:
        print(remark, file=sys.stderr)
    for line in report.lines() if report else _summary(config, sets, remarks):
        print(line)
    return 1 if report else 0


def _check_index_hashes(data: DataSet, report: Report) -> None:
    for split in data.indexes:
        path = data.root / split / "index.npy"
        if sha256_of(path) != data.manifest.splits[split].index_sha256:
            report.add(path, "its SHA-256 is not the manifest's: it has changed since it was packed")


def _check_shards(data: DataSet, workers: int, report: Report) -> None:
    """Reads all the shards that are there, in processes."""
    tasks = []
    for split in data.manifest.splits.values():
        index = data.root / split.name / "index.npy" if split.name in data.indexes else None
        start = 0
        for shard in split.shards:
            if (data.root / shard.file).is_file():
                tasks.append(ShardTask(shard, index, start))
            start += shard.samples
    count = sum(task.shard.samples for task in tasks)
    with Workers(data.root, workers) as pool, progress(f"verifying {data.root}", count) as advance:
        for task, problems in zip(tasks, pool.map(check_shard, tasks), strict=True):
            report.include(problems)
            advance(task.shard.samples)


def _summary(config: VerifyConfig, sets: list[DataSet], remarks: list[str]) -> Iterator[str]:
    """The lines printed if there is no problem."""
    if config.leaks:
        names = " and ".join(str(data.root) for data in sets)
        where = "two splits" if len(sets) == 1 else "two of them"
        yield f"{names}: no image is in {where}, compared by {compared(sets, subjects=not remarks)}"
        yield NOT_FOUND
        return
    for data in sets:
        size = f"{data.root}: {plural(data.samples, 'image')} in {plural(data.shards, 'shard')}"
        if config.fast:
            yield f"{size}; sizes, manifest and index agree, no shard was read"
        else:
            yield f"{size}, unchanged since packed; no image is in two splits, compared by {compared([data])}"
