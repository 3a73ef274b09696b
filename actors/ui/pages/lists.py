"""Episodes with their stories, and the orders."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from actors.retraining.rules.orders import STATES
from actors.ui.pages import render


def episodes(request: Request) -> Response:
    """Answer with the newest episodes."""
    return render.page(request, "episodes.html", episodes=render.backend(request).episodes(limit=200))


def story(request: Request) -> Response:
    """Answer with the story of an episode or an order. KeyError: there is none of that id."""
    about = request.path_params["about"]
    told = render.backend(request).story(about)
    return render.page(request, "story.html", about=about, episode=told["episode"], order=told["order"], judged=told["judged"])


def orders(request: Request) -> Response:
    """Answer with the newest orders, all or those in one state."""
    state = request.query_params.get("state", "")
    backend = render.backend(request)
    shown = backend.orders(state=state if state in STATES else None, limit=200)
    counts = backend.status().get("retrains", {})
    return render.page(request, "orders.html", orders=shown, state=state, counts={k: v for k, v in counts.items() if v})
