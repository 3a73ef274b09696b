"""A running system whose metrics a real Prometheus scrapes, asked for what each panel of the dashboard shows."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import actors
from tests.cluster.scenarios.nodes import cluster_of
from tests.database import free_port
from tests.speed import slow

RULES = Path(__file__).parents[3] / "deploy" / "prometheus" / "alerts.yml"


def panels(folder: str, prometheus: str, queries: str) -> dict[str, Any]:
    """Return, of each query (a JSON list), the series that it finds, and the links of the alerts that fire."""
    place, exporter, own = Path(folder), free_port(), free_port()
    (place / "rules.yml").write_text(RULES.read_text().replace("interval: 15s", "interval: 1s").replace("for: 1h", "for: 1s"))
    scraped = f"[{{job_name: ray, static_configs: [{{targets: ['127.0.0.1:{exporter}']}}]}}]"
    said = f"global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: [rules.yml]\nscrape_configs: {scraped}\n"
    (place / "prometheus.yml").write_text(said)
    command = [prometheus, "--config.file=prometheus.yml", "--storage.tsdb.path=data", f"--web.listen-address=127.0.0.1:{own}"]
    with (place / "log").open("ab") as log, cluster_of(0, num_cpus=2, metrics_export_port=exporter):
        _run(place)
        program = subprocess.Popen(command, cwd=place, stdout=log, stderr=log)
        try:
            return _asked(f"http://127.0.0.1:{own}", json.loads(queries))
        finally:
            program.terminate()
            program.wait()


def _run(place: Path) -> None:
    """Begin a system that has something of everything: a model that has drifted, one that is silent, a source, a promise."""
    (place / "in").mkdir()
    (place / "in" / "a.jsonl").write_text('{"model": "read", "version": "1", "accuracy": 0.9, "time": 1795000000}\n')
    source = {"kind": "files", "path": str(place / "in" / "*.jsonl"), "every": "1s"}
    system = actors.start(
        {
            "storage": f"sqlite:///{place}/store",
            "ui": {"url": "https://drift.example.com"},
            "sources": {"folder": source},
            "models": {
                "fraud": {"labels": {"team": "risk"}, "false_alarm_every": 10_000, "cooldown": "1h"},
                "priced": {"retrain": {"price": 25}},
            },
        },
        namespace="exported",
    )
    random = np.random.default_rng(0)
    system.metrics.promise({"accuracy": 0.87}, n=2_500, model="priced", version="1")
    for model in ("fraud", "priced"):
        for level in (0.9, 0.6):
            values = np.clip(random.normal(level, 0.01, 400), 0, 1)
            system.metrics.log_batch({"accuracy": values}, n=200, model=model, version="1")
    system.metrics.flush(timeout_s=slow(60))


def _asked(url: str, queries: list[str]) -> dict[str, Any]:
    found: dict[str, list[dict[str, str]]] = {}

    def all_found() -> bool:
        for query in queries:
            if not found.get(query):
                found[query] = [each["metric"] for each in _get(url, "query", query=query)["result"]]
        return all(found.values())

    _eventually(all_found)
    alerts: dict[str, str] = {}

    def fires() -> bool:
        for each in _get(url, "alerts")["alerts"]:
            alerts[each["labels"]["alertname"]] = each["annotations"].get("page", "")
        return bool(alerts.get("VisuTilityModelDrifting"))

    _eventually(fires)
    return {"panels": found, "alerts": alerts}


def _get(url: str, what: str, **asked: str) -> Any:
    try:
        with urllib.request.urlopen(f"{url}/api/v1/{what}?{urllib.parse.urlencode(asked)}", timeout=slow(10)) as reply:
            return json.load(reply)["data"]
    except OSError:  # it is not up yet
        return {"result": [], "alerts": []}


def _eventually(check: Callable[[], bool]) -> None:
    deadline = time.monotonic() + slow(60)
    while not check() and time.monotonic() < deadline:
        time.sleep(0.5)
