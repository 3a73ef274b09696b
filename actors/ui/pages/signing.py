"""Signing in with a token and a name, and out."""

from __future__ import annotations

import time

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from actors.people import signature
from actors.ui.access import COOKIE, SESSION_S, Access, Visitor
from actors.ui.pages import render


async def sign_in(request: Request) -> Response:
    """Show the form, and take it: the cookie holds name and right, never the token."""
    access: Access = request.app.state.access
    problem = None
    if request.method == "POST":
        form = await request.form()
        role = access.role_of(str(form.get("token", "")))
        role = None if role == "writer" else role  # a job's token opens no page
        try:
            who = signature(str(form.get("name", "")).strip()).by
        except ValueError:
            who, problem = None, "name must be a string of 1 to 200 characters"
        if role is not None and who is not None:
            done = RedirectResponse("/", 303)
            cookie = access.cookie(Visitor(role, who), time.time())
            done.set_cookie(
                COOKIE, cookie, max_age=int(SESSION_S), httponly=True, samesite="strict", secure=request.url.scheme == "https"
            )
            return done
        problem = problem or "this token is not one of the configuration"
    return render.page(request, "sign-in.html", status=200 if problem is None else 403, problem=problem)


async def sign_out(_request: Request) -> Response:
    """Forget who it is."""
    done = RedirectResponse("/sign-in", 303)
    done.delete_cookie(COOKIE)
    return done
