"""What-if: a model's own history under other settings, next to what the running ones make of it."""

from __future__ import annotations

import json
from typing import Final

import yaml
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from actors import config
from actors.rehearsal import Summary
from actors.ui.backend import Backend
from actors.ui.pages import render
from actors.ui.rehearsed import MAX_BATCHES

_LONGEST: Final = 20_000


async def show(request: Request) -> Response:
    """Show the settings, and what they would have done where some are given. KeyError: no such model."""
    name = request.path_params["model"]
    backend = render.backend(request)
    running = await run_in_threadpool(backend.settings)
    entry = json.loads(config.document(running)).get("models", {}).get(name, {})
    given = yaml.safe_dump(entry, sort_keys=False, allow_unicode=True) if entry else _EXAMPLE
    problem, outcomes, status = None, None, 200
    if request.method == "POST":
        given = str((await request.form()).get("settings", ""))[:_LONGEST]
        try:
            outcomes = await run_in_threadpool(_both, backend, name, running, given)
        except ValueError as error:
            problem, status = str(error), 422
    return render.page(
        request, "what-if.html", status=status, name=name, given=given, problem=problem, outcomes=outcomes, batches=MAX_BATCHES
    )


_EXAMPLE: Final = "false_alarm_every: 30d\nwatch:\n  accuracy: {direction: down}\n"


def _both(backend: Backend, name: str, running: config.Settings, given: str) -> list[tuple[str, Summary]]:
    entry = config.read_yaml(given, "settings") if given.strip() else {}
    if not isinstance(entry, dict):
        raise ValueError(f"settings must be a mapping like `cooldown: 1h`, got {type(entry).__name__}")
    document = json.loads(config.document(running))
    document.setdefault("models", {})[name] = entry
    changed = config.parse(document, "settings").for_model(name)
    return [
        ("as it runs", backend.rehearse(name, running.for_model(name))),
        ("as edited", backend.rehearse(name, changed)),
    ]
