"""A process that leaves its cluster while our threads still have something to do; in a process of its own."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray

import actors
from actors import failpoints
from actors.cluster.peers import BlockingPeers, PeerUnavailableError
from actors.metrics.link import RayLink
from tests.cluster.waiting import eventually
from tests.speed import slow


def leave(address: str, namespace: str) -> dict[str, Any]:
    """Leave the cluster in both ways: a process that connects takes a second."""
    return between_look_and_call(address, namespace) | after_shutdown(address, namespace)


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


def between_look_and_call(address: str, namespace: str) -> dict[str, Any]:
    """Leave while a thread of ours is between its look at the connection and its call, for each way to call; then go on."""
    points = Path(os.environ["VISUTILITY_FAILPOINTS"])
    asked: list[str] = []
    begin = ray.init
    for way in ("send", "look for the broadcaster", "ask", "look for an actor"):
        begin(address=address, logging_level=logging.ERROR)
        call = _calls(way, namespace)
        vars(ray)["init"] = lambda *_, way=way, **__: asked.append(way)
        failpoints.arm(points, "connection.kept", "sleep 0.5")
        caller = threading.Thread(target=call)
        caller.start()
        eventually(lambda: not (points / "connection.kept").exists(), f"{way}: the thread has looked")
        ray.shutdown()
        caller.join(slow(30))
        assert not caller.is_alive(), f"{way}: the thread hangs"
        vars(ray)["init"] = begin
    return {"asked between look and call": asked}


def _calls(way: str, namespace: str) -> Callable[[], object]:
    """Return the call, with all that goes before it done: a handle that is looked for is not known, one that is used is."""
    link, peers = RayLink(namespace), BlockingPeers(namespace)
    if way == "send":
        assert link.schema()
        return lambda: link.send([])
    if way == "look for the broadcaster":
        return lambda: link.send([])
    if way == "ask":
        peers.call("tuner", "hello", {}, timeout_s=slow(30))
    return lambda: _without_reply(peers)


def _without_reply(peers: BlockingPeers) -> None:
    with contextlib.suppress(PeerUnavailableError):
        peers.call("tuner", "hello", {}, timeout_s=slow(30))
