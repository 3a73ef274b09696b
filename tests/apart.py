"""What unit and contract tests have in common: they start no Ray, and a connection to a store that stays open is an error."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from actors.storage import Store


@pytest.fixture(autouse=True)
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make `ray.init` fail."""
    ray = pytest.importorskip("ray")

    def refused(*_arguments: Any, **_options: Any) -> None:
        raise AssertionError("a unit test must not start Ray")

    monkeypatch.setattr(ray, "init", refused)


@pytest.fixture(autouse=True)
def stores_are_closed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Close what a test leaves open where it stands for a process that was killed: Python 3.13 notices it on SQLite too."""
    begin, begun = Store._begin, list[Store]()

    def noted(store: Store, *arguments: Any, **options: Any) -> None:
        begin(store, *arguments, **options)
        begun.append(store)

    monkeypatch.setattr(Store, "_begin", noted)
    yield
    for store in begun:
        store.close()
