"""SQL: a query of any database that SQLAlchemy knows, read on by a watermark that never goes back.

The place is the watermark of the last row, with a fingerprint of every row that was read there: rows that come later with the
same watermark are read, and none is read twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Final

from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from actors.checks import brief, shown
from actors.config.sources import SqlSettings
from actors.sources.interface import Answer, Place, Refusals, Row, SourceError
from actors.sources.rules import MAX_TIES, event_of, fingerprint, unseen

LIMIT: Final = 5_000


class Sql:
    """Reads up to 5,000 rows at a time, in a transaction that is rolled back; nothing stays connected in between."""

    def __init__(self, settings: SqlSettings) -> None:
        self._settings = settings
        try:
            self._engine = create_engine(make_url(settings.url), poolclass=NullPool)
        except (SQLAlchemyError, ModuleNotFoundError) as error:
            raise SourceError(f"url must be a database that SQLAlchemy opens: {brief(error)}") from None

    def read(self, place: Place, now_s: float) -> Answer:
        """Return the rows from the watermark on that were not read yet."""
        seen: list[str] = [] if place is None else place["seen"]
        found = self._asked(place, LIMIT + len(seen))
        has_more = len(found) == LIMIT + len(seen)
        fresh = unseen(found, seen)
        if not fresh:
            return Answer([], place)
        watermark = fresh[-1][self._settings.watermark]
        ties = [fingerprint(row) for row in fresh if row[self._settings.watermark] == watermark]
        if place is not None and _read(place["watermark"]) == watermark:
            ties = [*seen, *ties]
        if len(ties) > MAX_TIES:
            raise SourceError(
                f"more than {MAX_TIES} rows have {self._settings.watermark} {shown(watermark)}: name another column"
            )
        refusals, rows = Refusals(), []
        for row in fresh:
            event = event_of(
                {name: value for name, value in row.items() if name != self._settings.watermark or self._is_used(name)},
                self._settings.columns,
                self._settings.metrics,
                model=self._settings.model,
                now_s=now_s,
            )
            if isinstance(event, Row):
                rows.append(event)
            else:
                refusals.add(event)
        new = {"watermark": _written(watermark), "seen": ties}
        return Answer(rows, new, refused=refusals.count, problem=refusals.problem, has_more=has_more)

    def _is_used(self, name: str) -> bool:
        named = self._settings.columns
        return name in {named.model, named.version, named.time, named.n} or name in self._settings.metrics

    def _asked(self, place: Place, limit: int) -> list[Mapping[str, Any]]:
        quoted = self._engine.dialect.identifier_preparer.quote(self._settings.watermark)
        since = f"{quoted} IS NOT NULL" if place is None else f"{quoted} >= :watermark"
        wanted = text(f"SELECT * FROM ({self._settings.query}) AS asked WHERE {since} ORDER BY {quoted} LIMIT :most")  # noqa: S608  the configuration's own
        values = {"most": limit} | ({} if place is None else {"watermark": _read(place["watermark"])})
        try:
            with self._engine.connect() as connection:
                return [dict(row) for row in connection.execute(wanted, values).mappings()]
        except SQLAlchemyError as error:
            raise SourceError(f"the query failed: {brief(getattr(error, 'orig', None) or error)}") from None


def _written(value: object) -> list[object]:
    """Return a watermark as JSON that `_read` turns back into the same value.

    >>> _read(_written(datetime(2026, 1, 2)))
    datetime.datetime(2026, 1, 2, 0, 0)
    """
    match value:
        case int() | float() | str():
            return ["plain", value]
        case datetime():
            return ["datetime", value.isoformat()]
        case date():
            return ["date", value.isoformat()]
        case Decimal():
            return ["decimal", str(value)]
        case _:
            raise SourceError(f"the watermark must be a number, a text or a time, got {shown(value)}")


def _read(written: list[Any]) -> Any:
    kind, value = written
    made: dict[str, Any] = {"datetime": datetime.fromisoformat, "date": date.fromisoformat, "decimal": Decimal}
    return made[kind](value) if kind in made else value
