"""The queries of people, detectors and handlers on the retraining state; they change nothing."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final

from actors.clock import Instant
from actors.labels import ALL, Selector
from actors.replies import ActRow, AttemptRow, SilenceRow
from actors.retraining import model_tables, promotions, queue_tables, tables
from actors.retraining.commits import Commits
from actors.retraining.rules import orders, queue
from actors.retraining.rules.orders import Order

# How far back the parameters in force are looked for among a model's orders.
_MAX_TUNED: Final = 200


class Queries:
    """Answers from the store, each from one snapshot."""

    def __init__(self, commits: Commits) -> None:
        self._commits = commits

    def history(
        self, model: str | None, limit: int, state: str | None, *, judged: bool = False, selector: Selector = ALL
    ) -> list[Order]:
        """Return the newest `limit` orders and decisions, oldest first; only those with a verdict where `judged`.

        `selector` leaves those of the models whose labels it matches now.
        """
        selects = (lambda name: selector.matches(self._commits.plan_of(name).labels)) if selector else None
        with self._commits.read() as connection:
            return tables.read_history(connection, model=model, limit=limit, state=state, judged=judged, selects=selects)

    def acts(self, ids: Iterable[str]) -> dict[str, list[ActRow]]:
        """Return what people have done with each of these orders, oldest first."""
        with self._commits.read() as connection:
            return tables.read_acts(connection, ids)

    def queue(self, now: Instant) -> list[tuple[Order, str]]:
        """Return the orders that wait, the next one first, each with the reason."""
        with self._commits.read() as connection:
            load = queue_tables.read_load(connection, now)
            waiting = queue_tables.waiting_orders(connection, now, channel=None)
            line = [each.id for each in queue.next_up(waiting, load.started, len(waiting))]
            pending = [order for order in tables.active_orders(connection) if order.state == orders.PENDING]
        place = {id_: number for number, id_ in enumerate(line)}
        why = queue.why(self._commits.limits, load)
        pending.sort(key=lambda order: place.get(order.id, len(line)))
        return [(order, why if order.id in place else f"pauses after a failed attempt: {order.reason}") for order in pending]

    def gave_up(self) -> dict[str, int]:
        """Return the models that ask no more, with the number of retrains in a row that came to nothing."""
        with self._commits.read() as connection:
            lost = model_tables.read_patience(connection)
        limits = {model: self._commits.plan_of(model).give_up for model in lost}
        return {model: n for model, n in lost.items() if (limit := limits[model]) is not None and n >= limit}

    def order(self, id_: str) -> tuple[Order, list[AttemptRow]]:
        """Return an order and its attempts. KeyError: no such order."""
        with self._commits.read() as connection:
            order = tables.known_order(connection, id_)
            return order, tables.read_attempts(connection, id_)

    def of_keys(self, keys: Sequence[str]) -> dict[str, Order]:
        """Return the order of each request that has one, by the request's key (of an alarm: its episode)."""
        ids = {orders.order_id(self._commits.store_id, key): key for key in keys}
        with self._commits.read() as connection:
            return {ids[id_]: order for id_, order in tables.read_orders(connection, ids).items()}

    def promotions(self, model: str | None, limit: int) -> list[Order]:
        """Return the newest `limit` decisions about versions, oldest first."""
        with self._commits.read() as connection:
            return promotions.history(connection, model, limit)

    def waits_to_promote(self) -> bool:
        """Return whether any decision about versions has not been carried out yet."""
        with self._commits.read() as connection:
            return promotions.any_active(connection)

    def any_active(self) -> bool:
        """Return whether any order is pending or running."""
        with self._commits.read() as connection:
            return tables.any_active(connection)

    def running(self) -> list[Order]:
        """Return the orders that a handler other than the channel has begun to launch."""
        with self._commits.read() as connection:
            return tables.running_orders(connection, channel=False)

    def silences(self, model: str | None, now: Instant) -> list[SilenceRow]:
        """Return the silences in force, those that cover `model` or all."""
        pace = self._commits.pace(now)
        labels = {} if model is None else self._commits.plan_of(model).labels
        with self._commits.read() as connection:
            return [
                {
                    "id": silence.id,
                    "model": silence.pattern,
                    "label": str(silence.selector),
                    "comment": silence.comment,
                    "by": silence.by,
                    "created_at": created_at,
                    "remaining_s": silence.countdown.remaining_s(pace),
                }
                for silence, created_at in model_tables.read_silences(connection)
                if not silence.countdown.is_over(pace) and (model is None or silence.covers(model, pace, labels))
            ]

    def cooldowns(self, now: Instant) -> dict[str, float]:
        """Return the seconds that are left of every cooldown in force, by model."""
        pace = self._commits.pace(now)
        with self._commits.read() as connection:
            found = model_tables.read_cooldowns(connection)
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
