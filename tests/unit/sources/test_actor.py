"""The process that reads sources: a look that is asked for does not wait for the source's next turn."""

from __future__ import annotations

import asyncio
import queue
import threading
from pathlib import Path
from typing import Any, cast

import pytest

from actors import config
from actors.sources import actor
from tests.speed import slow

SETTINGS: Any = config.load({"sources": {"it": {"kind": "files", "path": "/data"}}}).sources["it"]


class Feed:
    """A source that wants its next step in an hour."""

    name = "it"

    def __init__(self) -> None:
        self.steps: queue.Queue[float] = queue.Queue()

    def step(self, now_s: float) -> float:
        self.steps.put(now_s)
        return 3600.0


def test_a_look_cuts_the_pause_of_a_source_short_and_its_end_does_too(tmp_path: Path) -> None:
    feed, sources = Feed(), actor.Sources(name="sources", namespace="ns", storage=f"sqlite:///{tmp_path}/store")
    running = sources._running["it"] = actor._Running(SETTINGS)
    thread = threading.Thread(target=actor._run, args=(cast("Any", feed), running))
    thread.start()
    for _ in range(2):
        feed.steps.get(timeout=slow(20))
        assert asyncio.run(sources.look(source="it")) == {"status": "looking"}
    feed.steps.get(timeout=slow(20))
    running.end()
    thread.join(slow(20))
    assert not thread.is_alive()


def test_a_look_at_no_source_names_those_that_are_there(tmp_path: Path) -> None:
    sources = actor.Sources(name="sources", namespace="ns", storage=f"sqlite:///{tmp_path}/store")
    sources._running["it"] = actor._Running(SETTINGS)
    with pytest.raises(KeyError, match="it"):
        asyncio.run(sources.look(source="other"))
