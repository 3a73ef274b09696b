"""The course of an episode, an order or a model, from the store: observations, decisions, actions, outcome."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from typing import Any, NotRequired

from sqlalchemy import select
from typing_extensions import TypedDict

from actors.clock import SystemClock
from actors.config import Settings
from actors.config.stored import load_stored
from actors.detection import judgements
from actors.detection import stored as detector_stored
from actors.detection.judgements import Judged
from actors.plain import Values
from actors.replies import Episode
from actors.retraining import tables as dispatcher_tables
from actors.storage import Store, StoreReader

LAST = "last"


class Story(TypedDict):
    """The episode's record, the order's row with its `attempt_log` and `acts` of people, and what `status` says of the model.

    An order that a person triggered has no episode, a model that never drifted neither. `judged` counts what people say of the
    model's alarms, where they say anything. `latest` is the newest order of a model that was asked about, where the episode is
    not behind it: its age, a person or a shortfall asked for it, or it was skipped.
    """

    episode: Episode | None
    order: Values | None
    model: Values | None
    judged: Judged | None
    latest: NotRequired[Values | None]


def read(store: Store, about: str, model: str | None = None) -> Story:
    """Return the story of an episode's or an order's id, of a model's newest episode, or of the newest one of all (`last`).

    `model` with `last` means the newest episode of that model. KeyError where the store has nothing of that name.
    """
    found = _read(store, about, model)
    return {**found, "judged": _judged(store, found)}


def _read(store: Store, about: str, model: str | None) -> Story:
    if about == LAST:
        newest = _newest(store, model)
        if newest is None:
            raise KeyError("there is no episode in this store" + (f" of model {model!r}" if model else ""))
        return _of_episode(store, newest)
    episode = _episode(store, about)
    if episode is not None:
        return _of_episode(store, episode)
    order = _order(store, about)
    if order is not None:
        episode = _episode(store, order["episode"]) if order["episode"] else _request_of(store, order)
        return {"episode": episode, "order": order, "model": None, "judged": None}
    known = _model(store, about)
    if known is None:
        raise KeyError(f"must be an episode, an order or a model of this store, or `{LAST}`, got {about!r}")
    newest, latest = _newest(store, about), _latest(store, about)
    if newest is None:
        return {"episode": None, "order": None, "model": known, "judged": None, "latest": latest}
    asked = None if newest["order"] is None else newest["order"]["order"]
    if latest is not None and (
        latest["requested_at"] < newest["opened_at"] or newest["id"] == latest["episode"] or latest["id"] == asked
    ):
        latest = None
    return {**_of_episode(store, newest), "model": known, "latest": latest}


def read_url(url: str, about: str, model: str | None = None) -> Story:
    """Return the same for a store that is opened for this one time."""
    with contextlib.closing(StoreReader(url)) as store:
        return read(store, about, model)


def _of_episode(store: Store, episode: Episode) -> Story:
    asked = episode["order"]
    return {
        "episode": episode,
        "order": None if asked is None else _order(store, asked["order"]),
        "model": None,
        "judged": None,
    }


def _judged(store: Store, found: Story) -> Judged | None:
    model = next((each["name"] if "name" in each else each["model"] for each in _parts(found) if each is not None), None)
    try:
        settings = load_stored(store)
    except ValueError:  # the settings of another build
        settings = Settings()
    counts: dict[str, dict[str, int]] = {}
    for part in detector_stored.detector_parts(store):
        with part.read() as connection:
            counts |= judgements.count(connection, SystemClock().now().wall_s)
    return judgements.against_the_budget(counts, settings).get(str(model))


def _parts(found: Story) -> tuple[Mapping[str, Any] | None, ...]:
    return found["model"], found["episode"], found["order"]


def _episode(store: Store, id_: str) -> Episode | None:
    for part in detector_stored.detector_parts(store):
        with part.read() as connection:
            found = detector_stored.read_episode(connection, id_)
        if found is not None:
            return found
    return None


def _request_of(store: Store, order: Values) -> Episode | None:
    """Return the request behind a shortfall's order: it has no episode of an alarm."""
    if order["cause"] != "shortfall":
        return None
    for part in detector_stored.detector_parts(store):
        with part.read() as connection:
            for record in reversed(detector_stored.list_episodes(connection, order["model"])):
                if record["order"] is not None and record["order"]["order"] == order["id"]:
                    return record
    return None


def _newest(store: Store, model: str | None) -> Episode | None:
    found: list[Episode] = []
    for part in detector_stored.detector_parts(store):
        with part.read() as connection:
            found += detector_stored.list_episodes(connection, model, limit=1)
    return max(found, key=lambda record: float(record["opened_at"]), default=None)


def _latest(store: Store, model: str) -> Values | None:
    """Return the newest order of a model, or the newest decision to give none."""
    table = dispatcher_tables.retrains
    newest = select(table.c.id).where(table.c.model == model).order_by(table.c.seq.desc()).limit(1)
    with store.part(dispatcher_tables.DISPATCHER).read() as connection:
        found = connection.execute(newest).scalar()
    return None if found is None else _order(store, str(found))


def _model(store: Store, model: str) -> Values | None:
    for part in detector_stored.detector_parts(store):
        with part.read() as connection:
            found = detector_stored.read_status(connection, model)
        if model in found:
            return {"name": model, **found[model]}
    return None


def _order(store: Store, id_: str) -> Values | None:
    """Return what the dispatcher has on record of an order, the study of a `tune` handler included."""
    table = dispatcher_tables.retrains
    with store.part(dispatcher_tables.DISPATCHER).read() as connection:
        row = connection.execute(table.select().where(table.c.id == id_)).mappings().first()
        if row is None:
            return None
        attempts = dispatcher_tables.read_attempts(connection, id_)
        acts = dispatcher_tables.read_acts(connection, [id_]).get(id_, [])
    texts = ("explanation", "handler_settings", "tuning")  # kept as JSON
    unpacked = {name: json.loads(row[name]) for name in texts if row[name] is not None}
    return {**row, **unpacked, "attempt_log": attempts, "acts": acts}
