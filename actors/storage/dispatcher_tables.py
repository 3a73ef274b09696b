"""Tables of the part `dispatcher`."""

from __future__ import annotations

from sqlalchemy import MetaData

from actors.storage.schema import common_tables

DISPATCHER = MetaData()
common_tables(DISPATCHER)
