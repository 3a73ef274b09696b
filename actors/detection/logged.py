"""Reads a model's log back: its batches in order, without those that are damaged."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, and_, select, true

from actors.detection.rows import Damage
from actors.detection.seal import unseal
from actors.detection.tables import chunks, log, models

logger = logging.getLogger(__name__)

_ROWS: Final = 64  # read at once


@dataclass(frozen=True, slots=True)
class Logged:
    """A row of a model's log."""

    number: int
    sequence: int
    skip: int
    count: int
    received_at: float
    payload: bytes
    producer: str | None


def read_log(
    connection: Connection,
    model: str,
    after: int = 0,
    until: int | None = None,
    *,
    promises: bool = False,
    damaged: list[Damage] | None = None,
) -> Iterator[Logged]:
    """Return a model's batches in order, those after the number `after`, a few at a time.

    With `promises` also the rows that hold one (see `rules.promises.unpacked`): their `count` is 0. A row whose checksum does
    not match is left out, and added to `damaged`.
    """
    wanted = and_(log.c.model == model, true() if until is None else log.c.number <= until)
    if not promises:
        wanted = and_(wanted, log.c.count > 0)
    while True:
        wanted_now = select(log).where(wanted, log.c.number > after).order_by(log.c.number).limit(_ROWS)
        rows: list[Any] = list(connection.execute(wanted_now))
        for row in rows:
            try:
                found = _logged(row)
            except ValueError as error:
                logger.error("%s: row %d of the log is skipped: %s", model, row.number, error)  # noqa: TRY400  no fault of ours
                if damaged is not None:
                    damaged.append(Damage("log", model, (row.number,), row.payload, str(error), row.count))
                continue
            yield found
        if len(rows) < _ROWS:
            return
        after = rows[-1].number


def newest_logged(connection: Connection, model: str, batches: int) -> list[Logged]:
    """Return the newest `batches` of a model's log in order, without those that are damaged."""
    wanted = select(log).where(log.c.model == model, log.c.count > 0).order_by(log.c.number.desc()).limit(batches)
    return _whole(reversed(connection.execute(wanted).all()))


def newest_of_each(connection: Connection, names: Sequence[str], batches: int) -> dict[str, list[Logged]]:
    """Return about the newest `batches` of the log of each of these models, by one question for all of them."""
    found: dict[str, list[Any]] = {}
    for part in chunks(names):
        wanted = (
            select(log)
            .join(models, and_(models.c.model == log.c.model, log.c.number > models.c.number - batches))
            .where(models.c.model.in_(part), log.c.count > 0)
            .order_by(log.c.model, log.c.number)
        )
        for row in connection.execute(wanted):
            found.setdefault(row.model, []).append(row)
    return {model: _whole(rows) for model, rows in found.items()}


def _whole(rows: Iterable[Any]) -> list[Logged]:
    found: list[Logged] = []
    for row in rows:
        with contextlib.suppress(ValueError):  # damaged: the model's process reports it
            found.append(_logged(row))
    return found


def _logged(row: Any) -> Logged:
    """Decode a row. ValueError: it was damaged."""
    return Logged(row.number, row.sequence, row.skip, row.count, row.received_at, unseal(row.payload), row.producer)
