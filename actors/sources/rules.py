"""Rules of sources, without I/O: a row of a table becomes an event, rows of one watermark are told apart, failures back off."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any, Final

from actors import columns, wire
from actors.checks import finite, shown
from actors.config.sources import Columns
from actors.sources.interface import Row

# Between two attempts at a source that fails.
BACKOFF_S: Final = (1.0, 5.0, 15.0, 60.0, 300.0)
# Rows of one watermark that are told apart.
MAX_TIES: Final = 20_000


def pause_s(failures: int, every_s: float) -> float:
    """Return the pause after so many failures in a row.

    >>> [pause_s(n, 60.0) for n in (0, 1, 2, 9)]
    [60.0, 1.0, 5.0, 300.0]
    """
    return every_s if not failures else BACKOFF_S[min(failures, len(BACKOFF_S)) - 1]


def event_of(
    row: Mapping[str, Any], named: Columns, metrics: Mapping[str, str], *, model: str | None, now_s: float
) -> Row | str:
    """Return the event in a row of a table, or why it is none.

    >>> event_of({"model": "fraud", "accuracy": 0.9, "n": 20}, Columns(), {}, model=None, now_s=7.0)
    Row(model='fraud', version='unversioned', at_s=7.0, metrics={'accuracy': 0.9}, n=20.0)
    >>> event_of({"accuracy": 0.9}, Columns(), {}, model=None, now_s=7.0)
    'model must be in the column model, got None'
    """
    at_s = seconds(row.get(named.time), now_s)
    if at_s is None:
        return f"{named.time} must be seconds since the epoch or a date, got {shown(row.get(named.time))}"
    count = row.get(named.n)
    n = None if count is None or count == "" else finite(_number(count))
    if n is None and count not in {None, ""}:
        return f"{named.n} must be a number, got {shown(count)}"
    name = model if model is not None else row.get(named.model)
    if name is None:
        return f"model must be in the column {named.model}, got None"
    others = {named.model, named.version, named.time, named.n}
    wanted = metrics or {column: column for column in row if column not in others}
    values = {wanted[column]: value for column in wanted if (value := finite(_number(row.get(column)))) is not None}
    version = row.get(named.version)
    return checked(Row(str(name), wire.UNVERSIONED if version in {None, ""} else str(version), at_s, values, n))


def checked(row: Row) -> Row | str:
    """Return the row, or which rule of an event it breaks.

    >>> checked(Row("fraud", "1", 0.0, {}))
    'metrics must hold at least one number, got none'
    """
    if not row.metrics:
        return "metrics must hold at least one number, got none"
    for name in row.metrics:
        rule = wire.metric_rule(name)
        if rule is not None:
            return f"metric name {rule}, got {shown(name)}"
    try:
        wire.check_model(row.model)
        wire.check_version(row.version)
    except ValueError as error:
        return str(error)
    return row


def seconds(value: object, now_s: float) -> float | None:
    """Return a time as seconds since the epoch; now where there is none, None where it cannot be read.

    >>> seconds("1970-01-01T00:00:10", 0.0), seconds(10, 0.0), seconds(None, 3.0), seconds("soon", 0.0)
    (10.0, 10.0, 3.0, None)
    """
    if value is None or value == "":
        return now_s
    number = finite(_number(value))
    if number is not None:
        return number
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return None
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day, tzinfo=UTC)
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
    return columns.seconds(value)


def fingerprint(row: Mapping[str, Any]) -> str:
    """Return a short name of a row's content, to tell rows of one watermark apart.

    >>> fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    True
    """
    text = json.dumps(dict(row), sort_keys=True, default=str)
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:16]


def unseen(rows: Iterable[Mapping[str, Any]], seen: Sequence[str]) -> list[Mapping[str, Any]]:
    """Leave out the rows that were read before at the same watermark; of equal rows as many as were read.

    >>> unseen([{"a": 1}, {"a": 1}, {"a": 2}], [fingerprint({"a": 1})])
    [{'a': 1}, {'a': 2}]
    """
    left = Counter(seen)
    found = []
    for row in rows:
        key = fingerprint(row) if left else ""
        if left.get(key, 0) > 0:
            left[key] -= 1
        else:
            found.append(row)
    return found


def _number(value: Any) -> Any:
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return None
    return None if isinstance(value, bool) else columns.number(value)
