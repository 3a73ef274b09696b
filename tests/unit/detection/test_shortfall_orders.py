"""The retrain rule in the detector: promises as rows of the log, one request at a time, verdicts, versions; across restarts."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest

from actors import status, wire
from actors.clock import EventClock
from actors.config import parse
from actors.config.stored import store_settings
from actors.detection import logged
from actors.detection.detector import DriftDetector
from actors.detection.rules.promises import unpacked
from actors.detection.tables import DETECTOR
from actors.storage import Store
from tests.known import answered

NOW = 1_795_000_000.0
DISPATCHED = {"status": "recorded", "decision": "dispatched", "order": "o-1", "reason": "", "retry_in_s": None}
T = TypeVar("T")


class FakeDispatcher:
    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.reply: dict[str, Any] = DISPATCHED
        self.order: dict[str, Any] | None = None

    async def call(self, name: str, method: str, /, *, timeout_s: float, **arguments: Any) -> Any:
        self.asked.append((method, arguments))
        if method == "orders":
            return {} if self.order is None else dict.fromkeys(arguments["episodes"], self.order)
        return self.reply if method == "request" else {"status": "recorded"}

    def of(self, method: str) -> list[dict[str, Any]]:
        return [arguments for asked, arguments in self.asked if asked == method]


class World:
    def __init__(self, folder: Path) -> None:
        self.url = f"sqlite:///{folder}/store"
        self.clock = EventClock(NOW)
        self.dispatcher = FakeDispatcher()
        self.sequence = 0
        self.detector = self.life()

    def configure(self, **document: Any) -> None:
        store = Store(self.url)
        store_settings(store, parse(document, "test"), NOW)
        store.close()

    def life(self) -> DriftDetector:
        """Begin as after a kill -9."""
        self.detector = DriftDetector(
            name="detector:m", namespace="test", storage=self.url, slot=0, clock=self.clock, peers=self.dispatcher
        )
        return self.detector

    async def log(self, *hits: int, n: int = 200, version: str = "v1") -> None:
        weights = np.full(len(hits), float(n))
        values = {"accuracy": np.array(hits) / n}
        batch = wire.batch_of_columns(values, version=version, timestamps=None, now_s=self.clock.now().wall_s, n=weights)
        reply = await self.detector.ingest(model="m", producer="p", sequence=self.sequence, payload=wire.pack(batch))
        assert reply["accepted"] == len(hits), reply
        self.sequence += len(hits)

    def status(self) -> dict[str, Any]:
        store = Store(self.url)
        try:
            return dict(status.read(store)["models"]["m"])
        finally:
            store.close()


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path)
    made.configure(defaults={"retrain": {"price": 25}, "cooldown": "1m"})
    return made


async def promise(world: World, version: str = "v1", value: float = 0.87, **more: Any) -> Any:
    return await world.detector.promise(model="m", version=version, values={"accuracy": value}, n=2500.0, **more)


def test_a_promise_is_a_numbered_row_of_the_log_and_said_again_it_is_recorded_once(world: World, run: Any) -> None:
    async def story() -> None:
        assert await promise(world) == {"status": "recorded"}
        await world.log(175, 174)
        assert await promise(world) == {"status": "recorded"}
        await promise(world, value=0.9)
        world.life()
        assert await promise(world, value=0.9) == {"status": "recorded"}

    run(story())
    store = Store(world.url)
    with store.part(DETECTOR, 0).read() as connection:
        rows = list(logged.read_log(connection, "m", promises=True))
        assert [(row.number, row.count) for row in rows] == [(1, 0), (2, 2), (3, 0)]
        assert [unpacked(row.payload).values for row in rows if row.count == 0] == [{"accuracy": 0.87}, {"accuracy": 0.9}]
        assert [row.number for row in logged.read_log(connection, "m")] == [2]
    store.close()
    assert world.status()["retrain"]["promised"] == 0.9


def test_a_shortfall_asks_for_one_order_with_its_numbers(world: World, run: Any) -> None:
    async def story() -> None:
        await promise(world)
        await world.log(175, 160, 158, 150, 150, 150)
        await world.detector.tick()
        await world.log(150)
        await world.detector.tick()

    run(story())
    (asked,) = world.dispatcher.of("request")
    assert (asked["cause"], asked["episode"], asked["metric"], asked["version"]) == ("shortfall", "", "accuracy", "v1")
    assert asked["key"].split("-")[1] == "q"
    assert (asked["price"], asked["lost"]) == (25, pytest.approx(35.7, abs=0.05))
    assert asked["observed_drift"] > 4
    assert asked["explanation"]["stretch_rows"] == 600
    shown = world.status()["retrain"]
    assert shown["lost"] > shown["price"] == 25
    assert (shown["live_version"], shown["missing"], shown["promised_n"]) == ("v1", [], 2500)


def test_explain_knows_the_request_of_a_shortfall(world: World, run: Any) -> None:
    async def story() -> Any:
        await promise(world)
        await world.log(150, 150, 150)
        await world.detector.tick()
        (asked,) = world.dispatcher.of("request")
        return await world.detector.explain(episode=asked["key"])

    record = run(story())
    assert (record["cause"], record["order"]["order"]) == ("shortfall", "o-1")
    assert record["shortfall"]["price"] == 25
    assert (record["evidence"][0]["detector"], record["evidence"][0]["baseline_mean"]) == ("shortfall", 0.87)
    assert [each["decision"] for each in record["decisions"]] == ["open", "ask", "order"]


def test_status_keeps_requests_of_a_shortfall_apart_from_episodes_of_alarms(world: World, run: Any) -> None:
    async def story() -> None:
        await promise(world)
        await world.log(*[160] * 20)
        await world.detector.tick()

    run(story())
    (request,) = world.dispatcher.of("request")
    assert (world.status()["open_requests"], world.status()["open_episodes"]) == ([request["key"]], [])
    assert world.status()["state"] != "drifting"


def test_under_shortfall_an_alarm_only_informs_and_says_why(world: World, run: Any) -> None:
    """The level falls far below the promise's price in errors: an alarm, and no retrain."""
    world.configure(defaults={"retrain": {"price": 1e6}})
    random = np.random.default_rng(1)

    async def story() -> Any:
        await promise(world)
        await world.log(*random.binomial(200, 0.87, 400).tolist())
        await world.log(*random.binomial(200, 0.6, 40).tolist())
        await world.detector.tick()
        (episode,) = world.status()["open_episodes"]
        return await world.detector.explain(episode=episode)

    record = run(story())
    assert world.dispatcher.of("request") == []
    assert record["request"]["state"] == "informed"
    assert "of 1000000 errors lost" in record["request"]["reason"]
    assert world.status()["state"] == "drifting"


