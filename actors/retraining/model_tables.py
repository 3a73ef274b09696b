"""The tables for each model besides its orders (cooldown, silences, live version, patience), and the last sighting."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, Row, bindparam, select

from actors.clock import Instant
from actors.labels import ALL
from actors.labels import parse as parse_selector
from actors.retraining.rows import countdown_of, countdown_values
from actors.retraining.rules.gate import Cooldown, Silence
from actors.retraining.tables import (
    cooldowns,
    deployments,
    patience,
    retrains,
    rows_of,
    sightings,
    silences,
)
from actors.storage.schema import insert_or_keep, upsert

_COOLDOWNS: Final = select(cooldowns).where(cooldowns.c.model.in_(bindparam("of", expanding=True)))
_SILENCES: Final = select(silences).where(silences.c.expired_at.is_(None)).order_by(silences.c.created_at)
_PATIENCE: Final = select(patience).where(patience.c.model.in_(bindparam("of", expanding=True)))
_WITH_COUNTDOWN: Final = ((retrains, "wait"), (cooldowns, "armed"), (silences, "armed"))


def read_cooldowns_of(connection: Connection, models: Iterable[str]) -> dict[str, Cooldown]:
    """Return the cooldown, over or not, of each of these models that has one."""
    rows = rows_of(connection, _COOLDOWNS, models)
    return {row.model: Cooldown(row.retrain, countdown_of(row, "armed")) for row in rows}


def read_cooldowns(connection: Connection) -> dict[str, Cooldown]:
    """Return every model's cooldown, over or not."""
    return {row.model: Cooldown(row.retrain, countdown_of(row, "armed")) for row in connection.execute(select(cooldowns))}


def read_silences(connection: Connection) -> list[tuple[Silence, float]]:
    """Return the silences that nobody has ended, each with when it was made; some may be over."""
    return [(_silence_of(row), row.created_at) for row in connection.execute(_SILENCES)]


def _silence_of(row: Row[Any]) -> Silence:
    selector = parse_selector(row.selector) if row.selector else ALL
    return Silence(row.id, row.pattern, countdown_of(row, "armed"), row.comment, selector, row.made_by)


def read_sighting(connection: Connection) -> Instant | None:
    """Return the last instant on record."""
    row = connection.execute(select(sightings)).first()
    return None if row is None else Instant(row.wall_s, row.boot_s, row.boot_id)


def put_sighting(connection: Connection, now: Instant) -> None:
    """Put this instant on record."""
    row = upsert(connection, sightings, "wall_s", "boot_s", "boot_id")
    connection.execute(row.values(one=1, wall_s=now.wall_s, boot_s=now.boot_s, boot_id=now.boot_id))


def rebase_countdowns(connection: Connection, now: Instant, pace: Instant) -> None:
    """Let every countdown of another boot carry on under this one; called once by a dispatcher that starts.

    Leases and waits run on the clock of `now`, cooldowns and silences on that of `pace`.
    """
    seen = read_sighting(connection)
    at = {"wait": now, "armed": pace}
    for table, prefix in _WITH_COUNTDOWN:
        now = at[prefix]
        boot_id = table.c[f"{prefix}_boot_id"]
        (key,) = table.primary_key
        for row in connection.execute(select(table).where(boot_id.is_not(None), boot_id != now.boot_id)).all():
            countdown = countdown_of(row, prefix).rebased(now, seen)
            changed = table.update().where(key == row._mapping[key])
            connection.execute(changed.values(countdown_values(prefix, countdown)))


def put_cooldowns(connection: Connection, armed: Mapping[str, Cooldown]) -> None:
    """Arm the cooldown of each of these models."""
    rows = [
        {"model": model, "retrain": cooldown.order, **countdown_values("armed", cooldown.countdown)}
        for model, cooldown in armed.items()
    ]
    if rows:
        connection.execute(upsert(connection, cooldowns, *(name for name in rows[0] if name != "model")), rows)


