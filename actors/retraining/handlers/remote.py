"""What `airflow`, `prefect` and `kubernetes` share: an order is one run of a tool, found again by the order's name.

Put-if-absent: the tool refuses or finds a second run of one name, so sending again does no harm, and a dispatcher that was
killed finds the run by name. Each round (an order that a person has put back) has a run of its own, begun only when those of
earlier rounds have ended. A run that was seen and is gone has been deleted: the order fails instead of running twice.
"""

from __future__ import annotations

import http.client
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol, TypeVar

from actors import config
from actors.retraining.handlers import on_runner
from actors.retraining.handlers.interface import Surroundings, event_fields
from actors.retraining.handlers.tool_api import RefusedError
from actors.retraining.rows import plain
from actors.retraining.rules.delivery import Done, Failed, Launched, Outcome, Retry
from actors.retraining.rules.orders import UNKNOWN, Order

T = TypeVar("T")
# A call asks several times at most: a token, the run, its result.
_REQUESTS: Final = 5
_STOPPING_S: Final = 5.0
# JSON that is not what the API promises.
_STRANGE: Final = (KeyError, TypeError, IndexError, AttributeError)


class Tool(Protocol):
    """A tool that runs retrains. Methods block; they raise RefusedError, OSError, HTTPException or a KeyError of the answer."""

    def put(self, order: Order, name: str) -> None:
        """Begin the run of this name, unless there is one."""

    def find(self, name: str) -> Outcome | None:
        """Return how the run goes: Launched, Done or Failed; None where there is none of this name."""

    def stop(self, name: str) -> bool:
        """Have the run stopped; return whether nothing of it runs any more."""


class RemoteHandler(ABC):
    """Launches an order as a run of `tool`, and follows it to its end."""

    def __init__(self, settings: config.RemoteHandlerSettings, surroundings: Surroundings) -> None:
        self._settings = settings
        self._surroundings = surroundings

    @abstractmethod
    def tool(self, settings: Any) -> Tool:
        """Return the tool that expanded settings describe."""

    async def launch(self, order: Order) -> Outcome:
        """Begin the run, unless it is there."""
        try:
            return await self._asked(lambda tool: _launched(tool, order))
        except RefusedError as refused:
            return refused.outcome
        except _STRANGE as error:
            return Retry(f"{self._settings.url} answers otherwise than its API: {_brief(error)}")
        except (OSError, http.client.HTTPException) as error:  # TimeoutError too
            return Retry(f"{self._settings.url} does not answer: {_brief(error)}", silent=True)

    async def follow(self, order: Order) -> Outcome:
        """Ask how the run goes."""
        try:
            found = await self._asked(lambda tool: tool.find(name_of(order)))
        except (RefusedError, OSError, http.client.HTTPException, *_STRANGE) as error:
            return Launched(f"{UNKNOWN}{_brief(error)}")
        if found is not None:
            return found
        if order.launched:
            return Failed("its run is gone: deleted before its end was seen; put the order back to run it again")
        return Retry("no run of this order is there", after_s=0)

    async def stop(self, order: Order) -> bool:
        """Have the run stopped."""
        return await self._asked(lambda tool: tool.stop(name_of(order)))

    async def forget(self, order: Order) -> None:
        """Leave the run where it is, for people to look at."""
        del order

    async def _asked(self, question: Callable[[Tool], T]) -> T:
        settings = self._settings.expanded(self._surroundings.environment)
        return await self._surroundings.in_thread(
            lambda: question(self.tool(settings)), timeout_s=_REQUESTS * settings.timeout_s
        )


def name_of(order: Order, round_: int | None = None) -> str:
    """Return the name of an order's run: the order's id, and after it the round where it was put back."""
    number = order.rounds if round_ is None else round_
    return f"{order.id}-{number}" if number else order.id


def event_of(order: Order) -> Any:
    """Return the order's event as JSON values."""
    return plain(event_fields(order))


def ended(said: object) -> Done:
    """Return the ending that a run says: a mapping or JSON text with `new_version` and a promise; anything else has none."""
    if isinstance(said, str):
        try:
            said = json.loads(said)
        except ValueError:
            said = None
    return on_runner.ended(said if isinstance(said, Mapping) else None)


def _launched(tool: Tool, order: Order) -> Outcome:
    for round_ in range(order.rounds):
        if not tool.stop(name_of(order, round_)):
            return Retry("the run of the round before has not ended and is being stopped", after_s=_STOPPING_S)
    tool.put(order, name_of(order))
    return Launched()


def _brief(error: Exception) -> str:
    # Of a connection only the kind: the text may quote the URL.
    return str(error) if isinstance(error, RefusedError) else type(error).__name__
