"""The tuner's state on a real store, without the actor: what the tests of the store and of the desk share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from actors.clock import SystemClock
from actors.replies import Gone, StepAnswered, StudySummary, TrialRow
from actors.storage import StaleEpochError
from actors.tuning.desk import Desk
from actors.tuning.rules.plan import Plan, check
from actors.tuning.rules.steps import Step
from actors.tuning.state import Begun, Reader, TuningState

T = TypeVar("T")


def a_plan(**changes: Any) -> Plan:
    return check({"name": "s", "space": {"x": [0.0, 1.0]}, "trials": 12, "seed": 3} | changes)


class Kept:
    """A state, its desk and its reader; `await close()` at the end."""

    def __init__(self, storage: str, ended: list[StaleEpochError] | None = None) -> None:
        self.state = TuningState(storage, SystemClock())
        self.reader = Reader(self.state, SystemClock())
        self.desk = Desk(self.state, (ended if ended is not None else []).append)

    async def close(self) -> None:
        await asyncio.to_thread(self.desk.close)

    async def do(self, job: Callable[[], T]) -> T:
        return await self.desk.do(job)

    async def submit(self, plan: Plan, objective: bytes = b"pkl:x") -> Begun:
        while True:
            taken_up = await self.desk.read(lambda: self.reader.take_up(plan))
            begun = await self.do(lambda: self.state.submit(plan, objective, taken_up))  # noqa: B023  awaited at once
            if begun is not None:
                return begun

    async def staffed(self, study: str, workers: int = 1) -> list[str]:
        """Note workers of a study; gives their keys."""
        return [key for _, key in await self.do(lambda: self.state.staff({study: workers}))]

    async def begun(self, **changes: Any) -> tuple[str, str]:
        """Submit a study and note one worker for it."""
        study = (await self.submit(a_plan(**changes))).study
        (key,) = await self.staffed(study)
        return study, key

    async def step(
        self, study: str, key: str, sequence: int, results: Sequence[Sequence[Any]] = (), **said: Any
    ) -> StepAnswered | Gone:
        fields = {"key": key, "incarnation": "i", "sequence": sequence, "results": results, "wanted": True, "node": "n"} | said
        step = Step.from_wire(fields)  # type: ignore[arg-type]
        return await self.desk.do(lambda: self.state.step(study, step), study=study)

    async def leases(self, *arguments: Any, **said: Any) -> list[list[Any]]:
        reply = await self.step(*arguments, **said)
        assert reply["status"] == "ok"
        return reply["leases"]

    async def summary(self, name: str = "s") -> StudySummary:
        running = await self.do(lambda: self.state.study(name))
        return await self.desk.read(lambda: self.reader.study(name)) if running is None else running

    async def trials(self, name: str = "s", since: int = 0, limit: int = 1000) -> list[TrialRow]:
        running = await self.do(lambda: self.state.trials(name, since, limit))
        return await self.desk.read(lambda: self.reader.trials(name, since, limit)) if running is None else running
