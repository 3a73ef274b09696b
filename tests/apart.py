"""What unit and contract tests share: they start no Ray, leave no connection to a store open, and run on each kind of store."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from actors.cluster.store_thread import StoreThread
from actors.storage import Store
from tests.database import Postgres, emptied, free_port

T = TypeVar("T")

_STANDS_STILL_S = 5.0


@pytest.fixture(autouse=True)
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make `ray.init` fail."""
    ray = pytest.importorskip("ray")

    def refused(*_arguments: Any, **_options: Any) -> None:
        raise AssertionError("a unit test must not start Ray")

    monkeypatch.setattr(ray, "init", refused)


@pytest.fixture(autouse=True)
def stores_are_closed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Close what a test leaves open where it stands for a process that was killed: Python 3.13 notices it on SQLite too.

    A store's thread first ends what it does: a connection that it uses as its store is closed would stay open.
    """
    begin, begun = Store._begin, list[Store]()
    make, made = StoreThread.__init__, list[StoreThread[Any]]()

    def noted(store: Store, *arguments: Any, **options: Any) -> None:
        begin(store, *arguments, **options)
        begun.append(store)

    def noted_thread(thread: StoreThread[Any], *arguments: Any, **options: Any) -> None:
        make(thread, *arguments, **options)
        made.append(thread)

    monkeypatch.setattr(Store, "_begin", noted)
    monkeypatch.setattr(StoreThread, "__init__", noted_thread)
    yield
    for thread in made:
        with contextlib.suppress(RuntimeError, TimeoutError):  # it has been ended, or stands still by the test's will
            thread._thread.submit(int).result(_STANDS_STILL_S)
    for store in begun:
        store.close()


@pytest.fixture
def run() -> Iterator[Callable[[Coroutine[Any, Any, T]], T]]:
    """Run coroutines one after the other in one event loop: a call that is still waiting goes on with the next."""
    with asyncio.Runner() as runner:
        yield runner.run


@pytest.fixture(scope="module")
def database() -> Iterator[Postgres]:
    """A server for the tests of a file."""
    server = Postgres("127.0.0.1", free_port(), "secret")
    yield server
    server.stop()


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a store of either kind, with nothing in it."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/store"
    server: Postgres = request.getfixturevalue("database")
    emptied(server.url)
    return server.url


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    """An open store of either kind, with nothing in it."""
    opened = Store(url)
    yield opened
    opened.close()
