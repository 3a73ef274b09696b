"""One model's story from promise to verdict: a detector and a dispatcher on one store, each calling the other, without Ray."""

from __future__ import annotations

import asyncio
import re
import time
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest

from actors import status, story, wire
from actors.clock import EventClock
from actors.config import parse
from actors.config.stored import store_settings
from actors.detection.detector import DriftDetector
from actors.retraining.dispatcher import RetrainDispatcher
from actors.retraining.rules.delivery import Done, Outcome, Retry
from actors.retraining.rules.orders import Order
from actors.storage import Store
from drivers.explain import in_words
from drivers.status import rule_in_words
from tests.killed import bury
from tests.known import answered
from tests.speed import slow

NOW = 1_795_000_000.0
T = TypeVar("T")


class Everybody:
    """Calls whichever actor has the name; the broadcaster forwards to the only detector."""

    def __init__(self) -> None:
        self.actors: dict[str, Any] = {}

    async def call(self, name: str, method: str, /, *, timeout_s: float, **arguments: Any) -> Any:
        del timeout_s
        return await getattr(self.actors[name], method)(**arguments)


class Delivery:
    """A handler whose receiver tells by the order's id what it has seen."""

    def __init__(self, delivered: list[tuple[str, str]]) -> None:
        self._delivered = delivered

    async def launch(self, order: Order) -> Outcome:
        seen = (order.request.cause, order.request.version)
        if seen not in self._delivered:
            self._delivered.append(seen)
        return Done()

    async def follow(self, order: Order) -> Outcome:
        return Retry("unknown", after_s=0)

    async def stop(self, order: Order) -> bool:
        return True

    async def forget(self, order: Order) -> None:
        del order


class World:
    detector: DriftDetector
    dispatcher: RetrainDispatcher

    def __init__(self, folder: Path, **document: Any) -> None:
        self.url = f"sqlite:///{folder}/store"
        self.clock = EventClock(NOW)
        self.peers = Everybody()
        self.sequence = 0
        self.delivered: list[tuple[str, str]] = []  # cause and version of whatever the dispatcher launched
        with closing(Store(self.url)) as store:
            store_settings(store, parse(document, "test"), NOW)
        self.restart()

    def restart(self) -> None:
        """Both processes begin as after a kill -9."""
        for killed in self.peers.actors.values():
            bury(killed)
        made: dict[str, Any] = {"namespace": "test", "storage": self.url, "clock": self.clock, "peers": self.peers}
        self.detector = DriftDetector(name="detector:m", slot=0, **made)
        self.dispatcher = RetrainDispatcher(name="dispatcher", make_handler=lambda *_: Delivery(self.delivered), **made)
        self.peers.actors = {"broadcaster": self.detector, "dispatcher": self.dispatcher}

    async def log(self, *hits: int, n: int = 200, version: str = "v1") -> None:
        values = {"accuracy": np.array(hits) / n}
        weights = np.full(len(hits), float(n))
        batch = wire.batch_of_columns(values, version=version, timestamps=None, now_s=self.clock.now().wall_s, n=weights)
        reply = await self.detector.ingest(model="m", producer="p", sequence=self.sequence, payload=wire.pack(batch))
        assert reply["accepted"] == len(hits)
        self.sequence += len(hits)

    async def settle(self) -> None:
        """Let each tell the other what it has to say."""
        for _ in range(4):
            await self.detector.tick()
            await asyncio.sleep(0)

    async def promised(self, value: float) -> None:
        """Wait until the dispatcher has passed a promise on."""
        deadline_s = time.monotonic() + slow(30)
        while time.monotonic() < deadline_s:
            with closing(Store(self.url)) as store:
                if status.read(store)["models"]["m"]["retrain"]["promised"] == value:
                    return
            await asyncio.sleep(0.01)
        raise AssertionError("the promise did not arrive")


def _of_any_store(text: str) -> str:
    """Return a text with the name of its store and the local time of day left out."""
    without_store = re.sub(r"\b[0-9a-f]{8}-([erq]-[0-9a-f]{16}|r-)", r"STORE-\1", text)
    return re.sub(
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "TIME", re.sub(r"order [0-9a-zA-Z]+-r-[0-9a-f]{16}", "order ORDER", without_store)
    )


