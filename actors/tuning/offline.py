"""Reads studies from a store, whether a system runs or not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from sqlalchemy import Connection, Row

from actors.replies import StudyListing
from actors.storage import StoreReader, redacted
from actors.tuning import tables as tuner_tables
from actors.tuning.rules.book import as_row
from actors.tuning.study import Study
from actors.tuning.tables import TUNER

T = TypeVar("T")


def read_study(storage: str, name: str) -> Study:
    """Return the study `name` from the store at the URL `storage`; KeyError where there is none.

    Example:
        read_study("sqlite:///./visutility-data", "churn-lr").best.params
    """

    def of_study(read: Callable[[Connection, Row[Any]], T]) -> T:
        store = StoreReader(storage)
        try:
            with store.part(TUNER).read() as connection:
                row = tuner_tables.read_study(connection, name)
                if row is None:
                    raise KeyError(f"study must be the name of a study in {redacted(storage)}, got {name!r}")
                return read(connection, row)
        finally:
            store.close()

    return Study(
        lambda: of_study(tuner_tables.read_summary),
        lambda: of_study(lambda connection, row: list(map(as_row, tuner_tables.read_entries(connection, row.study)))),
    )


def list_studies(storage: str) -> list[StudyListing]:
    """Return name, state and times of every study in the store, the newest first."""
    store = StoreReader(storage)
    try:
        with store.part(TUNER).read() as connection:
            return tuner_tables.read_studies(connection)
    finally:
        store.close()
