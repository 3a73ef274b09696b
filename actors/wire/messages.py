"""The arguments of callers besides events: sequence, counters, promise. Checked, because anybody can call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NotRequired, TypedDict

import numpy as np

from actors import wire
from actors.checks import finite, shown, stand_in
from actors.replies import Rejection

SOURCES: Final = ("cross_validation", "hold_out")  # where a promise comes from
COUNTERS: Final = ("logged", "accepted", "rejected", "dropped", "bad_values")  # that a client sends along


class Message(TypedDict):
    """One packed batch on its way: what `ingest_many` of the broadcaster and of a detector take a list of."""

    model: str
    producer: str | None
    sequence: int | None  # the number of its first event; None where the producer is
    payload: Any  # bytes, or uint8[n]: see `wire.for_travel`
    client: NotRequired[dict[str, int] | None]  # the counters of who sends
    rejection: NotRequired[Rejection | None]  # why the sender has emptied rows
    stamped: NotRequired[bool]  # whether the sender's clock gave all events their times


def check_sequence(producer: object, sequence: object) -> None:
    """Raise ValueError unless both are given, or neither."""
    if producer is None and sequence is None:
        return
    rule = wire.text_rule(producer)
    if rule is not None:
        raise ValueError(f"producer {rule} where a sequence is given, got {shown(producer)}")
    if isinstance(sequence, bool) or not isinstance(sequence, int | np.integer) or not 0 <= int(sequence) < 2**62:
        raise ValueError(f"sequence must be a whole number >= 0, got {shown(sequence)}")


def check_promise(values: object, n: object, source: object) -> tuple[dict[str, float], float]:
    """Return a promise's values and its number of rows as floats, or raise ValueError naming field, value and rule."""
    if not isinstance(values, Mapping) or not 1 <= len(values) <= wire.MAX_COLUMNS:
        raise ValueError(f"values must be a mapping of 1 to {wire.MAX_COLUMNS} metrics to numbers, got {shown(values)}")
    found: dict[str, float] = {}
    for name, value in values.items():
        rule, number = wire.metric_rule(name), finite(value)
        if rule is not None:
            raise ValueError(f"metric name {rule}, got {shown(name)}")
        if number is None or not 0.0 <= number <= 1.0:
            raise ValueError(f"{name} must be a number from 0 to 1, got {shown(value)}")
        found[name] = number
    weight = finite(n)
    if weight is None or not 1.0 <= weight <= wire.MAX_WEIGHT:  # the retrain rule takes no fraction of a row
        raise ValueError(f"n must be a number from 1 to {wire.MAX_WEIGHT:g}, got {shown(n)}")
    if source not in SOURCES:
        raise ValueError(f"source must be one of {', '.join(SOURCES)}, got {shown(source)}")
    return found, weight


def told_client(told: object) -> dict[str, int] | None:
    """Read the counters that a client sent along: whole numbers by known names, and nothing else of it."""
    if not isinstance(told, Mapping):
        return None
    found = {name: told.get(name) for name in COUNTERS}
    return {name: int(n) for name, n in found.items() if type(n) is int and 0 <= n < 2**53} or None


def told_rejection(told: object) -> Rejection | None:
    """Read why a sender has emptied rows; None where it says nothing that can be read."""
    if not isinstance(told, Mapping) or not isinstance(told.get("rule"), str):
        return None
    return {
        "index": 0,
        "field": str(told.get("field"))[: wire.MAX_NAME],
        "value": stand_in(told.get("value")),
        "rule": told["rule"][:500],
    }
