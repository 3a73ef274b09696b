"""What is fuzzed: one function for each border of the system, from bytes or JSON to nothing, or to an AssertionError.

Hypothesis calls them with values that are nearly right (`tests/fuzz/test_targets.py`), atheris with bytes that reach new code
(`python -m tests.fuzz`).
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np

from actors import config, wire
from actors.config.yaml import read_yaml
from actors.metrics.raw_events import sort_events
from actors.tuning.rules.plan import Plan, check
from actors.tuning.rules.steps import Step
from drivers.replay import event_files

NOW_S: Final = 1_700_000_000.0


def packed_batch(data: bytes) -> None:
    """Unpack a batch of the wire: what unpacks survives another trip, and every row of it is judged."""
    try:
        batch = wire.unpack(data)
    except ValueError:
        return
    again = wire.unpack(wire.pack(batch))
    assert again.rows == batch.rows
    assert again.versions == batch.versions
    assert list(again.columns) == list(batch.columns)
    for name, column in batch.columns.items():
        assert len(column.values) == batch.rows
        assert np.array_equal(again.columns[name].values, column.values, equal_nan=True)
    verdict = wire.check(batch, NOW_S)
    counted = batch.rows if verdict.ok is None else int(verdict.ok.sum())
    assert counted + verdict.rejected == batch.rows


def yaml_text(data: bytes) -> None:
    """Read a configuration: it is taken or refused by a ValueError, and what was taken is read from its own document again."""
    text = data.decode("utf-8", errors="replace")
    try:
        settings = config.parse(read_yaml(text, "fuzz"), "fuzz")
    except ValueError as error:
        assert str(error)
        return
    document = config.document(settings)
    assert config.document(config.parse(json.loads(document), "again")) == document


def raw_events(events: Any) -> None:
    """Sort raw events: each counts or is rejected, alone, with its index, field and rule."""
    try:
        found = sort_events(events, NOW_S)
    except ValueError as error:
        assert str(error)
        return
    bad = {rejection["index"] for rejection in found.rejected}
    good = {index for indices in found.indices.values() for index in indices} - bad
    assert len(good) + len(bad) == len(events)
    for model, rows in found.rows.items():
        assert wire.is_model(model)
        batch = wire.batch_of_rows(rows)
        assert wire.unpack(wire.pack(batch)).rows == len(rows)
    json.dumps(found.rejected)


def event_lines(data: bytes, kind: str) -> None:
    """Read a file of events: no line takes another along, and a file that cannot be read on says so."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"events.{kind}"
        path.write_bytes(data)
        try:
            chunks = list(event_files.chunks(path, model="m", version=None, since_s=None, now_s=NOW_S))
        except ValueError as error:
            assert str(error)
            return
        for chunk in chunks:
            assert sum(map(len, chunk.rows.values())) >= len(chunk.events) - len(chunk.rejected)
            json.dumps(chunk.rejected)


def jsonl(data: bytes) -> None:
    """Read lines of JSON."""
    event_lines(data, "jsonl")


def csv(data: bytes) -> None:
    """Read comma-separated values."""
    event_lines(data, "csv")


def study_plan(asked: Any) -> None:
    """Check what a caller asks of the tuner: a plan that is taken survives its document and gives its first parameters."""
    try:
        plan = check(asked)
    except ValueError as error:
        assert 0 < len(str(error)) < 5000
        return
    assert Plan.from_document(plan.document()) == plan
    params = plan.strategy_made().next_params()
    assert list(params) == list(plan.space)
    assert json.loads(json.dumps(params, allow_nan=False)) == params


def worker_step(fields: Any) -> None:
    """Check what a worker says: a step that is taken holds numbers that the store can hold."""
    if not isinstance(fields, dict) or not {"key", "incarnation", "sequence"} <= set(fields):
        return
    try:
        step = Step.from_wire(fields)  # type: ignore[arg-type]
    except ValueError as error:
        assert str(error).startswith("step: ")
        return
    for result in step.results:
        assert math.isfinite(result.seconds)
        assert result.value is None or math.isfinite(result.value)
        assert 0 <= result.trial < 2**31


def _of_json(target: Callable[[Any], None]) -> Callable[[bytes], None]:
    def fuzzed(data: bytes) -> None:
        try:
            value = json.loads(data)
        except (ValueError, RecursionError):
            return
        target(value)

    return fuzzed


# By name, each from bytes: what the guided fuzzer runs.
TARGETS: Final[dict[str, Callable[[bytes], None]]] = {
    "packed_batch": packed_batch,
    "yaml_text": yaml_text,
    "raw_events": _of_json(raw_events),
    "jsonl": jsonl,
    "csv": csv,
    "study_plan": _of_json(study_plan),
    "worker_step": _of_json(worker_step),
}
