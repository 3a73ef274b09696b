"""DriftDetector, built directly: a store in a folder, a clock that the test turns, a dispatcher that it plays."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from pathlib import Path
from typing import Any, TypeVar

import msgpack
import numpy as np
import pytest
from sqlalchemy import event
from sqlalchemy.exc import OperationalError

from actors import status, wire
from actors.clock import EventClock
from actors.cluster.peers import PeerUnavailableError
from actors.config import Settings, parse
from actors.config.stored import store_settings
from actors.detection import logged
from actors.detection import queue as commit_queue
from actors.detection import state as detection
from actors.detection import tables as detector_tables
from actors.detection.detector import DriftDetector
from actors.detection.rules.monitor import Monitor
from actors.detection.tables import DETECTOR
from actors.drift import registry, sliding_window
from actors.storage import Store
from drivers.status import problems
from tests.known import answered

NOW = 1_795_000_000.0
T = TypeVar("T")


class FakeDispatcher:
    """Replies as the test says, and keeps the calls."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.silent = False
        self.reply: dict[str, Any] = {
            "status": "recorded",
            "decision": "dispatched",
            "order": "o-1",
            "reason": "",
            "retry_in_s": None,
        }
        self.order: dict[str, Any] | None = None

    async def call(self, name: str, method: str, /, *, timeout_s: float, **arguments: Any) -> Any:
        assert name == "dispatcher"
        self.asked.append((method, arguments))
        if self.silent:
            raise PeerUnavailableError("silence")
        if method == "orders":
            return {} if self.order is None else dict.fromkeys(arguments["episodes"], self.order)
        return self.reply if method == "request" else {"status": "recorded"}

    def requests(self) -> list[str]:
        return [arguments["episode"] for method, arguments in self.asked if method == "request"]


class World:
    """One store, one clock, and detectors that come and go."""

    def __init__(self, folder: Path) -> None:
        self.url = f"sqlite:///{folder}/store"
        self.clock = EventClock(NOW)
        self.dispatcher = FakeDispatcher()
        self.ended: list[object] = []
        self.random = np.random.default_rng(0)

    def configure(self, **document: Any) -> None:
        store = Store(self.url)
        store_settings(store, parse(document, "test"), NOW)
        store.close()

    def detector(self, name: str = "detector:m") -> DriftDetector:
        return DriftDetector(
            name=name,
            namespace="test",
            storage=self.url,
            slot=0,
            clock=self.clock,
            peers=self.dispatcher,
            end_stale=self.ended.append,
        )

    def payload(self, level: float = 0.9, n: int = 100, version: str = "v1", **columns: Any) -> bytes:
        values = np.clip(self.random.normal(level, 0.01, n), 0, 1)
        metrics = {"accuracy": values} | columns
        batch = wire.batch_of_columns(metrics, version=version, timestamps=None, now_s=self.clock.now().wall_s)
        return wire.pack(batch)

    def status(self) -> dict[str, Any]:
        store = Store(self.url)
        try:
            return dict(status.read(store)["models"])
        finally:
            store.close()

    def count(self, table: str) -> int:
        store = Store(self.url)
        try:
            with store.part(DETECTOR, 0).read() as connection:
                return int(connection.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar_one())
        finally:
            store.close()


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


async def send(detector: DriftDetector, payload: bytes, sequence: int, producer: str | None = "p", model: str = "m") -> Any:
    return await detector.ingest(model=model, producer=producer, sequence=sequence, payload=payload)


def test_a_reply_comes_after_the_commit_and_says_what_was_counted(world: World, run: Any) -> None:
    async def story() -> None:
        reply = await send(world.detector(), world.payload(n=100), 0)
        assert (reply["status"], reply["accepted"], reply["high_water"], reply["epoch"]) == ("accepted", 100, 100, 1)

    run(story())
    assert world.status()["m"]["events"] == 100


def test_a_resend_is_counted_once_and_an_overlap_is_trimmed(world: World, run: Any) -> None:
    async def story() -> None:
        detector = world.detector()
        first = world.payload(n=100)
        await send(detector, first, 0)
        assert (await send(detector, first, 0))["duplicates"] == 100
        reply = await send(detector, world.payload(n=100), 60)
        assert (reply["accepted"], reply["duplicates"], reply["high_water"]) == (60, 40, 160)

    run(story())
    assert world.status()["m"]["events"] == 160
    assert world.status()["m"]["duplicates"] == 140


