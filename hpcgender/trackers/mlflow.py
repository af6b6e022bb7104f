"""MLflow: one store of files for all runs of a directory, or the server that MLFLOW_TRACKING_URI names."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import islice
from typing import TypeVar

from hpcgender.trackers.tracker import Point, TrackedRun
from shard_tools.base.lock import locked

T = TypeVar("T")

STORE = "mlruns"
"""Directory of the files, beside those of the runs."""
TAG = "hpcgender.run"
"""By which a run is found again."""
AT_ONCE, METRICS_AT_ONCE = 100, 1000
"""Most parameters and metrics that MLflow takes in one call."""


class MLflow:
    """The run that has the id as its tag, made if there is none; points that it has already are not written again."""

    def __init__(self, run: TrackedRun) -> None:
        # From its import on it would report its use.
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        # It prefers SQLite and wants to be asked for files, but jobs on several nodes cannot share SQLite on NFS.
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        from mlflow import MlflowClient
        from mlflow.entities import Param

        uri = os.environ.get("MLFLOW_TRACKING_URI", "")
        with ExitStack() as exits:
            if not uri:
                store = run.directory.resolve().parent / STORE
                store.mkdir(exist_ok=True)
                # Two trainings that start together would make the experiment twice.
                exits.enter_context(locked(store / ".lock", store, "end the process that holds it"))
                uri = store.as_uri()
            self.client = MlflowClient(tracking_uri=uri)
            name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "hpcgender")
            known = self.client.get_experiment_by_name(name)
            experiment = known.experiment_id if known else self.client.create_experiment(name)
        found = self.client.search_runs([experiment], f"tags.`{TAG}` = '{run.id}'", max_results=1)
        here = (
            found[0] if found else self.client.create_run(experiment, tags={TAG: run.id}, run_name=run.directory.name)
        )
        self.id = here.info.run_id
        self.client.update_run(self.id, status="RUNNING")
        missing = (Param(name, str(value)) for name, value in run.options.items() if name not in here.data.params)
        for params in chunks(missing, AT_ONCE):
            self.client.log_batch(self.id, params=params)
        self.written = {
            name: {metric.step for metric in self.client.get_metric_history(self.id, name)}
            for name in here.data.metrics
        }
        for point in run.past:
            self.write(point)

    def write(self, point: Point) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        new = (
            Metric(name, value, now, point.step)
            for name, value in point.values.items()
            if point.step not in self.written.get(name, ())
        )
        for metrics in chunks(new, METRICS_AT_ONCE):
            self.client.log_batch(self.id, metrics=metrics)

    def close(self, finished: bool) -> None:
        self.client.set_terminated(self.id, "FINISHED" if finished else "KILLED")


def chunks(values: Iterator[T], length: int) -> Iterator[list[T]]:
    """The values in lists of at most `length`."""
    while chunk := list(islice(values, length)):
        yield chunk
