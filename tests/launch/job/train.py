"""A user's job, submitted with `ray job submit`.

It logs until its model drifts and a retrain is dispatched, searches parameters on the cluster, and prints one JSON line.
"""

import json
import random
import socket
import time
from typing import Any

import actors


def loss(params: Any, trial: Any) -> Any:
    time.sleep(1.0)  # long enough that the trials of a study meet more than one node
    return (params["lr"] - 1e-3) ** 2


def main() -> None:
    system = actors.connect()
    chance = random.Random(7)
    logged, accuracy = 0, 0.93
    order = None
    orders = system.retrains.stream(model="launch", timeout_s=120)
    while order is None and logged < 4000:
        for _ in range(200):
            value = min(1.0, max(0.0, chance.gauss(accuracy, 0.01)))
            system.metrics.log({"accuracy": value, "latency_ms": chance.gauss(12, 1)}, model="launch", version="v1")
        logged += 200
        system.metrics.flush(timeout_s=30)
        if logged >= 1000:
            accuracy = 0.65
        if system.status()["retrains"]["pending"]:
            order = next(iter(orders))
    assert order is not None, "no retrain was dispatched"
    study = system.tuner.run(loss, {"lr": [1e-5, 1e-2, "log"]}, trials=16, seed=1, max_concurrent=4)
    order.done(new_version="v2")
    told = system.metrics.flush(timeout_s=30)
    print(
        json.dumps(
            {
                "host": socket.gethostname(),
                "logged": logged,
                "flush": told,
                "order": order.event.id,
                "best": study.best.params,
                "trials": len(study.trials),
                "trial_nodes": sorted({trial.node for trial in study.trials}),
            }
        )
    )


if __name__ == "__main__":
    main()