def test_a_gap_is_refused_and_counts_nothing(world: World, run: Any) -> None:
    async def story() -> None:
        detector = world.detector()
        await send(detector, world.payload(n=10), 0)
        reply = await send(detector, world.payload(n=10), 20)
        assert (reply["status"], reply["high_water"], reply["accepted"]) == ("gap", 10, 0)

    run(story())
    assert world.status()["m"]["events"] == 10


def test_batches_that_wait_together_are_counted_in_order(world: World, run: Any) -> None:
    async def story() -> None:
        detector = world.detector()
        calls = [send(detector, world.payload(n=10), 10 * i) for i in range(50)]
        replies = await asyncio.gather(*calls)
        assert [reply["high_water"] for reply in replies] == [10 * i + 10 for i in range(50)]

    run(story())
    assert world.status()["m"]["events"] == 500


def test_a_batch_that_comes_before_its_turn_waits_for_it(world: World, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commit_queue, "_EARLY_S", 60.0)

    async def story() -> None:
        detector = world.detector()
        late = asyncio.create_task(send(detector, world.payload(n=10), 10))
        await asyncio.sleep(0)
        first = await send(detector, world.payload(n=10), 0)
        assert (first["accepted"], (await late)["accepted"]) == (10, 10)

    run(story())


def test_two_producers_of_one_model_count_apart(world: World, run: Any) -> None:
    async def story() -> None:
        detector = world.detector()
        await send(detector, world.payload(n=10), 0, "a")
        await send(detector, world.payload(n=10), 0, "b")
        assert answered(await detector.high_water(model="m", producer="a"))["high_water"] == 10
        assert answered(await detector.high_water(model="m", producer="c"))["high_water"] == 0

    run(story())
    assert world.status()["m"]["events"] == 20


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_no_finite_number_is_left_out_alone_and_counted(world: World, run: Any, bad: float) -> None:
    async def story() -> None:
        detector = world.detector()
        reply = await send(detector, world.payload(n=3, loss=[1.0, bad, 2.0]), 0)
        assert (reply["accepted"], reply["rejected"], reply["bad_values"]) == (3, [], 1)
        assert (reply["bad_value"]["field"], reply["bad_value"]["rule"]) == ("loss", "must be a finite number")
        again = await send(detector, world.payload(n=3, loss=[1.0, bad, 2.0]), 0)
        assert (again["duplicates"], again.get("bad_values", 0)) == (3, 0)
        assert "bad_values" not in await send(world.detector(), world.payload(n=3), 3), "also after a restart"

    run(story())
    assert (world.status()["m"]["events"], world.status()["m"]["bad_values"]) == (6, 1)


def test_rejected_events_consume_their_numbers(world: World, run: Any) -> None:
    async def story() -> None:
        detector = world.detector()
        reply = await send(detector, world.payload(n=3, recall=[0.5, 7.0, 0.5]), 0)
        assert (reply["accepted"], reply["high_water"]) == (2, 3)
        assert reply["rejected"][0]["field"] == "recall"
        assert (await send(detector, world.payload(n=3), 3))["accepted"] == 3

    run(story())
    assert world.status()["m"]["rejected"] == 1


def test_a_broken_payload_raises_and_changes_nothing(world: World, run: Any) -> None:
    async def story() -> None:
        detector = world.detector()
        await send(detector, world.payload(n=3), 0)
        with pytest.raises(ValueError, match="msgpack"):
            await send(detector, b"broken", 3)
        replies = await detector.ingest_many(
            batches=[
                {"model": "m", "producer": "p", "sequence": 3, "payload": b"broken"},
                {"model": "m", "producer": "p", "sequence": 3, "payload": world.payload(n=3)},
            ]
        )
        assert [reply["status"] for reply in replies] == ["refused", "accepted"]
        with pytest.raises(ValueError, match="msgpack"):
            await send(detector, b"broken", 0, model="new")

    run(story())
    assert world.status().keys() == {"m"}, "no model begins with a broken batch"
    assert (world.status()["m"]["events"], world.status()["m"]["rejected"]) == (6, 2)
    last = world.status()["m"]["last_rejection"]
    assert (last["field"], last["value"]) == ("payload", 6)
    assert "must be a whole msgpack map" in last["rule"]


