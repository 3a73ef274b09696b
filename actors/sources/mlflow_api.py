"""What the source and the registry ask of MLflow's REST API, and what both read in its answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from actors.checks import finite
from actors.http_json import Http
from actors.plain import Json
from actors.sources.interface import Promised, SourceError

RUNS: Final = 200  # in one page of runs
_PAGES: Final = 10  # in one answer: of runs that go on, so many are followed at once
_VALUES: Final = 10_000  # in one page of a metric's history
_API: Final = "/api/2.0/mlflow"


class MlflowApi:
    """A server of MLflow; its package is not needed here."""

    def __init__(self, http: Http) -> None:
        self._http = http

    def experiments(self, names: Sequence[str]) -> dict[str, str]:
        """Return the names of experiments by their ids."""
        found = {}
        for name in names:
            reply = self._get("/experiments/get-by-name", experiment_name=name)
            found[str(reply["experiment"]["experiment_id"])] = name
        return found

    def runs(self, experiments: Sequence[str], since: int) -> tuple[list[Json], bool]:
        """Return the runs that started at `since` or later, the oldest first, and whether there are more."""
        body: dict[str, object] = {
            "experiment_ids": list(experiments),
            "filter": f"attributes.start_time >= {since}",
            "order_by": ["attributes.start_time ASC"],
            "max_results": RUNS,
        }
        runs: list[Json] = []
        for _ in range(_PAGES):
            reply = self._http.post(f"{_API}/runs/search", body)
            found = reply.get("runs", [])
            if not isinstance(found, list):
                raise SourceError("MLflow did not answer with a list of runs")
            runs += found
            if not reply.get("next_page_token"):
                return runs, False
            body["page_token"] = reply["next_page_token"]
        return runs, True

    def history(self, run_id: str, key: str) -> list[Json]:
        """Return the values of a metric of a run."""
        asked: dict[str, object] = {"run_id": run_id, "metric_key": key, "max_results": _VALUES}
        found: list[Json] = []
        while True:
            reply = self._get("/metrics/get-history", **asked)
            found += reply.get("metrics", [])
            if not reply.get("next_page_token"):
                return found
            asked["page_token"] = reply["next_page_token"]

    def run(self, run_id: str) -> Json:
        """Return a run."""
        found: Json = self._get("/runs/get", run_id=run_id).get("run", {})
        return found

    def versions(self, filter_: str, **asked: object) -> list[Json]:
        """Return the versions of registered models that a filter names."""
        found: list[Json] = self._get("/model-versions/search", filter=filter_, **asked).get("model_versions", [])
        return found

    def aliases(self, name: str) -> dict[str, str]:
        """Return the version of each alias of a registered model."""
        model = self._get("/registered-models/get", name=name)["registered_model"]
        return {each["alias"]: str(each["version"]) for each in model.get("aliases", ())}

    def _get(self, path: str, **query: object) -> Json:
        return self._http.get(f"{_API}{path}", query)


def by_key(record: Mapping[str, Any], kind: str) -> Json:
    """Return the tags, parameters or metrics of a record."""
    return {each["key"]: each["value"] for each in record.get(kind, ())}


def logged(run: Mapping[str, Any]) -> Json:
    """Return what a run logged: its parameters and the last values of its metrics."""
    data = run.get("data", {})
    return {**by_key(data, "params"), **by_key(data, "metrics")}


def promised(model: str, version: str, value: object, n: object) -> list[Promised]:
    """Return the promise that two values of MLflow make, if they are one.

    >>> promised("churn", "3", "0.9", "300")
    [Promised(model='churn', version='3', value=0.9, n=300.0)]
    >>> promised("churn", "3", 0.9, None)
    []
    """
    share, rows = _number(value), _number(n)
    if share is None or rows is None or not 0.0 <= share <= 1.0 or not rows > 0.0:
        return []
    return [Promised(model, version, share, rows)]


def _number(value: Any) -> float | None:
    try:
        return finite(float(value))
    except (TypeError, ValueError):
        return None
