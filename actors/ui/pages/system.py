"""The system itself: its processes, its store, its clients and its configuration with its history."""

from __future__ import annotations

import json
from itertools import pairwise

from starlette.requests import Request
from starlette.responses import Response

from actors.config import differences, parse
from actors.ui.pages import render


def show(request: Request) -> Response:
    """Answer with the page."""
    backend = render.backend(request)
    told = backend.status()
    kept = backend.configurations()
    changes: dict[int, list[str]] = {}
    for newer, older in pairwise(kept):
        try:
            changes[newer["version"]] = differences(parse(older["document"], "older"), parse(newer["document"], "newer"))
        except ValueError as error:  # the configuration of another build
            changes[newer["version"]] = [str(error)]
    return render.page(
        request,
        "system.html",
        told=told,
        actors=backend.actors(),
        kept=kept,
        changes=changes,
        newest=json.dumps(kept[0]["document"], indent=2, ensure_ascii=False) if kept else "",
    )
