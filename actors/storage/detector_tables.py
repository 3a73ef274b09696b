"""Tables of the part `detector`."""

from __future__ import annotations

from sqlalchemy import MetaData

from actors.storage.schema import common_tables

DETECTOR = MetaData()
common_tables(DETECTOR)
