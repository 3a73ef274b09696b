"""Reads retrain orders from a store, whether a system runs or not, as the dispatcher's replies show them."""

from __future__ import annotations

import contextlib

from actors.replies import OrderRow, OrderShown
from actors.retraining import border, tables
from actors.storage import StoreReader


def read_history(
    storage: str, model: str | None = None, *, limit: int = 1000, state: str | None = None, judged: bool = False
) -> list[OrderRow]:
    """Return the newest `limit` orders and decisions of the store at the URL `storage`, oldest first.

    `judged` leaves only the retrains of which it is known whether they paid.
    """
    border.check_history(limit, state)
    with contextlib.closing(StoreReader(storage)) as store, store.part(tables.DISPATCHER).read() as connection:
        return [
            border.row_of(order)
            for order in tables.read_history(connection, model=model, limit=limit, state=state, judged=judged)
        ]


def read_order(storage: str, id_: str) -> OrderShown:
    """Return one order of the store, with its explanation and attempts; KeyError: no such order."""
    with contextlib.closing(StoreReader(storage)) as store, store.part(tables.DISPATCHER).read() as connection:
        return border.shown_of(tables.known_order(connection, id_), tables.read_attempts(connection, id_))
