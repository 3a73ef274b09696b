"""A process that leaves its cluster while our threads still have something to do; in a process of its own."""

from __future__ import annotations

import time
from typing import Any

import ray

import actors


def after_shutdown(storage: str) -> dict[str, Any]:
    """Log, hold an order, and shut Ray down: neither the flushing nor the renewing thread may start another Ray."""
    ray.init(address="local", num_cpus=1, include_dashboard=False, object_store_memory=100 * 2**20, log_to_driver=False)
    system = actors.start({"storage": storage, "defaults": {"handler": {"kind": "channel", "lease": "2s"}}})
    system.retrains.trigger("fraud", reason="so that there is an order to renew")
    order = next(system.retrains.stream(timeout_s=30))
    for _ in range(1000):
        system.metrics.log({"accuracy": 0.9}, model="fraud", version="v1")
    asked: list[object] = []
    ray.init = lambda *_, **__: asked.append(None)  # what Ray calls by itself for whoever uses it without one
    ray.shutdown()
    system.retrains._ask._handles.clear()  # as after a reply that did not come: the next call looks for the actor again
    deadline_s = time.monotonic() + 3.0
    while time.monotonic() < deadline_s:
        system.metrics.log({"accuracy": 0.9}, model="fraud", version="v1")
        time.sleep(0.01)
    return {"order": order.event.model_name, "asked for another Ray": len(asked)}
