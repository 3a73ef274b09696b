"""The story of an episode, an order or a model, read from the store."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from actors import story, wire
from actors.clock import Instant
from actors.detection.state import Change, DetectionState, Ingest
from actors.retraining.rules.orders import DONE, Order, Request
from actors.retraining.tables import DISPATCHER, put_new
from actors.storage import Store
from drivers import explain

NOW = 1_795_000_000.0


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Return a store in which model m has drifted once, and model calm never."""
    store = Store(f"sqlite:///{tmp_path}/store")
    now = Instant(NOW, 0.0, "boot")
    detection = DetectionState(store, "detector:m", 0, now)
    random = np.random.default_rng(0)
    for i, level in enumerate([0.9] * 6 + [0.6]):
        values = np.clip(random.normal(level, 0.01, 100), 0, 1)
        batch = wire.batch_of_columns({"accuracy": values}, version="v1", timestamps=NOW, now_s=NOW)
        detection.commit([Ingest("m", "p", 100 * i, wire.pack(batch))], now)
    calm = wire.batch_of_columns({"accuracy": np.full(5, 0.9)}, version="v1", timestamps=NOW, now_s=NOW)
    detection.commit([Ingest("calm", "p", 0, wire.pack(calm))], now)
    record = story.read(store, "last")["episode"]
    assert record is not None
    reply = {"status": "recorded", "decision": "dispatched", "order": "o-1", "reason": ""}
    told = {"order": "o-1", "state": "done", "reason": None, "new_version": "v2"}

    def change(model: object, at: Instant) -> None:
        model.effects += model.book.reply(record["id"], reply, at)  # type: ignore[attr-defined]
        model.effects += model.book.order(record["id"], told, at)  # type: ignore[attr-defined]

    detection.commit([Change("m", change)], now)
    return store


def put(store: Store, id_: str, model: str, episode: str, **more: object) -> None:
    asked = Request(model, "v1", "accuracy", 4.0, NOW, episode, {"window_mean": 0.6})
    with store.part(DISPATCHER).write() as connection:
        put_new(connection, [Order(id_, asked, DONE, "because", "tune", {"trials": 4}, NOW, **more)])  # type: ignore[arg-type]


def test_an_episode_is_told_with_its_numbers_and_what_came_of_it(store: Store) -> None:
    told = story.read(store, "last")
    text = "\n".join(explain.in_words(told))
    for part in (
        "accuracy fell from 0.8",
        "deviations",
        "over its threshold",
        "ask",
        "order o-1 is done, new version v2",
        "closed by done",
    ):
        assert part in text


def test_an_episode_is_found_by_its_id_its_order_and_its_model(store: Store) -> None:
    episode = story.read(store, "last")["episode"]
    assert episode is not None
    put(store, "o-1", "m", episode["id"])
    for about in (episode["id"], "o-1", "m"):
        found = story.read(store, about)
        assert found["episode"] == episode, about
        assert found["order"] is not None, about
        assert found["order"]["id"] == "o-1", about
    assert story.read(store, "last", "m")["episode"] == episode


def test_the_state_of_an_order_is_what_the_dispatcher_has_on_record_where_the_episode_has_not_heard_of_it_yet(
    store: Store,
) -> None:
    episode = story.read(store, "last")["episode"]
    assert episode is not None
    put(store, "o-1", "m", episode["id"], new_version="v3")
    lagging = story.read(store, "last")
    assert lagging["episode"] is not None
    assert lagging["episode"]["order"] is not None
    lagging["episode"]["order"]["state"] = "dispatched"
    assert "  order o-1 is done, new version v3" in list(explain.in_words(lagging))


def test_what_has_no_episode_is_told_too(store: Store) -> None:
    put(store, "o-2", "calm", "")
    lines = list(explain.in_words(story.read(store, "o-2")))
    assert lines[0] == "order o-2: calm v1, done"
    assert "asked for: because" in lines[2]
    assert next(explain.in_words(story.read(store, "calm"))) == "model calm: learning, 5 events; it has had no drift episode"


def test_a_model_whose_age_asked_for_its_retrains_is_explained_by_the_newest_of_them(store: Store) -> None:
    put(store, "o-2", "calm", "")
    put(store, "o-3", "calm", "")
    text = list(explain.in_words(story.read(store, "calm")))
    assert text[0].endswith("it has had no drift episode")
    assert "order o-3: calm v1, done" in text
    assert not [line for line in text if "o-2" in line]


def test_an_order_that_no_episode_asked_for_is_told_with_the_model_where_it_is_newer_than_its_episode(store: Store) -> None:
    episode = story.read(store, "last")["episode"]
    assert episode is not None
    put(store, "o-1", "m", episode["id"])
    assert story.read(store, "m").get("latest") is None
    put(store, "o-2", "m", "")
    text = list(explain.in_words(story.read(store, "m")))
    assert "  order o-1 is done" in text
    assert "order o-2: m v1, done" in text


def test_what_the_store_does_not_have_is_named(store: Store) -> None:
    with pytest.raises(KeyError, match="must be an episode, an order or a model of this store, or `last`, got 'none'"):
        story.read(store, "none")
    with pytest.raises(KeyError, match="no episode in this store of model 'other'"):
        story.read(store, "last", "other")


def test_the_order_is_told_with_its_study_as_values_and_not_as_text(store: Store) -> None:
    tuning = {"study": "s-1", "trial": 3, "params": {"lr": 0.01}, "value": 0.2}
    put(store, "o-1", "m", "", tuning=tuning)
    order = story.read(store, "o-1")["order"]
    assert order is not None
    assert (order["tuning"], order["explanation"], order["handler_settings"]) == (tuning, {"window_mean": 0.6}, {"trials": 4})
