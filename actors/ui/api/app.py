"""The API as a Starlette application to mount at `/api/v1`: every answer is JSON, every refusal problem+json."""

from __future__ import annotations

import logging
from typing import Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from actors.ui.api import events, hooks, openapi
from actors.ui.api.doing import DOING
from actors.ui.api.operation import JSON
from actors.ui.api.problems import encoded, problem
from actors.ui.api.reads import READS
from actors.ui.backend import Backend

logger = logging.getLogger(__name__)

PREFIX: Final = "/api/v1"


def create(backend: Backend, max_events_per_s: int) -> Starlette:
    """Return the application.

    Args:
        backend: what it reads and acts through, the page's.
        max_events_per_s: that each token may post.
    """
    operations = (*READS, *DOING, *events.operations(max_events_per_s))
    told = encoded(openapi.document(operations))

    async def document(_request: Request) -> Response:
        return Response(told, media_type=JSON)

    return Starlette(
        routes=[
            Route("/openapi.json", document, methods=["GET"]),
            hooks.route(backend),
            *(
                Route(each.path.replace("}", ":path}"), each.endpoint(backend), methods=[each.method], name=each.name)
                for each in operations
            ),
        ],
        exception_handlers={HTTPException: _problem, Exception: _fault},
    )


async def _problem(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    answer = problem(error.status_code, error.detail)
    answer.headers.update(error.headers or {})
    return answer


async def _fault(request: Request, _error: Exception) -> Response:
    logger.error("%s %s failed: a fault of the API", request.method, request.url.path)
    return problem(500, "a fault of the API: see its log")
