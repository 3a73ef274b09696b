"""SQL: a query of any database that SQLAlchemy knows, read on by a watermark that never goes back.

The place is the newest watermark, with a fingerprint of every row that was read there or within `look_back` of it: rows that
come later with such a watermark are read, and none is read twice. A row that comes further behind is not read.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from actors.checks import brief, shown
from actors.config.sources import SqlSettings
from actors.plain import Json
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
        newest = None if place is None else _read(place["watermark"])
        found = self._asked(self._behind(newest), LIMIT + len(seen))
        has_more = len(found) == LIMIT + len(seen)
        fresh = unseen(found, seen)
        if not fresh:
            return Answer([], place)
        marks = [row[self._settings.watermark] for row in found]
        newest = marks[-1] if newest is None else max(newest, marks[-1])
        floor = self._behind(newest)
        # Rows that were read and may be asked for again: those at the newest watermark, and as far behind it as is looked back.
        ties = [fingerprint(row) for row, mark in zip(found, marks, strict=True) if mark >= floor]
        if len(ties) > MAX_TIES:
            raise SourceError(
                f"more than {MAX_TIES} rows have {self._settings.watermark} {shown(newest)}, or are within look_back of it: "
                "name another column, or look back less far"
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
        new = {"watermark": _written(newest), "seen": ties}
        return Answer(rows, new, refused=refusals.count, problem=refusals.problem, has_more=has_more)

    def _is_used(self, name: str) -> bool:
        named = self._settings.columns
        return name in {named.model, named.version, named.time, named.n} or name in self._settings.metrics

    def _behind(self, mark: Any) -> Any:
        back_s = self._settings.look_back_s
        match mark:
            case None:
                return None
            case _ if not back_s:
                return mark
            case datetime():
                return mark - timedelta(seconds=back_s)
            case Decimal():
                return mark - Decimal(back_s)
            case int() | float():
                return mark - back_s
            case _:
                raise SourceError(f"look_back needs a watermark that is a number or a time, got {shown(mark)}")

    def _asked(self, since: Any, limit: int) -> list[Mapping[str, Any]]:
        quoted = self._engine.dialect.identifier_preparer.quote(self._settings.watermark)
        bound = f"{quoted} IS NOT NULL" if since is None else f"{quoted} >= :watermark"
        wanted = text(f"SELECT * FROM ({self._settings.query}) AS asked WHERE {bound} ORDER BY {quoted} LIMIT :most")  # noqa: S608  the configuration's own
        values = {"most": limit} | ({} if since is None else {"watermark": since})
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
    made: Json = {"datetime": datetime.fromisoformat, "date": date.fromisoformat, "decimal": Decimal}
    return made[kind](value) if kind in made else value