@pytest.mark.parametrize(
    "client",
    [
        "nonsense",
        7,
        [1],
        b"x",
        {"seen_at": "never"},
        {"logged": "many"},
        {"logged": -1},
        {"logged": 2**70},
        {"logged": True},
        {"x" * 100_000: 1},
        {"logged": float("nan")},
        {7: 7},
        {"logged": {"a": 1}},
        object(),
    ],
)
def test_whatever_a_client_sends_along_the_status_can_be_read(world: World, run: Any, client: Any) -> None:
    async def story() -> None:
        detector = world.detector()
        good = {"logged": 3, "accepted": 2, "rejected": 1, "dropped": 0, "bad_values": 0}
        for producer, told in (("good", good), ("bad", client)):
            batch = {"model": "m", "producer": producer, "sequence": 0, "payload": world.payload(n=3), "client": told}
            assert (await detector.ingest_many(batches=[batch]))[0]["status"] == "accepted"

    run(story())
    store = Store(world.url)
    told = status.read(store, NOW)
    store.close()
    assert [seen.get("logged") for seen in told["clients"].values() if "logged" in seen] == [3]
    assert all(isinstance(seen["seen_at"], float) for seen in told["clients"].values())
    assert not any(producer in told["clients"] for producer in ("good", "bad")), "a producer id is its client's secret"


def test_a_row_that_cannot_be_read_is_named_and_the_others_are_told(world: World, run: Any) -> None:
    async def story() -> None:
        await send(world.detector(), world.payload(n=3), 0)
        await send(world.detector(), world.payload(n=3), 0, model="other")

    run(story())
    store = Store(world.url)
    for damage in (b"\xc1", b"\x80", b"\x07"):
        with store.part(DETECTOR, 0).write() as connection:
            connection.execute(
                detector_tables.models.update().where(detector_tables.models.c.model == "m").values(memory=damage)
            )
            connection.execute(detector_tables.producers.update().values(client=damage))
        told = status.read(store, NOW)
        assert (list(told["models"]), told["unreadable"]) == (["other"], ["model m"])
    store.close()


@pytest.mark.parametrize("is_stamped", [True, False])
def test_a_clock_that_runs_ahead_costs_no_events_and_is_flagged(world: World, run: Any, is_stamped: bool) -> None:
    values = np.full(3, 0.5)
    times = [NOW, NOW + 4000.0, NOW + 100.0]
    payload = wire.pack(wire.batch_of_columns({"accuracy": values}, version="v1", timestamps=times, now_s=NOW))
    batch = {"model": "m", "producer": "p", "sequence": 0, "payload": payload}

    async def story() -> Any:
        return await world.detector().ingest_many(batches=[batch | ({"stamped": True} if is_stamped else {})])

    (reply,) = run(story())
    seen = world.status()["m"]
    if not is_stamped:
        assert (reply["accepted"], reply["rejected"][0]["field"], seen["clock_ahead"]) == (2, "timestamp", None)
        return
    assert (reply["accepted"], seen["clock_ahead"]) == (3, {"s": 4000.0, "at": NOW})
    store = Store(world.url)
    with store.part(DETECTOR, 0).read() as connection:
        (row,) = logged.read_log(connection, "m")
    store.close()
    assert wire.recheck(row.payload, row.received_at, row.skip).batch.times.tolist() == [NOW, NOW, NOW + 100.0]
    assert wire.recheck(row.payload, row.received_at, row.skip).rejected == 0, "the log gets the same verdict again"


@pytest.mark.parametrize("no_time", [np.nan, np.inf, -np.inf, -1.0])
def test_what_is_no_time_is_rejected_alone_also_where_a_clock_runs_ahead(world: World, run: Any, no_time: float) -> None:
    sound = wire.batch_of_columns({"accuracy": np.full(3, 0.5)}, version="v1", timestamps=[NOW] * 3, now_s=NOW)
    payload = wire.pack(dataclasses.replace(sound, times=np.array([NOW, no_time, NOW + 4000.0])))

    async def story() -> Any:
        batch = {"model": "m", "producer": "p", "sequence": 0, "payload": payload, "stamped": True}
        return await world.detector().ingest_many(batches=[batch])

    (reply,) = run(story())
    assert (reply["accepted"], len(reply["rejected"]), reply["rejected"][0]["field"]) == (2, 1, "timestamp")
    assert world.status()["m"]["clock_ahead"] == {"s": 4000.0, "at": NOW}
    json.dumps(world.status(), allow_nan=False, default=str)


def test_a_refused_batch_counts_as_many_rejected_events_as_it_says_it_holds(world: World, run: Any) -> None:
    async def story() -> None:
        detector = world.detector()
        await send(detector, world.payload(n=3), 0)
        message = msgpack.unpackb(world.payload(n=500))
        message["versions"] = [""]
        with pytest.raises(ValueError, match="model_version must have 1 to 200"):
            await send(detector, msgpack.packb(message), 3)
        assert (await send(detector, world.payload(n=3), 3))["high_water"] == 6, "it took no number"

    run(story())
    assert (world.status()["m"]["events"], world.status()["m"]["rejected"]) == (6, 500)


