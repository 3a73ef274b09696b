"""Reads retrain orders from a store, whether a system runs or not, as the dispatcher's replies show them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

from actors import labels
from actors.config import Settings
from actors.config.stored import load_stored
from actors.replies import OrderRow, OrderShown
from actors.retraining import arguments, listing, tables
from actors.storage import StoreReader


def read_history(
    storage: str,
    model: str | None = None,
    *,
    limit: int = 1000,
    state: str | None = None,
    judged: bool = False,
    label: str | Iterable[str] | None = None,
) -> list[OrderRow]:
    """Return the newest `limit` orders and decisions of the store at the URL `storage`, oldest first.

    `judged` leaves only the retrains of which it is known whether they paid, `label` a selector of labels those of its models.
    """
    arguments.check_history(limit, state)
    selector = labels.parse(label)
    with contextlib.closing(StoreReader(storage)) as store:
        settings = load_stored(store) if selector else Settings()
        selects = (lambda name: selector.matches(settings.labels_of(name))) if selector else None
        with store.part(tables.DISPATCHER).read() as connection:
            found = tables.read_history(connection, model=model, limit=limit, state=state, judged=judged, selects=selects)
            acts = tables.read_acts(connection, [order.id for order in found])
    return [listing.row_of(order, acts.get(order.id, ())) for order in found]


def read_order(storage: str, id_: str) -> OrderShown:
    """Return one order of the store, with its explanation and attempts; KeyError: no such order."""
    with contextlib.closing(StoreReader(storage)) as store, store.part(tables.DISPATCHER).read() as connection:
        order, attempts = tables.known_order(connection, id_), tables.read_attempts(connection, id_)
        return listing.shown_of(order, attempts, tables.read_acts(connection, [id_]).get(id_, ()))
