"""What the fuzzers begin with: one right input of each kind, as bytes."""

from __future__ import annotations

import json
from typing import Any, Final

import numpy as np

from actors import wire

EVENT: Final[dict[str, Any]] = {
    "model_name": "m",
    "model_version": "1",
    "timestamp": 1.7e9,
    "accuracy": 0.9,
    "recall": None,
    "n": 10,
    "extras": {"latency_ms": 12.5, "zone": "eu"},
}
PLAN: Final[dict[str, Any]] = {
    "name": "s",
    "trials": 10,
    "seed": 1,
    "strategy": {"name": "grid", "points": 3},
    "mode": "max",
    "space": {"lr": [1e-5, 1e-2, "log"], "n": [1, 8, "int"], "k": {"choices": ["a", 1, None]}},
    "first": [{"lr": 0.001, "n": 3, "k": 1}],
    "early_stopping": "asha",
    "timeout_s": 3.5,
    "resources": {"cpu": 0.5},
    "context": {"a": [1]},
}
STEP: Final[dict[str, Any]] = {
    "key": "s-w-1",
    "incarnation": "i",
    "sequence": 3,
    "wanted": True,
    "holding": 1,
    "results": [[0, 1, "completed", 0.5, 0.1, None]],
    "reports": [[1, 1, 3, 0.5]],
}
YAML: Final = """namespace: visutility
storage: sqlite:///./visutility-data
detectors: {max_processes: 32}
defaults:
  false_alarm_every: 30d
  watch: {accuracy: {detector: default, direction: down}}
  cooldown: 30m
  handler: {kind: channel}
models:
  fraud-*:
    watch: {recall: {direction: down}, latency_ms: null}
    handler: {kind: ray_job, entrypoint: "python train.py --model {model}"}
"""


def batch() -> bytes:
    """Return a packed batch."""
    columns = {"accuracy": np.linspace(0.5, 1.0, 7), "latency_ms": np.full(7, 3.0)}
    return wire.pack(wire.batch_of_columns(columns, version="1", timestamps=None, now_s=1.7e9))


SEEDS: Final[dict[str, list[bytes]]] = {
    "packed_batch": [batch()],
    "yaml_text": [YAML.encode()],
    "raw_events": [json.dumps([EVENT, EVENT | {"accuracy": 2}]).encode()],
    "jsonl": [(json.dumps(EVENT) + "\n").encode() * 2],
    "csv": [b"model_name,timestamp,accuracy,latency_ms\nm,2026-01-01T00:00:00Z,0.9,12\nm,1700000000,,1e3\n"],
    "study_plan": [json.dumps(PLAN).encode()],
    "worker_step": [json.dumps(STEP).encode()],
}
