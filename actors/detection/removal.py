"""Removing a model from its process: what it has come to, whether it may go, and its rows.

Runs in the process's store thread, between two commits. The numbers that a model must not begin again with are noted before
its rows go (`actors.storage.removals`); a model that has moved on since then is not removed.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from actors import replies
from actors.clock import Instant
from actors.detection import tables
from actors.detection.models import Models
from actors.storage import Fence

_QUIET_S: Final = 300.0
# A model whose row cannot be read has promised nobody how far it had come: beyond what its episodes show, by this much.
_BEYOND: Final = 1000


class Removals:
    """Removes the models of one process."""

    def __init__(self, fence: Fence, models: Models) -> None:
        self._fence = fence
        self._models = models

    def removable(self, name: str, waiting: Collection[str], now: Instant, *, force: bool) -> replies.Removable:
        """Return the numbers that a model has come to; `waiting` are its calls that the dispatcher has not confirmed.

        ValueError: it has logged lately, or a call waits; with `force` neither matters.
        """
        model = self._models.get(name)
        if model is not None and not force:
            silent_s = _QUIET_S if model.last_seen is None else now.seconds_since(model.last_seen)
            if silent_s < _QUIET_S:
                raise ValueError(
                    f"model must have logged nothing for {_QUIET_S:g} s to be removed, got {name!r}, which logged "
                    f"{silent_s:.0f} s ago: end its jobs, or force it"
                )
            if waiting:
                raise ValueError(
                    f"model must have no call that awaits the dispatcher's confirmation, got {name!r} with {len(waiting)}"
                )
        with self._fence.part.read() as connection:
            ordinal, number = tables.last_numbers(connection, name)
        if model is None:
            beyond = _BEYOND if self._models.is_unreadable(name) else 0
            return {"status": "ok", "ordinal": ordinal + beyond, "number": number}
        return {"status": "ok", "ordinal": max(ordinal, model.book.ordinal), "number": max(number, model.number)}

    def remove(self, name: str, now: Instant, *, ordinal: int, number: int, purge: bool) -> bool:
        """Delete the rows of a model; False where it has come further than `ordinal` and `number`.

        Its episodes stay, closed, unless they are to be purged. Safe to repeat.
        """
        model = self._models.get(name)
        if model is not None and (model.book.ordinal > ordinal or model.number > number):
            return False
        self._models.drop(name)
        with self._fence.write() as connection:
            if not purge:
                for record in tables.load_model_episodes(connection, name, damaged=[]):
                    if record["closed_at"] is None:
                        record["closed_at"], record["closed_by"] = now.wall_s, "model removed"
                    record["held"] = False
                    tables.put_episode(connection, record)
            tables.remove_model(connection, name, episodes_too=purge)
        return True
