"""Raw events of `broadcast`: plain mappings, checked one by one and sorted by model; and the one reply to all of them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from actors import columns as reading
from actors import wire
from actors.checks import finite, shown, stand_in, unboxed
from actors.plain import Json
from actors.replies import Broadcasted, Ingested, Rejection
from actors.wire import Row

MAX_EVENTS: Final = 100_000  # of one call: each costs some microseconds of the broadcaster's only loop


_RETRY_S: Final = 0.25
_INFINITE: Final = (math.inf, -math.inf)


@dataclass(slots=True)
class Sorted:
    """Raw events of one call by model: for each its rows, and the index that each row had in the call."""

    rows: dict[str, list[Row]]
    indices: dict[str, list[int]]
    rejected: list[Rejection]


def sort_events(events: object, now_s: float, *, one_model: bool = False, known: Container[str] = ()) -> Sorted:
    """Check raw events one by one and sort them by model.

    A bad event is rejected alone. A bad envelope raises ValueError: no list, too many, too large. Where a rejected event names
    one of the `known` models, or one that has a good event in this call, it keeps its row, empty, and so is counted as
    rejected; no model begins with a bad event. With `one_model` (the caller numbers its events) all must be of one model, and
    every rejected event keeps its row, so that it consumes its number.
    """
    if not isinstance(events, list | tuple):
        raise ValueError(f"events must be a list of mappings, got {shown(events)}")
    if len(events) > MAX_EVENTS:
        raise ValueError(f"events must be at most {MAX_EVENTS} in one call, got {len(events)}")
    rows: dict[str, dict[int, Row]] = {}
    rejected: list[Rejection] = []
    total_bytes = 0
    for index, event in enumerate(events):
        try:
            model, row, size = _row_of_event(event, now_s)
        except _BadEventError as bad:
            rejected.append({"index": index, "field": bad.field, "value": stand_in(bad.value), "rule": bad.rule})
            size = bad.size
        else:
            rows.setdefault(model, {})[index] = row
        total_bytes += size
        if total_bytes > wire.MAX_CALL_BYTES:
            raise ValueError(f"events must have at most {wire.MAX_CALL_BYTES} bytes in one call, got more")
    named = [event.get("model_name") if isinstance(event, Mapping) else None for event in events]
    names = {name for name in named if wire.is_model(name)}
    if one_model and events and len(names) != 1:
        raise ValueError(f"events of a call with a sequence must be of one model, got {len(names)}")
    for index in (rejection["index"] for rejection in rejected):
        name = next(iter(names)) if one_model else named[index]
        if wire.is_model(name) and (one_model or name in rows or name in known):
            rows.setdefault(name, {})[index] = (wire.UNVERSIONED, now_s, {}, None)
    indices = {model: sorted(found) for model, found in rows.items()}
    return Sorted({model: [found[index] for index in indices[model]] for model, found in rows.items()}, indices, rejected)


class _BadEventError(Exception):
    def __init__(self, field: str, value: object, rule: str, size: int = 0) -> None:
        super().__init__(field)
        self.field, self.value, self.rule, self.size = field, value, rule, size


def _row_of_event(event: object, now_s: float) -> tuple[str, Row, int]:  # noqa: C901, PLR0912  one check a field
    if not isinstance(event, Mapping):
        raise _BadEventError("event", event, "must be a mapping", len(event) if isinstance(event, str | bytes) else 0)
    size = sum(len(value) for value in event.values() if isinstance(value, str | bytes | list | tuple))
    for key in event:
        if key not in wire.FIELDS:
            raise _BadEventError(
                str(stand_in(key)), event[key], "is not a field of an event; put other numbers into extras", size
            )
    model, version = event.get("model_name"), event.get("model_version", wire.UNVERSIONED)
    rule = wire.model_rule(model)
    if rule is not None:
        raise _BadEventError("model_name", model, rule, size)
    rule = wire.text_rule(version)
    if rule is not None:
        raise _BadEventError("model_version", version, rule, size)
    given = event.get("timestamp")
    time = now_s if given is None else reading.seconds(given)
    if time is None or not 0.0 <= time <= now_s + wire.AHEAD_S:
        raise _BadEventError("timestamp", given, "must be seconds since the epoch, not in the future", size)
    metrics: Json = {}
    for name in wire.NAMED:
        value = event.get(name)
        if reading.is_absent(value):
            continue
        metrics[name] = _number(value)
        if metrics[name] is None or metrics[name] < 0.0 or metrics[name] > 1.0:
            if metrics[name] in _INFINITE:
                continue
            raise _BadEventError(name, value, "must be a number from 0 to 1", size)
    extras = event.get("extras")
    if extras is not None:
        size += _take_extras(extras, metrics, size)
    numbers = [(name, value) for name, value in metrics.items() if not isinstance(value, str)]
    if not any(math.isfinite(value) for _, value in numbers):
        for name, value in numbers:
            field, rule = (name, "from 0 to 1") if name in wire.NAMED else (f"extras.{name}", "that is finite")
            raise _BadEventError(field, value, f"must be a number {rule}", size)
        raise _BadEventError("metrics", None, "must hold at least one number", size)
    return str(model), (str(version), time, metrics, _weight(event.get("n"), size)), size


def _take_extras(extras: object, metrics: Json, size: int) -> int:
    if not isinstance(extras, Mapping):
        raise _BadEventError("extras", extras, "must be a mapping of names to numbers and strings", size)
    used = 0
    for name, value in extras.items():
        rule = wire.metric_rule(name) if name not in wire.NAMED else "must not be the name of a field"
        if rule is not None:
            raise _BadEventError("extras", name, f"a name in extras {rule}", size + used)
        used += len(name) + 9
        if reading.is_absent(value):
            continue
        if isinstance(value, str):
            try:
                used += len(value.encode())
            except UnicodeEncodeError:
                raise _BadEventError(f"extras.{name}", value[:0], "must be encodable as UTF-8", size + used) from None
        else:
            number = _number(value)
            if number is None:
                used += len(value) if isinstance(value, bytes | list | tuple | dict) else 0
                raise _BadEventError(f"extras.{name}", value, "must be a number or a string, not nested", size + used)
            value = number  # noqa: PLW2901  a scalar of another library is stored as its number
        metrics[name] = value
    if used > wire.MAX_EXTRAS_BYTES:
        raise _BadEventError("extras", extras, f"must have at most {wire.MAX_EXTRAS_BYTES} bytes", size + used)
    if len(metrics) > wire.MAX_COLUMNS:
        raise _BadEventError("extras", extras, f"must hold at most {wire.MAX_COLUMNS - len(wire.NAMED)} names", size + used)
    return used


def _number(value: object) -> float | None:
    """Return a number of any library, which may be NaN or infinite; None for anything else, also an int beyond float64."""
    plain = unboxed(value)
    if isinstance(plain, float):
        return plain
    return finite(plain)


def _weight(n: object, size: int) -> float | None:
    """Return the predictions behind an event, None where it says nothing."""
    if reading.is_absent(n):
        return None
    number = finite(n)
    if number is None or not 0.0 < number <= wire.MAX_WEIGHT:
        raise _BadEventError("n", n, wire.WEIGHT_RULE, size)
    return number


def joined_reply(found: Sorted, parts: Sequence[tuple[str, int, Ingested]], *, one_model: bool) -> Broadcasted:
    """Put the detectors' replies together: the indices of the call, the worst status, each model's reply where they differ.

    `parts` has for each packed batch its model, the place of its first row among the model's rows, and the reply.
    """
    rejected: dict[int, Rejection] = {rejection["index"]: rejection for rejection in found.rejected}
    models: dict[str, Ingested] = {}
    ends = {(model, first): len(found.indices[model]) for model, first, _ in parts}
    for (model, first, _), (following, end, _) in itertools.pairwise(parts):
        if model == following:
            ends[model, first] = end
    for model, first, reply in parts:
        if reply["status"] in {"gap", "refused"} and one_model:
            raise ValueError(f"sequence must continue: {reply['reason']}" if reply["status"] == "gap" else reply["reason"])
        indices = found.indices[model][first : ends[model, first]]
        for rejection in reply["rejected"]:
            index = indices[rejection["index"]]
            rejected.setdefault(index, rejection | {"index": index})
        if reply["status"] == "refused":
            for index in indices:
                rejected[index] = {"index": index, "field": "model_name", "value": model, "rule": reply["reason"]}
        models[model] = _added(models[model], reply) if model in models else reply
    joined: Broadcasted = {
        "accepted": sum(reply["accepted"] for reply in models.values()),
        "duplicates": sum(reply["duplicates"] for reply in models.values()),
        "rejected": [rejected[index] for index in sorted(rejected)],
    }
    bad_values = sum(reply.get("bad_values", 0) for reply in models.values())
    if bad_values:
        joined["bad_values"] = bad_values
    failed = [reply for reply in models.values() if reply["status"] in {"busy", "unavailable", "gap"}]
    if failed:
        joined["status"] = "unavailable" if any(reply["status"] == "unavailable" for reply in failed) else "busy"
        joined["retry_in_s"] = max(reply.get("retry_in_s", _RETRY_S) for reply in failed)
        joined["models"] = models
    return joined


_WORST: Final = ("unavailable", "busy", "gap", "refused", "accepted")


def _added(one: Ingested, other: Ingested) -> Ingested:
    """Return the reply for two batches of one model: the sums, and whatever went wrong."""
    worst = min(one, other, key=lambda reply: _WORST.index(reply["status"])).copy()
    worst["accepted"] = one["accepted"] + other["accepted"]
    worst["duplicates"] = one["duplicates"] + other["duplicates"]
    worst["rejected"] = one["rejected"] + other["rejected"]
    worst["bad_values"] = one.get("bad_values", 0) + other.get("bad_values", 0)
    worst["high_water"] = max(one["high_water"] or 0, other["high_water"] or 0)
    return worst
