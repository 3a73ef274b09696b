"""Requests that wait together are answered in groups, and no group is so large that it holds the store's thread for long."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any, TypeVar

import pytest

from actors.clock import Instant
from actors.retraining.admissions import Admission, Answered, Asked
from actors.retraining.channel import ChannelRetrainHandler
from actors.retraining.request_groups import RequestGroups
from actors.retraining.rules.orders import Request

T = TypeVar("T")
NOW = Instant(1.8e9, 0.0, "boot")


class Admissions:
    """Answers what is asked, and remembers how much at once; raises for the models that are `broken`."""

    def __init__(self, broken: str = "") -> None:
        self.turns: list[int] = []
        self._broken = broken

    def request_all(self, asked: list[Asked], _now: Instant) -> list[Answered]:
        self.turns.append(len(asked))
        if any(each.request.model == self._broken for each in asked):
            raise ValueError("broken")
        return [Answered(Admission("pending", each.key, "")) for each in asked]


def answered(count: int, admissions: Admissions) -> list[Any]:
    """Return the answers to `count` requests that come while a commit is under way."""
    state: Any = SimpleNamespace(admissions=admissions)

    async def later(act: Callable[[Any, Instant], T]) -> T:
        await asyncio.sleep(0)
        return act(state, NOW)

    def in_store(act: Callable[[Any, Instant], T], /) -> Awaitable[T]:
        return later(act)

    async def story() -> list[Any]:
        groups = RequestGroups(in_store, ChannelRetrainHandler(in_store))
        requests = [Request(f"m{n}", "1", "accuracy", None, 1.8e9, "", {}) for n in range(count)]
        asked = (groups.ask(Asked(each, each.model)) for each in requests)
        return await asyncio.gather(*asked, return_exceptions=True)

    return asyncio.run(story())


def test_each_turn_answers_at_most_five_hundred_and_every_request_gets_its_own_answer() -> None:
    admissions = Admissions()
    found = answered(1_234, admissions)
    assert [each.admission.order for each in found] == [f"m{n}" for n in range(1_234)]
    assert max(admissions.turns) <= 500
    assert len(admissions.turns) <= 4, "and few turns: each waits for the disk"


@pytest.mark.parametrize("count", [1, 7])
def test_a_request_that_cannot_be_answered_takes_no_other_along(count: int) -> None:
    found = answered(count, Admissions(broken="m0"))
    assert isinstance(found[0], ValueError)
    assert [each.admission.order for each in found[1:]] == [f"m{n}" for n in range(1, count)]
