"""What the broadcaster refuses is counted once in the store's note, whenever the store can be reached."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from actors.cluster.store_thread import StoreThread
from actors.metrics import refusal_counter, refusals
from actors.metrics.placement import Placements
from actors.metrics.refusal_counter import RefusalCounter
from actors.replies import Rejection
from actors.storage import StoreError
from tests.unit.retraining.world import FakeClock

REJECTION: Rejection = {"index": 0, "field": "n", "value": 0, "rule": "must be above 0"}


class Script(StoreThread[Placements]):
    """Stands for the store: it cannot be reached the first `failures` times, and keeps what is added to the note."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.noted: list[tuple[int, Any]] = []

    async def do(self, act: Callable[[Any], Any]) -> Any:
        if self.failures:
            self.failures -= 1
            raise StoreError("the database is down")
        return act(SimpleNamespace(part=self))


@pytest.mark.parametrize("failures", [0, 1, 3])
def test_refused_events_wait_for_a_store_that_cannot_be_reached_and_are_noted_once(
    failures: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refusal_counter, "NOTE_S", 0.0)
    monkeypatch.setattr(refusals, "write", lambda part, events, last: part.noted.append((events, last)))
    store = Script(failures)

    async def burst() -> None:
        counter = RefusalCounter(store, FakeClock())
        for events in (1, 2, 4, 8):
            counter.add("m", events, REJECTION)
            await counter.noted()

    asyncio.run(burst())
    assert sum(events for events, _ in store.noted) == 15
    assert len(store.noted) == 4 - failures
    assert {last["rule"] for _, last in store.noted} == {"must be above 0"}
