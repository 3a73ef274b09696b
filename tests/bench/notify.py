"""Measure how long an alarm takes to its receiver: `python -m tests.bench notify --alarms 50`.

A whole system on a Ray of its own, models that drift one after the other, and a webhook with `group_wait: 0` in this process.
The time runs from the instant that the alarm's commit carries, taken just before it, to the receipt of the message.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
from collections.abc import Sequence

import numpy as np
import ray

import actors
from tests.notify.stage import Inbox
from tests.speed import slow


def main(argv: Sequence[str] | None = None) -> int:
    """Print the median and the 95th percentile."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--alarms", type=int, default=50)
    asked = parser.parse_args(argv)
    inbox = Inbox()
    ray.init(address="local", num_cpus=2, include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False)
    with tempfile.TemporaryDirectory() as folder:
        route = {"receivers": ["hook"], "kinds": ["alarm"], "group_by": ["model"], "group_wait": 0}
        document = {
            "storage": f"sqlite:///{folder}/store",
            "detectors": {"processes": 1},
            "defaults": {"false_alarm_every": 1000},
            "notify": {"receivers": {"hook": {"kind": "webhook", "url": inbox.url}}, "routes": [route]},
        }
        system = actors.start(document, namespace="bench-notify")
        values = np.clip(np.random.default_rng(0).normal(np.repeat([0.9, 0.5], [600, 200]), 0.01), 0, 1)
        took_ms = []
        for number in range(asked.alarms):
            system.metrics.log_batch({"accuracy": values}, model=f"m{number}", version="1")
            deadline = time.monotonic() + slow(60)
            while len(inbox.got) <= number and time.monotonic() < deadline:
                time.sleep(0.002)
            received_at, body = inbox.got[number]
            took_ms.append(1000 * (received_at - body["data"]["firing"][0]["happening"]["at"]))
        system.stop()
    ray.shutdown()
    inbox.stop()
    p50, p95 = np.quantile(took_ms, [0.5, 0.95])
    told = f"p50 {p50:.0f} ms, p95 {p95:.0f} ms, max {max(took_ms):.0f} ms"
    print(f"{asked.alarms} alarms, from the commit to the receiver: {told}")
    return int(p95 > 1000.0)
