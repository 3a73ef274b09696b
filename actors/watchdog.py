"""Decides when an actor that does not answer is replaced; the loop that asks and acts stands below the decision.

Ray restarts an actor whose process died. It does not notice a process that is frozen (stopped, stuck in the kernel, out of
memory on a swapping host): there an outside ping and a kill are needed. An actor that is gone for good is made again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol

from ray.exceptions import ActorDiedError, ActorUnavailableError, GetTimeoutError, RayError

from actors import deployment

logger = logging.getLogger(__name__)

Heard = Literal["answered", "silent", "restarting", "gone"]
Decision = Literal["leave", "replace", "spawn"]

# Three pings at two seconds: a frozen actor is replaced within 6 to 8 s, and a loaded one gets time to answer.
PERIOD_S: Final = 2.0
MISSES: Final = 3
# A process that has not answered yet is still being made: importing takes seconds on a loaded node.
START_S: Final = 45.0


@dataclass(slots=True)
class _Watched:
    misses: int = 0
    # When this incarnation was made as far as we know; None once it has answered.
    made_at_s: float | None = None


class Watchdog:
    """Replaces an actor after `misses` silent pings in a row, and only one that had answered or had time to start."""

    def __init__(self, *, misses: int = MISSES, start_s: float = START_S) -> None:
        self._misses = misses
        self._start_s = start_s
        self._watched: dict[str, _Watched] = {}

    def decide(self, name: str, heard: Heard, now_s: float) -> Decision:
        """Take the outcome of one ping at `now_s` (a clock that only runs forward); say what to do."""
        watched = self._watched.setdefault(name, _Watched(made_at_s=now_s))
        match heard:
            case "answered":
                self._watched[name] = _Watched()
                return "leave"
            case "restarting":
                self._watched[name] = _Watched(made_at_s=watched.made_at_s or now_s)
                return "leave"
            case "gone":
                self._watched[name] = _Watched(made_at_s=now_s)
                return "spawn"
            case "silent":
                watched.misses += 1
                starting = watched.made_at_s is not None and now_s - watched.made_at_s < self._start_s
                if watched.misses < self._misses or starting:
                    return "leave"
                self._watched[name] = _Watched(made_at_s=now_s)
                return "replace"

    def forget(self, names: Iterable[str]) -> None:
        """Drop what is known of actors that are not watched any more."""
        for name in names:
            self._watched.pop(name, None)

    @property
    def watched(self) -> frozenset[str]:
        """The names that have been pinged."""
        return frozenset(self._watched)


class Hands(Protocol):
    """What the loop does to actors; a unit test brings its own."""

    async def ping(self, name: str, timeout_s: float) -> Heard:
        """Ask `name` for a sign of life."""

    async def replace(self, name: str) -> None:
        """Kill the process of `name`; Ray makes another."""

    async def spawn(self, name: str, slot: int | None) -> None:
        """Make `name` again."""


async def watch(
    expected: Callable[[], dict[str, int | None]],
    *,
    namespace: str,
    storage: str,
    now_s: Callable[[], float],
    hands: Hands | None = None,
    period_s: float = PERIOD_S,
) -> None:
    """Watch the actors that `expected()` names (with their slots) until cancelled; run in the watcher's event loop.

    `expected` is called in a thread, so it may read the store. `now_s` only runs forward (`Clock.now().boot_s`).
    """
    watchdog = Watchdog()
    hands = hands or RayHands(namespace, storage)
    await asyncio.sleep(period_s)  # a start makes one actor after the other: none is missing yet
    while True:
        try:
            await _round(watchdog, hands, await asyncio.to_thread(expected), now_s, period_s)
        except Exception:
            logger.exception("one round of the watch failed; the next is in %.0f s", period_s)
            await asyncio.sleep(period_s)


async def _round(
    watchdog: Watchdog, hands: Hands, expected: dict[str, int | None], now_s: Callable[[], float], period_s: float
) -> None:
    watchdog.forget(watchdog.watched - expected.keys())
    rest = asyncio.create_task(asyncio.sleep(period_s))
    heard = await asyncio.gather(*(hands.ping(name, period_s) for name in expected))
    for name, outcome in zip(expected, heard, strict=True):
        match watchdog.decide(name, outcome, now_s()):
            case "replace":
                logger.warning("%s has not answered %d pings in a row: it is replaced", name, MISSES)
                await hands.replace(name)
            case "spawn":
                logger.warning("%s is gone: it is made again", name)
                await hands.spawn(name, expected[name])
            case "leave":
                pass
    await rest


class RayHands:
    """The hands of a real system."""

    def __init__(self, namespace: str, storage: str) -> None:
        self._namespace = namespace
        self._storage = storage
        self._handles: dict[str, Any] = {}

    async def ping(self, name: str, timeout_s: float) -> Heard:
        """Call `hello` and tell silence from death."""
        handle = self._handles.get(name) or await asyncio.to_thread(deployment.find, name, self._namespace)
        if handle is None:
            return "gone"
        self._handles[name] = handle
        try:
            await asyncio.wait_for(handle.hello.remote(), timeout_s)
        except ActorUnavailableError:
            return "restarting"
        except ActorDiedError:
            self._handles.pop(name, None)
            return "gone"
        except (TimeoutError, GetTimeoutError):
            return "silent"
        except RayError:
            logger.exception("the ping of %s failed", name)
            return "silent"
        return "answered"

    async def replace(self, name: str) -> None:
        """Kill without ending: Ray restarts it on a node of its choice."""
        await asyncio.to_thread(deployment.kill, self._handles[name], restart=True)

    async def spawn(self, name: str, slot: int | None) -> None:
        """Make it again, unless the system is being stopped."""
        await asyncio.to_thread(deployment.spawn_if_wanted, name, namespace=self._namespace, storage=self._storage, slot=slot)
