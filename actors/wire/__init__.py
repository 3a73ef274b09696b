"""The packed batch: its format, its encoding, and which of its rows count.

A job that cannot install this package copies these three lines, and calls with plain values by keyword:

    import ray
    broadcaster = ray.get_actor("broadcaster", namespace="visutility")
    ray.get(broadcaster.broadcast.remote(events=[{"model_name": "fraud", "model_version": "7", "accuracy": 0.91}]))

A packed batch is a msgpack map: `v` (schema), `n` (rows), `versions` (texts), `which` (uint16[n]: the version of each row; left
out where there is one version), `time` and `columns` (name -> column), `texts` (name -> list of text or nil), and in schema 2
`weights` (a column: the predictions behind each event). A column is float64[n], little-endian; or 8 bytes, one value for all
rows; or a pair of such bytes and a bit mask of the rows that have it (bits packed, the first row is the highest bit). So a NaN
in a row with the column is a bad value, not an absent one. A batch holds the events of one model, in the order of their
sequence numbers. A batch without weights is written as schema 1, which builds before schema 2 read too.
"""

from actors.replies import Rejection
from actors.wire.batch import (
    MAX_CELLS,
    MAX_COLUMNS,
    MAX_ROWS,
    MAX_VERSIONS,
    Batch,
    Bools,
    Column,
    Floats,
    Indices,
    Payload,
    Row,
    rows_of,
    values_of,
)
from actors.wire.checking import (
    AHEAD_S,
    MAX_EXTRAS_BYTES,
    MAX_LISTED,
    MAX_WEIGHT,
    WEIGHT_RULE,
    Verdict,
    check,
    clamped,
    recheck,
)
from actors.wire.making import batch_of_columns, batch_of_rows
from actors.wire.names import (
    FIELDS,
    MAX_NAME,
    NAMED,
    RESERVED,
    UNVERSIONED,
    Rule,
    check_model,
    check_version,
    is_model,
    metric_rule,
    model_rule,
    stored_rule,
    text_rule,
)
from actors.wire.packing import MAX_CALL_BYTES, SCHEMA, arrived, declared_rows, for_travel, pack, unpack

__all__ = [
    "AHEAD_S",
    "FIELDS",
    "MAX_CALL_BYTES",
    "MAX_CELLS",
    "MAX_COLUMNS",
    "MAX_EXTRAS_BYTES",
    "MAX_LISTED",
    "MAX_NAME",
    "MAX_ROWS",
    "MAX_VERSIONS",
    "MAX_WEIGHT",
    "NAMED",
    "RESERVED",
    "SCHEMA",
    "UNVERSIONED",
    "WEIGHT_RULE",
    "Batch",
    "Bools",
    "Column",
    "Floats",
    "Indices",
    "Payload",
    "Rejection",
    "Row",
    "Rule",
    "Verdict",
    "arrived",
    "batch_of_columns",
    "batch_of_rows",
    "check",
    "check_model",
    "check_version",
    "clamped",
    "declared_rows",
    "for_travel",
    "is_model",
    "metric_rule",
    "model_rule",
    "pack",
    "recheck",
    "rows_of",
    "stored_rule",
    "text_rule",
    "unpack",
    "values_of",
]
