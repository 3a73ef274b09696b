"""Requests that wait together are committed together, each with its own answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from actors import failpoints
from actors.clock import Instant
from actors.retraining.admissions import Answered, Asked
from actors.retraining.channel import ChannelRetrainHandler, InStore
from actors.retraining.state import RetrainingState
from actors.storage import UNAVAILABLE, SchemaError, StaleEpochError, StoreError

# Requests that are answered in one commit; more wait for the next.
_GROUP: Final = 500


class RequestGroups:
    """Answers requests in groups: one that comes while a commit is under way waits for the next, which takes all that wait."""

    def __init__(self, in_store: InStore, channel: ChannelRetrainHandler) -> None:
        self._in_store = in_store
        self._channel = channel
        self._waiting: list[tuple[Asked, asyncio.Future[Answered]]] = []
        self._pump: asyncio.Task[None] | None = None

    async def ask(self, asked: Asked) -> Answered:
        """Return what became of a request; an order of the channel goes to a waiting consumer in the same commit."""
        waiter = self._channel.reserve(asked.request.model)
        future: asyncio.Future[Answered] = asyncio.get_running_loop().create_future()
        self._waiting.append((asked._replace(consumer=None if waiter is None else waiter.consumer), future))
        if self._pump is None or self._pump.done():
            self._pump = asyncio.get_running_loop().create_task(self._answer_all())
        answered: Answered | None = None
        try:
            answered = await future
        finally:
            if waiter is not None:
                waiter.settle(None if answered is None else answered.handed)
        return answered

    async def _answer_all(self) -> None:
        while self._waiting:
            group, self._waiting = self._waiting[:_GROUP], self._waiting[_GROUP:]
            try:
                answers: list[Answered | BaseException] = list(await self._in_store(_answering([each for each, _ in group])))
            except (*UNAVAILABLE, StoreError, SchemaError, StaleEpochError) as error:
                answers = [error] * len(group)
            except asyncio.CancelledError:
                raise
            except BaseException as error:  # noqa: BLE001  one request that cannot be answered takes no other along
                answers = [error] if len(group) == 1 else [await self._alone(each) for each, _ in group]
            for (_, future), answer in zip(group, answers, strict=True):
                if future.done():
                    continue
                if isinstance(answer, BaseException):
                    future.set_exception(answer)
                else:
                    future.set_result(answer)

    async def _alone(self, asked: Asked) -> Answered | BaseException:
        try:
            return (await self._in_store(_answering([asked])))[0]
        except BaseException as error:  # noqa: BLE001  handed to the caller
            return error


def _answering(asked: list[Asked]) -> Callable[[RetrainingState, Instant], list[Answered]]:
    def act(state: RetrainingState, now: Instant) -> list[Answered]:
        failpoints.reach("dispatcher.before_claim")
        answers = state.admissions.request_all(asked, now)
        failpoints.reach("dispatcher.after_claim")
        if any(answer.handed is not None for answer in answers):
            failpoints.reach("dispatcher.after_take")
        return answers

    return act
