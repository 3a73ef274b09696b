"""Removing a model through all who know of it: broadcaster, detector and dispatcher on one store, without Ray."""

from __future__ import annotations

import asyncio
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from actors import failpoints, status, wire
from actors.clock import EventClock
from actors.cluster.peers import PeerUnavailableError
from actors.config import parse
from actors.config.stored import store_settings
from actors.detection import stored
from actors.detection.detector import DriftDetector
from actors.metrics.broadcaster import MetricBroadcaster
from actors.retraining import tables as dispatcher_tables
from actors.retraining.dispatcher import RetrainDispatcher
from actors.storage import Store, removals
from actors.storage.schema import SYSTEM, placements
from tests.killed import bury

NOW = 1_795_000_000.0
T = TypeVar("T")
STEPS = (
    "removal.noted",
    "detector.before_remove",
    "detector.after_remove",
    "removal.rows_gone",
    "dispatcher.before_forget",
    "dispatcher.after_forget",
    "removal.forgotten",
    "removal.ended",
)


class Killed(BaseException):
    """Ends a process wherever it is; nothing of ours catches it."""


class World:
    """All actors of one system; `kill_at` names the failpoint at which the next that reaches it dies."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.url = f"sqlite:///{folder}/store"
        self.clock = EventClock(NOW)
        self.actors: dict[str, Any] = {}
        self.ended: list[str] = []
        self.sequence = 0
        self.kill_at: str | None = None
        monkeypatch.setattr(failpoints, "reach", self.reach)
        for module in ("deployment", "store_thread"):
            monkeypatch.setattr(f"actors.cluster.{module}.end_stale_process", lambda _reason: None)
        document = {
            "defaults": {"retrain": {"price": 25, "max_age": "10d"}, "cooldown": "1s"},
            "detectors": {"max_processes": 4, "max_models": 2},
        }
        with closing(Store(self.url)) as store:
            store_settings(store, parse(document, "test"), NOW)
        self.restart()

    def reach(self, name: str) -> None:
        if name == self.kill_at:
            self.kill_at = None
            raise Killed(name)

    def restart(self) -> None:
        """Every process begins as after a kill -9."""
        self.kill()
        made: Any = {"namespace": "test", "storage": self.url, "clock": self.clock, "peers": self}
        broadcaster = MetricBroadcaster(name="broadcaster", spawn=self.spawn, end_process=self.end, **made)
        self.actors = {"broadcaster": broadcaster, "dispatcher": RetrainDispatcher(name="dispatcher", **made)}

    def kill(self) -> None:
        for actor in self.actors.values():
            bury(actor)

    def spawn(self, process: str, slot: int) -> None:
        if process not in self.actors:
            self.actors[process] = DriftDetector(
                name=process, namespace="test", storage=self.url, slot=slot, clock=self.clock, peers=self
            )

    def end(self, process: str) -> None:
        self.ended.append(process)
        if (actor := self.actors.pop(process, None)) is not None:
            bury(actor)

    async def call(self, name: str, method: str, /, *, timeout_s: float, **arguments: Any) -> Any:
        del timeout_s
        if name not in self.actors:
            raise PeerUnavailableError(name)
        return await getattr(self.actors[name], method)(**arguments)

    async def log(self, *hits: int, model: str = "m") -> Any:
        values = {"accuracy": np.array(hits) / 200}
        weights = np.full(len(hits), 200.0)
        batch = wire.batch_of_columns(values, version="v1", timestamps=None, now_s=self.clock.now().wall_s, n=weights)
        return await self.actors["broadcaster"].ingest(
            model=model, producer="p", sequence=self.sequence, payload=wire.pack(batch)
        )

    async def lose(self) -> None:
        """Lose more than a retrain costs, so that the model asks for one, and let it have its order."""
        promised = await self.actors["broadcaster"].promise(model="m", version="v1", values={"accuracy": 0.87}, n=2500.0)
        assert promised["status"] == "recorded"
        reply = await self.log(175, 160, 158, 150)
        assert reply["status"] == "accepted"
        self.sequence = reply["high_water"]
        await self.settle()

    async def settle(self) -> None:
        for _ in range(3):
            for name in [name for name in self.actors if name.startswith("detector")]:
                await self.actors[name].tick()
            await asyncio.sleep(0)

    async def finish(self) -> None:
        """End every order that is under way."""
        dispatcher = self.actors["dispatcher"]
        queued = await dispatcher.queue()
        running = await dispatcher.history(state="running")
        for row in [*queued["rows"], *running["rows"]]:
            await dispatcher.finish(order=row["id"], outcome="failed", reason="test")

    async def age(self, seconds: float) -> None:
        """Let time pass, and the dispatcher look at the ages of the versions."""
        self.clock.advance_to(self.clock.now().wall_s + seconds)
        await self.actors["dispatcher"]._in_store(lambda state, now: state.age_all(now))

    async def remove(self, *, purge: bool = True, force: bool = True) -> Any:
        reply = await self.actors["broadcaster"].remove(model="m", purge=purge, force=force)
        if reply["status"] == "removed":
            self.sequence = 0  # a client goes on as a new producer
        return reply

    def ids(self) -> set[str]:
        """Return the ids of all episodes and orders in the store."""
        found: set[str] = set()
        with closing(Store(self.url)) as store:
            for part in stored.detector_parts(store):
                with part.read() as connection:
                    found |= {record["id"] for record in stored.list_episodes(connection)}
            with store.part(dispatcher_tables.DISPATCHER).read() as connection:
                found |= set(connection.execute(select(dispatcher_tables.retrains.c.id)).scalars())
        return found

    def models(self) -> dict[str, Any]:
        with closing(Store(self.url)) as store:
            return dict(status.read(store)["models"])

    def placed(self) -> dict[str, tuple[str, int]]:
        with closing(Store(self.url)) as store, store.part(SYSTEM).read() as connection:
            return {row.model: (row.process, row.slot) for row in connection.execute(select(placements))}


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


def test_a_purged_model_leaves_nothing_and_its_process_ends(world: World, run: Any) -> None:
    async def story() -> None:
        await world.lose()
        await world.finish()
        assert len(world.ids()) == 2
        reply = await world.remove()
        assert reply == {"status": "removed", "model": "m", "purged": True}

    run(story())
    assert (world.ids(), world.models(), world.placed(), world.ended) == (set(), {}, {}, ["detector:m"])


def test_a_removed_model_keeps_its_closed_episodes_and_its_orders(world: World, run: Any) -> None:
    async def story() -> None:
        await world.lose()
        await world.finish()
        before = world.ids()
        await world.remove(purge=False)
        assert world.ids() == before
        (episode,) = [id_ for id_ in before if "-q-" in id_]
        world.spawn("detector:m", 0)
        record = await world.actors["detector:m"].explain(episode=episode)
        assert (record["closed_by"], record["held"]) == ("model removed", False)
        await world.remove(purge=True)
        assert world.ids() == set()

    run(story())


def test_a_model_that_was_purged_goes_on_with_its_numbers(world: World, run: Any) -> None:
    async def story() -> None:
        await world.lose()
        first = await world.actors["dispatcher"].trigger(model="other", reason="test", key="K")
        await world.finish()
        mine = await world.actors["dispatcher"].trigger(model="m", reason="test", key="mine")
        await world.finish()
        gone = world.ids()
        await world.remove()
        await world.lose()
        await world.finish()
        again = await world.actors["dispatcher"].trigger(model="m", reason="test", key="mine")
        assert again["order"] not in {None, mine["order"]}
        assert world.ids() & gone == {first["order"]}
        assert len(world.ids()) == 4

    run(story())


def test_a_place_that_a_removed_model_leaves_is_free(world: World, run: Any) -> None:
    async def story() -> None:
        assert (await world.log(180))["status"] == "accepted"
        assert (await world.log(180, model="b"))["status"] == "accepted"
        with pytest.raises(ValueError, match="max_models"):
            await world.log(180, model="c")
        await world.remove()
        assert (await world.log(180, model="c"))["status"] == "accepted"

    run(story())
    # Another process never writes the part of one that has been: its slot is another.
    assert world.placed() == {"b": ("detector:b", 1), "c": ("detector:c", 2)}


def test_a_model_that_logged_just_now_is_removed_only_by_force(world: World, run: Any) -> None:
    async def story() -> None:
        await world.log(180)
        with pytest.raises(ValueError, match="must have logged nothing for 300 s"):
            await world.remove(force=False)
        assert world.models()["m"]["events"] == 1
        world.clock.advance_to(NOW + 301)
        assert (await world.remove(force=False))["status"] == "removed"

    run(story())


def test_a_model_with_an_order_under_way_stays_as_it_is(world: World, run: Any) -> None:
    async def story() -> None:
        await world.lose()
        (order,) = [id_ for id_ in world.ids() if "-r-" in id_]
        with pytest.raises(ValueError, match=f"no unfinished order to be removed, got 'm' with {order}"):
            await world.remove()
        assert (await world.log(180))["status"] == "accepted"

    run(story())


def test_a_model_that_was_never_there_cannot_be_removed(world: World, run: Any) -> None:
    with pytest.raises(KeyError, match="must be one that has logged something"):
        run(world.remove())


def test_without_the_dispatcher_nothing_is_removed(world: World, run: Any) -> None:
    async def story() -> None:
        await world.lose()
        del world.actors["dispatcher"]
        assert (await world.remove())["status"] == "unavailable"
        assert (await world.log(180))["status"] == "accepted"

    run(story())


@pytest.mark.parametrize("step", STEPS)
def test_a_removal_that_was_killed_at_any_step_is_carried_on_by_saying_it_again(world: World, run: Any, step: str) -> None:
    async def story() -> None:
        await world.lose()
        await world.finish()
        gone = world.ids()
        world.kill_at = step
        with pytest.raises(Killed):
            await world.remove()
        world.restart()
        if step != "removal.ended":
            reply = await world.log(180)
            assert (reply["status"], "is being removed" in reply["reason"]) == ("unavailable", True)
        assert (await world.remove())["status"] == "removed"
        assert (world.ids(), world.models(), world.placed()) == (set(), {}, {})
        await world.lose()
        assert not world.ids() & gone

    run(story())


def test_a_trigger_waits_while_its_model_is_being_removed(world: World, run: Any) -> None:
    async def story() -> None:
        await world.log(180)
        world.kill_at = "removal.noted"
        with pytest.raises(Killed):
            await world.remove()
        reply = await world.actors["dispatcher"].trigger(model="m", reason="test")
        assert (reply["status"], reply["reason"]) == ("unavailable", "model 'm' is being removed")

    run(story())


ACTIONS = st.lists(
    st.sampled_from(["lose", "finish", "trigger", "age", "purge", "rm", "restart", *(f"kill {step}" for step in STEPS)]),
    min_size=3,
    max_size=14,
)


async def carry_out(world: World, action: str) -> None:
    if action == "lose":
        if (await world.log(180))["status"] == "accepted":
            await world.lose()
    elif action == "finish":
        await world.finish()
    elif action == "trigger":
        await world.actors["dispatcher"].trigger(model="m", reason="test", key="K")
    elif action == "age":
        await world.age(11 * 86_400)
    elif action == "restart":
        world.restart()
    elif world.placed():
        world.kill_at = action.removeprefix("kill ") if action.startswith("kill ") else None
        try:
            assert (await world.remove(purge=action != "rm"))["status"] == "removed"
        except Killed:
            world.restart()
        world.kill_at = None


@settings(max_examples=25, deadline=None)
@given(actions=ACTIONS)
def test_no_id_is_given_again_after_a_purge(actions: list[str]) -> None:
    async def story(world: World) -> None:
        gone: set[str] = set()
        for action in actions:
            if action in {"purge", "rm"} or action.startswith("kill"):
                await world.finish()
            before = world.ids()
            await carry_out(world, action)
            gone |= before - world.ids()
            assert not gone & world.ids()
        world.kill()  # no thread writes into the folder while it is removed

    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch, asyncio.Runner() as runner:
        runner.run(story(World(Path(folder), patch)))


def test_what_is_noted_never_goes_back(tmp_path: Path) -> None:
    with closing(Store(f"sqlite:///{tmp_path}/store")) as store:
        part = store.part(SYSTEM)
        removals.begin(part, "m", ordinal=7, number=40)
        removals.begin(part, "m", ordinal=3, number=41)
        removals.end(part, "m")
        removals.end(part, "m")
        with part.read() as connection:
            (noted,) = removals.read_all(connection).values()
        assert (noted.ordinal, noted.number, noted.lives, noted.under_way) == (7, 41, 1, False)