def test_status_names_field_value_and_rule_of_the_last_rejected_event(world: World, run: Any) -> None:
    async def story() -> None:
        await send(world.detector(), world.payload(n=3, recall=np.array([0.5, 7.0, 0.5])), 0)
        detector = world.detector("detector:m")  # it comes again
        assert (await send(detector, world.payload(n=3), 3))["accepted"] == 3

    run(story())
    rule = "must be a number from 0 to 1"
    assert world.status()["m"]["last_rejection"] == {"field": "recall", "value": 7.0, "rule": rule, "at": NOW}


@pytest.mark.parametrize(
    ("told", "rule"),
    [
        ({"index": 0, "field": "note", "value": "x", "rule": "must be encodable as UTF-8"}, "must be encodable as UTF-8"),
        ({"field": 7, "value": object(), "rule": "x" * 10_000}, "x" * 500),
        ({"rule": 7}, "must hold at least one number"),
        ("nonsense", "must hold at least one number"),
    ],
)
def test_a_sender_says_why_it_has_emptied_a_row(world: World, run: Any, told: Any, rule: str) -> None:
    emptied = wire.pack(wire.batch_of_rows([("v1", NOW, {}, None)]))
    batch = {"model": "m", "producer": "p", "sequence": 0, "payload": emptied, "rejection": told}
    assert run(world.detector().ingest_many(batches=[batch]))[0]["accepted"] == 0
    assert world.status()["m"]["last_rejection"]["rule"] == rule


def test_a_successor_goes_on_where_the_store_is(world: World, run: Any) -> None:
    """The same alarms, whether or not the process was replaced in between, snapshots or not."""

    async def story(restart_every: int) -> list[str]:
        world.random = np.random.default_rng(7)
        model = f"m{restart_every}"
        for i in range(40):
            if i == 0 or (restart_every and i % restart_every == 0):
                detector = world.detector(f"detector:{model}")
            reply = await send(detector, world.payload(0.9 if i < 25 else 0.6, n=50), 50 * i, model=model)
            assert reply["accepted"] == 50, reply["reason"]
        found = world.status()[model]
        assert found["events"] == 2000
        return [json.dumps(found["versions"], sort_keys=True), str(len(found["open_episodes"]))]

    assert run(story(0)) == run(story(7)) == run(story(1))


