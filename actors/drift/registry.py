"""Detectors by name: makes them, checks their options before anything runs, and says what they take."""

import inspect
from typing import TypedDict

from actors import plugins
from actors.drift.cusum import Cusum
from actors.drift.ewma import Ewma
from actors.drift.fixed_threshold import FixedThreshold
from actors.drift.interface import Direction, DriftStrategy
from actors.drift.ns_glr import NormalScoresGLR
from actors.drift.page_hinkley import PageHinkley
from actors.drift.river_adapter import PREFIX, RiverDetector
from actors.drift.sliding_window import SlidingWindowDriftDetector
from actors.plain import Json

_DETECTORS: dict[str, type] = {
    kind.name: kind for kind in (NormalScoresGLR, SlidingWindowDriftDetector, Cusum, PageHinkley, Ewma, FixedThreshold)
}


def names() -> list[str]:
    """Return the names that `create` knows, without river's.

    >>> names()
    ['default', 'sliding-window', 'cusum', 'page-hinkley', 'ewma', 'threshold']
    """
    return list(_DETECTORS)


def create(name: str, *, false_alarm_every: float = 10_000, direction: Direction = "both", **options: object) -> DriftStrategy:
    """Return a new detector.

    Args:
        name: one of `names()`, or river:NAME.
        false_alarm_every: this detector's own budget in events (see `share_budget`).
        direction: which changes are alarms: down, up or both.
        options: what `describe(name)` lists.

    Raises:
        KeyError: the name is unknown.
        ValueError: an option is unknown or out of range; the message names field, value and rule.

    >>> detector = create("default", false_alarm_every=10_000, direction="down")
    >>> usual, worse = [0.90, 0.91, 0.89] * 40, [0.84, 0.85, 0.83] * 10
    >>> [(alarm.index, alarm.direction, alarm.window_n) for alarm in detector.update(usual + worse)]
    [(121, 'down', 2)]
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


def check(name: str, options: Json) -> None:
    """Raise what `create(name, **options)` would raise, and do nothing else.

    >>> check("cusum", {"slack": -1})
    Traceback (most recent call last):
    ValueError: slack must be > 0 and <= 10, got -1
    """
    create(name, **options)


class Described(TypedDict):
    """A detector for people: what it is, and its options with their defaults."""

    name: str
    summary: str
    options: Json


def describe(name: str) -> Described:
    """Return `name`, `summary`, and `options` (with defaults) of a detector, for people and for documentation.

    >>> describe("cusum")["options"]
    {'slack': 0.5, 'warmup': 50}
    """
    if name.startswith(PREFIX):
        RiverDetector(name.removeprefix(PREFIX))
        return {"name": name, "summary": inspect.getdoc(RiverDetector) or "", "options": {}}
    kind = _kind(name)
    return {"name": name, "summary": inspect.getdoc(kind) or "", "options": _options(kind)}


def _options(kind: type) -> Json:
    parameters = inspect.signature(kind).parameters.values()
    return {p.name: p.default for p in parameters if p.name not in {"false_alarm_every", "direction"}}


def _kind(name: str) -> type:
    if name in _DETECTORS:
        return _DETECTORS[name]
    try:
        added: type = plugins.load("detectors", name)
    except KeyError:
        known = ", ".join([*_DETECTORS, *plugins.names("detectors")])
        raise KeyError(f"detector must be one of {known}, or {PREFIX}NAME, got {name!r}") from None
    return added
