"""A consumer of the channel in a chaos run, a process of its own: `python -m tests.chaos.consumers NUMBER SCENARIO`.

It puts on record what was handed to it before it works on it, and whether its `done` was recorded.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import time

import ray

import actors
from tests.chaos import ledger
from tests.chaos.scenario import Scenario

_WORKS_S = 0.3


def main() -> int:
    """Process orders until SIGTERM."""
    number, text = sys.argv[1:3]
    scenario = Scenario(**json.loads(text))
    stopping: list[bool] = []
    path = scenario.path("consumed.jsonl")
    ray.init(address=scenario.address, logging_level=logging.ERROR, log_to_driver=False, namespace=f"consumer-{os.getpid()}")
    signal.signal(signal.SIGTERM, lambda *_: stopping.append(True))
    retrains = actors.connect(address=scenario.address, namespace=scenario.namespace).retrains
    while not stopping:
        for order in retrains.stream(timeout_s=1.0):
            seen = {"consumer": number, "order": order.id, "attempt": order.attempt, "model": order.event.model_name}
            ledger.note(path, **seen, what="taken", episode=order.event.episode, at=time.time())
            time.sleep(_WORKS_S)
            recorded = order.done()
            ledger.note(path, **seen, what="done", recorded=recorded, at=time.time())
    return 0


if __name__ == "__main__":
    sys.exit(main())
