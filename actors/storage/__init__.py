"""The store: one URL, SQLite files for one node or PostgreSQL for a cluster, and the fence that guards every commit."""

from actors.checks import redacted
from actors.storage import happenings
from actors.storage.fence import Fence, StaleEpochError
from actors.storage.reader import StoreReader
from actors.storage.schema import SCHEMA_VERSION, PartKind, SchemaError
from actors.storage.store import UNAVAILABLE, Part, Store, StoreError, StoreLostError, folder_of, is_local

__all__ = [
    "SCHEMA_VERSION",
    "UNAVAILABLE",
    "Fence",
    "Part",
    "PartKind",
    "SchemaError",
    "StaleEpochError",
    "Store",
    "StoreError",
    "StoreLostError",
    "StoreReader",
    "folder_of",
    "happenings",
    "is_local",
    "redacted",
]