@pytest.mark.parametrize("restarts", [False, True])
def test_from_promise_to_verdict(tmp_path: Path, run: Any, monkeypatch: pytest.MonkeyPatch, restarts: bool) -> None:
    # What a restart leaves behind is fenced off; here it shares the test's process, which must not end with it.
    monkeypatch.setattr("actors.cluster.deployment.end_stale_process", lambda _reason: None)
    monkeypatch.setattr("actors.cluster.store_thread.end_stale_process", lambda _reason: None)
    world = World(tmp_path, defaults={"retrain": {"price": 25}, "cooldown": "1m"})

    def perhaps() -> None:
        if restarts:
            world.restart()

    async def history() -> str:
        await world.detector.promise(model="m", version="v1", values={"accuracy": 0.87}, n=2500.0)
        await world.log(175, 160, 158, 150)
        perhaps()
        await world.settle()
        taken: Any = await world.dispatcher.take(consumer="trainer", timeout_s=0.0)
        assert taken["status"] == "order"
        perhaps()
        order = taken["order"]["id"]
        done: Any = await world.dispatcher.finish(
            order=order, token=taken["token"], outcome="done", new_version="v2", promise=0.9, promise_n=2600.0
        )
        assert done["status"] == "recorded"
        await world.log(180, version="v2")
        await world.promised(0.9)
        perhaps()
        await world.settle()
        await world.log(*[178] * 10, version="v2")
        perhaps()
        await world.settle()
        return str(order)

    order = run(history())
    with closing(Store(world.url)) as store:
        told = story.read(store, order)
        shown = status.read(store)["models"]["m"]["retrain"]
        lines = "\n".join(in_words(told))
        rule = rule_in_words(status.read(store)["models"]["m"]["retrain"])
    if not restarts:
        page = (Path(__file__).parents[2] / "docs/explanation/when-a-retrain-pays.md").read_text(encoding="utf-8")
        assert _of_any_store(lines) in _of_any_store(page), "the page tells this story as explain does"
    assert "accuracy is 0.78 over 600 rows, 0.87 was promised (on 2500 rows)" in lines
    assert "36 errors lost beyond chance, a retrain is worth 25" in lines
    assert "it paid: " in lines
    assert rule.startswith("errors lost since deployment of v2: ")
    assert told["order"] is not None
    assert (told["order"]["cause"], told["order"]["verdict"]) == ("shortfall", "paid")
    assert told["order"]["explanation"]["stretch_rows"] == 600
    assert (shown["live_version"], shown["promised"], shown["promised_n"], shown["inherited_from"]) == ("v2", 0.9, 2600, None)
    assert shown["lost"] < 25


@pytest.mark.parametrize("restarts", [False, True])
def test_the_gate_promotes_what_has_won_and_a_person_rolls_back(
    tmp_path: Path, run: Any, monkeypatch: pytest.MonkeyPatch, restarts: bool
) -> None:
    monkeypatch.setattr("actors.cluster.deployment.end_stale_process", lambda _reason: None)
    monkeypatch.setattr("actors.cluster.store_thread.end_stale_process", lambda _reason: None)
    promotion = {"gate": "challenger", "handler": {"kind": "webhook", "url": "http://127.0.0.1:9/"}}
    world = World(tmp_path, defaults={"retrain": {"price": 25}, "promotion": promotion})

    async def carried_out(expected: list[tuple[str, str]]) -> None:
        if restarts:
            world.restart()
        deadline_s = time.monotonic() + slow(30)
        while time.monotonic() < deadline_s:
            await world.settle()
            rows = answered(await world.dispatcher.promotions(model="m"))["rows"]
            if world.delivered == expected and all(row["state"] == "done" for row in rows):
                return
            await asyncio.sleep(0.01)
        raise AssertionError(world.delivered)

    async def states() -> dict[str, str]:
        return {row["version"]: row["state"] for row in answered(await world.detector.versions(model="m"))["rows"]}

    async def history() -> None:
        await world.log(170, version="v1")
        for _ in range(60):
            await world.log(170, version="v1")
            await world.log(184, version="v2")
            if (await states())["v2"] == "live":
                break
        assert await states() == {"v1": "former", "v2": "live"}
        await carried_out([("promoted", "v2")])
        assert answered(await world.detector.rollback(model="m"))["version"] == "v1"
        assert await states() == {"v1": "live", "v2": "former"}
        await carried_out([("promoted", "v2"), ("rolled_back", "v1")])
        with pytest.raises(KeyError, match="has logged something, got 'v9'"):
            await world.detector.promote(model="m", version="v9")

    run(history())
