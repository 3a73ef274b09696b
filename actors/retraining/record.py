"""What people, detectors and handlers ask of the retraining state; nothing here changes anything."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from actors.clock import Instant
from actors.retraining import tables
from actors.retraining.commits import Commits
from actors.retraining.rules import orders
from actors.retraining.rules.orders import Order

# How far back the parameters in force are looked for among a model's orders.
_MAX_TUNED: Final = 200


class Record:
    """Answers from the store, each from one snapshot."""

    def __init__(self, commits: Commits) -> None:
        self._commits = commits

    def history(self, model: str | None, limit: int, state: str | None) -> list[Order]:
        """Return the newest `limit` orders and decisions, oldest first."""
        with self._commits.read() as connection:
            return tables.read_history(connection, model=model, limit=limit, state=state)

    def order(self, id_: str) -> tuple[Order, list[tables.Attempt]]:
        """Return an order and its attempts. KeyError: no such order."""
        with self._commits.read() as connection:
            order = tables.known_order(connection, id_)
            return order, tables.read_attempts(connection, id_)

    def of_episodes(self, episodes: Sequence[str]) -> dict[str, Order]:
        """Return the order of each episode that has one."""
        ids = {orders.order_id(self._commits.store_id, episode): episode for episode in episodes}
        with self._commits.read() as connection:
            return {ids[id_]: order for id_, order in tables.read_orders(connection, ids).items()}

    def running(self) -> list[Order]:
        """Return the orders that a handler other than the channel has begun to launch."""
        with self._commits.read() as connection:
            return tables.running_orders(connection, channel=False)

    def silences(self, now: Instant) -> list[dict[str, Any]]:
        """Return the silences in force, as plain rows."""
        pace = self._commits.pace(now)
        with self._commits.read() as connection:
            return [
                {
                    "id": silence.id,
                    "model": silence.pattern,
                    "comment": silence.comment,
                    "created_at": created_at,
                    "remaining_s": silence.countdown.remaining_s(pace),
                }
                for silence, created_at in tables.read_silences(connection)
                if not silence.countdown.is_over(pace)
            ]

    def cooldowns(self, now: Instant) -> dict[str, float]:
        """Return the seconds that are left of every cooldown in force, by model."""
        pace = self._commits.pace(now)
        with self._commits.read() as connection:
            found = tables.read_cooldowns(connection)
        return {
            model: cooldown.countdown.remaining_s(pace)
            for model, cooldown in found.items()
            if not cooldown.countdown.is_over(pace)
        }

    def parameters_in_force(self, model: str, names: Collection[str]) -> Mapping[str, Any] | None:
        """Return the parameters that the model's last completed order was trained with, where a study found exactly `names`."""
        with self._commits.read() as connection:
            for order in reversed(tables.read_history(connection, model=model, limit=_MAX_TUNED, state=orders.DONE)):
                found = (order.tuning or {}).get("params")
                if isinstance(found, Mapping) and set(found) == set(names):
                    return found
        return None
