"""Studies: how far each is, its best trial, and its trials."""

from __future__ import annotations

from typing import Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from actors.plain import Json
from actors.ui.pages import render

_LISTED: Final = 200


def listing(request: Request) -> Response:
    """Answer with every study, the newest first."""
    backend = render.backend(request)
    known = backend.studies()[:_LISTED]
    return render.page(request, "studies.html", studies=[(each, backend.study(each["name"])) for each in known])


def show(request: Request) -> Response:
    """Answer with one study. KeyError: no such study."""
    name = request.path_params["study"]
    backend = render.backend(request)
    found = backend.trials(name)
    return render.page(
        request, "study.html", name=name, study=backend.study(name), trials=found[-_LISTED:][::-1], all=len(found)
    )


def trials(request: Request) -> Response:
    """Answer with what the pictures of a study draw, as JSON."""
    name = request.path_params["study"]
    backend = render.backend(request)
    rows = [
        {"id": each["id"], "params": each["params"], "value": each["value"], "state": each["state"]}
        for each in backend.trials(name)
    ]
    study = backend.study(name)
    told = {"mode": study["mode"], "logarithmic": logarithmic(study["space"]), "trials": rows}
    return JSONResponse(told, headers={"cache-control": "no-store"})


def logarithmic(space: Json) -> list[str]:
    """Return the parameters of a space that are searched by their logarithms.

    >>> logarithmic({"lr": [1e-5, 1e-2, "log"], "dropout": [0.0, 0.5], "kind": {"choices": ["log"]}})
    ['lr']
    """
    return [name for name, said in space.items() if (said.get("log") if isinstance(said, dict) else "log" in said[2:])]
