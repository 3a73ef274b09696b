"""The fleet: every model with its state, a page at a time."""

from __future__ import annotations

from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response

from actors import labels
from actors.ui import fleet
from actors.ui.pages import render


def show(request: Request) -> Response:
    """Answer with the table, or its part where a live page asks for that."""
    asked = request.query_params
    problem = None
    try:
        selector = labels.parse(asked.get("label") or None)
    except ValueError as error:
        selector, problem = labels.ALL, str(error)
    number = asked.get("page", "1")
    wanted = fleet.Wanted(
        text=asked.get("text", "")[:200],
        state=asked.get("state", "")[:40],
        labels=selector,
        sort=asked.get("sort", "state"),
        descending=asked.get("order") == "down",
        page=int(number) if number.isdecimal() and len(number) < 7 else 1,
    )
    backend = render.backend(request)
    rows = backend.fleet()
    page = fleet.page_of(rows, wanted)
    sparks = backend.sparks([row.model for row in page.rows])

    def link(**changes: object) -> str:
        given = {
            "text": wanted.text,
            "state": wanted.state,
            "label": asked.get("label", "")[:200],
            "sort": page.sort if page.sort != "state" else "",
            "order": "down" if wanted.descending else "",
            "page": page.page if page.page > 1 else "",
        }
        said = {name: value for name, value in (given | changes).items() if value}
        return "/?" + urlencode(said) if said else "/"

    return render.page(
        request,
        "fleet.html",
        page=page,
        wanted=wanted,
        label=asked.get("label", "")[:200],
        problem=problem,
        sparks=sparks,
        link=link,
        everything=len(rows),
        store_problem=backend.status().get("store_problem"),
    )
