"""Detectors by name: makes them, checks their options before anything runs, and says what they take."""

import inspect
from typing import Any

from actors.drift.cusum import Cusum
from actors.drift.ewma import Ewma
from actors.drift.fixed_threshold import FixedThreshold
from actors.drift.interface import Direction, DriftStrategy
from actors.drift.ns_glr import NormalScoresGLR
from actors.drift.page_hinkley import PageHinkley
from actors.drift.river_adapter import PREFIX, RiverDetector
from actors.drift.sliding_window import SlidingWindowDriftDetector

_DETECTORS: dict[str, type] = {
    kind.name: kind for kind in (NormalScoresGLR, SlidingWindowDriftDetector, Cusum, PageHinkley, Ewma, FixedThreshold)
}


def names() -> list[str]:
    """Return the names that `create` knows, without river's."""
    return list(_DETECTORS)


def create(name: str, *, false_alarm_every: float = 10_000, direction: Direction = "both", **options: object) -> DriftStrategy:
    """Return a new detector.

    `false_alarm_every` is this detector's own budget in events (see `share_budget`). Raises KeyError for an unknown
    name and ValueError for an unknown option or a value out of range, each naming field, value and rule.
    """
    if not isinstance(name, str):
        raise KeyError(f"detector must be a name, got {name!r}")
    if name.startswith(PREFIX):
        return RiverDetector(name.removeprefix(PREFIX), false_alarm_every=false_alarm_every, direction=direction, **options)
    kind = _kind(name)
    known = _options(kind)
    for option, value in options.items():
        if option not in known:
            allowed = ", ".join(known)
            raise ValueError(f"{option} must be an option of detector {name!r} ({allowed}), got {value!r}")
    made: DriftStrategy = kind(false_alarm_every=false_alarm_every, direction=direction, **options)
    return made


def check(name: str, options: dict[str, Any]) -> None:
    """Raise what `create(name, **options)` would raise, and do nothing else."""
    create(name, **options)


def describe(name: str) -> dict[str, Any]:
    """Return `name`, `summary`, and `options` (with defaults) of a detector, for people and for documentation."""
    if name.startswith(PREFIX):
        RiverDetector(name.removeprefix(PREFIX))
        return {"name": name, "summary": inspect.getdoc(RiverDetector) or "", "options": {}}
    kind = _kind(name)
    return {"name": name, "summary": inspect.getdoc(kind) or "", "options": _options(kind)}


def _options(kind: type) -> dict[str, Any]:
    parameters = inspect.signature(kind).parameters.values()
    return {p.name: p.default for p in parameters if p.name not in {"false_alarm_every", "direction"}}


def _kind(name: str) -> type:
    if name not in _DETECTORS:
        raise KeyError(f"detector must be one of {', '.join(_DETECTORS)}, or {PREFIX}NAME, got {name!r}")
    return _DETECTORS[name]
