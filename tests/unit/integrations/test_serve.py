"""Deployments that are monitored: without Serve, with a system that keeps what is logged."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Iterator
from types import SimpleNamespace
from typing import Any

import cloudpickle
import pytest

from actors.integrations import serve
from actors.integrations.feedback import Joiner, Link
from actors.integrations.serve import monitored
from tests.unit.integrations.recording import Recording


@pytest.fixture
def recorders(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every recorder that is made; none has a thread, and a test says when a window ends."""
    made: list[Any] = []

    class Still(serve.Recorder):
        def __init__(self, *told: Any) -> None:
            super().__init__(*told)
            made.append(self)

        def _start(self) -> None: ...

    monkeypatch.setattr(serve, "Recorder", Still)
    monkeypatch.setattr(Link, "put", lambda self, row: self._rows.append(row))
    return made


def options(system: Recording) -> dict[str, Any]:
    return {"model": "fraud", "version": "v8", "system": system}


def test_requests_of_a_class_are_logged_with_their_n(recorders: list[Any]) -> None:
    system = Recording()

    @monitored(**options(system), score=lambda answer: answer["score"])
    class Fraud:
        """A deployment."""

        def __init__(self, scale: float) -> None:
            self.scale = scale

        async def __call__(self, request: float) -> dict[str, float]:
            if request < 0:
                raise ValueError("a request below 0")
            return {"score": self.scale * request}

    assert (Fraud.__name__, Fraud.__doc__) == ("Fraud", "A deployment.")
    fraud = Fraud(2.0)
    assert asyncio.run(fraud(0.25)) == {"score": 0.5}
    with pytest.raises(ValueError, match="a request below 0"):
        asyncio.run(fraud(-1.0))
    recorders[0].log()
    (version, requests, n), (_, scores, scored) = system.events
    assert (version, n, scored) == ("v8", 2, 1)
    assert requests["error_rate"] == 0.5
    assert requests["latency_ms"] > 0
    assert scores == {"score_mean": 0.5, "score_std": 0.0}
    recorders[0].log()
    assert len(system.events) == 2  # a window without requests logs nothing


def test_each_kind_of_callable_stays_what_it_is(recorders: list[Any]) -> None:
    def plain(request: int) -> int:
        return request + 1

    async def waiting(request: int) -> int:
        return request + 1

    def parts(request: int) -> Iterator[int]:
        yield from range(request)

    async def awaited_parts(request: int) -> AsyncIterator[int]:
        for each in range(request):
            yield each

    async def collected(found: Any) -> list[int]:
        return [each async for each in found]

    system = Recording()
    wrapped: list[Any] = [monitored(**options(system))(each) for each in (plain, waiting, parts, awaited_parts)]
    assert wrapped[0](2) == 3
    assert asyncio.run(wrapped[1](2)) == 3
    assert list(wrapped[2](2)) == [0, 1]
    assert asyncio.run(collected(wrapped[3](2))) == [0, 1]
    assert inspect.iscoroutinefunction(wrapped[1])
    assert inspect.isgeneratorfunction(wrapped[2])
    assert inspect.isasyncgenfunction(wrapped[3])
    for each in recorders:
        each.log()
    assert [n for _, _, n in system.events] == [1, 1, 1, 1]


@pytest.mark.parametrize(("answered", "share"), [(200, 0.0), (404, 0.0), (500, 1.0), (503, 1.0)])
def test_an_answer_of_500_and_above_is_an_error_and_a_callers_mistake_is_not(
    recorders: list[Any], answered: int, share: float
) -> None:
    system = Recording()

    @monitored(**options(system))
    def answer(request: int) -> Any:
        return SimpleNamespace(status_code=request)

    @monitored(**options(system))
    def failing(request: int) -> None:
        error = RuntimeError("said so")
        error.status_code = request  # type: ignore[attr-defined]
        raise error

    answer(answered)
    with pytest.raises(RuntimeError):
        failing(answered)
    for each in recorders:
        each.log()
    assert system.column("error_rate") == [share, share]


def test_no_function_of_the_user_and_no_system_fails_a_request(recorders: list[Any], caplog: pytest.LogCaptureFixture) -> None:
    def broken(*_: Any) -> Any:
        raise KeyError("score")

    @monitored(**options(Recording(ConnectionError("no system"))), score=broken, predicted=broken)
    def answer(request: int) -> int:
        return request

    assert [answer(each) for each in range(3)] == [0, 1, 2]
    assert sum("score or predicted failed" in message for message in caplog.messages) == 1
    with pytest.raises(ConnectionError):
        recorders[0].log()  # in its thread; there it is a warning


def test_a_prediction_goes_on_with_its_version_and_a_truth_joins_it(recorders: list[Any]) -> None:
    system = Recording()

    @monitored(**options(system), predicted=lambda request, answer: (request["id"], answer["label"]))
    async def answer(request: dict[str, str]) -> dict[str, str]:
        return {"label": "spam"}

    for id_ in ("r1", "r2"):
        asyncio.run(answer({"id": id_}))
    rows = list(recorders[0]._link._rows)
    assert rows == [("r1", "v8", "spam"), ("r2", "v8", "spam")]
    joiner = Joiner(model="fraud", system=system)  # type: ignore[arg-type]
    joiner.take(
        rows=[*rows, ("r1", None, "spam"), ("r2", None, "ham"), ("r3", None, "ham")], horizon_s=86_400.0, window_s=600.0
    )  # no thread ends "its" actor
    joiner.log()
    assert system.events == [("v8", {"accuracy": 0.5}, 2)]


def test_a_deployment_can_be_pickled_to_its_replica_before_and_after_a_request(recorders: list[Any]) -> None:
    @monitored(model="fraud", version="v8", score=lambda answer: answer)
    class Fraud:
        def __call__(self, request: float) -> float:
            return request

    Fraud()(0.5)
    copy = cloudpickle.loads(cloudpickle.dumps(Fraud))
    assert copy()(0.5) == 0.5


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"window_s": 0}, "window_s must be > 0, got 0"),
        ({"horizon_s": -1.0}, "horizon_s must be > 0"),
        ({"model": ""}, "model"),
        ({"version": 7}, "version"),
    ],
)
def test_a_setting_that_cannot_be_is_named_when_the_deployment_is_defined(changes: dict[str, Any], error: str) -> None:
    with pytest.raises((ValueError, TypeError), match=error):
        monitored(**({"model": "fraud", "version": "v8"} | changes))


def test_what_is_no_class_or_function_is_told_where_the_decorator_stands() -> None:
    with pytest.raises(TypeError, match=r"must stand under @serve\.deployment"):
        monitored(model="fraud", version="v8")(object())
