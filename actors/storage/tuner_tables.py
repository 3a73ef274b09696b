"""Tables of the part `tuner`."""

from __future__ import annotations

from sqlalchemy import MetaData

from actors.storage.schema import common_tables

TUNER = MetaData()
common_tables(TUNER)
