"""The dispatcher without Ray: killed at every boundary it neither loses an order nor launches one twice or too early."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError

from actors import failpoints
from actors.clock import Instant
from actors.cluster.peers import Peers, PeerUnavailableError
from actors.replies import Unavailable
from actors.replies.retraining import Admitted, OrderRow
from actors.retraining.admissions import Admissions, Asked
from actors.retraining.commits import Commits
from actors.retraining.leases import Leases
from actors.retraining.rules.delivery import Done, Failed, Launched, Outcome, Retry, Stop
from actors.retraining.rules.orders import Order
from actors.storage import Store, schema
from actors.storage.schema import SYSTEM
from tests.known import answered, some
from tests.speed import slow
from tests.unit.retraining import world

COOLDOWN_S = 1800.0
NO_BREACH = {"lost": 0, "twice": 0, "inside a cooldown": 0}
POINTS = [
    "dispatcher.before_claim",
    "dispatcher.after_claim",
    "dispatcher.before_attempt",
    "dispatcher.after_attempt",
    "dispatcher.before_effect",
    "dispatcher.after_effect",
    "dispatcher.before_done",
    "dispatcher.after_done",
    "fence.held",
]
CHANNEL = {"defaults": {"handler": {"kind": "channel"}}}


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/store"


def make(url: str, document: dict[str, Any] | None = None, *, peers: Peers | None = None, **receiver: Any) -> world.World:
    return world.World(url, document, receiver=world.Receiver(world.FakeClock(), **receiver), peers=peers)


def follow_now(place: world.World) -> bool:
    """Let the next round follow what runs, whenever it was followed last; False, for conditions."""
    place.dispatcher._launcher.follow_at.clear()
    return False


async def killed_once(place: world.World, struck: list[str], episode: str, **request: Any) -> str:
    """Ask until it is recorded, starting a successor wherever the process was killed, as Ray and the outbox do."""
    for _ in range(400):
        try:
            reply: Admitted | Unavailable | None = await place.ask(episode, **request)
        except world.Killed:
            reply = None
        await asyncio.sleep(0.002)
        if struck and not struck[-1].startswith("buried"):
            struck.append("buried")
            place.bury()
            place.start()
            continue
        rows = [row for row in await place.rows() if row["episode"] == episode and row["state"] == "done"]
        if reply is not None and rows:
            return rows[0]["id"]
        place.dispatcher._wake()
    raise AssertionError(f"the order of {episode} never ended: {await place.rows()}")


@pytest.mark.parametrize("point", POINTS)
def test_killed_at_any_boundary_the_order_is_launched_once_and_outside_every_cooldown(
    url: str, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    async def story() -> None:
        place = make(url, slow_s=700.0)
        struck = world.die_at(monkeypatch, point)
        orders = [await killed_once(place, struck, "e-1")]
        assert struck, f"{point} was never reached"
        place.clock.advance(1000.0)
        assert (await place.request("e-2"))["decision"] == "skipped"
        place.clock.advance(801.0)
        orders.append(await killed_once(place, ["over", "buried"], "e-2"))
        assert world.breaches(place.receiver.launches, orders, COOLDOWN_S) == NO_BREACH

    asyncio.run(story())


def test_negative_control_a_receiver_without_put_if_absent_is_caught(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        place = make(url, forgetful=True)
        struck = world.die_at(monkeypatch, "dispatcher.after_effect")
        order = await killed_once(place, struck, "e-1")
        assert world.breaches(place.receiver.launches, [order], COOLDOWN_S)["twice"] == 1

    asyncio.run(story())


def test_negative_control_a_cooldown_that_is_not_armed_again_after_the_effect_is_caught(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        place = make(url, slow_s=700.0)
        settle = Commits.settle

        def without_arming(self: Commits, connection: Connection, order: Order, outcome: Outcome, now: Instant) -> Order:
            monkeypatch.setattr(Commits, "arm", lambda *_: None)
            try:
                return settle(self, connection, order, outcome, now)
            finally:
                monkeypatch.setattr(Commits, "arm", arm)

        arm = Commits.arm
        monkeypatch.setattr(Commits, "settle", without_arming)
        orders = [await killed_once(place, ["buried"], "e-1")]
        place.receiver.slow_s = 0.0
        place.clock.advance(1101.0)
        orders.append(await killed_once(place, ["buried"], "e-2"))
        assert world.breaches(place.receiver.launches, orders, COOLDOWN_S)["inside a cooldown"] == 1

    asyncio.run(story())


def test_negative_control_an_order_that_is_never_launched_is_caught() -> None:
    assert world.breaches([], ["r-1"], COOLDOWN_S)["lost"] == 1


@pytest.mark.parametrize(
    "point", ["dispatcher.before_take", "dispatcher.after_take", "dispatcher.before_finish", "dispatcher.after_finish"]
)
def test_killed_while_a_consumer_takes_or_finishes_the_order_is_done_once(
    url: str, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    async def story() -> None:
        place = make(url, CHANNEL)
        await place.request("e-1")
        struck = world.die_at(monkeypatch, point)
        for consumer in ("a", "b", "c"):
            try:
                taken = await place.dispatcher.take(consumer=consumer, timeout_s=0)
                if taken["status"] == "order":
                    done: dict[str, Any] = {
                        "order": taken["order"]["id"],
                        "token": taken["token"],
                        "outcome": "done",
                        "new_version": "2",
                    }
                    try:
                        assert (await place.dispatcher.finish(**done))["status"] == "recorded"
                    except world.Killed:
                        place.bury()
                        place.start()
                        assert (await place.dispatcher.finish(**done))["status"] == "recorded"
                    break
            except world.Killed:
                place.bury()
                place.start()
            for _ in range(35):  # a lease runs out while the dispatcher is there to hear renewals
                place.clock.advance(2.0)
                await place.dispatcher._launcher.round()
        assert struck
        rows = await place.rows()
        assert [(row["state"], row["new_version"]) for row in rows] == [("done", "2")]

    asyncio.run(story())


def test_a_waiting_consumer_gets_the_order_that_comes(url: str) -> None:
    async def story() -> None:
        place = make(url, CHANNEL)
        waiting = asyncio.create_task(place.dispatcher.take(consumer="c", timeout_s=60))
        await place.dispatcher.hello()
        await asyncio.sleep(0.05)
        assert not waiting.done()
        recorded = await place.request("e-1")
        taken = answered(await asyncio.wait_for(waiting, slow(30)))
        assert taken["order"]["id"] == recorded["order"]
        assert taken["order"]["event"]["explanation"] == {"baseline": {"n": 500, "mean": 0.93}}
        assert (taken["token"], taken["order"]["attempt"]) == (1, 1)

    asyncio.run(story())


def test_many_waiting_consumers_share_the_orders_that_come(url: str) -> None:
    async def story() -> None:
        place = make(url, CHANNEL)
        waiting = [asyncio.create_task(place.dispatcher.take(consumer=f"c-{n}", timeout_s=60)) for n in range(6)]
        given = [some((await place.request(f"e-{n}", f"m-{n}"))["order"]) for n in range(6)]
        taken = await asyncio.wait_for(asyncio.gather(*waiting), slow(30))
        assert sorted(answered(reply)["order"]["id"] for reply in taken) == sorted(given)
        assert {row["attempts"] for row in await place.rows()} == {1}

    asyncio.run(story())


def test_a_consumer_whose_wait_ends_as_the_order_comes_does_not_lose_it(url: str) -> None:
    async def story() -> None:
        place = make(url, CHANNEL)
        await place.rows()
        for number in range(30):
            waiting = asyncio.create_task(place.dispatcher.take(consumer="c", timeout_s=0.002 * (number % 10)))
            order = some((await place.request(f"e-{number}", f"m-{number}"))["order"])
            taken = answered(await asyncio.wait_for(waiting, slow(30)))
            if taken["status"] == "none":
                taken = answered(await place.dispatcher.take(consumer="c", timeout_s=0))
            assert taken["order"]["id"] == order
            await place.dispatcher.finish(order=order, token=taken["token"], outcome="done")

    asyncio.run(story())


def test_requests_that_wait_together_are_one_commit_and_each_gets_its_own_answer(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        place = make(url, CHANNEL)
        await place.rows()
        commits: list[None] = []
        honest = Commits.write

        def counted(self: Commits) -> AbstractContextManager[Connection]:
            commits.append(None)
            return honest(self)

        monkeypatch.setattr(Commits, "write", counted)
        asked = [place.request(f"e-{n}", f"m-{n % 40}") for n in range(120)]
        replies = await asyncio.gather(*asked)
        assert len(commits) <= 3, "the first alone, the others that came meanwhile together"
        assert [reply["decision"] for reply in replies] == ["dispatched"] * 40 + ["skipped"] * 80
        assert len({reply["order"] for reply in replies[:40]}) == 40
        again = await asyncio.gather(*(place.request(f"e-{n}", f"m-{n}") for n in range(40)))
        assert [reply["order"] for reply in again] == [reply["order"] for reply in replies[:40]]

    asyncio.run(story())


def test_a_request_that_cannot_be_answered_takes_no_other_along(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        place = make(url, CHANNEL)
        await place.rows()
        honest = Admissions.request_all

        def breaking(self: Admissions, asked: Sequence[Asked], now: Instant) -> list[Any]:
            if any(each.request.model == "broken" for each in asked):
                raise TypeError("a bug")
            return honest(self, asked, now)

        monkeypatch.setattr(Admissions, "request_all", breaking)
        asked = [place.request(f"e-{n}", model) for n, model in enumerate(["first", "broken", "last"])]
        first, broken, last = await asyncio.gather(*asked, return_exceptions=True)
        assert isinstance(broken, TypeError)
        assert not isinstance(first, BaseException)
        assert not isinstance(last, BaseException)
        assert [first["decision"], last["decision"]] == ["dispatched", "dispatched"]

    asyncio.run(story())


def test_consumers_are_counted_before_they_wait_and_refused_beyond_a_limit(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        place = make(url, CHANNEL)
        await place.rows()
        gate, honest = threading.Event(), Leases.take

        def locked(self: Leases, consumer: str, model: str | None, now: Instant) -> object:
            gate.wait(slow(60))  # the store is locked: nobody has come as far as waiting for an order
            return honest(self, consumer, model, now)

        monkeypatch.setattr(Leases, "take", locked)
        waiting = [asyncio.create_task(place.dispatcher.take(consumer=f"c-{n}", timeout_s=0)) for n in range(1200)]
        await asyncio.sleep(0)
        refused = [task.result() for task in waiting if task.done()]
        assert len(refused) == 700
        assert {reply["status"] for reply in refused} == {"unavailable"}
        assert all(reply["retry_in_s"] > 0 for reply in refused)
        gate.set()
        replies = await asyncio.gather(*waiting)
        assert sum(reply["status"] == "none" for reply in replies) == 500
        assert (await place.dispatcher.take(consumer="c", timeout_s=0))["status"] == "none", "places are given back"

    asyncio.run(story())


def test_calls_beyond_what_the_actor_has_places_for_are_answered_at_once_while_the_store_is_locked(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        place = make(url, CHANNEL)
        await place.rows()
        gate, honest = threading.Event(), Leases.renew

        def locked(self: Leases, *arguments: Any) -> object:
            gate.wait(slow(60))
            return honest(self, *arguments)

        monkeypatch.setattr(Leases, "renew", locked)
        calls = [asyncio.create_task(place.dispatcher.renew(order="o", token=1)) for _ in range(1500)]
        await asyncio.sleep(0)
        assert (await asyncio.wait_for(place.dispatcher.hello(), slow(5)))["actor"] == "dispatcher"
        refused = [task.result() for task in calls if task.done()]
        assert len(refused) == 600
        assert {reply["status"] for reply in refused} == {"unavailable"}
        gate.set()
        assert [reply["status"] for reply in await asyncio.gather(*calls)].count("lost") == 900

    asyncio.run(story())


def test_a_consumer_of_one_model_is_not_given_another(url: str) -> None:
    async def story() -> None:
        place = make(url, CHANNEL)
        await place.request("e-1", "fraud")
        assert await place.dispatcher.take(consumer="c", model="other", timeout_s=0) == {"status": "none"}
        assert (await place.dispatcher.take(consumer="c", model="fraud", timeout_s=0))["status"] == "order"

    asyncio.run(story())


def tried(times: int, rows: list[OrderRow]) -> bool:
    """Whether the first order has been tried so often, and waits again or is given up."""
    return rows[0]["attempts"] == times and rows[0]["state"] in {"pending", "dead"}


def test_failed_launches_are_tried_again_then_listed_as_dead_and_put_back(url: str) -> None:
    async def story() -> None:
        place = make(url)
        place.receiver.answer = lambda _order: Retry("HTTP 500")
        await place.request("e-1")
        rows = await place.until(lambda rows: rows[0]["attempts"] == 1 and rows[0]["state"] == "pending")
        for attempt in range(2, 9):
            place.clock.advance(700.0)
            await place.until(partial(tried, attempt))
        rows = await place.until(lambda rows: rows[0]["state"] == "dead", "the dead letter")
        assert rows[0]["attempts"] == 8
        assert rows[0]["reason"] == "given up after 8 failed attempts: HTTP 500"
        place.receiver.answer = lambda _order: Done()
        assert answered(await place.dispatcher.retry(order=rows[0]["id"]))["order"] == rows[0]["id"]
        rows = await place.until(lambda rows: rows[0]["state"] == "done")
        assert rows[0]["attempts"] == 9
        shown = answered(await place.dispatcher.order(order=rows[0]["id"]))
        assert [entry["outcome"] for entry in shown["attempt_log"]] == ["retry"] * 8 + ["done"]

    asyncio.run(story())


@pytest.mark.parametrize(("answer", "state"), [(Stop("410"), "dead"), (Failed("oom"), "failed"), (Done("2"), "done")])
def test_what_a_handler_says_is_what_the_history_shows(url: str, answer: Outcome, state: str) -> None:
    async def story() -> None:
        place = make(url)
        place.receiver.answer = lambda _order: answer
        await place.request("e-1")
        rows = await place.until(lambda rows: rows[0]["state"] == state)
        assert rows[0]["finished_at"] is not None
        assert place.receiver.forgotten == [rows[0]["id"]]

    asyncio.run(story())


def test_a_handler_that_raises_is_a_failed_attempt_with_its_reason(url: str) -> None:
    async def story() -> None:
        place = make(url)

        def explode(_order: Order) -> Outcome:
            raise RuntimeError("no such host")

        place.receiver.answer = explode
        await place.request("e-1")
        rows = await place.until(lambda rows: rows[0]["attempts"] == 1 and rows[0]["state"] == "pending")
        assert rows[0]["reason"] == "RuntimeError: no such host"

    asyncio.run(story())


@pytest.mark.parametrize("answer", [Failed("no such file: \udc80.csv"), Done("2", "wrote \udc80.csv"), Stop("gone: \udc80")])
def test_an_outcome_whose_text_no_database_can_hold_is_recorded_all_the_same(url: str, answer: Failed | Done | Stop) -> None:
    async def story() -> None:
        place = make(url)
        place.receiver.answer = lambda _order: answer
        await place.request("e-1")
        rows = await place.until(lambda rows: rows[0]["finished_at"] is not None)
        assert rows[0]["reason"] == answer.reason.replace("\udc80", "\\udc80")

    asyncio.run(story())


def test_where_nobody_can_tell_how_an_attempt_goes_no_second_one_is_begun(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        place = make(url)
        place.receiver.answer = lambda _order: Launched()
        await place.request("e-1")
        await place.until(lambda rows: rows[0]["state"] == "running")

        async def broken(_handler: object, _order: Order) -> None:
            raise TypeError("the runner speaks another language")

        with monkeypatch.context() as patch:
            patch.setattr(world.FakeHandler, "follow", broken)
            for _ in range(10):
                place.dispatcher._launcher.follow_at.clear()
                await place.dispatcher._launcher.round()
                await asyncio.sleep(0.002)
        assert [(row["state"], row["attempts"]) for row in await place.rows()] == [("running", 1)]
        place.receiver.answer = lambda _order: Done()
        place.receiver.launches.clear()
        rows = await place.until(lambda rows: follow_now(place) or rows[0]["state"] == "done")
        assert rows[0]["attempts"] == 2

    asyncio.run(story())


def test_after_a_restart_what_still_runs_is_followed_and_not_launched_again(url: str) -> None:
    async def story() -> None:
        place = make(url)
        place.receiver.answer = lambda _order: Launched()
        await place.request("e-1")
        await place.until(lambda rows: rows[0]["state"] == "running")
        await asyncio.sleep(0.02)
        place.bury()
        place.start()
        for _ in range(20):
            await place.dispatcher._launcher.round()
            await asyncio.sleep(0.002)
        rows = await place.rows()
        assert (rows[0]["state"], rows[0]["attempts"]) == ("running", 1)
        assert len(place.receiver.launches) == 1

    asyncio.run(story())


def test_a_pending_order_expires_when_a_new_version_comes(url: str) -> None:
    async def story() -> None:
        place = make(url, CHANNEL)
        order = some((await place.request("e-1"))["order"])
        assert await place.dispatcher.overtaken(model="fraud", version="2") == {"status": "recorded", "expired": order}
        assert (await place.dispatcher.take(consumer="c", timeout_s=0))["status"] == "none"
        found = await place.dispatcher.orders(episodes=["e-1", "e-9"])
        unknown = dict.fromkeys(("new_version", "promise", "promise_n", "verdict"))
        assert found == {"e-1": {"order": order, "state": "expired", "reason": "version '2' came first", **unknown}}

    asyncio.run(story())


def test_a_person_passes_cooldown_and_silence_and_the_history_says_so(url: str) -> None:
    async def story() -> None:
        place = make(url, CHANNEL)
        order = some((await place.request("e-1"))["order"])
        refused = answered(await place.dispatcher.trigger(model="fraud", reason="now"))
        assert (refused["decision"], refused["reason"]) == ("skipped", f"order {order} of this model is not finished")
        await place.dispatcher.finish(order=order, outcome="done")
        silence = answered(await place.dispatcher.silence(model="fraud", duration_s=60.0))["silence"]
        given = answered(await place.dispatcher.trigger(model="fraud", reason="now", key="k"))
        assert given["decision"] == "dispatched"
        assert given["reason"] == f"manual: now (passes silence {silence} and cooldown of {order})"
        assert answered(await place.dispatcher.trigger(model="fraud", reason="now", key="k"))["order"] == given["order"]

    asyncio.run(story())


def test_a_reload_sends_what_is_pending_to_the_handler_that_is_configured_now(url: str) -> None:
    async def story() -> None:
        place = make(url, CHANNEL)
        await place.request("e-1")
        place.configure({"defaults": {"handler": {"kind": "webhook", "url": "http://127.0.0.1:9/"}}})
        assert await place.dispatcher.reload() == {"status": "reloaded"}
        rows = await place.until(lambda rows: rows[0]["state"] == "done")
        assert rows[0]["handler"] == "webhook"

    asyncio.run(story())


def test_while_the_store_is_away_it_says_so_and_nothing_has_changed(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        place = make(url, CHANNEL)
        await place.rows()

        def full(*_arguments: Any) -> None:
            raise OperationalError("INSERT", {}, Exception("database or disk is full"))

        with monkeypatch.context() as patch:
            patch.setattr(Admissions, "request_all", full)
            reply = await place.ask("e-1")
        assert reply == {"status": "unavailable", "reason": "database or disk is full", "retry_in_s": 1.0}
        assert await place.rows() == []
        assert (await place.request("e-1"))["decision"] == "dispatched"

    asyncio.run(story())


def test_a_store_that_cannot_be_opened_is_no_reason_to_end(tmp_path: Path) -> None:
    async def story() -> None:
        (tmp_path / "file").write_text("not a folder")
        good = make(f"sqlite:///{tmp_path}/store", CHANNEL)
        good.url = f"sqlite:///{tmp_path}/file"
        good.start()
        assert (await good.ask("e-1"))["status"] == "unavailable"
        assert (await good.dispatcher.hello())["epoch"] == 0
        good.bury()

    asyncio.run(story())


def test_a_dispatcher_that_was_succeeded_ends_itself_and_commits_nothing(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        place = make(url, CHANNEL)
        await place.request("e-1")
        ended: list[object] = []
        monkeypatch.setattr("actors.cluster.deployment.end_stale_process", ended.append)
        old = place.dispatcher
        place.start()
        await place.rows()
        with pytest.raises(RuntimeError, match="has been succeeded"):
            await old.trigger(model="other", reason="zombie")
        assert len(ended) >= 1
        assert [row["model"] for row in await place.rows()] == ["fraud"]

    asyncio.run(story())


class Broadcaster:
    """Takes promises; plays an outage for the first calls."""

    def __init__(self, *problems: Exception) -> None:
        self.problems = list(problems)
        self.taken: list[dict[str, Any]] = []

    async def call(self, name: str, method: str, /, *, timeout_s: float, **arguments: Any) -> dict[str, str]:
        assert (name, method) == ("broadcaster", "promise")
        if self.problems:
            raise self.problems.pop(0)
        self.taken.append(arguments)
        return {"status": "recorded"}


@pytest.mark.parametrize("problems", [[], [PeerUnavailableError("gone")], [AttributeError("an older build")]])
def test_the_promise_of_a_new_version_is_passed_on_until_it_is_acknowledged(
    url: str, problems: list[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.retraining.launcher._PROMISE_RETRY_S", 0.0)

    async def story() -> None:
        broadcaster = Broadcaster(*problems)
        place = make(url, CHANNEL, peers=broadcaster)
        order = some((await place.request("e-1"))["order"])
        taken = answered(await place.dispatcher.take(consumer="c", timeout_s=0))
        done: dict[str, Any] = {"order": order, "token": taken["token"], "outcome": "done", "new_version": "2"}
        await place.dispatcher.finish(**done, promise=0.91, promise_n=2500)
        await place.until(lambda _rows: broadcaster.taken, "the promise")
        assert broadcaster.taken[0] == {
            "model": "fraud",
            "version": "2",
            "values": {"accuracy": 0.91},
            "n": 2500.0,
            "source": "cross_validation",
        }
        await place.until(lambda _rows: place.dispatcher._launcher._idle, "idleness")
        broadcaster.taken.clear()
        place.bury()
        place.start()
        for _ in range(5):
            await place.dispatcher._launcher.round()
        assert broadcaster.taken == []
        assert answered(await place.dispatcher.orders(episodes=["e-1"]))["e-1"]["promise_n"] == 2500.0

    asyncio.run(story())


def test_a_promise_that_is_refused_is_tried_no_more(url: str, caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        broadcaster = Broadcaster(ValueError("version must be ..."))
        place = make(url, CHANNEL, peers=broadcaster)
        order = some((await place.request("e-1"))["order"])
        await place.dispatcher.finish(order=order, outcome="done", new_version="2", promise=0.91, promise_n=2500)
        await place.until(lambda _rows: not broadcaster.problems)
        await place.until(lambda _rows: place.dispatcher._launcher._idle, "idleness")
        assert broadcaster.taken == []

    asyncio.run(story())
    assert "is refused and not used: version must be" in caplog.text


def test_four_hundred_orders_on_a_receiver_that_hangs_do_not_delay_another_models_retrain(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = {"kind": "webhook", "url": "http://slow.example/"}
    quick = {"kind": "webhook", "url": "http://quick.example/"}

    async def story() -> None:
        place = make(url, {"defaults": {"handler": slow}, "models": {"other": {"handler": quick}}})
        hanging, honest = asyncio.Event(), world.FakeHandler.launch
        at_once: list[str] = []

        async def launch(self: world.FakeHandler, order: Order) -> Outcome:
            if order.model != "other":
                at_once.append(order.id)
                await hanging.wait()
                return Retry("no answer within 10 s", silent=True)
            return await honest(self, order)

        monkeypatch.setattr(world.FakeHandler, "launch", launch)
        await asyncio.gather(*(place.request(f"e-{n}", f"m-{n}") for n in range(400)))
        await place.until(lambda _rows: len(at_once) == 8, "eight hang")
        order = some((await place.request("e-other", "other"))["order"])
        rows = await place.until(lambda rows: rows[-1]["state"] == "done", "the other's retrain")
        assert (rows[-1]["id"], rows[-1]["attempts"]) == (order, 1)
        hanging.set()
        await place.until(lambda rows: sum(row["attempts"] for row in rows) == 9, "the circuit opens")
        for _ in range(20):
            await place.dispatcher._launcher.round()
        assert len(at_once) == 8, "it is left alone for a while"
        waiting = answered(await place.dispatcher.queue())["rows"]
        assert len(waiting) == 400

    asyncio.run(story())


def test_an_order_that_runs_for_too_long_is_stopped_before_the_model_is_free(url: str) -> None:
    async def story() -> None:
        place = make(url, {"defaults": {"handler": {"kind": "task", "target": "m:f"}}, "orders": {"timeout": "1h"}})
        place.receiver.answer = lambda _order: Launched()
        place.receiver.stops = False
        await place.request("e-1")
        await place.until(lambda rows: rows[0]["state"] == "running")
        place.clock.advance(3601.0)
        await place.until(lambda _rows: follow_now(place) or place.receiver.stopped)
        assert (await place.rows())[0]["state"] == "running", "its job is still there"
        place.receiver.stops = True
        rows = await place.until(lambda rows: follow_now(place) or rows[0]["state"] == "failed")
        assert rows[0]["reason"] == "ended by orders.timeout after 3600 s"

    asyncio.run(story())


@pytest.mark.parametrize("point", POINTS)
def test_killed_at_any_boundary_no_more_orders_run_than_the_limit_and_each_is_launched_once(
    url: str, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    async def story() -> None:
        place = make(url, {"defaults": {"handler": {"kind": "task", "target": "m:f"}}, "orders": {"max_running": 2}})
        place.receiver.answer = lambda _order: Launched()
        struck = world.die_at(monkeypatch, point)
        ended, most = set(), 0
        for turn in range(600):
            with contextlib.suppress(world.Killed):
                number = turn % 5
                asked: dict[str, Any] = {"key": f"k-{number}", "cause": "shortfall", "lost": 10.0 + number, "price": 10.0}
                await place.request("", f"m-{number}", **asked)
            await asyncio.sleep(0.002)
            if struck and not struck[-1].startswith("buried"):
                struck.append("buried")
                place.bury()
                place.start()
            rows = await place.rows()
            running = [row["id"] for row in rows if row["state"] == "running"]
            most = max(most, len(running))
            begun = [id_ for _at, _model, id_ in place.receiver.launches if id_ in running]
            if begun and turn % 3 == 0:
                with contextlib.suppress(world.Killed):
                    await place.dispatcher.finish(order=begun[0], outcome="done")
                    ended.add(begun[0])
            if len(ended) == 5:
                break
            place.dispatcher._wake()
        assert struck
        assert most == 2
        assert len(ended) == 5
        launched = [id_ for _at, _model, id_ in place.receiver.launches]
        assert sorted(launched) == sorted(ended)

    asyncio.run(story())


def test_a_restart_keeps_the_limits_and_a_reload_changes_them(url: str) -> None:
    async def story() -> None:
        place = make(url, {"defaults": {"handler": {"kind": "task", "target": "m:f"}}, "orders": {"max_running": 1}})
        place.receiver.answer = lambda _order: Launched()
        for number in range(3):
            await place.request(f"e-{number}", f"m-{number}")
        await place.until(lambda rows: [row["state"] for row in rows] == ["running", "pending", "pending"])
        place.bury()
        place.start()
        for _ in range(5):
            await place.dispatcher._launcher.round()
        waiting = answered(await place.dispatcher.queue())["rows"]
        assert [(row["place"], row["model"], row["why"]) for row in waiting] == [
            (1, "m-1", "1 orders run, max_running is 1"),
            (2, "m-2", "1 orders run, max_running is 1"),
        ]
        await place.dispatcher.front(order=waiting[1]["id"])
        place.configure({"defaults": {"handler": {"kind": "task", "target": "m:f"}}, "orders": {"max_running": 2}})
        await place.dispatcher.reload()
        await place.until(lambda rows: [row["state"] for row in rows] == ["running", "pending", "running"])

    asyncio.run(story())


def test_who_did_what_with_an_order_is_in_its_history_once(url: str) -> None:
    async def story() -> None:
        place = make(url, CHANNEL)
        asked: dict[str, Any] = {"model": "fraud", "reason": "new labels", "key": "k", "by": "ada", "comment": "for March"}
        order = some(answered(await place.dispatcher.trigger(**asked))["order"])
        assert answered(await place.dispatcher.trigger(**asked))["order"] == order, "sent again after a reply was lost"
        await place.dispatcher.front(order=order, by="bob")
        await place.dispatcher.finish(order=order, outcome="failed", reason="no labels")
        place.bury()
        place.start()
        await place.dispatcher.retry(order=order, by="eve")
        await place.dispatcher.retry(order=order, by="eve")
        await place.dispatcher.finish(order=order, outcome="failed", reason="again")
        await place.dispatcher.dismiss(order=order, reason="by hand", by="ada")
        await place.dispatcher.dismiss(order=order, reason="by hand", by="ada")
        (row,) = await place.rows()
        assert [(act["act"], act["by"], act["comment"]) for act in row["acts"]] == [
            ("triggered", "ada", "for March"),
            ("front", "bob", None),
            ("retried", "eve", None),
            ("dismissed", "ada", None),
        ]
        assert answered(await place.dispatcher.order(order=order))["acts"] == row["acts"]
        with pytest.raises(ValueError, match="by must be a string of 1 to 200 characters"):
            await place.dispatcher.retry(order=order, by="x" * 201)
        with pytest.raises(KeyError, match="known retrain order, got 'nobody'"):
            await place.dispatcher.dismiss(order="nobody", reason="x", by="ada")

    asyncio.run(story())


def test_names_that_can_match_nothing_are_refused_and_models_that_never_logged_warned_about(url: str) -> None:
    async def story() -> None:
        place = make(url, CHANNEL)
        assert "has never logged" in answered(await place.dispatcher.trigger(model="fruad", reason="now"))["warning"]
        silence = answered(await place.dispatcher.silence(model="fruad-*", duration_s=60))
        assert "no model that has ever logged matches 'fruad-*'" in silence["warning"]
        with Store(url).part(SYSTEM).write() as connection:
            connection.execute(schema.placements.insert().values(model="fruad-eu", process="detector:fruad-eu", slot=0))
        assert "warning" not in await place.dispatcher.silence(model="fruad-*", duration_s=60)
        assert "warning" not in await place.dispatcher.trigger(model="fruad-eu", reason="now")
        covering = answered(await place.dispatcher.silences(model="fruad-eu"))["silences"]
        assert [row["model"] for row in covering] == ["fruad-*", "fruad-*"]
        assert answered(await place.dispatcher.silences(model="other"))["silences"] == []

    asyncio.run(story())


PROMOTING = {
    "defaults": {
        "handler": {"kind": "channel"},
        "promotion": {"gate": "challenger", "handler": {"kind": "webhook", "url": "http://127.0.0.1:9/"}},
    }
}
PROMOTED: dict[str, Any] = {
    "key": "k-1",
    "model": "fraud",
    "version": "2",
    "over": "1",
    "kind": "promoted",
    "evidence": {"rows": 9},
}


@pytest.mark.parametrize("point", [None, "dispatcher.before_promotion", "dispatcher.after_promotion", *POINTS[2:]])
def test_a_version_is_promoted_by_its_own_handler_effectively_once_wherever_it_is_killed(
    url: str, monkeypatch: pytest.MonkeyPatch, point: str | None
) -> None:
    async def story() -> None:
        place = make(url, PROMOTING)
        await place.request("e-1")  # a retrain under way holds up no promotion
        struck = world.die_at(monkeypatch, point) if point else ["buried"]
        deadline_s = time.monotonic() + slow(30)
        while time.monotonic() < deadline_s:
            with contextlib.suppress(world.Killed):
                await place.dispatcher.promoted(**PROMOTED)
            await asyncio.sleep(0.002)
            if struck and not struck[-1].startswith("buried"):
                struck.append("buried")
                place.bury()
                place.start()
            rows = answered(await place.dispatcher.promotions())["rows"]
            if struck and rows and rows[-1]["state"] == "done":
                break
            place.dispatcher._wake()
        assert [(row["cause"], row["version"], row["state"]) for row in rows] == [("promoted", "2", "done")]
        assert [(model, id_) for _at, model, id_ in place.receiver.launches] == [("fraud", rows[0]["id"])]
        assert [row["state"] for row in await place.rows()] == ["pending"], "the retrain waits for its consumer, as before"

    asyncio.run(story())


def test_a_decision_about_a_model_of_a_registry_goes_there_first_and_then_to_its_own_handler(url: str) -> None:
    async def story() -> None:
        registry = {"mlflow": {"url": "http://127.0.0.1:9", "models": {"there": "fraud", "other": "quiet"}}}
        place = make(url, PROMOTING | {"registry": registry, "models": {"quiet": {"promotion": {"handler": None}}}})
        for _ in range(2):
            await place.dispatcher.promoted(**PROMOTED)
            await place.dispatcher.promoted(**PROMOTED | {"model": "quiet", "key": "k-3"})
        for _ in range(300):
            listed: Any = await place.dispatcher.promotions()
            rows = listed["rows"]
            if all(row["state"] == "done" for row in rows):
                break
            place.dispatcher._wake()
            await asyncio.sleep(0.002)
        assert [(row["model"], row["handler"]) for row in rows] == [
            ("fraud", "mlflow_alias"),
            ("fraud", "webhook"),
            ("quiet", "mlflow_alias"),
        ]
        assert [model for _at, model, _id in place.receiver.launches if model == "fraud"] == ["fraud", "fraud"]

    asyncio.run(story())


def test_decisions_of_one_model_are_carried_out_in_their_order_and_without_a_handler_only_recorded(url: str) -> None:
    async def story() -> None:
        place = make(url, PROMOTING | {"models": {"quiet": {"promotion": {"handler": None}}}})
        answers: list[Outcome] = [Retry("HTTP 500"), Done(), Done()]
        place.receiver.answer = lambda _order: answers.pop(0)
        back = PROMOTED | {"key": "k-2", "version": "1", "over": "2", "kind": "rolled_back"}
        assert await place.dispatcher.promoted(**PROMOTED) == {"status": "recorded"}
        assert await place.dispatcher.promoted(**back) == {"status": "recorded"}
        await place.dispatcher.promoted(**PROMOTED | {"model": "quiet", "key": "k-3"})
        for _ in range(300):
            rows = answered(await place.dispatcher.promotions(model="fraud"))["rows"]
            if all(row["state"] == "done" for row in rows):
                break
            place.clock.advance(1.0)
            place.dispatcher._wake()
            await asyncio.sleep(0.002)
        assert [(row["cause"], row["attempts"], row["state"]) for row in rows] == [
            ("promoted", 2, "done"),
            ("rolled_back", 1, "done"),
        ]
        (quiet,) = answered(await place.dispatcher.promotions(model="quiet"))["rows"]
        assert (quiet["state"], quiet["reason"]) == ("done", "no promotion.handler is configured")
        assert answered(await place.dispatcher.history())["rows"] == []

    asyncio.run(story())


DONE = {"order": "x", "outcome": "done", "new_version": "2"}
JUDGED = {"order": "x", "verdict": "paid", "saved": 1.0, "standard_error": 1.0, "at": 1.0}
BAD: list[tuple[str, dict[str, Any], str]] = [
    ("request", {"cause": "age"}, "cause must be 'alarm' or 'shortfall', got 'age'"),
    ("request", {"cause": "shortfall", "episode": ""}, "key must be given for cause 'shortfall'"),
    ("request", {"lost": "much"}, "lost and price must be numbers or None, got 'much'"),
    ("finish", DONE | {"promise": 1.5, "promise_n": 9}, "promise must be from 0 to 1"),
    ("finish", DONE | {"promise": 0.9}, "promise and promise_n must be given together"),
    ("finish", DONE | {"promise": 0.9, "promise_n": 0}, "promise_n must be from 1 to 1e\\+12, got 0"),
    ("finish", DONE | {"promise": 0.9, "promise_n": 0.5}, "promise_n must be from 1 to 1e\\+12, got 0.5"),
    ("finish", DONE | {"promise": 0.9, "promise_n": 9, "new_version": None}, "promise must come with its new_version"),
    ("finish", DONE | {"promise": 0.9, "promise_n": 9, "outcome": "failed"}, "promise must come with outcome 'done'"),
    ("verdict", JUDGED | {"verdict": "maybe"}, "verdict must be one of paid, did not pay"),
    ("promoted", PROMOTED | {"kind": "went live"}, "kind must be one of promoted, rolled_back, got 'went live'"),
    ("deployed", {"model": "m", "version": "1", "at": float("nan")}, "at must be a finite number"),
    ("trigger", {"model": "fraud-*", "reason": "x"}, "model must be the name of one model, not a pattern"),
    ("silence", {"model": "fraud\u200b", "duration_s": 1}, "model must not contain an invisible character"),
    ("silence", {"model": "fraud-*\u202e", "duration_s": 1}, "model must not contain an invisible character"),
    ("trigger", {"model": "fraud\u200b", "reason": "x"}, "model must not contain an invisible character"),
    ("silence", {"model": "fraud-[", "duration_s": 1}, "that a name can match, got 'fraud-\\['"),
    ("dismiss", {"order": "x", "reason": ""}, "reason must be a string"),
    ("request", {"model": ""}, "model must be a string of 1 to 200 characters"),
    ("request", {"model": "m" * 201}, "model must be a string"),
    ("request", {"version": 7}, "version must be a string .* got 7"),
    ("request", {"triggered_at": float("nan")}, "triggered_at must be a finite number, got nan"),
    ("request", {"triggered_at": True}, "triggered_at must be a finite number, got True"),
    ("request", {"explanation": []}, "explanation must be a mapping"),
    ("request", {"explanation": {"x": "y" * 300_000}}, "explanation must have at most"),
    ("request", {"episode": "a\nb"}, "episode must be a string"),
    ("request", {"version": "v\udc80"}, r"version must be a string .* got 'v\\udc80'"),
    ("take", {"consumer": "", "timeout_s": 0}, "consumer must be a string"),
    ("take", {"consumer": "c", "timeout_s": 1e6}, "timeout_s must be from 0 to 300"),
    ("finish", {"order": "x", "outcome": "perhaps"}, "outcome must be 'done' or 'failed', got 'perhaps'"),
    ("silence", {"model": "m", "duration_s": 0}, "duration_s must be above 0"),
    ("silence", {"model": "m", "duration_s": float("inf")}, "duration_s must be a finite number"),
    ("trigger", {"model": "m", "reason": ""}, "reason must be a string"),
    ("history", {"limit": 0}, "limit must be from 1"),
    ("history", {"state": "lost"}, "state must be one of"),
    ("orders", {"episodes": "e-1"}, "episodes must be a list"),
]


@pytest.mark.parametrize(("method", "wrong", "rule"), BAD)
def test_bad_input_is_refused_and_changes_nothing(url: str, method: str, wrong: dict[str, Any], rule: str) -> None:
    async def story() -> None:
        place = make(url, CHANNEL)
        with pytest.raises(ValueError, match=rule):
            await (
                place.request(**({"episode": "e-1"} | wrong))
                if method == "request"
                else getattr(place.dispatcher, method)(**wrong)
            )
        assert await place.rows() == []

    asyncio.run(story())


@pytest.mark.parametrize(
    ("method", "wrong"),
    [
        ("finish", {"outcome": "done"}),
        ("retry", {}),
        ("order", {}),
        ("front", {}),
        ("dismiss", {"reason": "x"}),
        ("release", {"token": 1, "reason": "x"}),
    ],
)
def test_an_unknown_order_is_a_key_error(url: str, method: str, wrong: dict[str, Any]) -> None:
    async def story() -> None:
        place = make(url, CHANNEL)
        with pytest.raises(KeyError, match="got 'nope'"):
            await getattr(place.dispatcher, method)(order="nope", **wrong)

    asyncio.run(story())


def test_drift_without_measure_is_no_reason_to_lose_an_order(url: str) -> None:
    async def story() -> None:
        place = make(url, CHANNEL)
        assert (await place.request("e-1", observed_drift=float("inf")))["decision"] == "dispatched"

    asyncio.run(story())


def test_failpoints_cost_nothing_unless_a_test_armed_one() -> None:
    unarmed: Callable[[str], object] = failpoints.reach
    assert unarmed("dispatcher.before_claim") is None


def test_models_share_a_plan_where_the_same_entries_speak_of_them(url: str) -> None:
    document = {"models": {"fraud-*": {"cooldown": "5m"}, "fraud-eu": {"labels": {"team": "risk"}}}}

    async def story() -> None:
        place = make(url, document)
        await place.ask("e-1")
        plan_of = place.dispatcher._thread._plan_of
        assert plan_of("one") is plan_of("other")
        assert plan_of("fraud-us") is plan_of("fraud-uk") is not plan_of("one")
        assert (plan_of("fraud-us").cooldown_s, plan_of("fraud-eu").cooldown_s) == (300, 300)
        assert (plan_of("fraud-us").labels, plan_of("fraud-eu").labels) == ({}, {"team": "risk"})

    asyncio.run(story())
