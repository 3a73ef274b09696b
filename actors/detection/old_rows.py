"""Finds and removes rows that are too old or too many. Called inside a transaction, in short steps."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, and_, delete, func, or_, select

from actors.detection.tables import chunks, episodes, judgements, log, models, producers, quarantine


def overlong(connection: Connection, names: Sequence[str], *, before_s: float, rows: int) -> list[str]:
    """Return those of the models whose log has batches that `trim` takes out: a look, where most have none."""
    found: list[str] = []
    first = select(func.min(log.c.number)).where(log.c.model == models.c.model).correlate(models).scalar_subquery()
    oldest = select(models.c.model).join(log, and_(log.c.model == models.c.model, log.c.number == first))
    due = oldest.where(
        log.c.number <= models.c.snapshot, or_(log.c.received_at < before_s, log.c.number <= models.c.number - rows)
    )
    for part in chunks(names):
        found.extend(connection.execute(due.where(models.c.model.in_(part))).scalars())
    return found


def weighed(connection: Connection, model: str, *, below: int | None, at_most: int) -> tuple[int, list[tuple[int, float, int]]]:
    """Return the number that the snapshot knows, and number, time and bytes of batches before `below`, the newest first."""
    snapshot = connection.execute(select(models.c.snapshot).where(models.c.model == model)).scalar()
    wanted = select(log.c.number, log.c.received_at, func.length(log.c.payload)).where(log.c.model == model)
    if below is not None:
        wanted = wanted.where(log.c.number < below)
    rows = connection.execute(wanted.order_by(log.c.number.desc()).limit(at_most))
    return snapshot or 0, [(row[0], row[1], row[2]) for row in rows]


def trim(connection: Connection, model: str, *, before_s: float, rows: int, at_most: int, upto: int = 0) -> int:
    """Take the oldest batches of a model out of the log and return how many went.

    Those received before `before_s`, those beyond the newest `rows`, and those up to number `upto`.

    What the last snapshot does not know yet stays, whatever its age; at most `at_most` batches go at once, so that ingest
    never waits long.
    """
    row = connection.execute(
        select(
            models.c.number, models.c.snapshot, select(func.min(log.c.number)).where(log.c.model == model).scalar_subquery()
        ).where(models.c.model == model)
    ).first()
    if row is None or row[2] is None:
        return 0
    number, snapshot, oldest = row
    done = connection.execute(
        delete(log).where(
            log.c.model == model,
            log.c.number <= min(snapshot, oldest + at_most - 1),
            or_(log.c.received_at < before_s, log.c.number <= max(number - rows, upto)),
        )
    )
    return int(done.rowcount)


def forget_producers(connection: Connection, process: str, before_s: float) -> int:
    """Forget the marks of producers silent for so long that no batch of theirs is in flight; return how many went."""
    own = select(models.c.model).where(models.c.process == process)
    return connection.execute(delete(producers).where(producers.c.seen_at < before_s, producers.c.model.in_(own))).rowcount


def forget_episodes(connection: Connection, process: str, before_s: float) -> None:
    """Forget episodes that were closed and are older than the retention: of the process's models, and of removed ones."""
    others = select(models.c.model).where(models.c.process != process)
    for table, old in ((episodes, episodes.c.open == 0), (judgements, judgements.c.verdict != "")):
        connection.execute(delete(table).where(old, table.c.opened_at < before_s, table.c.model.not_in(others)))


def forget_quarantine(connection: Connection, process: str, before_s: float) -> None:
    """Forget batches that were set aside and are older than the retention."""
    own = select(models.c.model).where(models.c.process == process)
    connection.execute(delete(quarantine).where(quarantine.c.received_at < before_s, quarantine.c.model.in_(own)))
