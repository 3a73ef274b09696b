"""One model: its metrics over time with what happened to it, its versions, orders, silences and configuration."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from actors.ui.origins import origins
from actors.ui.pages import render
from actors.ui.series import Points


def show(request: Request) -> Response:
    """Answer with the page of a model. KeyError: no such model."""
    name = request.path_params["model"]
    backend = render.backend(request)
    seen = backend.model(name)
    settings = backend.settings()
    return render.page(
        request,
        "model.html",
        name=name,
        seen=seen,
        episodes=backend.episodes(name, 50),
        orders=backend.orders(name, limit=50),
        versions=backend.versions(name),
        silences=backend.silences(name),
        origins=origins(settings, name),
    )


def series(request: Request) -> Response:
    """Answer with what the charts draw, as JSON."""
    name = request.path_params["model"]
    backend = render.backend(request)
    found = backend.series(name)
    seen = backend.model(name)
    episodes = backend.episodes(name, 50)
    watch = backend.settings().for_model(name).watch
    metrics = {}
    for metric, points in found["metrics"].items():
        version, progress = next(
            ((of, each["metrics"][metric]) for of, each in reversed(seen["versions"].items()) if metric in each["metrics"]),
            (None, None),
        )
        options = watch[metric].options if metric in watch else {}
        metrics[metric] = {
            **points,
            "watched": progress is not None,
            "version": version,
            "baseline": None if progress is None else progress["baseline"],
            "bounds": [options[bound] for bound in ("lower", "upper") if isinstance(options.get(bound), int | float)],
            "alarms": list(_alarms(episodes, metric, points)),
        }
    orders = [{"id": each["id"], "at": each["requested_at"], "state": each["state"]} for each in backend.orders(name, limit=50)]
    return JSONResponse(
        {"metrics": dict(sorted(metrics.items(), key=lambda item: not item[1]["watched"])), "orders": orders},
        headers={"cache-control": "no-store"},
    )


def _alarms(episodes: list[Any], metric: str, points: Points) -> Iterator[dict[str, Any]]:
    for episode in episodes:
        for evidence in episode["evidence"]:
            if evidence["metric"] == metric:
                yield {
                    "episode": episode["id"],
                    "at": evidence["time"],
                    "from": began(points, evidence["time"], evidence["estimated_start"]),
                    "baseline": evidence["baseline_mean"],
                }


def began(points: Points, at: float, events: int) -> float:
    """Return the time `events` events before `at`, as far as the points reach.

    >>> began({"times": [1.0, 2.0, 3.0], "values": [0, 0, 0], "versions": [], "rows": [10, 10, 10]}, 3.0, 15)
    2.0
    """
    left = events
    found = at
    for time, rows in zip(reversed(points["times"]), reversed(points["rows"]), strict=True):
        if time > at:
            continue
        found = time
        left -= rows
        if left <= 0:
            break
    return found
