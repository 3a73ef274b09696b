"""A store in which a model has drifted, and one is called `<script>`; and a page over it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from actors import wire
from actors.clock import Instant
from actors.detection.state import DetectionState, Ingest
from actors.retraining.rules.orders import DEAD, Order, Request
from actors.retraining.tables import DISPATCHER, put_new
from actors.storage import Store
from actors.ui.backend import StoreBackend

NOW = 1_795_000_000.0
SCRIPT = "<script>alert(1)</script>"


class Recorded:
    """Stands for a running system: every act is noted with its arguments."""

    def __init__(self) -> None:
        self.acts: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
        self.retrains = SimpleNamespace(
            silence=self._note("silence", "s-1"),
            unsilence=self._note("unsilence", None),
            silences=lambda _model: [],
            trigger=self._note("trigger", {"decision": "dispatched", "order": "o-9", "reason": ""}),
            retry=self._note("retry", {"decision": "pending"}),
            dismiss=self._note("dismiss", None),
            front=self._note("front", None),
        )
        self.versions = SimpleNamespace(
            history=lambda _model: [
                {"version": "v1", "state": "live", "since": NOW, "promise": None, "by": None, "comment": None}
            ],
            promote=self._note("promote", {}),
            rollback=self._note("rollback", {"version": "v0"}),
        )
        self.tuner = SimpleNamespace(stop=self._note("stop", None))
        self.acknowledge = self._note("acknowledge", None)
        self.verdict = self._note("verdict", None)

    def _note(self, name: str, reply: Any) -> Any:
        def act(*given: Any, **named: Any) -> Any:
            if "nobody" in given:
                raise KeyError("model must be known, got 'nobody'")
            self.acts.append((name, given, named))
            return reply

        return act

    def status(self) -> dict[str, Any]:
        return {"actors": {"broadcaster": {"alive": True, "pid": 1, "node": "n" * 40, "epoch": 3}}}


def write(url: str) -> Store:
    store = Store(url)
    now = Instant(NOW, 0.0, "boot")
    random = np.random.default_rng(0)
    for model in ("m", SCRIPT):
        detection = DetectionState(store, f"detector:{model}", 0 if model == "m" else 1, now)
        for i, level in enumerate([0.9] * 6 + [0.6]):
            values = np.clip(random.normal(level, 0.01, 100), 0, 1)
            times = NOW - 700 + 100 * i + np.arange(100.0)
            batch = wire.batch_of_columns({"accuracy": values}, version="v1", timestamps=times, now_s=NOW)
            detection.commit([Ingest(model, "p", 100 * i, wire.pack(batch))], now)
    asked = Request("m", "v1", "accuracy", 4.0, NOW, "", {"window_mean": 0.6})
    with store.part(DISPATCHER).write() as connection:
        put_new(connection, [Order("o-1", asked, DEAD, "no route", "webhook", {}, NOW)])
    return store


@pytest.fixture
def url(tmp_path: Path) -> str:
    found = f"sqlite:///{tmp_path}/store"
    write(found)
    return found


@pytest.fixture
def backend(url: str) -> Iterator[StoreBackend]:
    found = StoreBackend(url)
    yield found
    found.close()
