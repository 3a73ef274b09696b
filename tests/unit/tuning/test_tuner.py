"""The actor without a Ray: what it asks of others, and what it refuses when too much comes at once."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from actors.tuning import staff
from actors.tuning.tuner import MAX_IN_FLIGHT, MAX_WAITING, Tuner
from tests.speed import slow

PLAN: dict[str, Any] = {"name": "s", "space": {"x": [0.0, 1.0]}, "trials": 4, "seed": 1}


class Runner:
    """Plays the runner: launches nothing, and says what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.keys: list[str] = []
        self.launched = asyncio.Event()

    async def call(self, name: str, method: str, /, *, timeout_s: float, **arguments: Any) -> Any:
        assert name == "runner"
        self.asked.append(method)
        match method:
            case "capacity":
                return {"tasks": 2}
            case "launch":
                self.keys.append(arguments["key"])
                if len(self.keys) == 2:
                    self.launched.set()
                return {"status": "launched", "instance": "i"}
            case "ended":
                return await asyncio.get_running_loop().create_future()  # for ever
            case _:
                return {"status": "cancelled"}


def run(folder: Path, act: Callable[[Tuner, Runner], Awaitable[None]]) -> None:
    async def acted() -> None:
        runner = Runner()
        tuner = Tuner(name="tuner", namespace="n", storage=f"sqlite:///{folder}/store", peers=runner)
        try:
            await act(tuner, runner)
        finally:
            for loop in tuner._staff._loops:
                loop.cancel()
            await asyncio.to_thread(tuner._desk.close)

    asyncio.run(acted())


def test_without_a_study_nobody_is_asked_and_no_clock_ticks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staff, "_TICK_S", 0.0)

    async def act(tuner: Tuner, runner: Runner) -> None:
        assert (await tuner.hello())["epoch"] == 1
        jobs: list[int] = []
        done = tuner._desk.do

        async def counted(*arguments: Any, **said: Any) -> Any:
            jobs.append(1)
            return await done(*arguments, **said)

        await tuner.studies()
        monkeypatch.setattr(tuner._desk, "do", counted)
        for _ in range(300):
            await asyncio.sleep(0)
        assert (runner.asked, jobs) == ([], [])
        await tuner.submit(objective="math:fsum", plan=PLAN)
        await runner.launched.wait()
        assert runner.asked[0] == "capacity"

    run(tmp_path, act)


def test_a_study_from_submission_to_deletion(tmp_path: Path) -> None:
    async def act(tuner: Tuner, runner: Runner) -> None:
        submitted: Any = await tuner.submit(objective="math:fsum", plan=PLAN)
        await runner.launched.wait()
        waiting = asyncio.ensure_future(tuner.study(name="s", wait_s=30))
        sequences, results = dict.fromkeys(runner.keys, 0), dict[str, list[Any]]()
        while any(sequence >= 0 for sequence in sequences.values()):
            for key, sequence in sequences.items():
                if sequence < 0:
                    continue
                said: Any = {"key": key, "incarnation": "i", "sequence": sequence + 1, "wanted": True}
                reply: Any = await tuner.step(study=submitted["study"], **said | {"results": results.get(key, [])})
                sequences[key] = sequence + 1 if reply["status"] == "ok" else -1
                results[key] = [[t, a, "completed", 0.5, 0.1, None] for t, a, _ in reply.get("leases", [])]
        ended: Any = await waiting
        assert (ended["state"], ended["done"]) == ("DONE", 4)
        trials: Any = await tuner.trials(name="s")
        assert [trial["id"] for trial in trials] == [0, 1, 2, 3]
        assert await tuner.trials(name="s", since=4) == []
        assert await tuner.delete_study(name="s") == {"status": "deleted"}
        with pytest.raises(KeyError):
            await tuner.study(name="s")

    run(tmp_path, act)


def test_hello_is_answered_while_the_store_is_locked_and_1500_calls_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def act(tuner: Tuner, _runner: Runner) -> None:
        await tuner.submit(objective="math:fsum", plan=PLAN)
        locked = threading.Event()
        monkeypatch.setattr(tuner._state, "open", locked.wait)
        calls = [asyncio.ensure_future(tuner.study(name="s")) for _ in range(1500)]
        hello = await asyncio.wait_for(tuner.hello(), slow(5))
        assert hello["epoch"] == 1
        refused: list[Any] = [call.result() for call in calls if call.done()]
        assert len(refused) == 1500 - MAX_IN_FLIGHT
        assert {reply["status"] for reply in refused} == {"unavailable"}
        locked.set()
        answered: list[Any] = await asyncio.gather(*calls)
        assert sum(reply.get("state") == "RUNNING" for reply in answered) == MAX_IN_FLIGHT

    run(tmp_path, act)


def test_callers_beyond_the_bound_do_not_wait_for_the_end_of_a_study(tmp_path: Path) -> None:
    async def act(tuner: Tuner, _runner: Runner) -> None:
        await tuner.submit(objective="math:fsum", plan=PLAN)
        calls = [asyncio.ensure_future(tuner.study(name="s", wait_s=30)) for _ in range(MAX_WAITING + 50)]
        told: list[Any] = [await call for call in itertools.islice(asyncio.as_completed(calls), 50)]
        assert [reply["retry_in_s"] for reply in told] == [1.0] * 50
        await tuner.stop_study(name="s")
        assert {reply["state"] for reply in await asyncio.gather(*calls) if "retry_in_s" not in reply} == {"STOPPED"}

    run(tmp_path, act)


@pytest.mark.parametrize(
    ("objective", "plan", "rule"),
    [
        (b"", PLAN, "objective must be"),
        ("nonsense", PLAN, "objective must be module:function"),
        (7, PLAN, "objective must be"),
        ("math:fsum", PLAN | {"space": {"x": {"choices": list(range(100_000))}}}, "choices must be at most"),
        ("math:fsum", PLAN | {"more": 1}, "plan must be a mapping of"),
        ("math:fsum", [], "plan must have"),
    ],
)
def test_a_bad_study_is_refused_and_nothing_is_kept(tmp_path: Path, objective: Any, plan: Any, rule: str) -> None:
    async def act(tuner: Tuner, _runner: Runner) -> None:
        with pytest.raises(ValueError, match=rule):
            await tuner.submit(objective=objective, plan=plan)
        assert await tuner.studies() == []

    run(tmp_path, act)
