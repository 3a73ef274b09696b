"""What every drift detector offers, and the checks and records they share."""

import math
import sys
from dataclasses import dataclass, field, fields
from typing import Literal, NotRequired, Protocol, TypedDict, get_args

import msgpack
import numpy as np
import numpy.typing as npt

from actors.plain import Saved

Direction = Literal["down", "up", "both"]
State = Literal["learning", "stable", "warning", "error"]
Floats = npt.NDArray[np.float64]

LARGEST = 1e300  # values beyond it count as it, so that sums and differences of them stay finite
STATE_VERSION = 1  # of the envelope around every saved state; an unknown one is refused, never guessed at


@dataclass(frozen=True, slots=True)
class Alarm:
    """The evidence behind one alarm, in plain numbers; levels are in the units of the metric.

    `baseline_*` describe the events before the estimated change, `window_*` those after it.
    """

    index: int  # of the alarming event within the `update` call that returned this
    detector: str
    statistic: float
    threshold: float
    direction: Literal["down", "up"]
    baseline_n: int
    baseline_mean: float
    baseline_sd: float
    window_n: int
    window_mean: float
    estimated_start: int  # events back from the alarming one, which counts as 1
    extra: dict[str, float | str] = field(default_factory=dict)

    def as_dict(self) -> Saved:
        """Return the fields as a dict of plain values, as the wire and the store take them."""
        return {each.name: getattr(self, each.name) for each in fields(self)} | {"extra": dict(self.extra)}


class Progress(TypedDict):
    """The progress of a detector: cheap enough to read after every commit."""

    state: State
    baseline: float | None  # mean of the level that new events are compared with; None before the first event
    recent: float | None  # mean of the last events (at most RECENT of them)
    seen: int  # events since the last alarm or reset, a given baseline not counted
    warmup: int  # events (or baseline values) that are learned from before an alarm is possible
    n_baseline: int  # events and given values behind `baseline`
    statistic: float
    threshold: float
    error: NotRequired[str]  # why the detector cannot take the metric: see `unusable`


RECENT = 50  # events behind Progress.recent: long enough to be calm, short enough to show the last minutes


_FLOAT_MAX = sys.float_info.max


class DriftStrategy(Protocol):
    """One metric's detector: it is fed values in order and says when their level has changed.

    The alarms do not depend on how the values are cut into calls. Every method either succeeds or raises
    ValueError and changes nothing. After an alarm the detector learns the new level afresh, unless its own
    docstring says otherwise. It reads no clock and draws no random numbers.
    """

    name: str

    def update(self, values: npt.ArrayLike) -> list[Alarm]:
        """Take `values: float64[n]`, n >= 1, all finite, oldest first; return the alarms among them."""

    def baseline(self, values: npt.ArrayLike) -> None:
        """Forget everything and learn from this sample (`float64[n]`) instead of from the first events."""

    def progress(self) -> Progress:
        """Return how far the detector has got and how close to an alarm it is."""

    def state(self) -> bytes:
        """Return everything that `restore` needs, as msgpack."""

    def restore(self, state: bytes) -> None:
        """Continue exactly where `state` was taken; raise ValueError where another kind of detector made it."""

    def reset(self) -> None:
        """Forget everything, as if newly created."""


def as_values(values: npt.ArrayLike) -> Floats:
    """Return `values` as float64[n], n >= 1, none beyond LARGEST; or raise ValueError saying what is wrong with them."""
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"values must be numbers, got {values!r:.80}") from error
    if array.ndim != 1:
        raise ValueError(f"values must be one-dimensional, got {array.ndim} dimensions")
    n = array.shape[0]
    if n == 0:
        raise ValueError("values must hold at least one number, got none")
    # For one value the ufuncs' fixed cost is most of the time of an update. A NaN fails every comparison.
    low, high = (value := float(array[0]), value) if n == 1 else (array.min(), array.max())
    if low >= -LARGEST and high <= LARGEST:
        return array
    if not np.isfinite(array).all():
        bad = int(np.flatnonzero(~np.isfinite(array))[0])
        raise ValueError(f"values must be finite, got {array[bad]} at index {bad}")
    return np.clip(array, -LARGEST, LARGEST)


def check_direction(direction: object) -> Direction:
    """Return the direction, or raise ValueError."""
    if direction not in get_args(Direction):
        raise ValueError(f"direction must be one of {', '.join(get_args(Direction))}, got {direction!r}")
    return direction  # type: ignore[return-value]  # the line above is the check


def check_number(
    name: str,
    value: object,
    *,
    low: float = -math.inf,
    high: float = math.inf,
    above: float = -math.inf,
) -> float:
    """Return the option as a float within [low, high] and greater than `above`, or raise ValueError naming it."""
    rules = [
        rule for bound, rule in ((low, f">= {low:g}"), (above, f"> {above:g}"), (high, f"<= {high:g}")) if math.isfinite(bound)
    ]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name} must be a number{' ' if rules else ''}{' and '.join(rules)}, got {value!r}")
    # An int may be too large for a float: it is compared before it is converted.
    if not (low <= value <= high and value > above and abs(value) < math.inf and abs(value) <= _FLOAT_MAX):
        raise ValueError(f"{name} must be {' and '.join(rules) or 'finite'}, got {value!r}")
    return float(value)


def check_count(name: str, value: object, *, low: int, high: int) -> int:
    """Return the option as an int within [low, high], or raise ValueError naming it."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ValueError(f"{name} must be a whole number from {low} to {high}, got {value!r}")
    return value


def check_flag(name: str, value: object) -> bool:
    """Return the option, true or false, or raise ValueError naming it."""
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be true or false, got {value!r}")
    return value


def pack_state(name: str, learned_under: Saved, body: Saved) -> bytes:
    """Wrap a detector's numbers; `learned_under` are the options without which they mean something else."""
    packed = msgpack.packb({"v": STATE_VERSION, "detector": name, "options": learned_under, "body": body})
    return bytes(packed)


def unpack_state(name: str, learned_under: Saved, state: bytes) -> Saved:
    """Return the body of a saved state, or raise ValueError when it is broken or belongs to another detector."""
    try:
        envelope = msgpack.unpackb(state)
    except (ValueError, TypeError, msgpack.exceptions.UnpackException) as error:
        raise ValueError(f"state must be the bytes that state() returned: {error}") from error
    if not isinstance(envelope, dict) or envelope.get("v") != STATE_VERSION or not isinstance(envelope.get("body"), dict):
        raise ValueError("state must be the bytes that state() returned, in a version that this build knows")
    if envelope.get("detector") != name:
        raise ValueError(f"state must come from detector {name!r}, got one from {envelope.get('detector')!r}")
    if envelope.get("options") != learned_under:
        raise ValueError(f"state must be learned under {learned_under}, got {envelope.get('options')}")
    return dict(envelope["body"])
