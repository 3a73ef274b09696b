"""Prometheus: a PromQL query, asked as a range for every step since the last answer, so that an outage is caught up on.

The place is the time of the last step that was read. Steps are whole multiples of the step's length, so the same value is never
read at two times.
"""

from __future__ import annotations

import math
from typing import Final

from actors import wire
from actors.checks import finite, shown
from actors.config.sources import PrometheusSettings
from actors.http_json import Http
from actors.plain import Json
from actors.sources.interface import Answer, Place, Refusals, Row, SourceError
from actors.sources.rules import checked

# Prometheus refuses more than 11,000 points a series; a thousand series of so many steps are 300,000 rows.
STEPS: Final = 300

Series = dict[tuple[str, str, float], float]


class Prometheus:
    """Reads the steps after the last one, at most 300 in one answer."""

    def __init__(self, settings: PrometheusSettings) -> None:
        self._settings = settings
        self._http = Http(settings.url, headers=settings.headers, timeout_s=settings.timeout_s)

    def read(self, place: Place, now_s: float) -> Answer:
        """Return the values of every step that is whole by now."""
        settings = self._settings
        step_s = settings.step_s
        newest = math.floor((now_s - settings.delay_s) / step_s)
        # The first time the newest whole step is read in any case, so that a wrong query or address shows at once.
        first = min(math.ceil((now_s - settings.backfill_s) / step_s), newest) if place is None else int(place["step"]) + 1
        last = min(newest, first + STEPS - 1)
        if place is not None and place.get("seconds") != step_s:  # the step was changed: the steps have other numbers
            first = math.floor(float(place["until"]) / step_s) + 1
            last = min(newest, first + STEPS - 1)
        if last < first:
            return Answer([], place or {"step": first - 1, "seconds": step_s, "until": (first - 1) * step_s})
        refusals = Refusals()
        values = self._asked(settings.query, first, last, refusals)
        counts = self._asked(settings.n, first, last, refusals) if settings.n is not None and values else {}
        rows = []
        for (model, version, at_s), value in sorted(values.items(), key=lambda item: item[0][2]):
            found = checked(Row(model, version, at_s, {settings.metric: value}, counts.get((model, version, at_s))))
            if isinstance(found, Row):
                rows.append(found)
            else:
                refusals.add(found)
        return Answer(
            rows,
            {"step": last, "seconds": step_s, "until": last * step_s},
            refused=refusals.count,
            problem=refusals.problem,
            has_more=last < newest,
        )

    def _asked(self, query: str, first: int, last: int, refusals: Refusals) -> Series:
        step_s = self._settings.step_s
        asked = {"query": query, "start": first * step_s, "end": last * step_s, "step": step_s}
        reply = self._http.get("/api/v1/query_range", asked)
        data = reply.get("data")
        if reply.get("status") != "success" or not isinstance(data, dict) or data.get("resultType") != "matrix":
            raise SourceError(f"Prometheus did not answer with a matrix: {shown(reply)}")
        found: Series = {}
        for series in data.get("result", ()):
            self._add(series, found, refusals)
        return found

    def _add(self, series: Json, found: Series, refusals: Refusals) -> None:
        labels = series["metric"]
        model = self._settings.model or labels.get(self._settings.model_label)
        if model is None:
            refusals.add(f"a series must have the label {self._settings.model_label}, got {shown(labels)}")
            return
        version = labels.get(self._settings.version_label) or wire.UNVERSIONED
        for at_s, text in series["values"]:
            value = finite(float(text))
            key = str(model), str(version), float(at_s)
            if value is None:
                refusals.add(f"a value must be a finite number, got {text} of {model}")
            elif key in found:
                refusals.add(f"{model} {version} has several series: sum them up in the query")
            else:
                found[key] = value


__all__ = ["Prometheus"]
