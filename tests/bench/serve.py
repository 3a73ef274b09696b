"""Measure what `monitored` adds to a request: `python -m tests.bench serve`."""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from actors.integrations.serve import monitored
from tests.unit.integrations.recording import Recording

BOUND_US: Final = 20.0


class _Plain:
    async def __call__(self, request: dict[str, Any]) -> dict[str, Any]:
        return {"score": 0.5, "id": request["id"], "label": 1}


def main(argv: Sequence[str] | None = None) -> int:
    """Print the microseconds per request, without and with each part of it; 1 where the whole exceeds 20 us."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args(argv)
    system: Any = Recording()
    options: dict[str, Any] = {"model": "bench", "version": "v1", "system": system, "window_s": 0.5}
    score: Callable[[Any], float] = lambda answer: answer["score"]
    kinds = {
        "plain": _Plain,
        "monitored": monitored(**options)(_Plain),
        "monitored, with a score": monitored(**options, score=score)(_Plain),
    }
    cost_us: dict[str, list[float]] = {name: [] for name in kinds}
    for _ in range(asked.rounds):  # in turn, so that other work on the machine affects all of them
        for name, kind in kinds.items():
            cost_us[name].append(asyncio.run(_cost_us(kind(), asked.requests)))
    plain = min(cost_us["plain"])
    for name, found in cost_us.items():
        added = sorted(each - plain for each in found)
        print(f"{name:26} {min(found):6.2f} us a request   adds {added[0]:5.2f} (least) to {added[-1]:5.2f} (most) us")
    worst = max(sorted(found)[len(found) // 2] for found in cost_us.values()) - plain
    said = "held" if worst < BOUND_US else "exceeded"
    print(f"bound {BOUND_US:g} us at the median of {asked.rounds} rounds: {said} ({worst:.2f} us)")
    return 0 if worst < BOUND_US else 1


async def _cost_us(deployment: Any, requests: int) -> float:
    request = {"id": "r1"}
    began_s = time.perf_counter()
    for _ in range(requests):
        await deployment(request)
    return 1e6 * (time.perf_counter() - began_s) / requests
