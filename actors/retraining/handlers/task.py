"""`task`: `module:function` runs as a Ray task, `function(event)` with the RetrainEvent.

It runs outside the dispatcher and outlives its restarts. Where it returns a mapping with `new_version`, that closes the
episode. An exception is a failed attempt: it is tried again by the delivery schedule, then the order is a dead letter.
"""

from __future__ import annotations

import importlib
from typing import Any

from actors import config
from actors.events import RetrainEvent
from actors.retraining.handlers import on_runner
from actors.retraining.handlers.interface import Surroundings, event_fields
from actors.retraining.rules.delivery import Outcome
from actors.retraining.rules.orders import Order


class TaskHandler:
    """Launches a function of the user's as a Ray task: at most one attempt a time, each on record before it starts."""

    def __init__(self, settings: config.TaskHandlerSettings, surroundings: Surroundings) -> None:
        self._settings = settings
        self._surroundings = surroundings

    async def launch(self, order: Order) -> Outcome:
        """Have the runner submit the task."""
        kwargs = {"target": self._settings.target, "event": event_fields(order)}
        options = on_runner.task_options(self._settings.resources)
        return await on_runner.launched(self._surroundings, order, f"{__name__}:run", kwargs, options)

    async def follow(self, order: Order) -> Outcome:
        """Ask the runner."""
        return await on_runner.followed(self._surroundings, order)

    async def forget(self, order: Order) -> None:
        """Let the runner forget."""
        await on_runner.forgotten(self._surroundings, order)


def run(*, target: str, event: dict[str, Any]) -> dict[str, Any] | None:
    """Call the user's function; runs in the Ray task. Gives what it returned where that says a `new_version`."""
    result = loaded(target)(RetrainEvent(**event))
    return {"new_version": str(result["new_version"])} if isinstance(result, dict) and "new_version" in result else None


def loaded(target: str) -> Any:
    """Import `module:name`. ImportError, AttributeError."""
    module, _, path = target.partition(":")
    found: Any = importlib.import_module(module)
    for name in path.split("."):
        found = getattr(found, name)
    return found