def test_without_a_promise_a_model_under_shortfall_is_treated_as_under_alarm(world: World, run: Any) -> None:
    random = np.random.default_rng(1)

    async def story() -> None:
        await world.log(*random.binomial(200, 0.87, 400).tolist())
        await world.log(*random.binomial(200, 0.6, 40).tolist())
        await world.detector.tick()

    run(story())
    (asked,) = world.dispatcher.of("request")
    assert asked["episode"].split("-")[1] == "e"
    assert world.status()["retrain"]["missing"] == ["promise"]


def test_a_skipped_shortfall_asks_again_only_while_a_retrain_pays(world: World, run: Any) -> None:
    skipped = {"status": "recorded", "decision": "skipped", "order": None, "reason": "cooling down", "retry_in_s": 60.0}

    async def story() -> None:
        world.dispatcher.reply = skipped
        await promise(world)
        await world.log(150, 150, 150)
        await world.detector.tick()
        world.clock.advance_to(NOW + 61)
        world.life()
        await world.detector.tick()
        assert len(world.dispatcher.of("request")) == 2
        await world.log(*[199] * 20)
        world.clock.advance_to(NOW + 130)
        await world.detector.tick()
        assert len(world.dispatcher.of("request")) == 2
        (key,) = {asked["key"] for asked in world.dispatcher.of("request")}
        record: Any = await world.detector.explain(episode=key)
        assert record["closed_by"] == "recovery"

    run(story())


def test_a_failed_retrain_is_asked_for_again_under_the_next_ordinal(world: World, run: Any) -> None:
    async def story() -> None:
        await promise(world)
        await world.log(150, 150, 150)
        await world.detector.tick()
        world.dispatcher.order = {"order": "o-1", "state": "failed", "reason": "no GPU", "new_version": None}
        await world.detector.tick()
        world.dispatcher.order = None
        await world.log(150)
        await world.detector.tick()

    run(story())
    first, second = world.dispatcher.of("request")
    assert first["key"] != second["key"]
    assert first["ordinal"] < second["ordinal"]


@pytest.mark.parametrize("early", [True, False], ids=["version first", "done first"])
def test_a_retrain_gets_its_verdict_whichever_word_comes_first(world: World, run: Any, early: bool) -> None:
    done = {"order": "o-1", "state": "done", "reason": None, "new_version": "v2"}

    async def story() -> None:
        await promise(world)
        await world.log(150, 150, 150)
        await world.detector.tick()
        if early:
            await world.log(176, version="v2")
        world.dispatcher.order = done
        await world.detector.tick()
        world.life()
        await world.log(*[178] * 10, version="v2")
        await world.detector.tick()

    run(story())
    (verdict,) = world.dispatcher.of("verdict")
    assert (verdict["order"], verdict["verdict"]) == ("o-1", "paid")
    assert verdict["saved"] - 2 * verdict["standard_error"] >= 25
    assert world.status()["retrain"]["inherited_from"] == "v1"