def put_silence(connection: Connection, silence: Silence, now: Instant) -> None:
    """Insert a silence; keep the one of that id."""
    connection.execute(
        insert_or_keep(connection, silences).values(
            id=silence.id,
            pattern=silence.pattern,
            comment=silence.comment,
            created_at=now.wall_s,
            selector=str(silence.selector),
            made_by=silence.by,
            **countdown_values("armed", silence.countdown),
        )
    )


def expire_silence(connection: Connection, id_: str, now: Instant) -> bool:
    """End a silence; False where there is none of that id."""
    known = connection.execute(select(silences.c.id).where(silences.c.id == id_)).first() is not None
    running = silences.c.expired_at.is_(None)
    connection.execute(silences.update().where(silences.c.id == id_, running).values(expired_at=now.wall_s))
    return known


def prune_silences(connection: Connection, now: Instant, *, older_than_s: float) -> None:
    """Delete the silences that were made before `older_than_s` and have ended."""
    for row in connection.execute(select(silences).where(silences.c.created_at < older_than_s)).all():
        if row.expired_at is not None or countdown_of(row, "armed").is_over(now):
            connection.execute(silences.delete().where(silences.c.id == row.id))


class Deployed(NamedTuple):
    """The live version of a model, since when by every clock, and how many retrains the age of its versions has asked for."""

    model: str
    version: str
    at: float  # by the events' own time
    since: Instant  # when it was deployed, or when its age asked last
    ordinal: int


def read_deployments(connection: Connection) -> list[Deployed]:
    """Return the live version of every model whose detector has reported one."""
    return [
        Deployed(row.model, row.version, row.at, Instant(row.since_wall_s, row.since_boot_s, row.since_boot_id), row.ordinal)
        for row in connection.execute(select(deployments).order_by(deployments.c.at))
    ]


def read_deployment(connection: Connection, model: str) -> Deployed | None:
    """Return the live version of one model."""
    row = connection.execute(select(deployments).where(deployments.c.model == model)).first()
    if row is None:
        return None
    since = Instant(row.since_wall_s, row.since_boot_s, row.since_boot_id)
    return Deployed(row.model, row.version, row.at, since, row.ordinal)


def put_deployment(connection: Connection, deployed: Deployed) -> None:
    """Put the live version of a model on record, in place of the one before."""
    values = {
        "model": deployed.model,
        "version": deployed.version,
        "at": deployed.at,
        "ordinal": deployed.ordinal,
        "since_wall_s": deployed.since.wall_s,
        "since_boot_s": deployed.since.boot_s,
        "since_boot_id": deployed.since.boot_id,
    }
    connection.execute(upsert(connection, deployments, *(name for name in values if name != "model")), values)


def read_patience_of(connection: Connection, models: Iterable[str]) -> dict[str, int]:
    """Return how many retrains in a row came to nothing, of each of these models where any did."""
    return {row.model: row.in_a_row for row in rows_of(connection, _PATIENCE, models)}


def read_patience(connection: Connection) -> dict[str, int]:
    """Return the same of all models."""
    return {row.model: row.in_a_row for row in connection.execute(select(patience))}


def lose_patience(connection: Connection, model: str) -> None:
    """Count one more retrain of the model that came to nothing."""
    connection.execute(insert_or_keep(connection, patience).values(model=model, in_a_row=0))
    mine = patience.c.model == model
    connection.execute(patience.update().where(mine).values(in_a_row=patience.c.in_a_row + 1))


def restore_patience(connection: Connection, model: str | None) -> None:
    """Begin to count anew, for one model or for all."""
    mine = patience.delete()
    connection.execute(mine if model is None else mine.where(patience.c.model == model))


def forget(connection: Connection, model: str) -> None:
    """Delete a model's rows in these tables. Silences stay: they are for patterns."""
    for table in (cooldowns, deployments, patience):
        connection.execute(table.delete().where(table.c.model == model))
