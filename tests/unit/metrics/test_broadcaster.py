"""MetricBroadcaster, built directly: detectors that the test plays, a store in a folder for the placements."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors import status, wire
from actors.clock import EventClock
from actors.cluster.peers import PeerUnavailableError
from actors.config import parse
from actors.config.stored import store_settings
from actors.detection.detector import DriftDetector
from actors.metrics import in_flight, refusal_counter, routes
from actors.metrics import observers as observing
from actors.metrics.broadcaster import MetricBroadcaster
from actors.metrics.observer_host import ObserverHost, check_observer, events_of, make
from actors.metrics.placement import Places, TooManyModelsError
from actors.storage import Store

NOW = 1_795_000_000.0


class FakeDetectors:
    """Accepts what comes, by process; may be away."""

    def __init__(self) -> None:
        self.seen: dict[str, list[str]] = {}
        self.away: set[str] = set()
        self.spawned: list[tuple[str, int]] = []
        self.shown: list[tuple[str, int]] = []
        self.observer_reply: Any = None
        self.release: asyncio.Event | None = None
        self.batches: list[dict[str, Any]] = []
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.taken_batches = 10**9
        self.hang: asyncio.Event | None = None
        self.hang_questions: asyncio.Event | None = None
        self.quiet: dict[str, Any] = {}  # what a process answers to `quietest`

    def spawn(self, process: str, slot: int) -> None:
        self.spawned.append((process, slot))

    async def call(self, name: str, method: str, /, *, timeout_s: float, **arguments: Any) -> Any:
        if name in self.away:
            raise PeerUnavailableError(name)
        if method == "on_batch":
            if self.release is not None:
                await self.release.wait()
            rows = len(events_of(arguments["model"], arguments["payload"], arguments["skip"], NOW))
            self.shown.append((name, rows))
            return self.observer_reply or {"delivered": rows, "failed": 0, "error": ""}
        if method == "ingest_many":
            if self.hang is not None:
                await self.hang.wait()
            return [self._taken(name, batch) for batch in arguments["batches"]]
        if method == "high_water":
            return {"status": "ok", "high_water": 7}
        if method == "explain":
            raise KeyError("no such episode")
        self.asked.append((method, arguments))
        if self.hang_questions is not None:
            await self.hang_questions.wait()
        if method == "quietest" and name in self.quiet:
            return self.quiet[name]
        return {"status": method}

    def _taken(self, name: str, batch: dict[str, Any]) -> dict[str, Any]:
        self.seen.setdefault(name, []).append(batch["model"])
        self.batches.append(batch)
        if len(self.batches) > self.taken_batches:
            nothing: dict[str, Any] = {"accepted": 0, "duplicates": 0, "rejected": [], "high_water": None, "epoch": 1}
            return {"status": "unavailable", "reason": "away", "retry_in_s": 0.5, **nothing}
        found = wire.unpack(batch["payload"])
        verdict = wire.check(found, NOW)
        return {
            "status": "accepted",
            "accepted": found.rows - verdict.rejected,
            "duplicates": 0,
            "rejected": verdict.listed,
            "high_water": (batch["sequence"] or 0) + found.rows,
            "epoch": 1,
        }


class World:
    def __init__(self, folder: Path, **document: Any) -> None:
        self.url = f"sqlite:///{folder}/store"
        store = Store(self.url)
        store_settings(store, parse(document, "test"), NOW)
        store.close()
        self.detectors = FakeDetectors()

    def broadcaster(self) -> MetricBroadcaster:
        return MetricBroadcaster(
            name="broadcaster",
            namespace="test",
            storage=self.url,
            clock=EventClock(NOW),
            peers=self.detectors,
            spawn=self.detectors.spawn,
        )


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path, detectors={"max_processes": 4, "max_models": 6})


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusal_counter, "NOTE_S", 0.0)


def event(model: str = "m", accuracy: Any = 0.9) -> dict[str, Any]:
    return {"model_name": model, "accuracy": accuracy}


def payload(n: int = 3) -> bytes:
    return wire.pack(wire.batch_of_columns({"accuracy": np.full(n, 0.9)}, version="v1", timestamps=None, now_s=NOW))


def test_events_go_to_the_detector_of_their_model(world: World, run: Any) -> None:
    reply = run(world.broadcaster().broadcast(events=[event("a"), event("b"), event("a")]))
    assert reply == {"accepted": 3, "duplicates": 0, "rejected": []}
    assert world.detectors.seen == {"detector:a": ["a"], "detector:b": ["b"]}


def test_the_first_models_have_processes_of_their_own_and_the_rest_share(world: World, run: Any) -> None:
    broadcaster = world.broadcaster()
    run(broadcaster.broadcast(events=[event(name) for name in "abcdef"]))
    assert world.detectors.seen == {
        "detector:a": ["a"],
        "detector:b": ["b"],
        "detectors:0": ["c", "e"],
        "detectors:1": ["d", "f"],
    }
    assert sorted(world.detectors.spawned, key=lambda each: each[1]) == [
        ("detector:a", 0),
        ("detector:b", 1),
        ("detectors:0", 2),
        ("detectors:1", 3),
    ]


def test_another_broadcaster_finds_the_same_places(world: World, run: Any) -> None:
    run(world.broadcaster().broadcast(events=[event(name) for name in "abc"]))
    run(world.broadcaster().broadcast(events=[event(name) for name in "cba"]))
    assert world.detectors.seen["detectors:0"] == ["c", "c"]


def test_one_model_too_many_is_refused_and_the_setting_named(world: World, run: Any) -> None:
    broadcaster = world.broadcaster()
    run(broadcaster.broadcast(events=[event(name) for name in "abcdef"]))
    reply = run(broadcaster.broadcast(events=[event("a"), event("g")]))
    assert reply["accepted"] == 1
    assert reply["rejected"][0]["index"] == 1
    assert "detectors.max_models is 6" in reply["rejected"][0]["rule"]
    with pytest.raises(ValueError, match=r"detectors\.max_models is 6"):
        run(broadcaster.ingest(model="g", producer=None, sequence=None, payload=payload()))
    with pytest.raises(ValueError, match="max_models"):
        run(broadcaster.baseline(model="g", version="v1", values={"accuracy": [0.9]}))


def test_one_model_too_many_is_told_who_was_silent_longest(world: World, run: Any) -> None:
    world.detectors.quiet = {
        "detector:a": {"status": "ok", "model": "a", "last_at": NOW - 60},
        "detector:b": {"status": "unavailable", "reason": "the store is locked", "retry_in_s": 1.0},
        "detectors:0": {"status": "ok", "model": "e", "last_at": NOW - 3600},
        "detectors:1": {"status": "ok", "model": None, "last_at": None},
    }

    async def story(broadcaster: MetricBroadcaster) -> Any:
        await broadcaster.broadcast(events=[event(name) for name in "abcdef"])
        replies = [await broadcaster.broadcast(events=[event(name)]) for name in ("g", "h")]
        with pytest.raises(ValueError, match="'e' has been silent longest: since 2026-11-18"):
            await broadcaster.baseline(model="i", version="v1", values={"accuracy": [0.9]})
        return replies

    rules = [reply["rejected"][0]["rule"] for reply in run(story(world.broadcaster()))]
    assert [rule.split("; ")[-1] for rule in rules] == [rules[0].split("; ")[-1]] * 2
    assert rules[0].endswith("raise the setting to watch more; 'e' has been silent longest: since 2026-11-18 10:06:40Z")
    assert len([method for method, _ in world.detectors.asked if method == "quietest"]) == 4, "asked once for all refusals"


def test_one_model_too_many_is_refused_as_ever_where_no_process_says_who_is_silent(world: World, run: Any) -> None:
    async def story(broadcaster: MetricBroadcaster) -> Any:
        await broadcaster.broadcast(events=[event(name) for name in "abcdef"])
        world.detectors.away = {"detector:a", "detector:b", "detectors:0", "detectors:1"}
        return await broadcaster.broadcast(events=[event("g")])

    rule = run(story(world.broadcaster()))["rejected"][0]["rule"]
    assert rule.endswith("raise the setting to watch more")


@given(st.lists(st.sampled_from([f"m{i}" for i in range(40)]), max_size=40, unique=True), st.integers(1, 12))
def test_processes_never_exceed_the_limit_and_slots_are_theirs_alone(models: list[str], limit: int) -> None:
    places = Places({}, max_processes=limit, max_models=1000)
    held = {model: places.next(model) for model in models}
    slots = {place.process: place.slot for place in held.values()}
    assert len(slots) <= limit
    assert len(set(slots.values())) == len(slots)
    again = Places(held, max_processes=limit + 3, max_models=len(held) + 1).next("new")
    assert again.slot not in slots.values() or slots.get(again.process) == again.slot
    with pytest.raises(TooManyModelsError):
        Places(held, max_processes=limit, max_models=len(held)).next("new")


def test_bad_events_are_rejected_alone_with_their_index(world: World, run: Any) -> None:
    bad = event("a", 1.2)
    reply = run(world.broadcaster().broadcast(events=[event("a"), bad, event("b"), {"model_name": "a"}]))
    assert reply["accepted"] == 2
    assert [(r["index"], r["field"]) for r in reply["rejected"]] == [(1, "accuracy"), (3, "metrics")]


@pytest.mark.parametrize("numbered", [False, True])
def test_a_call_that_no_single_batch_can_hold_is_split_and_counted_whole(world: World, run: Any, numbered: bool) -> None:
    events = [{**event("a"), "extras": {f"metric-{i}": 1.0}, "model_version": f"v{i}"} for i in range(1500)]
    events[700] = event("a", 7.0)
    mark: dict[str, Any] = {"producer": "p", "sequence": 10} if numbered else {}
    reply = run(world.broadcaster().broadcast(events=events, **mark))
    assert (reply["accepted"], reply["duplicates"]) == (1499, 0)
    assert [(each["index"], each["field"]) for each in reply["rejected"]] == [(700, "accuracy")]
    assert len(world.detectors.batches) > 1
    firsts = [batch["sequence"] for batch in world.detectors.batches]
    rows = [wire.unpack(batch["payload"]).rows for batch in world.detectors.batches]
    assert sum(rows) == 1500
    assert firsts == ([10 + sum(rows[:i]) for i in range(len(rows))] if numbered else [None] * len(rows))
    (told,) = [batch["rejection"] for batch in world.detectors.batches if batch["rejection"]]
    assert told["rule"] == "must be a number from 0 to 1"


def test_a_split_call_of_which_a_part_was_not_taken_says_so(world: World, run: Any) -> None:
    events = [{**event("a"), "extras": {f"metric-{i}": 1.0}} for i in range(600)]
    world.detectors.taken_batches = 1
    reply = run(world.broadcaster().broadcast(events=events))
    first = wire.unpack(world.detectors.batches[0]["payload"]).rows
    assert (reply["status"], reply["accepted"]) == ("unavailable", first)
    assert (reply["models"]["a"]["status"], reply["models"]["a"]["accepted"]) == ("unavailable", first)


def test_what_no_model_can_count_is_counted_in_the_store_with_its_reason(world: World, run: Any) -> None:
    def told() -> Any:
        store = Store(world.url)
        try:
            return status.read(store)["refused"]
        finally:
            store.close()

    async def story(broadcaster: MetricBroadcaster) -> None:
        await broadcaster.broadcast(events=[event(name) for name in "abcdef"])
        await broadcaster.broadcast(events=[event("a*"), event("a"), {"accuracy": 0.5}, 7])  # type: ignore[list-item]
        await in_store(broadcaster)
        assert told()["events"] in {3, 46}
        (reply,) = await broadcaster.ingest_many(
            batches=[{"model": "g", "producer": "p", "sequence": 0, "payload": payload(40)}]
        )
        assert reply["status"] == "refused"
        await in_store(broadcaster)

    run(story(world.broadcaster()))
    assert told()["events"] == 43
    assert told()["last"] == {"model": "g", "field": "batch", "value": None, "rule": told()["last"]["rule"], "at": NOW}
    assert "detectors.max_models is 6" in told()["last"]["rule"]
    run(story(world.broadcaster()))
    assert told()["events"] == 86, "another broadcaster adds to it"


async def in_store(broadcaster: MetricBroadcaster) -> None:
    await broadcaster._refusals.noted()


def test_a_call_of_bad_events_reaches_the_detector_of_a_known_model_alone(world: World, run: Any) -> None:
    async def scenario() -> Any:
        broadcaster = world.broadcaster()
        await broadcaster.broadcast(events=[event("a")])
        return await broadcaster.broadcast(events=[event("a", 1.2), event("new", 1.2)])

    reply = run(scenario())
    assert (reply["accepted"], [r["index"] for r in reply["rejected"]]) == (0, [0, 1])
    assert [model for seen in world.detectors.seen.values() for model in seen] == ["a", "a"]


def test_a_promise_goes_to_the_detector_of_its_model_which_may_have_logged_nothing(world: World, run: Any) -> None:
    broadcaster = world.broadcaster()
    said: dict[str, Any] = {"values": {"accuracy": 0.9}, "n": 2500}
    assert run(broadcaster.promise(model="new", version="v1", **said)) == {"status": "promise"}
    assert world.detectors.asked == [
        ("promise", {"model": "new", "version": "v1", "values": {"accuracy": 0.9}, "n": 2500.0, "source": "cross_validation"})
    ]
    bad: dict[str, Any]
    for bad in ({"n": 0}, {"values": {"accuracy": 7}}, {"source": "guess"}, {"version": ""}, {"model": "a*"}):
        with pytest.raises(ValueError, match="must"):
            run(broadcaster.promise(**{"model": "new", "version": "v1", **said, **bad}))
    assert len(world.detectors.asked) == 1


def test_raw_events_carry_the_number_of_predictions_behind_them(world: World, run: Any) -> None:
    events = [{**event(), "n": 200}, event(), {**event(), "n": 0}, {**event(), "extras": {"n": 3}}]
    reply = run(world.broadcaster().broadcast(events=events))
    assert [(each["index"], each["field"]) for each in reply["rejected"]] == [(2, "n")]
    batch = wire.unpack(world.detectors.batches[0]["payload"])
    assert batch.weights is not None
    assert batch.weights.present is not None
    assert (batch.weights.values[0], batch.weights.present.tolist()) == (200.0, [True, False, False, False])
    assert batch.columns["n"].values[3] == 3.0


def test_hello_says_which_wire_it_reads(world: World, run: Any) -> None:
    assert run(world.broadcaster().hello())["wire"] == wire.SCHEMA == 2


def test_a_bad_envelope_raises(world: World, run: Any) -> None:
    broadcaster = world.broadcaster()
    with pytest.raises(ValueError, match="events must be a list"):
        run(broadcaster.broadcast(events="all"))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="payload must be bytes"):
        run(broadcaster.ingest(model="m", producer="p", sequence=0, payload="text"))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="sequence"):
        run(broadcaster.broadcast(events=[event()], producer="p", sequence=-1))
    with pytest.raises(ValueError, match="model_name must not contain"):
        run(broadcaster.ingest(model="a*", producer=None, sequence=None, payload=payload()))
    assert world.detectors.seen == {}


def test_a_detector_that_is_away_is_named_and_made_again(world: World, run: Any) -> None:
    broadcaster = world.broadcaster()
    world.detectors.away.add("detector:a")
    reply = run(broadcaster.broadcast(events=[event("a"), event("b")]))
    assert reply["status"] == "unavailable"
    assert reply["accepted"] == 1
    assert {model: each["status"] for model, each in reply["models"].items()} == {"a": "unavailable", "b": "accepted"}
    world.detectors.away.clear()
    assert run(broadcaster.broadcast(events=[event("a")]))["accepted"] == 1
    assert world.detectors.spawned.count(("detector:a", 0)) == 2


def test_too_much_in_flight_is_busy(world: World, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.metrics.in_flight._MAX_BYTES", 10)
    reply = run(world.broadcaster().ingest(model="m", producer="p", sequence=0, payload=payload()))
    assert (reply["status"], reply["accepted"]) == ("busy", 0)
    assert reply["retry_in_s"] > 0


def test_hello_answers_at_once_while_as_many_calls_wait_as_are_let_in(
    world: World, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.metrics.in_flight.MAX_CALLS", 5)

    async def story() -> None:
        broadcaster = world.broadcaster()
        await broadcaster.broadcast(events=[event()])
        world.detectors.hang = asyncio.Event()
        waiting = [asyncio.create_task(broadcaster.broadcast(events=[event()])) for _ in range(5)]
        await settled()
        refused = await broadcaster.broadcast(events=[event()])
        assert (refused["status"], refused["accepted"]) == ("busy", 0)
        assert (await broadcaster.hello())["actor"] == "broadcaster"
        world.detectors.hang.set()
        assert [(await each)["accepted"] for each in waiting] == [1] * 5
        world.detectors.hang = None
        assert (await broadcaster.broadcast(events=[event()]))["accepted"] == 1

    run(story())


def test_ray_lets_more_calls_into_broadcaster_and_detector_than_may_wait_there() -> None:
    for cls in (MetricBroadcaster, DriftDetector):
        assert cls.ACTOR_OPTIONS["max_concurrency"] >= in_flight.MAX_CALLS + routes.MAX_QUESTIONS + 500


def test_one_question_too_many_is_told_when_to_ask_again(world: World, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "MAX_QUESTIONS", 3)

    async def story() -> None:
        broadcaster = world.broadcaster()
        await broadcaster.broadcast(events=[event()])
        world.detectors.hang_questions = asyncio.Event()
        waiting = [asyncio.create_task(broadcaster.versions(model="m")) for _ in range(3)]
        await settled()
        for asked in (
            broadcaster.versions(model="m"),
            broadcaster.explain(episode="m-1"),
            broadcaster.promise(model="m", version="1", values={"accuracy": 0.9}, n=10),
        ):
            refused = await asked
            assert (refused["status"], refused["reason"]) == ("unavailable", "3 questions are in flight")
            assert refused["retry_in_s"] > 0
        world.detectors.hang_questions.set()
        assert [(await each)["status"] for each in waiting] == ["versions"] * 3
        assert (await broadcaster.versions(model="m"))["status"] == "versions"

    run(story())


def test_a_store_that_is_away_is_unavailable_and_recovers(tmp_path: Path, run: Any) -> None:
    world = World(tmp_path)
    hidden = tmp_path / "hidden"
    (tmp_path / "store").rename(hidden)
    (tmp_path / "store").write_text("no folder")
    broadcaster = world.broadcaster()
    assert run(broadcaster.broadcast(events=[event()]))["status"] == "unavailable"
    (tmp_path / "store").unlink()
    hidden.rename(tmp_path / "store")
    assert run(broadcaster.broadcast(events=[event()]))["accepted"] == 1


def test_questions_for_a_model_go_to_its_detector(world: World, run: Any) -> None:
    broadcaster = world.broadcaster()
    assert run(broadcaster.high_water(model="m", producer="p"))["high_water"] == 0
    run(broadcaster.broadcast(events=[event()]))
    assert run(broadcaster.high_water(model="m", producer="p"))["high_water"] == 7
    assert run(broadcaster.pin(model="m", version="v1"))["status"] == "pin"
    with pytest.raises(KeyError, match="model must be one"):
        run(broadcaster.pin(model="other", version="v1"))
    with pytest.raises(KeyError, match="episode must be one"):
        run(broadcaster.explain(episode="none"))


# --- observers -------------------------------------------------------------------------------------------------


async def settled() -> None:
    for _ in range(50):
        await asyncio.sleep(0)


def test_an_observer_sees_what_was_accepted(world: World, run: Any) -> None:
    async def story() -> dict[str, Any]:
        broadcaster = world.broadcaster()
        await broadcaster.register(name="pager", observer="observer:pager")
        await broadcaster.broadcast(events=[event(), event(accuracy=7), event()])
        await settled()
        return await broadcaster.observers()

    counts = run(story())
    assert world.detectors.shown == [("observer:pager", 2)]
    assert counts["pager"]["delivered"] == 2


def test_a_slow_observer_drops_its_own_and_holds_nobody_up(world: World, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observing, "QUEUE_BYTES", 3 * len(payload()))

    async def story() -> dict[str, Any]:
        world.detectors.release = asyncio.Event()
        broadcaster = world.broadcaster()
        await broadcaster.register(name="slow", observer="observer:slow")
        for i in range(10):
            reply = await broadcaster.ingest(model="m", producer="p", sequence=3 * i, payload=payload())
            assert reply["accepted"] == 3
            await settled()
        world.detectors.release.set()
        await settled()
        return await broadcaster.observers()

    counts = run(story())["slow"]
    assert counts["dropped"] > 0
    assert counts["delivered"] + counts["dropped"] == 30


def test_a_failing_observer_is_counted_and_a_dead_one_taken_out(world: World, run: Any) -> None:
    async def story() -> dict[str, Any]:
        broadcaster = world.broadcaster()
        broadcaster._observers._pause_s = 0
        await broadcaster.register(name="failing", observer="observer:failing")
        await broadcaster.register(name="dead", observer="observer:dead")
        await broadcaster.register(name="pinned", observer="observer:dead", pinned=True)
        world.detectors.observer_reply = {"delivered": 1, "failed": 2, "error": "ValueError: no"}
        world.detectors.away.add("observer:dead")
        for i in range(5):
            await broadcaster.ingest(model="m", producer="p", sequence=3 * i, payload=payload())
            await settled()  # each is delivered by a task of its own
        with pytest.raises(KeyError, match="registered observer"):
            await broadcaster.unregister(name="dead")
        return await broadcaster.observers()

    counts = run(story())
    assert counts["failing"]["failed"] == 10
    assert counts["pinned"]["dropped"] == 15


def test_the_configured_observers_are_had_and_no_others_of_that_kind(world: World, run: Any) -> None:
    def spawn(name: str, target: str) -> str:
        if target == "broken:Class":
            raise ImportError("no such module")
        return f"observer:{name}"

    async def story() -> dict[str, Any]:
        broadcaster = world.broadcaster()
        await broadcaster.register(name="drivers", observer="observer:drivers")
        await broadcaster.register(name="former", observer="observer:former", pinned=True)
        await broadcaster._observers.configure({"broken": "broken:Class", "pager": "m:Pager"}, spawn)
        return await broadcaster.observers()

    assert {name: counts["pinned"] for name, counts in run(story()).items()} == {"drivers": False, "pager": True}


def test_an_observer_host_goes_on_after_a_failure() -> None:
    class Picky:
        def __init__(self) -> None:
            self.seen: list[float] = []

        def on_event(self, event: Any) -> None:
            if event.extras["n"] == 1.0:
                raise RuntimeError("not this one")
            self.seen.append(event.extras["n"])

    host = ObserverHost(name="picky")
    host._observer = picky = Picky()
    batch = wire.batch_of_columns({"accuracy": [0.9] * 4, "n": [0.0, 1.0, 2.0, 3.0]}, version="v", timestamps=1.0, now_s=NOW)
    assert host.on_batch(model="m", payload=wire.pack(batch), skip=0)["failed"] == 1
    assert picky.seen == [0.0, 2.0, 3.0]


def test_events_of_a_batch_are_those_that_count() -> None:
    rows: list[wire.Row] = [
        ("v1", 1.0, {"accuracy": 0.5, "region": "eu"}, 200.0),
        ("v2", 2.0, {"accuracy": 7}, None),
        ("v2", 3.0, {"loss": 0.1, "recall": float("nan")}, None),
    ]
    first, last = events_of("m", wire.pack(wire.batch_of_rows(rows)), 0, NOW)
    assert (first.model_version, first.accuracy, first.recall, dict(first.extras)) == ("v1", 0.5, None, {"region": "eu"})
    assert (last.model_version, last.accuracy, dict(last.extras)) == ("v2", None, {"loss": 0.1})
    assert (first.n, last.n, last.recall) == (200.0, None, None)


def test_an_observer_sees_the_events_of_a_client_whose_clock_runs_ahead() -> None:
    ahead = wire.pack(wire.batch_of_columns({"accuracy": [0.9]}, version="v", timestamps=NOW + 4000.0, now_s=NOW))
    assert [event.timestamp for event in events_of("m", ahead, 0, NOW, is_stamped=True)] == [NOW]
    assert events_of("m", ahead, 0, NOW) == []


@pytest.mark.parametrize("observer", [object(), None, "pager", dict])
def test_an_observer_without_on_event_is_refused(observer: object) -> None:
    with pytest.raises(TypeError, match="on_event"):
        check_observer(observer)


def test_an_observer_that_cannot_be_imported_is_refused() -> None:
    with pytest.raises(ValueError, match="importable as module:Class"):
        make("no.such:Thing")
    with pytest.raises(TypeError, match="on_event"):
        make("collections:OrderedDict")
