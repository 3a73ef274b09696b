"""What may be searched: a flat mapping from names to ranges and choices, checked once and the same for every strategy.

    {"lr": [1e-5, 1e-2, "log"], "dropout": [0.0, 0.5], "layers": [1, 8, "int"], "kernel": {"choices": ["rbf", "poly"]}}

A strategy sees each parameter as a function of a number in [0, 1), so that random, quasi-random and grid search share one
reading of the space.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

Value = Any  # what a parameter may be: float, int, or a choice that encodes as JSON

# Uniform sampling over three decades or more spends 90% of the trials in the last one (measured: 10 times worse on one of
# three real tasks), so that a missing "log" is worth a warning.
WIDE_RATIO = 999.999  # 1e-2 / 1e-5 is a little below 1000
_MAX_PARAMETERS = 1000
_MAX_NAME = 200
_MAX_WHOLE = 2**53  # beyond it a double no longer holds every whole number
_FLAGS = ("log", "int")


@dataclass(frozen=True, slots=True)
class FloatRange:
    """A float between two bounds, uniform or uniform in its logarithm."""

    name: str
    low: float
    high: float
    log: bool = False

    def at(self, position: float) -> float:
        """Give the value at `position` in [0, 1]; never beyond the bounds."""
        if self.log:
            log_low = math.log(self.low)
            value = math.exp(log_low + (math.log(self.high) - log_low) * position)
        else:
            value = self.low + (self.high - self.low) * position
        return min(max(value, self.low), self.high)

    def document(self) -> list[Value]:
        """Give the range as a user writes it."""
        return [self.low, self.high, *(["log"] if self.log else [])]


@dataclass(frozen=True, slots=True)
class IntRange:
    """A whole number, both bounds included, uniform or by its logarithm."""

    name: str
    low: int
    high: int
    log: bool = False

    def at(self, position: float) -> int:
        """Give the value at `position` in [0, 1]; never beyond the bounds."""
        if self.log:
            log_low = math.log(self.low)
            value = math.floor(math.exp(log_low + (math.log(self.high + 1) - log_low) * position))
        else:
            value = self.low + math.floor(position * (self.high - self.low + 1))
        return min(max(value, self.low), self.high)

    def document(self) -> list[Value]:
        """Give the range as a user writes it."""
        return [self.low, self.high, "int", *(["log"] if self.log else [])]


@dataclass(frozen=True, slots=True)
class Choices:
    """One of several values without an order."""

    name: str
    choices: tuple[Value, ...]

    def at(self, position: float) -> Value:
        """Give the value at `position` in [0, 1]: each has an equal share."""
        return self.choices[min(int(position * len(self.choices)), len(self.choices) - 1)]

    def document(self) -> dict[str, list[Value]]:
        """Give the choices as a user writes them."""
        return {"choices": list(self.choices)}


Parameter = FloatRange | IntRange | Choices


@dataclass(frozen=True, slots=True)
class Space:
    """The parameters of a study, in the order in which they were given."""

    parameters: tuple[Parameter, ...]

    def at(self, positions: Sequence[float]) -> dict[str, Value]:
        """Give the parameters at `positions: float[n]`, one in [0, 1] for each parameter."""
        return {parameter.name: parameter.at(x) for parameter, x in zip(self.parameters, positions, strict=True)}

    def document(self) -> dict[str, Any]:
        """Give the space as a user writes it; `parse` of it is the same space."""
        return {parameter.name: parameter.document() for parameter in self.parameters}

    def warnings(self) -> list[str]:
        """Name what is legal and probably not meant."""
        return [
            f"space[{p.name!r}]: {p.low:g} to {p.high:g} is sampled uniformly, so nearly every value is near {p.high:g}; "
            f"if the order of magnitude matters write [{p.low:g}, {p.high:g}, 'log']"
            for p in self.parameters
            if not isinstance(p, Choices) and not p.log and p.low > 0 and p.high / p.low >= WIDE_RATIO
        ]


def parse(space: object) -> Space:
    """Check `space` and give it as a Space; ValueError names the parameter, the value and the rule."""
    if not isinstance(space, Mapping):
        raise ValueError(f"space must be a mapping from names to ranges, got {_shown(space)}")  # noqa: TRY004  ValueError is the rule for bad input
    if not space:
        raise ValueError("space must have at least one parameter, got none")
    if len(space) > _MAX_PARAMETERS:
        raise ValueError(f"space must have at most {_MAX_PARAMETERS} parameters, got {len(space)}")
    return Space(tuple(_parameter(name, value) for name, value in space.items()))


def _parameter(name: object, value: object) -> Parameter:
    if not isinstance(name, str) or not 0 < len(name) <= _MAX_NAME:
        raise ValueError(f"space: a parameter's name must be a string of 1 to {_MAX_NAME} characters, got {_shown(name)}")
    field = f"space[{name!r}]"
    if isinstance(value, Mapping):
        return _choices(field, name, value)
    if isinstance(value, str | bytes) or not isinstance(value, Sequence) or len(value) < 2:
        raise ValueError(f"{field} must be a pair [min, max], optionally with 'log' or 'int', or {{'choices': [...]}}, "
                         f"got {_shown(value)}")  # fmt: skip
    low, high, *flags = value
    for flag in flags:
        if flag not in _FLAGS or flags.count(flag) > 1:
            raise ValueError(f"{field} must be [min, max] followed by 'log' or 'int' or both, got {_shown(flag)}")
    log, whole = "log" in flags, "int" in flags
    bounds = [_bound(field, "min", low), _bound(field, "max", high)]
    if not bounds[0] < bounds[1]:
        raise ValueError(f"{field}: min must be below max, got {_shown(low)} and {_shown(high)}")
    if not math.isfinite(bounds[1] - bounds[0]):
        raise ValueError(f"{field}: the width max - min must be finite, got {_shown(low)} and {_shown(high)}")
    if log and not bounds[0] > 0:
        raise ValueError(f"{field}: min must be above 0 with 'log', got {_shown(low)}")
    if not whole:
        return FloatRange(name, bounds[0], bounds[1], log)
    return IntRange(name, _whole(field, "min", low), _whole(field, "max", high), log)


def _bound(field: str, which: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise ValueError(f"{field}: {which} must be a number, got {_shown(value)}")  # noqa: TRY004  ValueError is the rule for bad input
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"{field}: {which} must be finite, got {_shown(value)}")
    return number


def _whole(field: str, which: str, value: Any) -> int:
    if not isinstance(value, Integral) and float(value) != math.floor(value):
        raise ValueError(f"{field}: {which} must be a whole number with 'int', got {_shown(value)}")
    if abs(int(value)) > _MAX_WHOLE:
        raise ValueError(f"{field}: {which} must be between -2**53 and 2**53 with 'int', got {_shown(value)}")
    return int(value)


def _choices(field: str, name: str, value: Mapping[Any, Any]) -> Choices:
    if set(value) != {"choices"}:
        raise ValueError(f"{field} must be {{'choices': [...]}} and nothing else, got the keys {_shown(list(value))}")
    choices = value["choices"]
    if isinstance(choices, str | bytes) or not isinstance(choices, Sequence) or not choices:
        raise ValueError(f"{field}: choices must be a list with at least one value, got {_shown(choices)}")
    seen: set[str] = set()
    for choice in choices:
        # As JSON: 1 and True and 1.0 are three choices, and what would come back as something else is refused.
        try:
            encoded = json.dumps(choice, allow_nan=False, sort_keys=True)
            same = _identical(json.loads(encoded), choice)
        except (TypeError, ValueError, RecursionError):
            same = False
        if not same:
            raise ValueError(f"{field}: every choice must be a number, string, bool, None, or a list or dict of them "
                             f"(JSON), got {_shown(choice)}")  # fmt: skip
        if encoded in seen:
            raise ValueError(f"{field}: choices must differ, got {_shown(choice)} twice")
        seen.add(encoded)
    return Choices(name, tuple(choices))


def _identical(left: Any, right: Any) -> bool:
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(_identical(left[key], right[key]) for key in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(_identical, left, right))
    return bool(left == right)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
