"""The state of the part `sources`; every change is one fenced transaction.

An answer of a source is committed together with the new place, under numbers of its own, before anything of it is sent. So
whatever is killed then, the same events are sent again under the same numbers, and the system counts them once. The client's
`Sender` numbers in memory, and takes numbers from the system after a restart: it cannot tell then what it had sent before.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from sqlalchemy import Connection, select

from actors import failpoints
from actors.metrics import sealing
from actors.replies import Ingested
from actors.sources.interface import Answer, Place, Row
from actors.storage import Fence, Store
from actors.storage.schema import insert_or_keep
from actors.storage.sources import SOURCES, source_outbox, source_streams, sources

OWNER: Final = "sources"
_EVENTS: Final = "events"
_PROMISE: Final = "promise"
VERSION: Final = "version"
_AT_ONCE: Final = 64
_PROBLEM: Final = 500


class Pending(NamedTuple):
    """One batch of events or one promise that is not acknowledged."""

    number: int
    model: str
    kind: str
    producer: str
    sequence: int
    rows: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Known:
    """How far a source is."""

    place: Place
    failures: int
    models: frozenset[str]


class SourcesState:
    """The places of all sources and what is still to be sent. Safe to use from several threads, one for each source."""

    def __init__(self, store: Store) -> None:
        self._part = store.part(SOURCES)
        self._fence = Fence.raise_epoch(self._part, OWNER)
        self._epochs: dict[str, int] = {}  # by model, the newest process that has replied

    @property
    def epoch(self) -> int:
        """The epoch of this process."""
        return self._fence.epoch

    def known(self, source: str, kind: str) -> Known:
        """Return how far `source` is; one that is of another kind now begins anew."""
        with self._fence.write() as connection:
            first = {"source": source, "kind": kind, "place": None, "failures": 0, "read": 0, "refused": 0, "rejected": 0}
            connection.execute(insert_or_keep(connection, sources).values(**first))
            row = connection.execute(select(sources).where(sources.c.source == source)).one()
            if row.kind != kind:
                _set(connection, source, kind=kind, place=None)
            models = connection.execute(select(source_streams.c.model).where(source_streams.c.source == source)).scalars()
            place = None if row.place is None or row.kind != kind else json.loads(row.place)
            return Known(place, row.failures, frozenset(models))

    def took(self, source: str, answer: Answer, now_s: float) -> None:
        """Commit an answer: the new place, and its events and promises as they will be sent."""
        by_model: dict[str, list[Row]] = {}
        for row in answer.rows:
            by_model.setdefault(row.model, []).append(row)
        packed = {
            model: sealing.packed_rows([(row.version, row.at_s, dict(row.metrics), row.n) for row in rows])
            for model, rows in by_model.items()
        }
        with self._fence.write() as connection:
            before = connection.execute(select(sources).where(sources.c.source == source)).one()
            for model, batches in packed.items():
                for batch in batches:
                    self._put(connection, source, model, batch.rows, batch.payload)
            for promise in answer.promises:
                said = json.dumps([promise.version, promise.value, promise.n])
                _put_call(connection, source, promise.model, _PROMISE, said)
            for each in answer.announced:
                _put_call(connection, source, each.model, VERSION, json.dumps([each.version, each.live, each.by]))
            _set(
                connection,
                source,
                place=json.dumps(answer.place),
                problem=_problem(before.problem, answer, is_back=bool(before.failures)),
                failures=0,
                read=before.read + len(answer.rows) + len(answer.announced),
                refused=before.refused + answer.refused,
                last_at=now_s,
            )
            failpoints.reach("sources.took")

    def failed(self, source: str, problem: str) -> int:
        """Note that a source could not be read; return how often in a row."""
        with self._fence.write() as connection:
            failures = 1 + int(connection.execute(select(sources.c.failures).where(sources.c.source == source)).scalar_one())
            _set(connection, source, problem=problem[:_PROBLEM], failures=failures)
            return failures

    def pending(self, source: str) -> list[Pending]:
        """Return the first unacknowledged entries, in their order."""
        streams = source_streams
        joined = source_outbox.outerjoin(
            streams, (streams.c.source == source_outbox.c.source) & (streams.c.model == source_outbox.c.model)
        )
        columns = [source_outbox.c[name] for name in Pending._fields if name != "producer"]
        wanted = select(*columns, streams.c.producer).select_from(joined).where(source_outbox.c.source == source)
        with self._part.read() as connection:
            found = connection.execute(wanted.order_by(source_outbox.c.number).limit(_AT_ONCE)).all()
        return [
            Pending(row.number, row.model, row.kind, row.producer or "", row.sequence, row.rows, bytes(row.payload))
            for row in found
        ]

    def settle(self, source: str, sent: Sequence[Pending], replies: Sequence[Ingested]) -> str | None:
        """Take the replies to batches of events; return why some are to be sent again, None where all are settled."""
        again: str | None = None
        held: set[str] = set()  # streams of which a batch was not settled: what comes after it waits
        with self._fence.write() as connection:
            for batch, reply in zip(sent, replies, strict=True):
                if batch.model in held:
                    continue
                problem = self._settled(connection, source, batch, reply)
                if problem is not None:
                    again = again or problem
                    held.add(batch.model)
            failpoints.reach("sources.settled")
        return again

    def told(self, number: int) -> None:
        """Note that a promise or a version is on record."""
        with self._fence.write() as connection:
            connection.execute(source_outbox.delete().where(source_outbox.c.number == number))

    def refuse(self, source: str, number: int, problem: str) -> None:
        """Note that a promise or a version will never be taken."""
        with self._fence.write() as connection:
            connection.execute(source_outbox.delete().where(source_outbox.c.number == number))
            _set(connection, source, problem=problem[:_PROBLEM])

    def forget(self, configured: Sequence[str]) -> None:
        """Forget sources that the configuration does not name any more, once nothing of them waits."""
        with self._fence.write() as connection:
            for name in connection.execute(select(sources.c.source)).scalars().all():
                waits = select(source_outbox.c.number).where(source_outbox.c.source == name).limit(1)
                if name not in configured and connection.execute(waits).first() is None:
                    connection.execute(sources.delete().where(sources.c.source == name))
                    connection.execute(source_streams.delete().where(source_streams.c.source == name))

    def _put(self, connection: Connection, source: str, model: str, rows: int, payload: bytes) -> None:
        streams = source_streams
        first = {"source": source, "model": model, "producer": f"source-{uuid.uuid4().hex}", "next_sequence": 0}
        connection.execute(insert_or_keep(connection, streams).values(**first))
        of_stream = (streams.c.source == source) & (streams.c.model == model)
        sequence = connection.execute(select(streams.c.next_sequence).where(of_stream)).scalar_one()
        values = {"source": source, "model": model, "kind": _EVENTS, "sequence": sequence, "rows": rows, "payload": payload}
        connection.execute(source_outbox.insert().values(**values))
        connection.execute(streams.update().where(of_stream).values(next_sequence=sequence + rows))

    def _settled(self, connection: Connection, source: str, batch: Pending, reply: Ingested) -> str | None:
        end, high = batch.sequence + batch.rows, reply["high_water"] or 0
        if reply["status"] in {"accepted", "gap"}:
            if reply["epoch"] < self._epochs.get(batch.model, 0):
                return "the reply came from a process that has been replaced"
            self._epochs[batch.model] = reply["epoch"]
        match reply["status"]:
            case "accepted" if high >= end:
                connection.execute(source_outbox.delete().where(source_outbox.c.number == batch.number))
                lost = batch.rows - reply["accepted"] - reply["duplicates"]
                if lost > 0:
                    first = reply["rejected"][0] if reply["rejected"] else None
                    told = "" if first is None else f": {first['field']} {first['rule']}, got {first['value']!r}"
                    self._rejected(connection, source, lost, f"{batch.model}: events are rejected{told}")
                return None
            case "refused":
                connection.execute(source_outbox.delete().where(source_outbox.c.number == batch.number))
                self._rejected(connection, source, batch.rows, f"{batch.model} is refused: {reply.get('reason')}")
                # None of what comes after it can have been taken: it gets the numbers of what is gone.
                self._renumber(connection, source, batch.model, batch.sequence, producer=None)
                return f"{batch.model} is refused"
            case "gap" if high < batch.sequence:
                # Another store, or one that has forgotten this producer: as somebody new nothing is lost or counted twice,
                # since nothing of what waits can have been taken under the name that nobody knows.
                self._renumber(connection, source, batch.model, 0, producer=f"source-{uuid.uuid4().hex}")
                return f"{batch.model}: continuing as a new producer"
            case status:
                return reply.get("reason") or status

    def _renumber(self, connection: Connection, source: str, model: str, sequence: int, *, producer: str | None) -> None:
        of_model = (source_outbox.c.source == source) & (source_outbox.c.model == model) & (source_outbox.c.kind == _EVENTS)
        wanted = select(source_outbox.c.number, source_outbox.c.rows).where(of_model).order_by(source_outbox.c.number)
        for number, rows in connection.execute(wanted).all():
            connection.execute(source_outbox.update().where(source_outbox.c.number == number).values(sequence=sequence))
            sequence += rows
        values: dict[str, object] = {"next_sequence": sequence} | ({} if producer is None else {"producer": producer})
        of_stream = (source_streams.c.source == source) & (source_streams.c.model == model)
        connection.execute(source_streams.update().where(of_stream).values(**values))

    def _rejected(self, connection: Connection, source: str, rows: int, problem: str) -> None:
        count = connection.execute(select(sources.c.rejected).where(sources.c.source == source)).scalar_one()
        _set(connection, source, rejected=count + rows, problem=problem[:_PROBLEM])


def _problem(before: str | None, answer: Answer, *, is_back: bool) -> str | None:
    """Return what is wrong now: an answer without rows says nothing about those before it."""
    if answer.problem is not None:
        return answer.problem[:_PROBLEM]
    return None if answer.rows or answer.is_whole or is_back else before


def _put_call(connection: Connection, source: str, model: str, kind: str, said: str) -> None:
    values = {"source": source, "model": model, "kind": kind, "sequence": 0, "rows": 0, "payload": said.encode()}
    connection.execute(source_outbox.insert().values(**values))


def _set(connection: Connection, source: str, **values: object) -> None:
    connection.execute(sources.update().where(sources.c.source == source).values(**values))
