"""Keeps the configuration in the store, and reads it from there."""

from __future__ import annotations

import functools
import json

from sqlalchemy import select

from actors.config.reading import document, parse
from actors.config.settings import Settings
from actors.storage import Store, schema
from actors.storage.schema import SYSTEM


def load_stored(store: Store) -> Settings:
    """Return the newest settings in the store, or the defaults if there are none."""
    with store.part(SYSTEM).read() as connection:
        newest = select(schema.settings.c.document).order_by(schema.settings.c.version.desc()).limit(1)
        text = connection.execute(newest).scalar()
    return Settings() if text is None else _parsed(text)


def store_settings(store: Store, settings: Settings, now_s: float) -> int:
    """Store `settings` as the newest, unless they already are; return their version."""
    text = document(settings)
    table = schema.settings
    with store.part(SYSTEM).write() as connection:
        newest = connection.execute(select(table.c.version, table.c.document).order_by(table.c.version.desc())).first()
        if newest is not None and newest.document == text:
            return int(newest.version)
        version = 1 if newest is None else int(newest.version) + 1
        connection.execute(table.insert().values(version=version, document=text, stored_at=now_s))
        return version


# Settings are immutable, and a status that is read every second finds the same text: parsing a large one takes 20 ms.
@functools.lru_cache(maxsize=4)
def _parsed(text: str) -> Settings:
    return parse(json.loads(text), "stored configuration")
