"""Airflow, Prefect and Kubernetes, pretended: servers on this machine with the parts of their APIs that the handlers use.

What they say and take is checked against the real programs in tests/integrations.
"""

from __future__ import annotations

import json
import re
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.server import Server, reply
from tests.speed import slow

TOKEN = "t0ken-of-the-tests"
Said = tuple[int, Any]


class Pretended(ABC):
    """A server whose runs go on until they are asked after, and end well. `launched`: the ids of orders that really began."""

    def __init__(self) -> None:
        self.launched: list[str] = []
        self.seen: list[dict[str, Any]] = []
        self.requests: list[tuple[str, str, Any]] = []
        self.failures = 0  # so many runs cannot be begun first
        self.away = False
        self.runs: dict[str, dict[str, Any]] = {}
        self.ends_with = "success"  # or "failed", or "" for a run that goes on
        self.misbehaves: Callable[[str, str], Said | str | None] = lambda _method, _path: None
        self.release = threading.Event()
        self.server = Server(self._answered)
        self.url = self.server.url.rstrip("/")

    def _answered(self, request: BaseHTTPRequestHandler, content: bytes) -> None:
        said = self.answer(request.command, request.path, json.loads(content) if content else None, dict(request.headers))
        if isinstance(said, str):
            if said == "hang":
                self.release.wait(slow(60))
            return
        status, body = said
        reply(request, status, body if isinstance(body, bytes) else json.dumps(body).encode())

    @property
    @abstractmethod
    def document(self) -> dict[str, Any]:
        """The handler's configuration."""

    @abstractmethod
    def served(self, method: str, path: str, query: dict[str, list[str]], body: Any) -> Said:
        """Answer a request that has the right token."""

    def answer(self, method: str, path: str, body: Any, headers: dict[str, str]) -> Said | str:
        parts = urlsplit(path)
        self.requests.append((method, unquote(parts.path), body))
        if self.away:
            return 503, {"detail": "away"}
        if (said := self.misbehaves(method, unquote(parts.path))) is not None:
            return said
        if headers.get("Authorization") != f"Bearer {TOKEN}":
            return 401, {"detail": "Unauthorized"}
        return self.served(method, unquote(parts.path), parse_qs(parts.query), body)

    def begin(self, name: str, run: dict[str, Any], event: dict[str, Any]) -> None:
        self.runs[name] = {"state": "running"} | run
        self.seen.append(event)
        self.launched.append(event["id"])

    def asked(self, name: str) -> dict[str, Any]:
        """Return a run as it is now; it has ended when it is asked after again."""
        run = self.runs[name]
        shown = dict(run)
        if run["state"] == "running" and self.ends_with:
            run["state"] = self.ends_with
        return shown

    def full(self) -> bool:
        """Return whether this run cannot be begun."""
        full = self.failures > 0
        self.failures -= full
        return full

    async def work(self, dispatcher: Any) -> None:
        """Nothing more happens by itself."""
        del dispatcher

    async def call(self, name: str, method: str, *, timeout_s: float, **arguments: Any) -> Any:
        raise AssertionError(f"{name}.{method} must not be called")

    def close(self) -> None:
        self.release.set()
        self.server.stop()


RESULT = {"new_version": "v3", "promise": 0.91, "promise_n": 500}


class Airflow(Pretended):
    """Version 3's REST API, v2."""

    paused = False

    @property
    def document(self) -> dict[str, Any]:
        known = {"kind": "airflow", "url": self.url, "token": "${TOOL_TOKEN}", "timeout": "2s"}
        return known | {"dag_id": "retrain", "result_task": "train", "conf": {"team": "${QUEUE}"}}

    def served(self, method: str, path: str, query: dict[str, list[str]], body: Any) -> Said:  # noqa: PLR0911
        if not path.startswith("/api/v2/dags/retrain"):
            return 404, {"detail": "The DAG with dag_id: `x` was not found"}
        runs = "/api/v2/dags/retrain/dagRuns"
        if path == "/api/v2/dags/retrain":
            return 200, {"dag_id": "retrain", "is_paused": self.paused}
        if (method, path) == ("POST", runs):
            assert set(body) == {"dag_run_id", "logical_date", "conf", "note"}
            assert body["logical_date"] is None
            if body["dag_run_id"] in self.runs:
                return 409, {"detail": "Unique constraint violation"}
            if self.full():
                return 500, {"detail": "no room"}
            self.begin(body["dag_run_id"], {"conf": body["conf"]}, body["conf"]["event"])
            return 200, self.row(body["dag_run_id"], "queued")
        name = path.removeprefix(runs + "/").partition("/")[0]
        if name not in self.runs:
            return 404, {"detail": "The DagRun was not found"}
        if method == "PATCH":
            assert body == {"state": "failed"}
            self.runs[name]["state"] = "failed"
            return 200, self.row(name, "failed")
        if path.endswith("/taskInstances/train/xcomEntries/return_value"):
            return 200, {"key": "return_value", "task_id": "train", "value": RESULT}
        return 200, self.row(name, self.asked(name)["state"])

    def row(self, name: str, state: str) -> dict[str, Any]:
        return {"dag_run_id": name, "dag_id": "retrain", "state": state}


