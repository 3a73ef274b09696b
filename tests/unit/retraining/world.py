"""A world for dispatchers without Ray: a clock that is set, a receiver that remembers, and a death at any failpoint."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from actors import config, failpoints
from actors.clock import Instant
from actors.cluster.peers import Peers
from actors.config.stored import store_settings
from actors.replies import Unavailable
from actors.replies.retraining import Admitted, OrderRow
from actors.retraining.dispatcher import RetrainDispatcher
from actors.retraining.rules.delivery import Done, Launched, Outcome, Retry
from actors.retraining.rules.orders import Order
from actors.storage import Store
from tests.known import answered
from tests.speed import slow


class Killed(BaseException):
    """Ends a process wherever it is; nothing of ours catches it."""


@dataclass
class FakeClock:
    wall_s: float = 1.8e9
    boot_s: float = 1000.0

    def now(self) -> Instant:
        return Instant(self.wall_s, self.boot_s, "boot")

    def advance(self, seconds: float) -> None:
        self.wall_s += seconds
        self.boot_s += seconds


@dataclass
class Receiver:
    """Whatever launches retrains: it keeps every launch with its time, and acts once per order unless it is `forgetful`."""

    clock: FakeClock
    forgetful: bool = False
    launches: list[tuple[float, str, str]] = field(default_factory=list)
    answer: Callable[[Order], Outcome] = lambda _order: Done()
    slow_s: float = 0.0
    forgotten: list[str] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)
    stops: bool = True

    def launch_once(self, order: Order) -> None:
        self.clock.advance(self.slow_s)
        if self.forgetful or order.id not in {id_ for _at, _model, id_ in self.launches}:
            self.launches.append((self.clock.boot_s, order.model, order.id))


class FakeHandler:
    """Launches at a Receiver; what a lost attempt came to, it does not know."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver

    async def launch(self, order: Order) -> Outcome:
        self._receiver.launch_once(order)
        return self._receiver.answer(order)

    async def follow(self, order: Order) -> Outcome:
        known = any(order.id == id_ for _at, _model, id_ in self._receiver.launches)
        return Launched() if known and isinstance(self._receiver.answer(order), Launched) else Retry("unknown", after_s=0)

    async def stop(self, order: Order) -> bool:
        self._receiver.stopped.append(order.id)
        return self._receiver.stops

    async def forget(self, order: Order) -> None:
        self._receiver.forgotten.append(order.id)


class World:
    """One store and what comes and goes around it."""

    def __init__(
        self, url: str, document: dict[str, Any] | None = None, *, receiver: Receiver | None = None, peers: Peers | None = None
    ) -> None:
        self.url = url
        self.peers = peers if peers is not None else NoPeers()
        self.clock = receiver.clock if receiver else FakeClock()
        self.receiver = receiver or Receiver(self.clock)
        self.configure(document or {"defaults": {"handler": {"kind": "webhook", "url": "http://127.0.0.1:9/"}}})
        self.dispatcher = self.start()

    def configure(self, document: dict[str, Any]) -> None:
        store_settings(Store(self.url), config.load(document), 0.0)

    def start(self) -> RetrainDispatcher:
        self.dispatcher = RetrainDispatcher(
            name="dispatcher",
            namespace="unit",
            storage=self.url,
            clock=self.clock,
            peers=self.peers,
            environment={},
            make_handler=lambda _settings, _surroundings: FakeHandler(self.receiver),
            seed=0,
        )
        return self.dispatcher

    def bury(self) -> None:
        """What was killed runs no further: its loop is cancelled, its thread does nothing more."""
        if self.dispatcher._loop_task is not None:
            self.dispatcher._loop_task.cancel()
        for task in self.dispatcher._launcher.attempts.values():
            task.cancel()
        self.dispatcher._thread._thread._thread.shutdown(wait=True, cancel_futures=True)

    async def request(self, episode: str, model: str = "fraud", **changes: Any) -> Admitted:
        return answered(await self.ask(episode, model, **changes))

    async def ask(self, episode: str, model: str = "fraud", **changes: Any) -> Admitted | Unavailable:
        asked: dict[str, Any] = {
            "episode": episode,
            "model": model,
            "version": "1",
            "metric": "accuracy",
            "observed_drift": 4.0,
            "triggered_at": self.clock.wall_s,
            "explanation": {"baseline": {"n": 500, "mean": 0.93}},
        }
        return await self.dispatcher.request(**(asked | changes))

    async def rows(self) -> list[OrderRow]:
        return answered(await self.dispatcher.history())["rows"]

    async def until(self, reached: Callable[[list[OrderRow]], object], what: str = "it") -> list[OrderRow]:
        """Let the loop run until the history shows something; a bound, not a measurement."""
        deadline_s = time.monotonic() + slow(30)
        while time.monotonic() < deadline_s:
            rows = await self.rows()
            if reached(rows):
                return rows
            self.dispatcher._wake()
            await asyncio.sleep(0.002)
        raise AssertionError(f"{what} was not reached: {await self.rows()}")


class NoPeers:
    async def call(self, name: str, method: str, /, *, timeout_s: float, **arguments: Any) -> Any:
        raise AssertionError(f"{name}.{method} must not be called")


def die_at(monkeypatch: pytest.MonkeyPatch, point: str) -> list[str]:
    """Kill the first process that reaches `point`; return the list that then holds it."""
    struck: list[str] = []

    def reach(name: str) -> None:
        if name == point and not struck:
            struck.append(name)
            raise Killed(name)

    monkeypatch.setattr(failpoints, "reach", reach)
    return struck


def breaches(launches: list[tuple[float, str, str]], orders: list[str], cooldown_s: float) -> dict[str, int]:
    """Compare what was launched with what was ordered: the checker of the kill tests, and itself checked by controls."""
    launched = [id_ for _at, _model, id_ in launches]
    inside = 0
    by_model: dict[str, list[tuple[float, str]]] = {}
    for at, model, id_ in launches:
        by_model.setdefault(model, []).append((at, id_))
    for seen in by_model.values():
        seen.sort()
        inside += sum(b != a and later - at < cooldown_s for (at, a), (later, b) in itertools.pairwise(seen))
    return {
        "lost": len(set(orders) - set(launched)),
        "twice": len(launched) - len(set(launched)),
        "inside a cooldown": inside,
    }
