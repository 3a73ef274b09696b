"""Send a file of events through the running system."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from actors import system
from actors.cluster import connection
from drivers.commands import FAILED, FINE
from drivers.output import Output
from drivers.replay import event_files
from drivers.replay.asked import Asked, tell_rejected

_FLUSH_S: Final = 600.0


def send(asked: Asked, file: Path, output: Output) -> int:
    """Log every event of `file`, wait for the acknowledgements, and show what the system makes of them."""
    connection.attach(asked.address, otherwise="look")
    joined = system.connect(namespace=asked.namespace or system.DEFAULT_NAMESPACE, on_full="wait")
    began_s = time.time()
    rejected: list[dict[str, Any]] = []
    models: set[str] = set()
    sent = 0
    with output.progress("events", None) as step:
        for chunk in event_files.chunks(
            file, model=asked.model, version=asked.version, since_s=asked.since_s, now_s=began_s, n_column=asked.n_column
        ):
            rejected += chunk.rejected
            for event in chunk.events:
                if asked.model is not None and event["model_name"] != asked.model:
                    continue
                _log(joined.metrics, event)
                models.add(event["model_name"])
                sent += 1
            step(sent)
        counts = joined.metrics.flush(timeout_s=_FLUSH_S)
    told = {name: seen for name, seen in joined.status()["models"].items() if name in models}
    orders = [row for row in joined.retrains.history(asked.model) if row["requested_at"] >= began_s and row["model"] in models]
    tell_rejected(rejected, output)
    output.line(", ".join(f"{name} {count}" for name, count in counts.items()))
    rows = [(name, seen["state"], seen["events"], seen["open_episodes"]) for name, seen in told.items()]
    output.table("models", ("model", "state", "events", "open episodes"), rows)
    if orders:
        columns = ("id", "model", "version", "metric", "state", "reason")
        output.table("retrains", columns, [tuple(row.get(name) for name in columns) for row in orders])
    output.result({"counts": counts, "rejected": rejected, "models": told, "retrains": orders})
    return FAILED if rejected or counts["pending"] or counts["rejected"] else FINE


def _log(metrics: Any, event: Mapping[str, Any]) -> None:
    values = {name: event[name] for name in ("accuracy", "precision", "recall") if event.get(name) is not None}
    version = {} if event.get("model_version") is None else {"version": event["model_version"]}
    metrics.log(
        {**event.get("extras", {}), **values},
        model=event["model_name"],
        timestamp=event.get("timestamp"),
        n=event.get("n"),
        **version,
    )
