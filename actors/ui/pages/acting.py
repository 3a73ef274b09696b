"""The forms of a page: each is one act, with the name of who does it."""

from __future__ import annotations

import logging

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from actors.people import signature
from actors.ui.access import Visitor
from actors.ui.acts import ACTS
from actors.ui.pages import render

logger = logging.getLogger(__name__)


async def act(request: Request) -> Response:
    """Do it and say what was done, or why not. KeyError: there is no such act."""
    visitor: Visitor = request.state.visitor
    system = render.backend(request).system
    do = ACTS[request.path_params["what"]]
    if not visitor.may_act:
        return _said(request, 403, "this needs the operator's token: your token is for reading", refused=True)
    if system is None:
        return _said(request, 409, "this page reads a store; actions need a running system", refused=True)
    form = {name: str(value) for name, value in (await request.form()).items()}
    try:
        signed = signature(visitor.name or form.get("by") or None, form.get("comment", "").strip() or None)
        done = await run_in_threadpool(do, system, form, signed.by, signed.comment)
    except (KeyError, ValueError) as error:
        return _said(request, 422, str(error.args[0]) if error.args else "not found", refused=True)
    except (RuntimeError, OSError) as error:
        logger.warning("%s on the page: %s", request.path_params["what"], error)
        return _said(request, 503, str(error).splitlines()[0] if str(error) else type(error).__name__, refused=True)
    return _said(request, 200, done.text)


def _said(request: Request, status: int, text: str, *, refused: bool = False) -> Response:
    template = "said-part.html" if request.headers.get("hx-request") else "said.html"
    return render.page(request, template, status=status, text=text, refused=refused)
