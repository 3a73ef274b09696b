"""What the part `notify` knows; every change is one fenced transaction.

What was read and what became of it are committed together: the cursors, the groups, and the messages that are on their way,
each as it will be sent. Only then is anything sent. So whatever is killed then, nothing is read twice or passed over, and the
same message goes out again under the same id.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from sqlalchemy import Connection, delete, select

from actors import failpoints, happenings
from actors.clock import Clock
from actors.config import Settings
from actors.config.notify import AlertmanagerSettings
from actors.notify.notification import ReceiverError
from actors.notify.rules.board import Board, Outgoing
from actors.retraining.model_tables import read_silences
from actors.retraining.tables import DISPATCHER
from actors.storage import Fence, Store, StoreReader
from actors.storage.notify import NOTIFY, cursors, groups, receivers
from actors.storage.schema import upsert

OWNER: Final = "notifier"
_AT_ONCE: Final = 1000


class Look(NamedTuple):
    """What is to be sent now, and after how many seconds to look again if nothing comes in."""

    outgoing: list[Outgoing]
    wait_s: float


class NotifyState:
    """The board of notifications in the store. For one thread."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._clock = clock
        self._fence = Fence.raise_epoch(store.part(NOTIFY), OWNER)
        # Other parts are read by connections that hold up none of their writers.
        self._reader = StoreReader(store.url)
        self._board: Board | None = None  # None: what is in memory may be more than what is stored
        self._seen: dict[str, int] = {}
        self._settings = Settings()
        self._resends: dict[str, float] = {}
        self._labels: dict[str, dict[str, str]] = {}

    @property
    def epoch(self) -> int:
        """The epoch of this process."""
        return self._fence.epoch

    def configure(self, settings: Settings) -> list[str]:
        """Go by these settings; return the receivers that are gone while something was waiting for them."""
        self._settings = settings
        self._labels = {}
        named = settings.notify.receivers
        self._resends = {name: each.resend_s for name, each in named.items() if isinstance(each, AlertmanagerSettings)}
        with self._changed() as board:
            return board.keep(named)

    def look(self, busy: Iterable[str] = ()) -> Look:
        """Read what has happened, and return what is to be sent; nothing to receivers that are busy."""
        now = self._clock.now()
        routes = self._settings.notify.in_order()
        with self._changed() as board:
            rows = happenings.after(self._reader, self._seen, _AT_ONCE)
            for row in rows:
                happened = {key: value for key, value in row.items() if key not in {"part", "number"}}
                labels = self._labels_of(row["model"])
                board.take(happened, labels, routes, self._resends, now.wall_s)  # type: ignore[arg-type]  # its keys by the line above
            self._seen |= {row["part"]: row["number"] for row in rows}
            with self._reader.part(DISPATCHER).read() as connection:
                silences = [silence for silence, _ in read_silences(connection)]

            def silenced(model: str, labels: Mapping[str, str]) -> bool:
                return any(silence.covers(model, now, labels) for silence in silences)

            outgoing = board.due(now.wall_s, busy, silenced)
            next_at = now.wall_s if len(rows) >= _AT_ONCE else board.next_at(now.wall_s, silenced)
            failpoints.reach("notifier.read")
        failpoints.reach("notifier.begun")
        return Look(outgoing, next_at - now.wall_s)

    def settle(self, key: str, problem: ReceiverError | None) -> int:
        """Note what came of the message of a group; return how often in a row its receiver has failed."""
        failpoints.reach("notifier.sent")
        now_s = self._clock.now().wall_s
        failures = 0
        with self._changed() as board:
            if board.group(key) is None:
                return 0  # its receiver is gone from the configuration
            if problem is None:
                board.delivered(key, now_s)
            elif problem.for_good:
                board.refused(key, str(problem), now_s)
            else:
                failures = board.failed(key, str(problem), now_s, problem.after_s)
        failpoints.reach("notifier.settled")
        return failures

    def _labels_of(self, model: str | None) -> dict[str, str]:
        if model is None:
            return {}
        if model not in self._labels:
            self._labels[model] = self._settings.labels_of(model)
        return self._labels[model]

    @contextlib.contextmanager
    def _changed(self) -> Iterator[Board]:
        """Commit what is changed on the board; where that fails, what was stored last counts."""
        try:
            board = self._board or self._loaded()
            before = dict(self._seen)
            yield board
            moved = [{"part": part, "number": number} for part, number in self._seen.items() if before.get(part) != number]
            if moved or board.changed or board.health_changed:
                with self._fence.write() as connection:
                    _write(connection, board, moved)
            board.changed, board.health_changed = set(), set()
        except BaseException:
            self._board = None
            raise

    def _loaded(self) -> Board:
        with self._fence.part.read() as connection:
            seen = {row.part: row.number for row in connection.execute(select(cursors))}
            held = {row.key: json.loads(row.state) for row in connection.execute(select(groups))}
            columns = [column for column in receivers.c if column.name != "receiver"]
            known = connection.execute(select(receivers.c.receiver, *columns)).mappings().all()
        health = {row["receiver"]: {column.name: row[column] for column in columns} for row in known}
        if not seen:
            # The first start: what has happened before is not told. A part that is made later is read from its first row.
            seen = happenings.last(self._reader)
            with self._fence.write() as connection:
                connection.execute(cursors.insert(), [{"part": part, "number": number} for part, number in seen.items()])
        self._seen = seen
        self._board = Board({"groups": held, "health": health})
        return self._board


def _write(connection: Connection, board: Board, moved: Sequence[Mapping[str, object]]) -> None:
    if moved:
        connection.execute(upsert(connection, cursors, "number"), moved)
    found = {key: board.group(key) for key in board.changed}
    rows = [
        {
            "key": key,
            "receiver": group["receiver"],
            "waiting": sum(not alert["told"] or "resolved" in alert for alert in group["alerts"].values()),
            "state": json.dumps(group),
        }
        for key, group in found.items()
        if group is not None
    ]
    if rows:
        connection.execute(upsert(connection, groups, "receiver", "waiting", "state"), rows)
    for key in found.keys() - {row["key"] for row in rows}:
        connection.execute(delete(groups).where(groups.c.key == key))
    for name in board.health_changed:
        health = board.health.get(name)
        if health is None:
            connection.execute(delete(receivers).where(receivers.c.receiver == name))
        else:
            connection.execute(upsert(connection, receivers, *health).values(receiver=name, **health))
