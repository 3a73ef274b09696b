"""`prefect`: the retrain is a flow run of a deployment whose idempotency key is the order's id.

The flow takes the order's event as its parameter `event`. The result is the message of its final state, as JSON:
`return Completed(message=json.dumps({"new_version": ...}))`. Prefect keeps return values where only the flow may read them.
"""

from __future__ import annotations

import time
from datetime import datetime
from typing import Any, Final
from urllib.parse import quote

from actors import config
from actors.retraining.handlers.remote import RemoteHandler, Tool, ended, event_of
from actors.retraining.handlers.tool_api import Api
from actors.retraining.rules.delivery import Failed, Launched, Outcome
from actors.retraining.rules.orders import Order

_NONE: Final = 404
# A worker that lives has cancelled its run by then; one that died never will.
_CANCELLING_S: Final = 60.0
_NOT_BEGUN: Final = {"SCHEDULED", "PENDING", "PAUSED"}


class PrefectHandler(RemoteHandler):
    """Creates a flow run once per order and round."""

    def tool(self, settings: Any) -> Tool:
        """Return the deployment."""
        return _Deployment(settings)


class _Deployment:
    def __init__(self, settings: config.PrefectHandlerSettings) -> None:
        self._settings = settings
        hint = f"deployment: Prefect has no {settings.deployment!r}, or no such API: url ends with /api"
        self._api = Api(settings, {_NONE: hint})

    def put(self, order: Order, name: str) -> None:
        flow, _, deployment = self._settings.deployment.partition("/")
        found = self._api.json("GET", f"/deployments/name/{quote(flow, safe='')}/{quote(deployment, safe='')}")
        body = {
            "name": name,
            "idempotency_key": name,
            "parameters": {**self._settings.parameters, "event": event_of(order)},
            "tags": ["visutility"],
        }
        self._api.ask("POST", f"/deployments/{found['id']}/create_flow_run", body)

    def find(self, name: str) -> Outcome | None:
        run = self._run(name)
        if run is None:
            return None
        state = run["state"] or {"type": "PENDING"}
        match state["type"]:
            case "COMPLETED":
                return ended(state.get("message"))
            case "FAILED" | "CRASHED" | "CANCELLED" as kind:
                return Failed(f"flow run {name} is {kind.lower()}: {state.get('message') or 'no message'}")
            case _:
                return Launched()

    def stop(self, name: str) -> bool:
        run = self._run(name)
        if run is None or not isinstance(self.find(name), Launched):
            return True
        state = run["state"] or {"type": "PENDING", "timestamp": None}
        begun = state["type"] not in _NOT_BEGUN
        if state["type"] == "CANCELLING" and not _is_older(state["timestamp"], _CANCELLING_S):
            return False
        end = "CANCELLING" if begun and state["type"] != "CANCELLING" else "CANCELLED"
        wish = {"state": {"type": end, "message": "orders.timeout of VisuTility"}, "force": end == "CANCELLED"}
        self._api.ask("POST", f"/flow_runs/{run['id']}/set_state", wish)
        return False

    def _run(self, name: str) -> Any:
        flow = {"name": {"any_": [self._settings.deployment.partition("/")[0]]}}
        asked = {"flows": flow, "flow_runs": {"idempotency_key": {"any_": [name]}}, "limit": 1}
        found = self._api.json("POST", "/flow_runs/filter", asked)
        return found[0] if found else None


def _is_older(timestamp: str | None, seconds: float) -> bool:
    return timestamp is None or time.time() - datetime.fromisoformat(timestamp).timestamp() > seconds
