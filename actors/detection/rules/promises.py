"""The promise of a version: its value on its own training rows, as a numbered row of its model's log."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TypedDict

import msgpack

Source = Literal["cross_validation", "hold_out"]
USED: Final[Source] = "cross_validation"  # the only source that the retrain rule uses


class PromiseRecord(TypedDict):
    """A promise as it is kept and shown; `values` by metric."""

    values: dict[str, float]
    n: float
    source: Source


class Standing(TypedDict):
    """The promise that a version is held to, as a share of hits, and whose it is."""

    version: str
    value: float
    n: float


@dataclass(frozen=True, slots=True)
class Promise:
    """The value of each metric of a version on its `n` training rows.

    One of a single hold-out is kept and shown, and no rule uses it: measured, it does harm.

    >>> promise = Promise("v2", {"accuracy": 0.87}, 2500, "cross_validation")
    >>> unpacked(promise.packed()) == promise
    True
    """

    version: str
    values: dict[str, float]
    n: float
    source: Source

    def packed(self) -> bytes:
        """Return the payload of its row in the log."""
        said = {"version": self.version, "values": self.values, "n": self.n, "source": self.source}
        return bytes(msgpack.packb({"v": 2, "promise": said}))

    def record(self) -> PromiseRecord:
        """Return the fields that its version keeps."""
        return {"values": dict(self.values), "n": self.n, "source": self.source}


def held_to(version: str, own: PromiseRecord | None, metric: str, *, errors: bool) -> Standing | None:
    """Return what a version is held to by its own promise of `metric`; None where it has none that the retrain rule uses.

    With `errors` the metric is a share of errors. Builds before took promises on less than one row, which no rule can use.

    >>> held_to("v2", {"values": {"error": 0.25}, "n": 2500, "source": "cross_validation"}, "error", errors=True)
    {'version': 'v2', 'value': 0.75, 'n': 2500}
    """
    if own is None or own["source"] != USED or own["n"] < 1.0 or metric not in own["values"]:
        return None
    value = own["values"][metric]
    return {"version": version, "value": 1.0 - value if errors else value, "n": own["n"]}


def turned_round(
    standing: Standing | None, promises: Mapping[str, PromiseRecord], metric: str, *, errors: bool
) -> Standing | None:
    """Return the standing with hits for errors, or errors for hits, if it was noted the wrong way round; None if it was not.

    Builds that took no direction from a metric's name noted a share of errors as one of hits.

    >>> promises = {"v2": PromiseRecord(values={"error": 0.25}, n=2500, source="cross_validation")}
    >>> turned_round({"version": "v2", "value": 0.25, "n": 2500}, promises, "error", errors=True)
    {'version': 'v2', 'value': 0.75, 'n': 2500}
    """
    own = None if standing is None else held_to(standing["version"], promises.get(standing["version"]), metric, errors=errors)
    if standing is None or own is None or math.isclose(standing["value"], own["value"]):
        return None
    return {**standing, "value": own["value"]} if math.isclose(standing["value"], 1.0 - own["value"]) else None


def unpacked(payload: bytes) -> Promise:
    """Return the promise that a row of the log holds. ValueError where it holds none."""
    said: Any = msgpack.unpackb(payload)
    if not isinstance(said, dict) or not isinstance(said.get("promise"), dict):
        raise ValueError("payload must hold a promise")
    return Promise(**said["promise"])
