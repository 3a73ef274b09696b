"""MLflow: the metrics of the runs of experiments, read through its REST API, so that its package is not needed here.

The place is, by run and metric, the time of the last value with the fingerprints of those at that time. Runs that have ended
and were read to their end are forgotten once every run that started before them has been, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from actors.checks import finite
from actors.config.sources import MlflowSettings
from actors.http_json import Http
from actors.plain import Json
from actors.sources.interface import Answer, Place, Promised, Refusals, Row
from actors.sources.mlflow_api import MlflowApi, by_key, logged, promised
from actors.sources.rules import checked, fingerprint, unseen

_ENDED: Final = frozenset({"FINISHED", "FAILED", "KILLED"})


class Mlflow:
    """Reads runs in the order in which they started, at most 2,000 at a time."""

    def __init__(self, settings: MlflowSettings) -> None:
        self._settings = settings
        self._api = MlflowApi(Http(settings.url, headers=settings.headers, timeout_s=settings.timeout_s))

    def read(self, place: Place, now_s: float) -> Answer:  # the runs have times of their own
        """Return the values that were logged since."""
        known: Json = {"since": 0, "runs": {}} if place is None else place
        experiments = self._api.experiments(self._settings.experiments)
        runs, has_more = self._api.runs(list(experiments), known["since"])
        rows: list[Row] = []
        promises: list[Promised] = []
        refusals = Refusals()
        left: Json = {}
        since, all_ended = known["since"], True
        for run in runs:
            run_id, info = run["info"]["run_id"], run["info"]
            state = dict(known["runs"].get(run_id, {}))
            if not state.get("ended"):
                version, model = self._named(run, experiments)
                for metric in run.get("data", {}).get("metrics", ()):
                    rows += self._values(run_id, metric["key"], state, (model, version), refusals)
                if info["status"] in _ENDED:
                    state = {"ended": True}
                    promises += self._promised(run, model, version)
            left[run_id] = state
            all_ended = all_ended and bool(state.get("ended"))
            if all_ended:
                since = int(info["start_time"])
        # Of the runs that started at this very moment all are remembered: another may still come.
        kept = {run["info"]["run_id"] for run in runs if int(run["info"]["start_time"]) >= since}
        new = {"since": since, "runs": {run_id: state for run_id, state in left.items() if run_id in kept}}
        return Answer(
            rows,
            new,
            promises,
            refused=refusals.count,
            problem=refusals.problem,
            has_more=has_more and new["since"] > known["since"],
        )

    def _values(self, run_id: str, key: str, state: Json, named: tuple[str, str], refusals: Refusals) -> Iterator[Row]:
        wanted = self._settings.metrics
        if wanted and key not in wanted:
            return
        at = state.get(key, {"at": 0, "seen": []})
        found = [each for each in self._api.history(run_id, key) if int(each["timestamp"]) >= at["at"]]
        fresh = unseen(sorted(found, key=lambda each: (int(each["timestamp"]), int(each.get("step", 0)))), at["seen"])
        if not fresh:
            return
        newest = int(fresh[-1]["timestamp"])
        ties = [fingerprint(each) for each in fresh if int(each["timestamp"]) == newest]
        state[key] = {"at": newest, "seen": [*at["seen"], *ties] if newest == at["at"] else ties}
        for each in fresh:
            value = finite(float(each["value"]))
            row: Row | str = f"{key} of run {run_id} must be a finite number, got {each['value']}"
            if value is not None:
                row = checked(Row(*named, int(each["timestamp"]) / 1000, {wanted.get(key, key): value}))
            if isinstance(row, Row):
                yield row
            else:
                refusals.add(row)

    def _named(self, run: Json, experiments: Mapping[str, str]) -> tuple[str, str]:
        """Return the version and the model of a run."""
        info, tags = run["info"], by_key(run.get("data", {}), "tags")
        model = self._settings.model or tags.get("model") or experiments[str(info["experiment_id"])]
        if self._settings.version == "run_name":
            return info.get("run_name") or info["run_id"], model
        if self._settings.version == "registered":
            versions = self._api.versions(f"run_id='{info['run_id']}'")
            if versions:  # a run that is registered twice keeps its first version, however the answer is ordered
                return str(min(int(each["version"]) for each in versions)), model
        return info["run_id"], model

    def _promised(self, run: Json, model: str, version: str) -> list[Promised]:
        if self._settings.promise is None:
            return []
        said = logged(run)
        return promised(model, version, said.get(self._settings.promise), said.get(self._settings.promise_n))
