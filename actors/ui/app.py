"""Makes the page: a Starlette application over a backend, with its rights, its headers and its live events.

uvicorn.run(create(backend, Access()), port=8420)
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from actors.checks import brief
from actors.config.ui import EVENTS_PER_S
from actors.storage import UNAVAILABLE, StoreError
from actors.ui.access import Access, is_same_site, names_no_site
from actors.ui.api import app as api
from actors.ui.api import problems
from actors.ui.backend import Backend
from actors.ui.live import Live
from actors.ui.pages import acting, fleet, lists, model, render, signing, studies, system, whatif

logger = logging.getLogger(__name__)

_HERE: Final = Path(__file__).parent
_HEADERS: Final = (
    (
        b"content-security-policy",
        (
            b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
            b"form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
        ),
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
    (b"x-frame-options", b"DENY"),
)
_OPEN: Final = ("/static/", "/sign-in", f"{api.PREFIX}/hooks/")  # a hook checks who calls by itself
_MAX_BODY: Final = 2**16


def create(
    backend: Backend, access: Access, *, max_events_per_s: int = EVENTS_PER_S, routes: Sequence[BaseRoute] = ()
) -> Starlette:
    """Return the application.

    Args:
        backend: what it shows, and acts through.
        access: who may read and act.
        max_events_per_s: that each token may post to the API.
        routes: further ones; the same rights and headers hold for them.

    Example:
        create(StoreBackend("sqlite:///./visutility-data"), Access())
    """
    live = Live(backend.cursor)

    @contextlib.asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        async with live.running():
            yield

    app = Starlette(
        routes=[
            *routes,
            Mount(api.PREFIX, api.create(backend, max_events_per_s)),
            Mount("/static", StaticFiles(directory=_HERE / "static"), name="static"),
            Route("/", fleet.show, name="fleet"),
            Route("/models/{model:path}", model.show, name="model"),
            Route("/series/{model:path}", model.series, name="series"),
            Route("/what-if/{model:path}", whatif.show, name="whatif", methods=["GET", "POST"]),
            Route("/episodes", lists.episodes, name="episodes"),
            Route("/episodes/{about:path}", lists.story, name="story"),
            Route("/orders", lists.orders, name="orders"),
            Route("/studies", studies.listing, name="studies"),
            Route("/studies/{study:path}", studies.show, name="study"),
            Route("/trials/{study:path}", studies.trials, name="trials"),
            Route("/system", system.show, name="system"),
            Route("/events", live.stream, name="events"),
            Route("/act/{what}", acting.act, name="act", methods=["POST"]),
            Route("/sign-in", signing.sign_in, name="sign_in", methods=["GET", "POST"]),
            Route("/sign-out", signing.sign_out, name="sign_out", methods=["POST"]),
        ],
        middleware=[Middleware(_Guard, access=access)],
        exception_handlers={
            HTTPException: _problem,
            KeyError: _missing,
            **dict.fromkeys((StoreError, *UNAVAILABLE), _unreadable),
        },
        lifespan=lifespan,
    )
    app.state.backend, app.state.access, app.state.live = backend, access, live
    return app


class _Guard:
    """Lets in who may come in, refuses what another site asks a browser to do, and adds the headers to every answer."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *_HEADERS]
            await send(message)

        connection = HTTPConnection(scope)
        refused = self._refusal(connection, scope)
        await (refused or self._app)(scope, receive, with_headers)

    def _refusal(self, connection: HTTPConnection, scope: Scope) -> Response | None:
        visitor = self._access.visitor(connection, time.time())
        scope.setdefault("state", {})["visitor"] = visitor
        path = connection.url.path
        is_api = path.startswith("/api/")
        if scope["method"] not in {"GET", "HEAD"}:
            # A program names no site, and the API takes no content type that a form of another site could send.
            if not is_same_site(connection) and not (is_api and names_no_site(connection)):
                return _refused(is_api, 403, "this request does not come from a page of this site")
            length = connection.headers.get("content-length", "0")
            if not is_api and (not length.isdigit() or int(length) > _MAX_BODY):
                return PlainTextResponse(f"refused: the body must have at most {_MAX_BODY} bytes", 413)
        if path.startswith(_OPEN) or (visitor is not None and (visitor.may_read or is_api)):
            return None
        if self._access.loopback_only:
            return _refused(is_api, 403, "without ui.tokens or ui.trusted_proxies only this machine may connect")
        if is_api or path == "/events" or scope["method"] not in {"GET", "HEAD"}:
            return _refused(is_api, 401, "a token is required")
        return RedirectResponse("/sign-in", 303)


def _refused(is_api: bool, status: int, why: str) -> Response:  # noqa: FBT001  which of two forms
    if is_api:
        return problems.problem(status, why)
    headers = {"www-authenticate": "Bearer"} if status == 401 else None
    return PlainTextResponse(f"refused: {why}", status, headers=headers)


async def _problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if request.url.path.startswith("/api/"):  # a path that no mount matches: another version, or a line break in a name
        return problems.problem(error.status_code, error.detail)
    return render.page(request, "problem.html", status=error.status_code, problem=error.detail)


async def _missing(request: Request, error: Exception) -> Response:
    return render.page(request, "problem.html", status=404, problem=str(error.args[0]) if error.args else "not found")


async def _unreadable(request: Request, error: Exception) -> Response:
    logger.warning("the page could not be shown: %s", brief(error))
    return render.page(request, "problem.html", status=503, problem=brief(error).partition("\n")[0])
