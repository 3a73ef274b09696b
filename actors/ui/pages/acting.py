"""What a person does on a page: each act goes through `System`, with the name of who does it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from actors.people import signature
from actors.ui.access import Visitor
from actors.ui.pages import render

if TYPE_CHECKING:
    from actors.system import System

logger = logging.getLogger(__name__)

Form = Mapping[str, str]


def _acknowledge(system: System, form: Form, by: str | None, comment: str | None) -> str:
    system.acknowledge(form["subject"], by=by, comment=comment)
    return f"episode {form['subject']} is acknowledged"


def _judge(system: System, form: Form, by: str | None, comment: str | None) -> str:
    system.verdict(form["subject"], form["verdict"], by=by, comment=comment)
    return f"episode {form['subject']} is recorded as a {form['verdict']} alarm"


def _silence(system: System, form: Form, by: str | None, comment: str | None) -> str:
    made = system.retrains.silence(form["subject"], form["duration"], comment=comment or "", by=by)
    return f"{form['subject']} is silent for {form['duration']} (silence {made})"


def _unsilence(system: System, form: Form, by: str | None, comment: str | None) -> str:  # noqa: ARG001  it takes no name
    system.retrains.unsilence(form["subject"])
    return f"silence {form['subject']} is over"


def _trigger(system: System, form: Form, by: str | None, comment: str | None) -> str:
    told = system.retrains.trigger(form["subject"], reason=comment or "ordered on the page", by=by, comment=comment)
    return f"retrain of {form['subject']}: {told['decision']} {told['order'] or told['reason']}"


def _retry(system: System, form: Form, by: str | None, comment: str | None) -> str:
    told = system.retrains.retry(form["subject"], by=by, comment=comment)
    return f"order {form['subject']}: {told['decision']}"


def _dismiss(system: System, form: Form, by: str | None, comment: str | None) -> str:
    system.retrains.dismiss(form["subject"], comment or "dismissed on the page", by=by, comment=comment)
    return f"order {form['subject']} is dismissed"


def _front(system: System, form: Form, by: str | None, comment: str | None) -> str:
    system.retrains.front(form["subject"], by=by, comment=comment)
    return f"order {form['subject']} is the next"


def _promote(system: System, form: Form, by: str | None, comment: str | None) -> str:
    system.versions.promote(form["subject"], form["version"], by=by, comment=comment)
    return f"version {form['version']} of {form['subject']} is live"


def _roll_back(system: System, form: Form, by: str | None, comment: str | None) -> str:
    told = system.versions.rollback(form["subject"], by=by, comment=comment)
    return f"version {told.get('version')} of {form['subject']} is live again"


def _stop_study(system: System, form: Form, by: str | None, comment: str | None) -> str:
    system.tuner.stop(form["subject"], by=by, comment=comment)
    return f"study {form['subject']} is stopped"


_ACTS: Final[Mapping[str, Callable[[System, Form, str | None, str | None], str]]] = {
    "acknowledge": _acknowledge,
    "judge": _judge,
    "silence": _silence,
    "unsilence": _unsilence,
    "trigger": _trigger,
    "retry": _retry,
    "dismiss": _dismiss,
    "front": _front,
    "promote": _promote,
    "roll-back": _roll_back,
    "stop-study": _stop_study,
}


async def act(request: Request) -> Response:
    """Do it and say what was done, or why not. KeyError: there is no such act."""
    visitor: Visitor = request.state.visitor
    system = render.backend(request).system
    do = _ACTS[request.path_params["what"]]
    if not visitor.may_act:
        return _said(request, 403, "this needs the operator's token: your token is for reading", refused=True)
    if system is None:
        return _said(request, 409, "this page reads a store; actions need a running system", refused=True)
    form = {name: str(value) for name, value in (await request.form()).items()}
    try:
        signed = signature(visitor.name or form.get("by") or None, form.get("comment", "").strip() or None)
        return _said(request, 200, await run_in_threadpool(do, system, form, signed.by, signed.comment))
    except (KeyError, ValueError) as error:
        return _said(request, 422, str(error.args[0]) if error.args else "not found", refused=True)
    except (RuntimeError, OSError) as error:
        logger.warning("%s on the page: %s", request.path_params["what"], error)
        return _said(request, 503, str(error).splitlines()[0] if str(error) else type(error).__name__, refused=True)


def _said(request: Request, status: int, text: str, *, refused: bool = False) -> Response:
    template = "said-part.html" if request.headers.get("hx-request") else "said.html"
    return render.page(request, template, status=status, text=text, refused=refused)
