"""`tune`: a study runs first, and hands what it found to the next handler."""

from __future__ import annotations

from actors import config
from actors.handlers.interface import Surroundings
from actors.retraining.delivery import Outcome
from actors.retraining.orders import Order


class TuneHandler:
    """Runs a study of the configured objective for an order, then hands the order on with the best parameters."""

    def __init__(self, settings: config.TuneHandler, surroundings: Surroundings) -> None:
        self._settings = settings
        self._surroundings = surroundings

    async def launch(self, order: Order) -> Outcome:
        """Submit the study, put-if-absent by the order's id."""
        raise NotImplementedError(order.id)

    async def follow(self, order: Order) -> Outcome:
        """Ask the tuner; at the end give HandOn(tuning, handler, handler_settings) for `then`, or Failed/Done."""
        raise NotImplementedError(order.id)

    async def forget(self, order: Order) -> None:
        """Keep the study: it is part of the order's record."""
