"""`module:Class`: a RetrainHandler of the user's own, made anew for each attempt and called in a Ray task.

It runs outside the dispatcher, so it may block, fail or hang without harm to anybody else's order. At most one attempt a
time. `on_retrain` that returns has launched the retrain, and the order is done; one that raises is tried again.
"""

from __future__ import annotations

from actors import config
from actors.events import RetrainEvent, RetrainHandler
from actors.plain import Json
from actors.retraining.handlers.interface import Surroundings, event_fields
from actors.retraining.handlers.on_runner import OnRunner, task_options
from actors.retraining.handlers.task import loaded
from actors.retraining.rules.delivery import Outcome
from actors.retraining.rules.orders import Order


class CustomHandler(OnRunner):
    """Calls `on_retrain` of the user's class: at most one attempt a time, each on record before it starts."""

    def __init__(self, settings: config.CustomHandlerSettings, surroundings: Surroundings) -> None:
        super().__init__(surroundings)
        self._settings = settings

    async def launch(self, order: Order) -> Outcome:
        """Have the runner submit the call."""
        options = self._settings.expanded(self._surroundings.environment).options
        kwargs = {"target": self._settings.kind, "options": options, "event": event_fields(order)}
        return await self.launched(order, f"{__name__}:run", kwargs, task_options({}))


def run(*, target: str, options: Json, event: Json) -> None:
    """Make the user's handler and call it; runs in the Ray task."""
    handler = loaded(target)(**options)
    if not isinstance(handler, RetrainHandler):
        raise TypeError(f"handler {target} must have a method on_retrain(event), got {type(handler).__name__}")
    handler.on_retrain(RetrainEvent(**event))
