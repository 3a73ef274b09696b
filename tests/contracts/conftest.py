"""Unit tests start no Ray: whoever tries is told so at once."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture(autouse=True)
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make `ray.init` fail."""
    ray = pytest.importorskip("ray")

    def refused(*_arguments: Any, **_options: Any) -> None:
        raise AssertionError("a unit test must not start Ray")

    monkeypatch.setattr(ray, "init", refused)
