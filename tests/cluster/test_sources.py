"""Sources on a real Ray: whatever is killed, each of their events counts once; one that is down hurts nobody."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any

from actors import failpoints as points
from actors.system import System
from tests.cluster.waiting import eventually


def test_sources_that_are_killed_at_every_step_lose_nothing_and_count_nothing_twice(
    start: Callable[..., System], tmp_path: Path, failpoints: Path
) -> None:
    drop, database = tmp_path / "drop", tmp_path / "evals.db"
    drop.mkdir()
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("CREATE TABLE evals (id INTEGER PRIMARY KEY, model TEXT, version TEXT, accuracy REAL, n INTEGER)")
    sources: dict[str, Any] = {
        "drop": {"kind": "files", "path": str(drop), "every": "100ms"},
        "evals": {
            "kind": "sql",
            "url": f"sqlite:///{database}",
            "query": "SELECT * FROM evals",
            "watermark": "id",
            "metrics": {"accuracy": "accuracy"},
            "every": "100ms",
        },
        "down": {"kind": "prometheus", "url": "http://127.0.0.1:9", "query": "up", "every": "100ms"},
    }
    system = start(sources=sources)
    added = 0
    for step in ("sources.read", "sources.took", "sources.committed", "sources.sent", "sources.settled", "kill"):
        if step != "kill":
            points.arm(failpoints, step, "exit")
        with (drop / f"{step}.jsonl").open("a") as file:
            file.writelines(json.dumps({"model": "files", "version": "1", "accuracy": 0.9, "n": 5}) + "\n" for _ in range(20))
        with closing(sqlite3.connect(database)) as connection, connection:
            rows = [("sql", "1", 0.9, 5)] * 20
            connection.executemany("INSERT INTO evals (model, version, accuracy, n) VALUES (?, ?, ?, ?)", rows)
        added += 20
        if step == "kill":
            with suppress(ProcessLookupError):
                os.kill(system.status()["actors"]["sources"]["pid"] or 2**30, signal.SIGKILL)
        else:
            eventually(partial(_is_reached, failpoints / step), f"{step} is reached")
        eventually(partial(_has_counted, system, added), f"{added} events of each, after {step}")
    # An event is counted a moment before its source says how the look ended, and the one that is down has just been restarted.
    states = {"drop": "ok", "evals": "ok", "down": "failing"}
    eventually(lambda: {name: each["state"] for name, each in system.status()["sources"].items()} == states, "each has looked")
    assert "cannot be reached" in system.status()["sources"]["down"]["problem"]
    assert {name: each["duplicates"] for name, each in system.status()["models"].items()}.keys() == {"files", "sql"}

    del sources["down"]
    system.reload({"sources": sources})
    eventually(lambda: "down" not in system.status()["sources"], "a source that is not configured any more is forgotten")


def _is_reached(point: Path) -> bool:
    return not point.exists()


def _has_counted(system: System, events: int) -> bool:
    counted = {model: each["events"] for model, each in system.status()["models"].items()}
    assert max(counted.values(), default=0) <= events
    return counted == {"files": events, "sql": events}
