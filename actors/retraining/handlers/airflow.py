"""`airflow`: the retrain is a DAG run of Airflow 3 whose id is the order's, by the REST API v2.

The DAG finds the order's event in `dag_run.conf["event"]`. The result is what the task named by `result_task` returned (its
XCom): `{"new_version": ..., "promise": ..., "promise_n": ...}`.
"""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import quote

from actors import config
from actors.retraining.handlers.remote import RemoteHandler, Tool, ended, event_of
from actors.retraining.handlers.tool_api import Api, RefusedError
from actors.retraining.rules.delivery import Done, Failed, Launched, Outcome, Retry
from actors.retraining.rules.orders import Order

_EXISTS: Final = 409
_NONE: Final = 404


class AirflowHandler(RemoteHandler):
    """Triggers a DAG once per order and round."""

    def tool(self, settings: Any) -> Tool:
        """Return the DAG."""
        return _Dag(settings)


class _Dag:
    def __init__(self, settings: config.AirflowHandlerSettings) -> None:
        self._settings = settings
        hint = f"dag_id: Airflow has no DAG {settings.dag_id!r}, or no such API: url is that of the server, without /api"
        self._api = Api(settings, {_NONE: hint})
        if settings.token is None and settings.user is not None:
            del self._api.headers["Authorization"]  # Airflow gives a token for them
            asked = {"username": settings.user, "password": settings.password}
            self._api.headers["Authorization"] = f"Bearer {self._api.json('POST', '/auth/token', asked)['access_token']}"
        self._dag = f"/api/v2/dags/{quote(settings.dag_id, safe='')}"

    def put(self, order: Order, name: str) -> None:
        if self._api.json("GET", self._dag)["is_paused"]:
            raise RefusedError(Retry(f"dag_id: DAG {self._settings.dag_id!r} is paused: unpause it"))
        conf = {**self._settings.conf, "event": event_of(order)}
        body = {"dag_run_id": name, "logical_date": None, "conf": conf, "note": f"visutility: order {order.id}"}
        self._api.ask("POST", f"{self._dag}/dagRuns", body, fine=(_EXISTS,))

    def find(self, name: str) -> Outcome | None:
        run = self._api.json("GET", self._run(name), fine=(_NONE,))
        if run is None:
            self._api.json("GET", self._dag)  # raises where it is the DAG that is missing: nothing is known of its runs
            return None
        match run["state"]:
            case "success":
                return self._result(name)
            case "failed":
                return Failed(f"DAG run {name} of {self._settings.dag_id} failed")
            case _:
                return Launched()

    def stop(self, name: str) -> bool:
        found = self.find(name)
        if isinstance(found, Launched):
            self._api.ask("PATCH", self._run(name), {"state": "failed"})
            return False
        return True

    def _run(self, name: str) -> str:
        return f"{self._dag}/dagRuns/{quote(name, safe='')}"

    def _result(self, name: str) -> Done:
        task = self._settings.result_task
        if task is None:
            return Done()
        entry = f"{self._run(name)}/taskInstances/{quote(task, safe='')}/xcomEntries/return_value"
        found = self._api.json("GET", entry, fine=(_NONE,))
        if found is None:
            return Done(reason=f"result_task: task {task!r} has returned nothing")
        return ended(found["value"])