def test_what_a_retrain_lost_again_before_the_next_order_did_not_pay(world: World, run: Any) -> None:
    async def story() -> None:
        await promise(world)
        await world.log(150, 150, 150)
        await world.detector.tick()
        world.dispatcher.order = {"order": "o-1", "state": "done", "reason": None, "new_version": "v2"}
        await world.detector.tick()
        world.dispatcher.order, world.dispatcher.reply = None, DISPATCHED | {"order": "o-2"}
        await world.log(150, 150, 150, version="v2")
        await world.detector.tick()

    run(story())
    (verdict,) = world.dispatcher.of("verdict")
    assert (verdict["order"], verdict["verdict"]) == ("o-1", "did not pay")
    assert len(world.dispatcher.of("request")) == 2


def test_the_same_history_gives_the_same_request_with_or_without_restarts(tmp_path: Path, run: Any) -> None:
    async def story(folder: Path, restart_every: int) -> tuple[Any, ...]:
        world = World(folder)
        world.configure(defaults={"retrain": {"budget": "1 per 30d"}})
        random = np.random.default_rng(3)
        await promise(world)
        for number in range(60):
            if restart_every and number % restart_every == 0:
                world.life()
            await world.log(*random.binomial(200, 0.87 - 0.002 * number, 3).tolist())
        await world.detector.tick()
        asked = [(each["key"].split("-", 1)[1][:1], each["lost"], each["price"]) for each in world.dispatcher.of("request")]
        return asked, world.status()["retrain"]

    found = [run(story(tmp_path / str(every), every)) for every in (0, 1, 7)]
    assert found[0] == found[1] == found[2]
    assert len(found[0][0]) == 1


def test_the_dispatcher_learns_each_live_version_where_age_counts(world: World, run: Any) -> None:
    async def story() -> None:
        await world.log(174)
        assert world.dispatcher.of("deployed") == []
        world.configure(defaults={"retrain": {"max_age": "30d"}})
        await world.detector.reload()
        await world.detector.tick()
        await world.log(174, version="v2")
        world.life()
        await world.log(174, version="v2")
        await world.detector.tick()

    run(story())
    assert [(told["version"], told["at"]) for told in world.dispatcher.of("deployed")] == [("v1", NOW), ("v2", NOW)]


def test_a_registry_announces_versions_and_its_alias_promotes_once_however_often_it_is_said(world: World, run: Any) -> None:
    async def story() -> None:
        announce = world.detector.announce
        for _ in range(2):
            assert await announce(model="new", version="3", live=True, by="mlflow") == {"status": "recorded", "live": "3"}
            assert await announce(model="new", version="4", by="mlflow") == {"status": "recorded", "live": "3"}
        for _ in range(2):
            assert await announce(model="new", version="4", live=True, by="mlflow") == {"status": "recorded", "live": "4"}
        listed: Any = await world.detector.versions(model="new")
        assert [(row["version"], row["state"], row["by"]) for row in listed["rows"]] == [
            ("3", "former", None),
            ("4", "live", "mlflow"),
        ]

    run(story())


def test_a_candidate_closes_nothing_until_a_person_promotes_it_and_a_rollback_returns(world: World, run: Any) -> None:
    world.configure(defaults={"promotion": {"gate": "challenger"}})

    async def story() -> None:
        await world.log(174)
        await world.log(174, version="v2")
        await world.detector.tick()
        assert world.dispatcher.of("overtaken") == []
        listed: Any = await world.detector.versions(model="m")
        assert [(row["version"], row["state"]) for row in listed["rows"]] == [("v1", "live"), ("v2", "candidate")]
        moved: Any = await world.detector.promote(model="m", version="v2")
        assert moved == {"status": "promoted", "version": "v2", "over": "v1"}
        with pytest.raises(ValueError, match="live already"):
            await world.detector.promote(model="m", version="v2")
        with pytest.raises(KeyError, match="v9"):
            await world.detector.promote(model="m", version="v9")
        world.life()
        assert answered(await world.detector.rollback(model="m"))["version"] == "v1"
        with pytest.raises(ValueError, match="live before"):
            await world.detector.rollback(model="m")
        with pytest.raises(KeyError):
            await world.detector.versions(model="unknown")
        await world.detector.tick()

    run(story())
    assert world.dispatcher.of("overtaken")[0] == {"model": "m", "version": "v2", "over": ["v1"]}
    assert world.status()["retrain"]["live_version"] == "v1"


@pytest.mark.parametrize(
    ("values", "n", "source"),
    [
        ({"accuracy": 1.1}, 100.0, "cross_validation"),
        ({"accuracy": float("nan")}, 100.0, "cross_validation"),
        ({"accuracy": 0.9}, 0.0, "cross_validation"),
        ({"accuracy": 0.9}, 0.5, "cross_validation"),
        ({"accuracy": 0.9}, 1e13, "cross_validation"),
        ({"accuracy": 0.9}, 100.0, "guess"),
        ({}, 100.0, "cross_validation"),
    ],
)
def test_a_bad_promise_raises_and_changes_nothing(world: World, run: Any, values: Any, n: float, source: str) -> None:
    async def story() -> None:
        await world.log(174)
        with pytest.raises(ValueError, match=r"accuracy|n |source|values"):
            await world.detector.promise(model="m", version="v1", values=values, n=n, source=source)

    run(story())
    assert world.status()["retrain"]["promised"] is None
