"""Retrains by task, class and Ray job on a real Ray with its Jobs API, under token authentication; run by `alone`."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import actors
from actors import failpoints
from actors.system import System
from tests.cluster.scenarios.nodes import cluster_of
from tests.database import free_port
from tests.known import some
from tests.speed import slow

TARGETS = """
import json, os, time
from pathlib import Path

FOLDER = Path(__file__).parent

def note(name, text):
    with (FOLDER / name).open("a") as file:
        file.write(text + "\\n")

def train(event):
    note("task", f"{event.id} {event.model_name}")
    time.sleep(4)
    return {"new_version": "v2"}

def fragile(event):
    note("fragile", event.id)
    if len((FOLDER / "fragile").read_text().split()) < 3:
        raise RuntimeError("out of memory")

class Pager:
    def __init__(self, *, file):
        self.file = file
    def on_retrain(self, event):
        note(self.file, event.id)
"""
JOB = """
import json, os, sys
event = json.loads(os.environ["VISUTILITY_EVENT"])
assert event["id"] == os.environ["VISUTILITY_ORDER"]
with open(sys.argv[1], "a") as file:
    file.write(event["id"] + " " + sys.argv[2] + "\\n")
"""


def handlers(folder: str) -> dict[str, Any]:
    """Return what each receiver saw and how each order ended."""
    place = Path(folder)
    (place / "retrain_targets.py").write_text(TARGETS)
    (place / "job.py").write_text(JOB)
    armed = Path(os.environ["VISUTILITY_FAILPOINTS"])
    # The usual port of the agent that starts jobs is taken where another Ray runs on this machine, as it does in this suite.
    ports = {"dashboard_port": free_port(), "dashboard_agent_listen_port": free_port()}
    with cluster_of(0, num_cpus=3, include_dashboard=True, object_store_memory=150 * 2**20, **ports):
        return _launched(place, armed)


def no_agent(folder: str) -> dict[str, Any]:
    """Order a job on a Ray whose job agent never starts, since its port is taken; give how the order ends."""
    with socket.create_server(("", 0)) as taken:
        ports = {"dashboard_port": free_port(), "dashboard_agent_listen_port": taken.getsockname()[1]}
        with cluster_of(0, num_cpus=2, include_dashboard=True, object_store_memory=150 * 2**20, **ports):
            document = {
                "storage": f"sqlite:///{folder}/store",
                "delivery": {"backoff": "200ms", "attempts": 2},
                "defaults": {"handler": {"kind": "ray_job", "entrypoint": "true"}},
            }
            system = actors.start(document, namespace="no-agent")
            order = some(system.retrains.trigger("m", "test")["order"])
            ended = _eventually(lambda: not _unfinished(system), within_s=120)
            shown = system.retrains.show(order)
            system.stop()
            return {"ended": ended, "state": shown["state"], "reason": shown["reason"], "attempts": len(shown["attempt_log"])}


def _launched(place: Path, armed: Path) -> dict[str, Any]:
    job = f"python {place}/job.py {place}/job {{model}}"
    system = actors.start(
        {
            "storage": f"sqlite:///{place}/store",
            "delivery": {"backoff": "200ms"},
            "models": {
                "by task": {"handler": {"kind": "task", "target": "retrain_targets:train"}},
                "fragile": {"handler": {"kind": "task", "target": "retrain_targets:fragile", "resources": {"num_cpus": 1.0}}},
                "by class": {"handler": {"kind": "retrain_targets:Pager", "options": {"file": "class"}}},
                "by job; $(exit 1) 'x'": {"handler": {"kind": "ray_job", "entrypoint": job}},
                "broken job": {"handler": {"kind": "ray_job", "entrypoint": "exit 3"}},
            },
        },
        namespace="handlers",
    )
    # Dies right after the first effect, whichever it is; then while the long task runs.
    failpoints.arm(armed, "dispatcher.after_effect", "exit")
    given = {model: system.retrains.trigger(model, "test")["order"] for model in system.settings().models}
    struck = _eventually(lambda: not (armed / "dispatcher.after_effect").exists())
    _eventually((place / "task").exists)
    os.kill(some(system.status()["actors"]["dispatcher"]["pid"]), signal.SIGKILL)
    assert _eventually(lambda: not _unfinished(system), within_s=150), system.retrains.history()
    rows = {row["model"]: row for row in system.retrains.history()}
    told = {
        "struck": struck,
        "orders": given,
        "states": {model: row["state"] for model, row in rows.items()},
        "new_version": rows["by task"]["new_version"],
        "reason": rows["broken job"]["reason"],
        "seen": {name: (place / name).read_text().splitlines() for name in ("task", "fragile", "class", "job")},
    }
    # A person puts the failed job back: it runs again under the same id.
    told["put back"] = system.retrains.retry(some(given["broken job"]))["decision"]
    _eventually(lambda: not _unfinished(system))
    told["after putting back"] = system.retrains.show(some(given["broken job"]))["state"]
    told["attempts"] = [log["outcome"] for log in system.retrains.show(some(given["broken job"]))["attempt_log"]]
    system.stop()
    return told


def _unfinished(system: System) -> list[str]:
    return [row["id"] for row in system.retrains.history() if row["state"] in {"pending", "running"}]


def _eventually(check: Callable[[], Any], within_s: float = 60.0) -> bool:
    deadline = time.monotonic() + slow(within_s)
    while time.monotonic() < deadline:
        if check():
            return True
        time.sleep(0.1)
    return False
