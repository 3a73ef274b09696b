"""Decides which receivers are told of a happening, by which route, and in which group."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Final, NamedTuple

from actors import labels as selectors
from actors.config.notify import SEVERITIES, Route
from actors.labels import Selector
from actors.replies import Happening

_EVERY: Final = "*"


class Way(NamedTuple):
    """One receiver that is told of a happening: the route that says so, and what its group has in common."""

    receiver: str
    route: Route
    group: tuple[tuple[str, str], ...]


def ways(happened: Happening, labels: Mapping[str, str], routes: Sequence[Route]) -> Iterator[Way]:
    """Return who is told; each receiver once, by the first route that matches and names it.

    >>> from actors.replies import happening
    >>> routes = [Route(receivers=["pager"], severity="critical"), Route(receivers=["pager", "chat"], group_by=["model"])]
    >>> [way.receiver for way in ways(happening("alarm", "e-1", 0.0, "warning", model="fraud"), {}, routes)]
    ['pager', 'chat']
    """
    told: set[str] = set()
    for route in routes:
        if not matches(happened, labels, route):
            continue
        group = tuple((name, _value(happened, labels, name)) for name in route.group_by)
        for receiver in route.receivers:
            if receiver not in told:
                told.add(receiver)
                yield Way(receiver, route, group)


def matches(happened: Happening, labels: Mapping[str, str], route: Route) -> bool:
    """Return whether a happening goes by a route."""
    if route.kinds is not None and happened["kind"] not in route.kinds:
        return False
    if SEVERITIES.index(happened["severity"]) < SEVERITIES.index(route.least):
        return False
    if route.models != _EVERY and not fnmatchcase(happened["model"] or "", route.models):
        return False
    return _parsed(route.labels).matches(labels)


def _value(happened: Happening, labels: Mapping[str, str], name: str) -> str:
    match name:
        case "model" | "version" | "metric" | "kind" | "severity":
            return happened[name] or ""
        case _:
            return labels.get(name, "")


@functools.lru_cache(maxsize=1000)
def _parsed(text: str | None) -> Selector:
    return selectors.parse(text)