def test_snapshots_bound_what_a_restart_replays(world: World, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.detection.writing.SNAPSHOT_BATCHES", 1)

    async def story() -> None:
        detector = world.detector()
        for i in range(80):
            await send(detector, world.payload(n=5), 5 * i)

    run(story())
    assert world.count("states") == 1
    store = Store(world.url)
    with store.part(DETECTOR, 0).read() as connection:
        (row,) = detector_tables.load_models(connection, "detector:m")
    assert row.number - row.snapshot < 80


def test_drift_asks_once_and_says_why(world: World, run: Any) -> None:
    async def story() -> dict[str, Any]:
        detector = world.detector()
        for i in range(6):
            await send(detector, world.payload(0.9), 100 * i)
        for i in range(6, 9):
            await send(detector, world.payload(0.6), 100 * i)
        await detector.tick()
        (episode,) = world.dispatcher.requests()
        return dict(await detector.explain(episode=episode))

    record = run(story())
    assert record["order"]["order"] == "o-1"
    asked = next(arguments for method, arguments in world.dispatcher.asked if method == "request")
    assert asked["model"] == "m"
    assert asked["metric"] == "accuracy"
    assert asked["observed_drift"] > 3
    assert asked["explanation"]["baseline_mean"] == pytest.approx(0.9, abs=0.01)
    found = world.status()["m"]
    assert found["state"] == "drifting"
    assert found["versions"]["v1"]["metrics"]["accuracy"]["state"] == "drifting"
    assert found["versions"]["v1"]["metrics"]["accuracy"]["baseline"] == pytest.approx(0.9, abs=0.01)
    assert found["open_episodes"] == [record["id"]]


def test_the_outbox_is_sent_until_the_dispatcher_has_recorded_it(world: World, run: Any) -> None:
    async def story() -> None:
        world.dispatcher.silent = True
        detector = world.detector()
        for i in range(9):
            await send(detector, world.payload(0.9 if i < 6 else 0.6), 100 * i)
        await detector.tick()
        assert world.count("outbox") == 1
        world.dispatcher.silent = False
        world.dispatcher.reply = {"status": "unavailable", "reason": "", "retry_in_s": 1.0}
        await detector.tick()
        assert world.count("outbox") == 1
        world.dispatcher.reply = FakeDispatcher().reply
        successor = world.detector()
        await successor.tick()
        assert world.count("outbox") == 0
        assert len(set(world.dispatcher.requests())) == 1
        before = len(world.dispatcher.requests())
        await successor.tick()
        assert len(world.dispatcher.requests()) == before

    run(story())


def test_a_skipped_episode_asks_again_and_a_done_order_closes_it(world: World, run: Any) -> None:
    async def story() -> None:
        world.dispatcher.reply = {
            "status": "recorded",
            "decision": "skipped",
            "order": None,
            "reason": "cooling down",
            "retry_in_s": 60.0,
        }
        detector = world.detector()
        for i in range(9):
            await send(detector, world.payload(0.9 if i < 6 else 0.6), 100 * i)
        await detector.tick()
        assert len(world.dispatcher.requests()) == 1
        world.clock.advance_to(NOW + 61)
        world.dispatcher.reply = FakeDispatcher().reply
        await detector.tick()
        assert len(world.dispatcher.requests()) == 2
        world.dispatcher.order = {"order": "o-1", "state": "done", "reason": None, "new_version": "v2"}
        await detector.tick()
        assert world.status()["m"]["open_episodes"] == []
        await send(detector, world.payload(0.9, version="v2"), 900)
        await detector.tick()
        assert world.dispatcher.asked[-1] == ("overtaken", {"model": "m", "version": "v2", "over": ["v1"]})

    run(story())


def test_silence_where_events_are_expected_shows_as_no_data(world: World, run: Any) -> None:
    world.configure(defaults={"expect_every": "5m"})

    async def story() -> None:
        detector = world.detector()
        await send(detector, world.payload(), 0)
        await detector.tick()
        assert world.status()["m"]["state"] == "stable"
        world.clock.advance_to(NOW + 301)
        await detector.tick()
        assert world.status()["m"]["state"] == "no_data"
        assert world.status()["m"]["state"] == "no_data"
        await send(detector, world.payload(), 100)
        assert world.status()["m"]["state"] == "stable"

    run(story())


def test_a_process_names_its_model_that_was_silent_longest_also_after_a_restart(world: World, run: Any) -> None:
    async def story() -> None:
        detector = world.detector("detectors:0")
        assert await detector.quietest() == {"status": "ok", "model": None, "last_at": None}
        for after_s, name in enumerate(["b", "a", "c", "b"]):
            world.clock.advance_to(NOW + 100 * after_s)
            await send(detector, world.payload(), 0, producer=None, model=name)
        assert await detector.quietest() == {"status": "ok", "model": "a", "last_at": NOW + 100}
        assert await world.detector("detectors:0").quietest() == {"status": "ok", "model": "a", "last_at": NOW + 100}

    run(story())


def test_a_process_without_its_store_names_no_model_as_silent(world: World, run: Any) -> None:
    Path(world.url.removeprefix("sqlite:///")).write_text("no folder, so nothing can be opened")
    assert run(world.detector().quietest())["status"] == "unavailable"


def test_a_model_that_logs_nothing_watched_shows_as_unwatched(world: World, run: Any, caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        detector = world.detector()
        batch = wire.batch_of_columns({"loss": [0.1]}, version="v1", timestamps=None, now_s=NOW)
        for i in range(3):
            await send(detector, wire.pack(batch), i)

    run(story())
    assert world.status()["m"]["state"] == "unwatched"
    assert len([r for r in caplog.records if "logs no watched metric" in r.message]) == 1


def test_late_events_are_counted_and_a_version_that_comes_back_goes_on(world: World, run: Any) -> None:
    def at(time: float, version: str, n: int = 10) -> bytes:
        return wire.pack(wire.batch_of_columns({"accuracy": [0.9] * n}, version=version, timestamps=time, now_s=NOW))

    async def story() -> None:
        detector = world.detector()
        await send(detector, at(NOW - 10, "v1"), 0)
        await send(detector, at(NOW - 20, "v1"), 10)
        await send(detector, at(NOW - 5, "v2"), 20)
        await send(detector, at(NOW - 4, "v1"), 30)

    run(story())
    versions = world.status()["m"]["versions"]
    assert (versions["v1"]["events"], versions["v1"]["late"], versions["v2"]["events"]) == (30, 10, 10)


def test_a_given_baseline_is_learned_and_a_pinned_one_holds_for_new_versions(world: World, run: Any) -> None:
    async def story() -> None:
        detector = world.detector()
        given = {"accuracy": np.random.default_rng(1).normal(0.9, 0.01, 400).clip(0, 1), "loss": [0.1, 0.2]}
        reply = await detector.baseline(model="m", version="v1", values=given)
        assert reply == {"status": "learned", "metrics": ["accuracy"], "unwatched": ["loss"]}
        await send(detector, world.payload(0.9, n=20), 0)
        assert world.status()["m"]["versions"]["v1"]["metrics"]["accuracy"]["state"] == "stable"
        assert (await detector.pin(model="m", version="v1"))["status"] == "pinned"
        successor = world.detector()
        await send(successor, world.payload(0.7, n=40, version="v2"), 20)
        assert world.status()["m"]["versions"]["v2"]["state"] == "drifting"
        with pytest.raises(KeyError, match="version must be one that m has logged"):
            await successor.pin(model="m", version="v9")

    run(story())


def test_a_pin_without_a_given_baseline_takes_the_first_events(world: World, run: Any) -> None:
    async def story() -> None:
        detector = world.detector()
        await send(detector, world.payload(0.9, n=300), 0)
        await detector.pin(model="m", version="v1")
        await send(detector, world.payload(0.7, n=40, version="v2"), 300)
        assert world.status()["m"]["versions"]["v2"]["state"] == "drifting"

    run(story())


@pytest.mark.parametrize(
    "values", [{"accuracy": [1.2]}, {"accuracy": [np.nan]}, {"accuracy": []}, {}, [0.5], {"accuracy": "x"}]
)
def test_a_bad_baseline_raises_and_changes_nothing(world: World, run: Any, values: Any) -> None:
    async def story() -> None:
        with pytest.raises(ValueError, match=r"accuracy|values|metrics"):
            await world.detector().baseline(model="m", version="v1", values=values)

    run(story())
    assert "m" not in world.status()


def test_an_unknown_episode_or_model_raises_key_error(world: World, run: Any) -> None:
    async def story() -> None:
        detector = world.detector()
        with pytest.raises(KeyError):
            await detector.explain(episode="no such")
        with pytest.raises(KeyError):
            await detector.acknowledge(episode="no such")
        with pytest.raises(KeyError):
            await detector.pin(model="no such", version="v1")

    run(story())


def test_a_budget_in_days_follows_the_rate_and_a_successor_keeps_it(world: World, run: Any) -> None:
    world.configure(defaults={"false_alarm_every": "90d"})

    async def story() -> tuple[float, float]:
        detector = world.detector()
        for i in range(12):
            times = NOW - 10_000 + np.arange(100.0) + 100 * i  # one event a second: 90 days are 7.8 million
            values = np.clip(world.random.normal(0.9, 0.01, 100), 0, 1)
            batch = wire.batch_of_columns({"accuracy": values}, version="v1", timestamps=times, now_s=NOW)
            await send(detector, wire.pack(batch), 100 * i)
        assert detector._thread.state is not None
        (model,) = detector._thread.state.models
        successor = world.detector()
        await send(successor, world.payload(n=10), 1200)
        assert successor._thread.state is not None
        (again,) = successor._thread.state.models
        return model.monitor.memory()["budget"], again.monitor.memory()["budget"]

    before, after = run(story())
    assert before == after
    assert 90 * 86_400 <= before <= 2 * 90 * 86_400
    assert world.status()["m"]["versions"]["v1"]["metrics"]["accuracy"]["seen"] == 1210


# --- faults ----------------------------------------------------------------------------------------------------


def broken_commits(detector: DriftDetector, times: int, where: str) -> None:
    """Let the next commits fail, before anything is written or at the very end."""
    assert detector._thread.store is not None
    engine = detector._thread.store.part(DETECTOR, 0).engine
    left = [times]

    @event.listens_for(engine, where)
    def fail(*_arguments: Any) -> None:
        if left[0] > 0 and detector._thread.state is not None:
            left[0] -= 1
            raise OperationalError("COMMIT", {}, Exception("database or disk is full"))


@pytest.mark.parametrize("where", ["begin", "commit"])
def test_a_failed_commit_leaves_no_trace_in_memory(world: World, run: Any, where: str) -> None:
    """What was fed to a detector before a commit that failed must not be there when it is sent again."""

    async def story() -> None:
        detector = world.detector()
        for i in range(6):
            await send(detector, world.payload(0.9), 100 * i)
        payload = world.payload(0.6)
        broken_commits(detector, 3, where)
        for _ in range(3):
            reply = await send(detector, payload, 600)
            assert reply["status"] == "unavailable"
            assert "disk is full" in reply["reason"]
        assert (await send(detector, payload, 600))["accepted"] == 100
        found = world.status()["m"]
        assert found["events"] == 700
        assert len(found["open_episodes"]) == 1
        await detector.tick()
        assert len(set(world.dispatcher.requests())) == 1

    run(story())


def test_a_process_that_was_succeeded_commits_nothing_and_ends(world: World, run: Any) -> None:
    async def story() -> None:
        old = world.detector()
        await send(old, world.payload(n=10), 0)
        new = world.detector()
        await send(new, world.payload(n=10), 10)
        reply = await send(old, world.payload(n=10), 10)
        assert reply["status"] == "unavailable"
        assert world.ended

    run(story())
    assert world.status()["m"]["events"] == 20


class Exploding(sliding_window.SlidingWindowDriftDetector):
    """Cannot bear one value."""

    def update(self, values: Any) -> list[Any]:
        if 0.125 in np.asarray(values):
            raise ZeroDivisionError("a bug in a detector")
        return super().update(values)


def test_a_batch_that_fails_again_and_again_is_set_aside(world: World, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = Monitor._count

    def count(self: Monitor, held: Any, times: Any) -> None:
        if len(times) == 5:
            raise ZeroDivisionError("a bug, though not of a detector")
        honest(self, held, times)

    monkeypatch.setattr(Monitor, "_count", count)

    async def story() -> None:
        detector = world.detector()
        await send(detector, world.payload(n=10), 0)
        poison = wire.pack(wire.batch_of_columns({"accuracy": [0.125] * 5}, version="v1", timestamps=None, now_s=NOW))
        good, bad = await asyncio.gather(send(detector, world.payload(n=10), 0, "other"), send(detector, poison, 10))
        assert (good["status"], bad["status"]) == ("accepted", "unavailable")
        assert (await send(detector, poison, 10))["status"] == "unavailable"
        reply = await send(detector, poison, 10)
        assert (reply["status"], reply["accepted"], reply["high_water"]) == ("accepted", 0, 15)
        assert "set aside" in reply["rejected"][0]["rule"]
        assert (await send(detector, world.payload(n=10), 15))["accepted"] == 10

    run(story())
    found = world.status()["m"]
    assert (found["events"], found["rejected"], found["quarantined"]) == (30, 5, 1)
    assert world.count("quarantine") == 1


def test_a_metric_that_its_detector_cannot_take_is_in_error_and_the_event_counts(
    world: World, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its reason shows; other metrics go on; a restart knows it; another detector in the configuration begins afresh."""
    monkeypatch.setitem(registry._DETECTORS, "cusum", Exploding)
    world.configure(defaults={"watch": {"loss": {"detector": "cusum"}}})

    async def story() -> dict[str, Any]:
        detector = world.detector()
        reply = await send(detector, world.payload(n=10, loss=[0.125] * 10), 0)
        assert (reply["status"], reply["accepted"]) == ("accepted", 10)
        detector = world.detector()
        assert (await send(detector, world.payload(n=10, loss=[0.5] * 10), 10))["accepted"] == 10
        found = world.status()["m"]
        world.configure(defaults={"watch": {"loss": {"detector": "ewma"}}})
        await detector.reload()
        await send(detector, world.payload(n=10, loss=[0.5] * 10), 20)
        return dict(found)

    found = run(story())
    metrics = found["versions"]["v1"]["metrics"]
    assert (found["events"], found["quarantined"], found["rejected"]) == (20, 0, 0)
    assert (metrics["loss"]["state"], metrics["loss"]["error"]) == ("error", "ZeroDivisionError: a bug in a detector")
    assert metrics["accuracy"]["seen"] == 20
    assert world.status()["m"]["versions"]["v1"]["metrics"]["loss"]["state"] == "learning"
    told = {"models": {"m": found}, "retrains": {}, "actors": {}}
    assert "loss is no longer watched" in next(line for line in problems(told) if "loss" in line)


def test_a_batch_that_kills_its_process_is_set_aside(world: World, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each life of the process notes the batch before it tries it; the fourth does not try."""

    class KilledError(BaseException):
        pass

    class Killing(Exploding):
        def update(self, values: Any) -> list[Any]:
            if 0.125 in np.asarray(values):
                raise KilledError
            return super().update(values)

    monkeypatch.setitem(registry._DETECTORS, "default", Killing)
    poison = wire.pack(wire.batch_of_columns({"accuracy": [0.125] * 5}, version="v1", timestamps=None, now_s=NOW))
    store = Store(world.url)

    def life() -> Any:
        found = detection.DetectionState(store, "detector:m", 0, world.clock.now())
        return found.commit([detection.Ingest("m", "p", 0, poison)], world.clock.now())[0]

    for _ in range(detection.CRASHES):
        with pytest.raises(KilledError):
            life()
    assert life()["rejected"][0]["value"] == 5
    assert world.status()["m"]["quarantined"] == 1
    del run


# --- retention and settings ------------------------------------------------------------------------------------


def test_retention_takes_old_batches_but_none_that_a_snapshot_needs(
    world: World, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.detection.writing.SNAPSHOT_BATCHES", 1)
    world.configure(retention={"rows": 10, "age": "1h"})

    async def story() -> None:
        detector = world.detector()
        for i in range(100):
            await send(detector, world.payload(n=5), 5 * i)
        await detector._sweeper.sweep()
        before = world.count("log")
        store = Store(world.url)
        with store.part(DETECTOR, 0).read() as connection:
            (row,) = detector_tables.load_models(connection, "detector:m")
            kept = [entry.number for entry in logged.read_log(connection, "m")]
        assert before < 100
        assert kept == list(range(kept[0], 101))
        assert kept[0] <= row.snapshot + 1
        assert len(kept) >= 10
        world.clock.advance_to(NOW + 7200)
        await detector._sweeper.sweep()
        successor = world.detector()
        assert (await send(successor, world.payload(n=5), 500))["accepted"] == 5

    run(story())
    assert world.status()["m"]["events"] == 505
    assert world.status()["m"]["versions"]["v1"]["metrics"]["accuracy"]["seen"] == 505


def test_reload_takes_up_a_changed_watch_list(world: World, run: Any) -> None:
    async def story() -> None:
        detector = world.detector()
        await send(detector, world.payload(loss=np.ones(100)), 0)
        world.configure(defaults={"watch": {"loss": {"direction": "up"}}})
        assert (await detector.reload())["status"] == "reloaded"
        await send(detector, world.payload(loss=np.ones(100)), 100)

    run(story())
    metrics = world.status()["m"]["versions"]["v1"]["metrics"]
    assert metrics["accuracy"]["seen"] == 200
    assert metrics["loss"]["seen"] >= 100  # and what the log has since the last snapshot


def test_hello_answers_before_the_store_can_be_opened(tmp_path: Path, run: Any) -> None:
    async def story() -> None:
        blocked = tmp_path / "file"
        blocked.write_text("no folder")
        detector = DriftDetector(
            name="detector:m", namespace="test", storage=f"sqlite:///{blocked}/x", peers=FakeDispatcher(), clock=EventClock(NOW)
        )
        assert (await detector.hello())["epoch"] == 0
        assert (await send(detector, b"x", 0))["status"] == "unavailable"

    run(story())


def test_settings_have_no_model_by_default() -> None:
    assert Settings().for_model("m").watch["accuracy"].detector == "default"


# --- damage ----------------------------------------------------------------------------------------------------


def damage(world: World, statement: str, *values: Any) -> None:
    store = Store(world.url)
    with store.part(DETECTOR, 0).write() as connection:
        connection.exec_driver_sql(statement, values)
    store.close()


def test_an_unreadable_row_of_the_log_is_skipped_and_the_model_goes_on(
    world: World, run: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def story() -> None:
        detector = world.detector()
        for number in range(3):
            await send(detector, world.payload(n=10), 10 * number)
        damage(world, "UPDATE log SET payload = ? WHERE number = 2", b"flipped")
        assert (await send(world.detector(), world.payload(n=10), 30))["accepted"] == 10

    run(story())
    assert world.status()["m"]["events"] == 40
    assert "a row of the store cannot be read; setting it aside: log 2" in caplog.text
    assert world.status()["m"]["damaged"]["rows"] == 1


def test_a_model_whose_row_cannot_be_read_is_not_written_over_and_others_go_on(world: World, run: Any) -> None:
    async def story() -> None:
        detector = world.detector("detectors:0")
        for model in ("broken", "sound"):
            await send(detector, world.payload(n=10), 0, model=model)
        damage(world, "UPDATE models SET memory = ? WHERE model = 'broken'", b"\xc1")
        detector = world.detector("detectors:0")
        calls = (send(detector, world.payload(n=10), 10, model=model) for model in ("broken", "sound"))
        broken, sound = await asyncio.gather(*calls)
        assert (broken["status"], sound["accepted"]) == ("unavailable", 10)
        assert "broken: the model's row in the store cannot be read" in broken["reason"]
        for _ in range(4):
            assert (await send(detector, world.payload(n=10), 10, model="broken"))["status"] == "unavailable"

    run(story())
    store = Store(world.url)
    with store.part(DETECTOR, 0).read() as connection:
        events = dict(tuple(row) for row in connection.exec_driver_sql("SELECT model, events FROM models"))
    store.close()
    assert events == {"broken": 10, "sound": 20}
    assert world.count("quarantine") == 0
