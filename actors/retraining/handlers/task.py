"""`task`: `module:function` runs as a Ray task, `function(event)` with the RetrainEvent.

It runs outside the dispatcher and survives its restarts. Its return value may name the new version, which closes the episode: a
text, or a mapping with `new_version` and, as far as they are known, `promise` and `promise_n`. An exception is a failed
attempt: it is tried again by the delivery schedule, then the order is a dead letter.
"""

from __future__ import annotations

import importlib
from typing import Any, Final

from actors import config, plugins
from actors.events import RetrainEvent
from actors.plain import Json
from actors.retraining.handlers.interface import Surroundings, event_fields
from actors.retraining.handlers.on_runner import OnRunner, task_options
from actors.retraining.rules.delivery import Outcome
from actors.retraining.rules.orders import Order

_PROMISE: Final = ("promise", "promise_n", "promise_source")


class TaskHandler(OnRunner):
    """Launches a function of the user's as a Ray task: at most one attempt a time, each on record before it starts."""

    def __init__(self, settings: config.TaskHandlerSettings, surroundings: Surroundings) -> None:
        super().__init__(surroundings)
        self._settings = settings

    async def launch(self, order: Order) -> Outcome:
        """Have the runner submit the task."""
        kwargs = {"target": self._settings.target, "event": event_fields(order)}
        return await self.launched(order, f"{__name__}:run", kwargs, task_options(self._settings.resources))


def run(*, target: str, event: Json) -> Json | None:
    """Call the user's function and return what it says about the new version; runs in the Ray task."""
    result = loaded(target)(RetrainEvent(**event))
    if isinstance(result, str):
        return {"new_version": result}
    if not isinstance(result, dict) or result.get("new_version") is None:
        return None
    # Only the needed values leave the task: a model or a frame returned alongside would be copied into the runner.
    return {"new_version": str(result["new_version"])} | {key: result.get(key) for key in _PROMISE}


def loaded(target: str) -> Any:
    """Import `module:name`, or the handler that a package gives a plain name. ImportError, AttributeError, ValueError."""
    if ":" not in target:
        return plugins.load("handlers", target)
    module, _, path = target.partition(":")
    found: Any = importlib.import_module(module)
    for name in path.split("."):
        found = getattr(found, name)
    return found
