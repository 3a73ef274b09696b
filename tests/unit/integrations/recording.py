"""A system whose metrics are kept in lists, for callbacks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Recording:
    """Plays `System` and `System.metrics`; picklable, as tools copy their callbacks."""

    def __init__(self, problem: Exception | None = None) -> None:
        self.events: list[tuple[str, dict[str, float], float | None]] = []
        self.promises: list[dict[str, Any]] = []
        self.problem = problem

    @property
    def metrics(self) -> Recording:
        return self

    def log(self, metrics: Mapping[str, Any], *, model: str, version: str, n: float | None) -> None:
        if self.problem is not None:
            raise self.problem
        self.events.append((version, dict(metrics), n))

    def promise(
        self, metrics: Mapping[str, float], *, n: float, model: str, version: str, source: str, timeout_s: float
    ) -> object:
        self.promises.append({"metrics": dict(metrics), "n": n, "version": version, "source": source})
        return None

    def flush(self, timeout_s: float) -> object:
        if self.problem is not None:
            raise self.problem
        return None

    def column(self, name: str) -> list[float]:
        return [values[name] for _, values, _ in self.events if name in values]
