"""Reads studies from a store, whether a system runs or not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqlalchemy import make_url

from actors.storage import Store, is_local, redacted, tuner_tables
from actors.study import Study
from actors.tuning.book import as_row


def read_study(storage: str, name: str) -> Study:
    """Read the study `name` from the store at the URL `storage`; KeyError where there is none."""

    def read() -> tuple[dict[str, Any], list[dict[str, Any]]]:
        store = _existing(storage)
        try:
            with store.part("tuner").read() as connection:
                row = tuner_tables.read_study(connection, name)
                if row is None:
                    raise KeyError(f"study must be the name of a study in {redacted(storage)}, got {name!r}")
                trials = tuner_tables.read_trials(connection, row.study)
                return tuner_tables.read_summary(connection, row), [as_row(trial) for trial in trials]
        finally:
            store.close()

    return Study(read)


def list_studies(storage: str) -> list[dict[str, Any]]:
    """Give name, state and times of every study in the store, the newest first."""
    store = _existing(storage)
    try:
        with store.part("tuner").read() as connection:
            return tuner_tables.read_studies(connection)
    finally:
        store.close()


def _existing(storage: str) -> Store:
    if is_local(storage) and not Path(make_url(storage).database or "").is_dir():
        raise KeyError(f"storage must be a folder that is there, got {redacted(storage)!r}")
    return Store(storage)
