"""`kubernetes`: the retrain is a Job named by the order, from the template in the configuration.

Every container finds the order in VISUTILITY_ORDER and its event, as JSON, in VISUTILITY_EVENT. The result is the termination
message of a container: it writes `{"new_version": ...}` to /dev/termination-log, which needs no rights in the cluster.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from actors import config
from actors.retraining.handlers.remote import RemoteHandler, Tool, ended, event_of
from actors.retraining.handlers.tool_api import Api
from actors.retraining.rules.delivery import Done, Failed, Launched, Outcome
from actors.retraining.rules.orders import Order

_EXISTS: Final = 409
_NONE: Final = 404
# The whole environment of a container must fit into one Linux argument.
_MAX_EVENT_BYTES: Final = 64 * 1024


class KubernetesHandler(RemoteHandler):
    """Creates a Job once per order and round."""

    def tool(self, settings: Any) -> Tool:
        """Return the cluster."""
        return _Cluster(settings)


class _Cluster:
    def __init__(self, settings: config.KubernetesHandlerSettings) -> None:
        self._settings = settings
        if settings.token is None and settings.token_file is not None:  # read each time: Kubernetes replaces it
            settings = settings.model_copy(update={"token": Path(settings.token_file).read_text(encoding="ascii").strip()})
        hints = {
            _NONE: f"namespace: the cluster has no {settings.namespace!r}, or no such API",
            403: f"the account may not create, get and delete Jobs, and list Pods, in {settings.namespace!r}: grant it a Role",
        }
        self._api = Api(settings, hints, ca_file=settings.ca_file)
        self._jobs = f"/apis/batch/v1/namespaces/{quote(settings.namespace, safe='')}/jobs"

    def put(self, order: Order, name: str) -> None:
        self._api.ask("POST", self._jobs, job_of(self._settings.template, order, name), fine=(_EXISTS,))

    def find(self, name: str) -> Outcome | None:
        job = self._api.json("GET", f"{self._jobs}/{name}", fine=(_NONE,))
        if job is None:
            return None
        conditions = job["status"].get("conditions") or []
        ends = {each["type"]: each for each in conditions if each["status"] == "True"}
        if "Complete" in ends:
            return self._result(name)
        if "Failed" in ends:
            said = ends["Failed"]
            return Failed(f"Job {name} failed: {said.get('reason', '')}: {said.get('message', '')}")
        return Launched()

    def stop(self, name: str) -> bool:
        found = self.find(name)
        if isinstance(found, Launched):
            # In the foreground: the Job is there until its pods have ended.
            options = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Foreground"}
            self._api.ask("DELETE", f"{self._jobs}/{name}", options, fine=(_NONE,))
            return False
        return True

    def _result(self, name: str) -> Done:
        pods = f"/api/v1/namespaces/{quote(self._settings.namespace, safe='')}/pods"
        found = self._api.json("GET", f"{pods}?labelSelector={quote(f'batch.kubernetes.io/job-name={name}', safe='')}")
        messages = [
            container["state"]["terminated"].get("message")
            for pod in found["items"]
            if pod["status"].get("phase") == "Succeeded"
            for container in pod["status"].get("containerStatuses") or []
            if container.get("state", {}).get("terminated")
        ]
        results = [ended(message) for message in messages if message]
        return next((each for each in results if each.new_version is not None), Done())


def job_of(template: dict[str, Any], order: Order, name: str) -> dict[str, Any]:
    """Return the Job of an order: the template with its name, a label, and the order in each container's environment."""
    job = copy.deepcopy(template)
    job |= {"apiVersion": "batch/v1", "kind": "Job"}
    metadata = job.setdefault("metadata", {})
    metadata["name"] = name
    metadata["labels"] = {**metadata.get("labels", {}), "app.kubernetes.io/managed-by": "visutility"}
    event = json.dumps(event_of(order))
    if len(event) > _MAX_EVENT_BYTES:
        event = json.dumps(event_of(order) | {"explanation": {}})
    told = [{"name": "VISUTILITY_ORDER", "value": order.id}, {"name": "VISUTILITY_EVENT", "value": event}]
    for container in job["spec"]["template"]["spec"]["containers"]:
        kept = [each for each in container.get("env", []) if each["name"] not in {"VISUTILITY_ORDER", "VISUTILITY_EVENT"}]
        # An event holds what people wrote: $(NAME) in it must not be expanded.
        container["env"] = [*kept, *({**each, "value": each["value"].replace("$(", "$$(")} for each in told)]
    return job
