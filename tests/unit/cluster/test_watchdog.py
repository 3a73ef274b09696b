"""The watchdog: whom it replaces, whom it makes again, whom it leaves alone."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.cluster import watchdog
from actors.cluster.watchdog import Heard, Ping, Watchdog
from tests.speed import slow


def test_three_silent_pings_in_a_row_replace_an_actor_that_had_answered() -> None:
    dog = Watchdog()
    assert dog.decide("tuner", "answered", 0.0) == "leave"
    assert [dog.decide("tuner", "silent", at) for at in (2.0, 4.0, 6.0)] == ["leave", "leave", "replace"]


def test_an_answer_in_between_begins_the_count_anew() -> None:
    dog = Watchdog()
    heard: list[Heard] = ["answered", "silent", "silent", "answered", "silent", "silent"]
    assert {dog.decide("tuner", each, float(at)) for at, each in enumerate(heard)} == {"leave"}


def test_the_replacement_gets_time_to_answer() -> None:
    dog = Watchdog(after_s=20.0)
    decisions = [dog.decide("tuner", "silent", 2.0 * at) for at in range(13)]
    assert [at for at, each in enumerate(decisions) if each == "replace"] == [2, 12]


def test_an_actor_that_ray_restarts_is_left_to_ray() -> None:
    dog = Watchdog()
    dog.decide("tuner", "answered", 0.0)
    heard: list[Heard] = ["silent", "silent", "restarting", "silent", "silent"]
    assert {dog.decide("tuner", each, float(at)) for at, each in enumerate(heard)} == {"leave"}


def test_an_actor_that_is_gone_is_made_again_at_once() -> None:
    dog = Watchdog()
    dog.decide("tuner", "answered", 0.0)
    assert dog.decide("tuner", "gone", 2.0) == "spawn"


def test_one_actor_s_silence_is_not_another_s() -> None:
    dog = Watchdog()
    for name in ("a", "b"):
        dog.decide(name, "answered", 0.0)
    dog.decide("a", "silent", 2.0)
    dog.decide("a", "silent", 4.0)
    assert dog.decide("b", "silent", 6.0) == "leave"
    assert dog.decide("a", "silent", 6.0) == "replace"


def test_an_actor_that_works_while_it_does_not_answer_is_busy_and_gets_a_minute() -> None:
    dog = Watchdog()
    decisions = [dog.decide("detector", "busy", 2.0 * at) for at in range(30)]
    assert decisions == ["leave"] * 29 + ["replace"]


def test_an_actor_that_was_busy_and_stops_working_is_frozen() -> None:
    dog = Watchdog()
    heard: list[Heard] = ["silent", "busy", "busy", "silent", "silent", "silent"]
    assert [dog.decide("detector", each, 2.0 * at) for at, each in enumerate(heard)] == ["leave"] * 5 + ["replace"]


def test_a_process_that_works_is_told_from_one_that_is_stopped_or_gone() -> None:
    working = subprocess.Popen([sys.executable, "-c", "print(flush=True)\nwhile True: pass"], stdout=subprocess.PIPE)
    assert working.stdout is not None
    working.stdout.readline()
    hands = watchdog.RayHands("ns", "sqlite:///x")
    try:
        assert not hands._works("detector", working.pid, 0.1), "there is nothing to compare with yet"
        deadline = time.monotonic() + slow(30)
        while not hands._works("detector", working.pid, 0.1):
            assert time.monotonic() < deadline
        working.send_signal(signal.SIGSTOP)
        while watchdog.processor_s(working.pid) is not None:
            assert time.monotonic() < deadline
        assert not hands._works("detector", working.pid, 0.0)
    finally:
        working.kill()
        working.wait()
        working.stdout.close()
    assert watchdog.processor_s(working.pid) is None


def test_an_actor_that_answers_from_another_process_was_restarted_by_ray_and_that_is_told_once() -> None:
    dog = Watchdog()
    seen: list[Ping] = [
        Ping("answered", "n:1"),
        Ping("silent"),
        Ping("restarting"),
        Ping("answered", "n:2"),
        Ping("answered", "n:2"),
    ]
    assert [dog.decide("tuner", *each) for each in ((ping.heard, 2.0 * at, ping.process) for at, ping in enumerate(seen))] == [
        "leave", "leave", "leave", "tell", "leave",
    ]  # fmt: skip


@pytest.mark.parametrize("before", [["gone"], ["silent", "silent", "silent"]])
def test_the_process_that_follows_one_that_the_watchdog_ended_or_made_again_is_not_told_a_second_time(
    before: list[Heard],
) -> None:
    dog = Watchdog()
    dog.decide("tuner", "answered", 0.0, "n:1")
    assert [dog.decide("tuner", each, 1.0 + at) for at, each in enumerate(before)][-1] in {"spawn", "replace"}
    assert dog.decide("tuner", "answered", 9.0, "n:2") == "leave"


@given(st.lists(st.sampled_from(["answered", "silent", "restarting"]), max_size=60))
def test_nobody_is_replaced_without_so_many_misses_since_the_last_answer(heard: list[Heard]) -> None:
    dog, silent = Watchdog(), 0
    for at, each in enumerate(heard):
        silent = silent + 1 if each == "silent" else 0
        if dog.decide("x", each, at * 2.0) == "replace":
            assert silent >= watchdog.MISSES
            silent = 0


class FakeHands:
    """Actors that answer as the test says."""

    def __init__(self, heard: Mapping[str, list[Heard]]) -> None:
        self._heard = {name: list(each) for name, each in heard.items()}
        self.done: list[tuple[str, str, int | None]] = []
        self.pings = 0

    async def ping(self, name: str, timeout_s: float) -> Ping:
        self.pings += 1
        return Ping(self._heard[name].pop(0) if self._heard[name] else "answered")

    async def replace(self, name: str) -> None:
        self.done.append(("replace", name, None))

    async def spawn(self, name: str, slot: int | None) -> None:
        self.done.append(("spawn", name, slot))


def watch(hands: FakeHands, rounds: int, expected: dict[str, int | None]) -> None:
    """Run the loop for so many rounds, without waiting."""
    looks = 0

    def names() -> dict[str, int | None]:
        nonlocal looks
        looks += 1
        if looks == 2:
            raise RuntimeError("the store is unavailable for a moment")
        if looks > rounds:
            raise asyncio.CancelledError
        return expected

    async def main() -> None:
        with pytest.raises(asyncio.CancelledError):
            await watchdog.watch(names, namespace="n", storage="s", now_s=lambda: 100.0 * looks, hands=hands, period_s=0.0)

    asyncio.run(main())


def test_the_loop_carries_out_what_is_decided_and_survives_a_store_that_is_away() -> None:
    hands = FakeHands({"tuner": ["answered", "silent", "silent", "silent"], "detector:m": ["gone", "gone"]})
    watch(hands, 6, {"tuner": None, "detector:m": 3})
    assert hands.done == [("spawn", "detector:m", 3), ("replace", "tuner", None)]


def test_an_actor_that_was_ended_on_purpose_is_not_made_again() -> None:
    hands = FakeHands({"tuner": [], "detector:m": ["answered", "gone"]})
    lists: list[dict[str, int | None]] = [{"tuner": None, "detector:m": 3}, {"tuner": None}]

    def names() -> dict[str, int | None]:
        if not lists:
            raise asyncio.CancelledError
        return lists.pop(0)

    async def main() -> None:
        with pytest.raises(asyncio.CancelledError):
            await watchdog.watch(names, namespace="n", storage="s", now_s=lambda: 0.0, hands=hands, period_s=0.0)

    asyncio.run(main())
    assert hands.done == []


def test_who_is_watched_is_read_once_in_five_rounds() -> None:
    hands = FakeHands({"tuner": []})
    looks = 0

    def names() -> dict[str, int | None]:
        nonlocal looks
        looks += 1
        if looks == 5:
            raise asyncio.CancelledError
        return {"tuner": None}

    async def main() -> None:
        with pytest.raises(asyncio.CancelledError):
            await watchdog.watch(names, namespace="n", storage="s", now_s=lambda: 0.0, hands=hands, period_s=0.0)

    asyncio.run(main())
    assert hands.pings == 20


def test_the_loop_tells_of_a_restart_by_ray() -> None:
    pids = iter((1, 1, 2, 2))
    told: list[tuple[str, str]] = []

    class Restarted(FakeHands):
        async def ping(self, name: str, timeout_s: float) -> Ping:
            try:
                return Ping("answered", f"node:{next(pids)}")
            except StopIteration:
                raise asyncio.CancelledError from None

    async def main() -> None:
        await watchdog.watch(
            lambda: {"tuner": None},
            namespace="n",
            storage="s",
            now_s=lambda: 0.0,
            hands=Restarted({}),
            tell=lambda name, why: told.append((name, why)),
            period_s=0.0,
        )

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(main())
    assert told == [("tuner", "its process ended and was restarted by Ray")]