class Prefect(Pretended):
    """Version 3's REST API."""

    @property
    def document(self) -> dict[str, Any]:
        known = {"kind": "prefect", "url": f"{self.url}/api", "token": "${TOOL_TOKEN}", "timeout": "2s"}
        return known | {"deployment": "retrain/live", "parameters": {"team": "${QUEUE}"}}

    def served(self, method: str, path: str, query: dict[str, list[str]], body: Any) -> Said:
        match method, path:
            case "GET", "/api/deployments/name/retrain/live":
                return 200, {"id": "d-1"}
            case "POST", "/api/deployments/d-1/create_flow_run":
                key = body["idempotency_key"]
                if key not in self.runs:
                    if self.full():
                        return 500, {"exception_message": "Internal Server Error"}
                    self.begin(key, {"id": f"run-of-{key}"}, body["parameters"]["event"])
                return 201, {"id": self.runs[key]["id"]}
            case "POST", "/api/flow_runs/filter":
                (key,) = body["flow_runs"]["idempotency_key"]["any_"]
                assert body["flows"] == {"name": {"any_": ["retrain"]}}
                return 200, [{"id": self.runs[key]["id"], "state": self.state(self.asked(key))}] if key in self.runs else []
        if (found := re.fullmatch(r"/api/flow_runs/run-of-(.*)/set_state", path)) is not None:
            self.runs[found[1]]["state"] = {"CANCELLING": "cancelling", "CANCELLED": "cancelled"}[body["state"]["type"]]
            return 201, {"status": "ACCEPT"}
        return 404, {"detail": "Deployment not found"}

    def state(self, run: dict[str, Any]) -> dict[str, Any]:
        names = {"running": "RUNNING", "success": "COMPLETED", "failed": "FAILED"}
        kind = names.get(run["state"], run["state"].upper())
        message = json.dumps(RESULT) if kind == "COMPLETED" else None
        if kind == "CANCELLING":
            self.runs[run["id"].removeprefix("run-of-")]["state"] = "cancelled"  # its worker does so
        return {"type": kind, "message": message, "timestamp": "2999-01-01T00:00:00Z"}


class Kubernetes(Pretended):
    """Jobs and pods. tests/integrations/test_published_kubernetes.py holds it, and who asks it, to the published API."""

    @property
    def document(self) -> dict[str, Any]:
        pod = {"restartPolicy": "Never", "containers": [{"name": "train", "image": "train:1", "args": ["${QUEUE}"]}]}
        return {
            "kind": "kubernetes",
            "url": self.url,
            "token": "${TOOL_TOKEN}",
            "ca_file": None,
            "namespace": "ml",
            "timeout": "2s",
            "template": {"spec": {"backoffLimit": 0, "template": {"spec": pod}}},
        }

    def served(self, method: str, path: str, query: dict[str, list[str]], body: Any) -> Said:  # noqa: PLR0911
        jobs = "/apis/batch/v1/namespaces/ml/jobs"
        if (method, path) == ("POST", jobs):
            name = body["metadata"]["name"]
            if name in self.runs:
                return self.refused(409, "AlreadyExists")
            if self.full():
                return self.refused(500, "InternalError")
            (container,) = body["spec"]["template"]["spec"]["containers"]
            told = {each["name"]: each["value"] for each in container["env"]}
            self.begin(name, {"job": body}, json.loads(told["VISUTILITY_EVENT"].replace("$$(", "$(")))
            return 201, body
        if path == "/api/v1/namespaces/ml/pods":
            (label,) = query["labelSelector"]
            run = self.runs.get(label.removeprefix("batch.kubernetes.io/job-name="))
            return 200, {"apiVersion": "v1", "kind": "PodList", "metadata": {}, "items": [] if run is None else [self.pod()]}
        name = path.removeprefix(jobs + "/")
        if name not in self.runs:
            return self.refused(404, "NotFound")
        if method == "DELETE":
            assert body["propagationPolicy"] == "Foreground"
            return 200, self.job(self.runs.pop(name))
        return 200, self.job(self.asked(name))

    def job(self, run: dict[str, Any]) -> dict[str, Any]:
        conditions = {"success": "Complete", "failed": "Failed"}
        found = (
            [{"type": conditions[run["state"]], "status": "True", "reason": "BackoffLimitExceeded"}]
            if run["state"] != "running"
            else []
        )
        return {**run["job"], "status": {"conditions": found}}

    def pod(self) -> dict[str, Any]:
        ended = {"terminated": {"exitCode": 0, "message": json.dumps(RESULT)}}
        train = {"name": "train", "image": "train:1", "imageID": "", "ready": False, "restartCount": 0, "state": ended}
        return {"metadata": {"name": "x"}, "status": {"phase": "Succeeded", "containerStatuses": [train]}}

    def refused(self, status: int, reason: str) -> Said:
        return status, {"apiVersion": "v1", "kind": "Status", "status": "Failure", "reason": reason, "code": status}


TOOLS: tuple[type[Pretended], ...] = (Airflow, Prefect, Kubernetes)
