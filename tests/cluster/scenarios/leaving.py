"""A process that leaves its cluster while our threads still have something to do; in a process of its own."""

from __future__ import annotations

import logging
import time
from typing import Any

import ray

import actors
from actors.cluster.peers import BlockingPeers
from tests.speed import slow


def after_shutdown(address: str, namespace: str) -> dict[str, Any]:
    """Log, hold an order, and leave the cluster: neither the flushing nor the renewing thread may start another Ray."""
    ray.init(address=address, logging_level=logging.ERROR)
    system = actors.connect(address=address, namespace=namespace)
    system.retrains.trigger("left", reason="so that there is an order to renew")
    order = next(system.retrains.stream(model="left", timeout_s=slow(30)))
    for _ in range(1000):
        system.metrics.log({"accuracy": 0.9}, model="left", version="v1")
    asked: list[object] = []
    vars(ray)["init"] = lambda *_, **__: asked.append(None)  # what Ray calls by itself for a process that uses it without one
    ray.shutdown()
    assert isinstance(system.retrains._ask, BlockingPeers)
    system.retrains._ask._handles.clear()  # as after a reply that did not come: the next call looks for the actor again
    deadline_s = time.monotonic() + slow(2.0)
    while time.monotonic() < deadline_s:
        system.metrics.log({"accuracy": 0.9}, model="left", version="v1")
        time.sleep(0.01)
    return {"order": order.event.model_name, "asked for another Ray": len(asked)}
