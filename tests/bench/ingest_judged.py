"""What the retrain rule costs on the way of an event: the same batches with `n` and a promise, and without, turn by turn."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

import numpy as np

from actors.metrics.client import Metrics
from tests.bench.ingest_sections import Found, a_system, spread

_ROWS: Final = 5_000
_MODELS: Final = 4
_PREDICTIONS: Final = 100  # behind each event
_PROMISED: Final = {"accuracy": 0.9}
# So high that the rule never orders: a retrain would reset it.
_MODELS_OF: Final = {"judged-*": {"retrain": {"when": "shortfall", "price": 1e9}}}


def judged(laps: int, seconds: float, say: Callable[[str], None]) -> Found:
    """Events a second through log_batch of 5,000 with the rule, over those without; each lap measures both."""
    with a_system(defaults={"false_alarm_every": "90d"}, models=_MODELS_OF) as system:
        client = Metrics(system.namespace, on_full="wait", buffer_bytes=64 * 2**20)
        try:
            return _compared(system, client, laps, seconds, say)
        finally:
            client.close()


def _compared(system: Any, client: Metrics, laps: int, seconds: float, say: Callable[[str], None]) -> Found:
    random = np.random.default_rng(0)
    pool = [random.binomial(_PREDICTIONS, 0.9, _ROWS) / _PREDICTIONS for _ in range(8)]

    def lap(kind: str, batches: int) -> float:
        n = _PREDICTIONS if kind == "judged" else None
        started = time.perf_counter()
        for place in range(batches):
            model = f"{kind}-{place % _MODELS}"
            client.log_batch({"accuracy": pool[place % len(pool)]}, model=model, version="v1", n=n)
        counts = client.flush(300)
        if counts["pending"] or counts["dropped"] or counts["rejected"]:
            raise RuntimeError(f"not everything was counted: {counts}")
        return batches * _ROWS / (time.perf_counter() - started)

    kinds = ("judged", "plain")
    for place in range(_MODELS):
        system.metrics.promise(_PROMISED, n=50_000, model=f"judged-{place}", version="v1")
    for kind in kinds:
        lap(kind, 4 * _MODELS)
    batches = max(_MODELS, int(lap("plain", 10 * _MODELS) * seconds / _ROWS))
    # The two take turns to go first, so that other work on the machine affects both.
    rates = [{kind: lap(kind, batches) for kind in (kinds if place % 2 else kinds[::-1])} for place in range(laps)]
    found: Found = {kind: spread([rate[kind] for rate in rates]) for kind in kinds}
    found["ratio"] = spread([rate["judged"] / rate["plain"] for rate in rates])
    say(f"with n and the rule {found['judged']['median']:,.0f} events/s, over without: {found['ratio']['median']:.3f}")
    return found
