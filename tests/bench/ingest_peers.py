"""What a user would otherwise do with the same events: MLflow's tracking store, river's ADWIN in process."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any, Final

import numpy as np

NAMES: Final = ("accuracy", "precision", "recall")
_EVENTS_A_CALL: Final = 333  # MLflow takes at most 1,000 metrics in one log_batch; an event is three


def have(module: str) -> bool:
    """Whether a peer is installed (`pip install 'visutility[bench,river]'`)."""
    return find_spec(module) is not None


@contextmanager
def mlflow_run() -> Iterator[tuple[Any, Any, str]]:
    """Return MLflow, a client of it and a run in an SQLite store of its own."""
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    logging.getLogger("alembic").setLevel(logging.ERROR)
    import mlflow

    with tempfile.TemporaryDirectory(prefix="visutility-mlflow-") as folder:
        mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
        client = mlflow.MlflowClient()
        run = client.create_run(client.create_experiment("bench", artifact_location=f"file://{folder}/artifacts"))
        yield mlflow, client, run.info.run_id


def mlflow_events_per_s(events: int) -> float:
    """Events a second by `MlflowClient.log_batch`, the largest batches it takes."""
    from mlflow.entities import Metric

    values = np.random.default_rng(0).normal(0.9, 0.01, (events, 3))
    with mlflow_run() as (_, client, run):
        started = time.perf_counter()
        for first in range(0, events, _EVENTS_A_CALL):
            rows = values[first : first + _EVENTS_A_CALL]
            stamp = int(time.time() * 1000)
            batch = [
                Metric(name, float(row[i]), stamp + n, first + n) for n, row in enumerate(rows) for i, name in enumerate(NAMES)
            ]
            client.log_batch(run, metrics=batch)
        return events / (time.perf_counter() - started)


def mlflow_async_call_us(calls: int) -> list[float]:
    """Microseconds in the caller's thread of each asynchronous `log_metrics` of one event."""
    took = []
    with mlflow_run() as (mlflow, _, run):
        futures = []
        for step in range(calls):
            event = dict.fromkeys(NAMES, 0.9)
            started = time.perf_counter()
            futures.append(mlflow.log_metrics(event, step=step, synchronous=False, run_id=run))
            took.append((time.perf_counter() - started) * 1e6)
        for future in futures:
            future.wait()
    return took


def river_events_per_s(events: int) -> float:
    """Events a second of river's ADWIN bare in this process, its flag read after each event."""
    from river.drift import ADWIN

    values = np.random.default_rng(0).normal(0.9, 0.01, events).tolist()
    detector = ADWIN()
    found = 0
    started = time.perf_counter()
    for value in values:
        detector.update(value)
        found += detector.drift_detected
    return events / (time.perf_counter() - started)
