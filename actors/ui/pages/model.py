"""One model: its metrics over time with what happened to it, its versions, orders, silences and configuration."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Iterator, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from actors.config import Settings, document
from actors.ui.pages import render
from actors.ui.series import Points


def show(request: Request) -> Response:
    """Answer with the page of a model. KeyError: no such model."""
    name = request.path_params["model"]
    backend = render.backend(request)
    seen = backend.status()["models"].get(name)
    if seen is None:
        raise KeyError(f"model must be one of this store, got {name!r}")
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
        origins=list(origins(settings, name)),
    )


def series(request: Request) -> Response:
    """Answer with what the charts draw, as JSON."""
    name = request.path_params["model"]
    backend = render.backend(request)
    found = backend.series(name)
    seen = backend.status()["models"].get(name) or {"versions": {}}
    episodes = backend.episodes(name, 50)
    metrics = {}
    for metric, points in found["metrics"].items():
        progress = next(
            (each["metrics"][metric] for each in reversed(seen["versions"].values()) if metric in each["metrics"]), None
        )
        metrics[metric] = {
            **points,
            "watched": progress is not None,
            "baseline": None if progress is None else progress["baseline"],
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


def origins(settings: Settings, model: str) -> Iterator[tuple[str, str, str]]:
    """Return each value that a model's configuration has, and the layer that it comes from: the built-in ones come last."""
    whole: Mapping[str, Any] = json.loads(document(settings))
    layers = [("defaults", whole.get("defaults", {}))]
    matching = [name for name in whole.get("models", {}) if name == model or fnmatch.fnmatchcase(model, name)]
    layers += [(f"models.{name}", whole["models"][name]) for name in matching]
    said: dict[str, tuple[str, str]] = {}
    for layer, entry in layers:
        for path, value in _leaves(entry):
            said[path] = (value, layer)
    got = settings.for_model(model)
    for name in ("false_alarm_every", "cooldown_s", "expect_every_s", "pinned_version", "dry_run"):
        key = name.removesuffix("_s")
        if key not in said:
            value = getattr(got, name)
            said[key] = (render.setting(value, seconds=name.endswith("_s")), "built in")
    for metric, watched in got.watch.items():
        if not any(path.startswith(f"watch.{metric}") for path in said):
            said[f"watch.{metric}"] = (f"{watched.detector}, {watched.direction}", "built in")
    for path in sorted(said):
        yield path, *said[path]


def _leaves(entry: Any, path: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(entry, Mapping) and entry:
        for name, value in entry.items():
            yield from _leaves(value, f"{path}.{name}" if path else str(name))
    elif path:
        yield path, "null" if entry is None else str(entry)
