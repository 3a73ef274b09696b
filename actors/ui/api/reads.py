"""What can be read: each function asks the backend, and returns the answer as its TypedDict says."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any, Final, cast

from actors import labels
from actors.replies import Episode, NumberedHappening, OrderRow, StudyListing, StudySummary, TrialRow, VersionShown
from actors.story import Story
from actors.ui import fleet
from actors.ui.api import types
from actors.ui.api.operation import Asked, Operation
from actors.ui.api.problems import wrong
from actors.ui.origins import origins
from actors.ui.series import Series


def _status(asked: Asked) -> types.StatusShown:
    told = asked.backend.status()
    shown: types.StatusShown = {
        "store": asked.backend.storage(),
        "read_only": asked.backend.system is None,
        "models": len(told["models"]),
        "states": dict(asked.backend.fleet().counts()),
        "retrains": told["retrains"],
        "tuner": told["tuner"],
        "sources": told["sources"],
        "clients": told["clients"],
        "refused": told["refused"],
        "actors": asked.backend.actors(),
    }
    if told.get("store_problem"):
        shown["store_problem"] = told["store_problem"]
    return shown


def _models(asked: Asked) -> types.ModelPage:
    query: types.FleetQuery = asked.query
    wanted = fleet.Wanted(
        text=query.text,
        state=query.state,
        labels=labels.parse(query.label or None),
        sort=query.sort,
        descending=query.order == "down",
        page=query.page,
    )
    page = fleet.page_of(asked.backend.fleet(), wanted)
    rows: list[Any] = [
        {**row._asdict(), "labels": dict(row.labels), "open_episodes": list(row.open_episodes)} for row in page.rows
    ]
    return {"models": rows, "total": page.total, "page": page.page, "pages": page.pages, "states": page.counts}


def _model(asked: Asked) -> types.ModelShown:
    name = asked.path["model"]
    seen: Any = asked.backend.model(name)
    return {
        "model": name,
        "labels": seen.get("labels") or {},
        "status": seen,
        "silences": asked.backend.silences(name),
        "configuration": [
            {"setting": each.setting, "value": each.value, "entry": each.entry}
            for each in origins(asked.backend.settings(), name)
        ],
    }


def _series(asked: Asked) -> Series:
    query: types.SeriesQuery = asked.query
    return asked.backend.series(asked.path["model"], query.batches)


def _versions(asked: Asked) -> list[VersionShown]:
    found: list[Any] = asked.backend.versions(asked.path["model"])
    if not found and asked.path["model"] not in asked.backend.status()["models"]:
        raise KeyError(f"model must be one of this store, got {asked.path['model']!r}")
    # A store without a system knows their names only.
    nothing: dict[str, Any] = {"state": "", "since": 0.0, "promise": None, "evidence": None, "by": None, "comment": None}
    return [cast("VersionShown", {**nothing, **each}) for each in found]


def _episodes(asked: Asked) -> list[Episode]:
    query: types.EpisodesQuery = asked.query
    return asked.backend.episodes(query.model, query.limit)


def _orders(asked: Asked) -> list[OrderRow]:
    query: types.OrdersQuery = asked.query
    return asked.backend.orders(query.model, query.state, query.limit)


def _story(asked: Asked) -> Story:
    return asked.backend.story(asked.path["about"])


def _studies(asked: Asked) -> list[StudyListing]:
    return asked.backend.studies()


def _study(asked: Asked) -> StudySummary:
    return asked.backend.study(asked.path["study"])


def _trials(asked: Asked) -> list[TrialRow]:
    query: types.TrialsQuery = asked.query
    return asked.backend.trials(asked.path["study"], query.limit)


def _happenings(asked: Asked) -> types.HappeningPage:
    query: types.HappeningsQuery = asked.query
    seen = _seen(query.after)
    found = asked.backend.happenings(seen, query.limit)[: query.limit]
    return {"happenings": found, "cursor": _cursor(seen, found)}


def _seen(cursor: str) -> dict[str, int]:
    if not cursor:
        return {}
    try:
        found = json.loads(base64.urlsafe_b64decode(cursor.encode("ascii")))
    except (ValueError, binascii.Error, RecursionError):
        found = None
    if not isinstance(found, dict) or not all(type(each) is int and 0 <= each < 2**63 for each in found.values()):
        raise wrong(422, "after", cursor, "must be the `cursor` of an answer before, or nothing")
    return found


def _cursor(seen: dict[str, int], found: list[NumberedHappening]) -> str:
    now = dict(seen)
    for each in found:
        now[each["part"]] = max(each["number"], now.get(each["part"], 0))
    return base64.urlsafe_b64encode(json.dumps(now, separators=(",", ":"), sort_keys=True).encode()).decode()


READS: Final = (
    Operation("GET", "/status", "status", "The system: its counts, processes and clients", _status, types.StatusShown),
    Operation(
        "GET", "/models", "models", "The fleet, 50 models a page", _models, types.ModelPage,
        query=types.FleetQuery, refuses=(422,),
    ),
    Operation("GET", "/models/{model}", "model", "One model", _model, types.ModelShown, refuses=(404,)),
    Operation(
        "GET", "/series/{model}", "series", "A model's metrics over time", _series, Series,
        query=types.SeriesQuery, refuses=(404, 422),
    ),
    Operation(
        "GET", "/versions/{model}", "versions", "A model's versions, the newest first", _versions, list[VersionShown],
        refuses=(404,),
    ),
    Operation(
        "GET", "/episodes", "episodes", "The newest episodes", _episodes, list[Episode],
        query=types.EpisodesQuery, refuses=(422,),
    ),
    Operation(
        "GET", "/story/{about}", "story", "What was seen and done about an episode, an order or a model", _story, Story,
        refuses=(404,),
    ),
    Operation(
        "GET", "/orders", "orders", "The newest orders", _orders, list[OrderRow], query=types.OrdersQuery, refuses=(422,)
    ),
    Operation("GET", "/studies", "studies", "Every study, the newest first", _studies, list[StudyListing]),
    Operation("GET", "/studies/{study}", "study", "One study", _study, StudySummary, refuses=(404,)),
    Operation(
        "GET", "/trials/{study}", "trials", "The first trials of a study", _trials, list[TrialRow],
        query=types.TrialsQuery, refuses=(404, 422),
    ),
    Operation(
        "GET", "/happenings", "happenings", "What has happened since a cursor", _happenings, types.HappeningPage,
        query=types.HappeningsQuery, refuses=(422,),
    ),
)  # fmt: skip
