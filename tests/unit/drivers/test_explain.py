"""The story of an episode, told from its record."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from actors import wire
from actors.clock import Instant
from actors.detection.state import Change, Detection, Ingest
from actors.retraining.rules.orders import DONE, Order, Request
from actors.retraining.tables import DISPATCHER, put_new
from actors.storage import Store
from drivers import explain

NOW = 1_795_000_000.0


def test_an_episode_is_told_with_its_numbers_and_what_came_of_it(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path}/store")
    now = Instant(NOW, 0.0, "boot")
    detection = Detection(store, "detector:m", 0, now)
    random = np.random.default_rng(0)
    for i, level in enumerate([0.9] * 6 + [0.6]):
        values = np.clip(random.normal(level, 0.01, 100), 0, 1)
        batch = wire.batch_of_columns({"accuracy": values}, version="v1", timestamps=NOW, now_s=NOW)
        detection.commit([Ingest("m", "p", 100 * i, wire.pack(batch))], now)
    record = explain.find(store, "last")
    reply = {"status": "recorded", "decision": "dispatched", "order": "o-1", "reason": ""}
    told = {"order": "o-1", "state": "done", "reason": None, "new_version": "v2"}

    def change(model: object, at: Instant) -> None:
        model.effects += model.book.reply(record["id"], reply, at)  # type: ignore[attr-defined]
        model.effects += model.book.order(record["id"], told, at)  # type: ignore[attr-defined]

    detection.commit([Change("m", change)], now)
    text = "\n".join(explain.in_words(explain.find(store, record["id"])))
    for part in (
        "accuracy fell from 0.8",
        "deviations",
        "over its threshold",
        "ask",
        "order o-1 is done, new version v2",
        "closed by done",
    ):
        assert part in text
    with pytest.raises(KeyError, match="episode must be one of this store"):
        explain.find(store, "none")
    with pytest.raises(KeyError, match="of model 'other'"):
        explain.find(store, "last", "other")


def test_the_order_is_told_with_its_study_as_values_and_not_as_text(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path}/store")
    asked = Request("m", "v1", "accuracy", 4.0, NOW, "e-1", {"window_mean": 0.6})
    tuning = {"study": "s-1", "trial": 3, "params": {"lr": 0.01}, "value": 0.2}
    with store.part(DISPATCHER).write() as connection:
        put_new(connection, [Order("o-1", asked, DONE, "", "tune", {"trials": 4}, NOW, tuning=tuning)])
    order = explain._order_of(store, {"order": {"order": "o-1"}})
    assert order is not None
    assert (order["tuning"], order["explanation"], order["handler_settings"]) == (tuning, {"window_mean": 0.6}, {"trials": 4})
