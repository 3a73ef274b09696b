"""Scenarios on a Ray with token authentication, a dashboard and exported metrics, in a process of their own."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ray
from ray.util.metrics import Gauge

import actors
from actors.storage.schema import SYSTEM
from tests.cluster.scenarios.nodes import HEALTH, cluster_of, drift
from tests.cluster.waiting import eventually
from tests.database import free_port
from tests.speed import slow


@contextlib.contextmanager
def secured(metrics_port: int) -> Iterator[dict[str, Any]]:
    """A local Ray with all of Ray's own guards: token, dashboard (the Jobs API), metrics endpoint."""
    assert os.environ["RAY_AUTH_MODE"] == "token"
    with cluster_of(
        0,
        num_cpus=3,
        include_dashboard=True,
        dashboard_port=free_port(),
        # The usual port is taken where another Ray runs on this machine; the Jobs API then has nobody to start a job.
        dashboard_agent_listen_port=free_port(),
        metrics_export_port=metrics_port,
        # Ray's exporter forgets what is not set again: after 20 s so, after 36 s with the default of 10,000.
        _system_config=HEALTH | {"metrics_report_interval_ms": 1000},
    ) as cluster:
        yield {"gcs": cluster.address, "dashboard": f"http://{cluster.webui_url}"}


def other_process(code: str, address: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A job of somebody else, with another environment."""
    kept = os.environ | {"RAY_ADDRESS": address} | environment
    return subprocess.run([sys.executable, "-c", code], env=kept, capture_output=True, text=True, timeout=slow(90), check=False)


def everything(folder: str, url: str, secret: str, metrics_port: str) -> dict[str, Any]:
    """Token, jobs, secrets and metrics on one system: starting a Ray is what costs."""
    written = io.StringIO()
    logging.basicConfig(stream=written, level=logging.DEBUG, force=True)
    with secured(int(metrics_port)) as ray_address:
        system = actors.start(configuration(folder, url))
        job_is_launched(system)
        webhook_gets_its_secret(system)
        metrics = metrics_are_exported(int(metrics_port))
        wrong_token_is_refused(ray_address)
        metrics_do_not_vanish(int(metrics_port))
        seen = {
            "status": json.dumps(system.status()),
            "history": json.dumps(system.retrains.history(), default=str),
            "settings": str(system.settings()),
            "log of the driver": written.getvalue(),
            "what the store holds of the settings": stored_settings(url),
        }
        system.stop()
    for name, text in seen.items():
        assert secret not in text, f"{name} holds a secret"
    assert files_with("accuracy fell") != [], "the actors' logs are among the files that are searched"
    assert files_with(secret) == [], "no log of Ray's holds a secret"
    return {"metrics": metrics, "control": secret in os.environ["VISUTILITY_STORAGE"]}


def configuration(folder: str, url: str) -> dict[str, Any]:
    del url
    note = f"import pathlib, sys; pathlib.Path('{folder}', sys.argv[1]).write_text(sys.argv[2])"
    job = f'{sys.executable} -c "{note}" {{model}} {{order}}'
    return {
        "storage": "${VISUTILITY_STORAGE}",
        "defaults": {"false_alarm_every": 10_000},
        "models": {
            "job": {"handler": {"kind": "ray_job", "entrypoint": job}, "labels": {"team": "risk"}},
            "hook": {"handler": {"kind": "webhook", "url": "${HOOK_URL}", "secret_env": "HOOK_SECRET"}},
        },
    }


def job_is_launched(system: actors.System) -> None:
    drift(system, "job")
    try:
        eventually(
            lambda: any(row["state"] == "done" for row in system.retrains.history(model="job")), "a job has retrained", 60
        )
    except AssertionError:
        raise AssertionError(f"{system.retrains.history(model='job')} {system.status()}") from None


def webhook_gets_its_secret(system: actors.System) -> None:
    # Nobody listens there: the failed delivery is logged and put on record, and neither may hold the secret.
    system.retrains.trigger("hook", reason="to see what a failure says")
    eventually(lambda: [r for r in system.retrains.history(model="hook") if r["attempts"] >= 1], "an attempt is on record")
    time.sleep(1)


def wrong_token_is_refused(ray_address: dict[str, Any]) -> None:
    program = "import actors; actors.connect().status(); print('came in')"
    assert "came in" in other_process(program, ray_address["gcs"]).stdout
    for wrong in ({"RAY_AUTH_TOKEN": "f" * 64}, {"RAY_AUTH_MODE": "disabled"}):
        refused = other_process(program, ray_address["gcs"], **wrong)
        assert refused.returncode != 0, wrong
        assert "came in" not in refused.stdout
        assert re.search("[Uu]nauth|[Aa]uthentication", refused.stderr), refused.stderr[-2000:]
    try:
        urllib.request.urlopen(f"{ray_address['dashboard']}/api/jobs/", timeout=slow(10))
    except urllib.error.HTTPError as error:
        code = error.code
    else:
        raise AssertionError("the Jobs API answered without a token")
    assert code in {401, 403}


SET_ONCE = "visutility_test_set_once"
METRICS = [
    r'ray_visutility_events_total\{.*model="job".*outcome="accepted".*\} 1000',
    r'ray_visutility_drift_state\{.*model="job".*\} \d',
    r'ray_visutility_drift_detections_total\{.*metric="accuracy".*model="job".*\} [1-9]',
    r'ray_visutility_retrains_total\{.*model="job".*outcome="done".*\} 1\.0',
    r'ray_visutility_last_event_timestamp_seconds\{.*model="job".*\} 1\.\d+e\+09',
    r'ray_visutility_cooldown_remaining_seconds\{.*model="job".*\} 1[0-8]\d\d',
    r'ray_visutility_model_info\{.*model="job".*version="v1".*\} 1\.0',
    r'ray_visutility_model_label\{.*label="team".*model="job".*value="risk".*\} 1\.0',
    r"ray_visutility_build_info\{.*\} 1\.0",
    r"ray_visutility_running_trials\{.*\} 0\.0",
]


def scraped(port: int) -> str:
    node = next(node for node in ray.nodes() if node["Alive"])
    with urllib.request.urlopen(f"http://{node['NodeManagerAddress']}:{port}/metrics", timeout=slow(10)) as reply:
        return str(reply.read().decode())


def absent_metrics(port: int) -> list[str]:
    text = scraped(port)
    return [each for each in METRICS if not re.search(each, text)]


def metrics_are_exported(port: int) -> list[str]:
    Gauge(SET_ONCE).set(1.0)
    eventually(lambda: not absent_metrics(port) and SET_ONCE in scraped(port), "every metric is exported", 60)
    names = {line.partition("{")[0] for line in scraped(port).splitlines() if line.startswith("ray_visutility")}
    return sorted(names - {f"ray_{SET_ONCE}"})


def metrics_do_not_vanish(port: int) -> None:
    """Read them once more when Ray's exporter has forgotten what nobody set again."""
    eventually(lambda: SET_ONCE not in scraped(port), "the exporter forgets a gauge that is set once", 90)
    assert absent_metrics(port) == []


def stored_settings(url: str) -> str:
    from sqlalchemy import select

    from actors.storage import Store, schema

    store = Store(url)
    with store.part(SYSTEM).read() as connection:
        text = str(connection.execute(select(schema.settings.c.document)).all())
    store.close()
    return text


def files_with(text: str) -> list[str]:
    """Return the files of Ray's session that hold `text`."""
    files = [path for path in Path(os.environ["RAY_TMPDIR"]).rglob("*") if path.is_file()]
    return [str(path) for path in files if text.encode() in path.read_bytes()]
