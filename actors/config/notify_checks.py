"""Checks notifications beyond single values: templates that fail, routes that match nothing."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from actors import labels
from actors.config.notify import ALWAYS_INFO, FIELDS, SEVERITIES, Route
from actors.config.settings import Settings

if TYPE_CHECKING:
    from jinja2 import Template

# What a template may name: see `actors.notify.notification.Notification`.
VARIABLES: Final = ("title", "severity", "group", "firing", "resolved", "link", "receiver")


def compiled(text: str) -> Template:
    """Return a template of Jinja, in its sandbox: it reaches nothing but its variables. ValueError says what is wrong.

    >>> compiled("{{ firing|length }} fire").render(firing=[1, 2])
    '2 fire'
    """
    if importlib.util.find_spec("jinja2") is None:
        raise ValueError("a template needs: pip install 'visutility[notify]'")
    from jinja2 import StrictUndefined, TemplateError, meta  # noqa: PLC0415  in an extra, and 3 MB of every process
    from jinja2.sandbox import ImmutableSandboxedEnvironment  # noqa: PLC0415

    environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    try:
        unknown = meta.find_undeclared_variables(environment.parse(text)) - {*VARIABLES, *environment.globals}
        made = environment.from_string(text)
    except TemplateError as error:
        raise ValueError(f"must be a template of Jinja: {error}") from None
    if unknown:
        raise ValueError(f"may name {', '.join(VARIABLES)}, got {', '.join(sorted(unknown))}")
    return made


def idle(settings: Settings) -> Iterator[tuple[str, str]]:
    """Return the key of each route by which nothing can go, and of each receiver that no route names, with the reason."""
    notify = settings.notify
    routes = notify.in_order()
    for index, route in enumerate(routes):
        why = _idle(settings, route, routes[:index])
        if why is not None:
            yield f"notify.routes.{index}", f"matches nothing: {why}"
        known = {name for entry in (settings.defaults, *settings.models.values()) for name in entry.labels}
        for name in route.group_by:
            if name not in FIELDS and name not in known:
                yield f"notify.routes.{index}.group_by", f"no model has a label {name}, and it is none of {', '.join(FIELDS)}"
    for name in notify.receivers:
        if not any(name in route.receivers for route in routes):
            yield f"notify.receivers.{name}", "no route names it: it is told nothing"


def _idle(settings: Settings, route: Route, before: list[Route]) -> str | None:
    if route.kinds is not None and route.least != "info" and ALWAYS_INFO.issuperset(route.kinds):
        return f"{', '.join(route.kinds)} are never more severe than info"
    selector = labels.parse(route.labels)
    # A name or pattern of `models` represents the models that it matches; any other model has the labels of `defaults`.
    if not any(selector.matches(settings.labels_of(name)) for name in (*settings.models, "")):
        return f"no model has the labels {route.labels}"
    taken = {name for each in before if _covers(each, route) for name in each.receivers}
    if taken.issuperset(route.receivers):
        return "a route before it takes all for the same receivers"
    return None


def _covers(wide: Route, narrow: Route) -> bool:
    """Return whether whatever goes by `narrow` goes by `wide`; False where that is not plain."""
    return (
        wide.models in {"*", narrow.models}
        and wide.labels in {None, narrow.labels}
        and (wide.kinds is None or (narrow.kinds is not None and set(narrow.kinds) <= set(wide.kinds)))
        and SEVERITIES.index(wide.least) <= SEVERITIES.index(narrow.least)
    )
