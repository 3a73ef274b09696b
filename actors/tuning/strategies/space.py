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
from functools import cached_property
from numbers import Real
from typing import Any, Final

from actors.checks import finite, plain, shown, unboxed, whole
from actors.replies import Json
from actors.tuning.strategies.given import plain_space

Value = Any  # what a parameter may be: float, int, or a choice that encodes as JSON

# Uniform sampling over three decades or more spends 90% of the trials in the last one (measured: 10 times worse on one of
# three real tasks), so that a missing "log" is worth a warning.
WIDE_RATIO: Final = 999.999  # 1e-2 / 1e-5 is a little below 1000
_MAX_PARAMETERS: Final = 1000
# Of one parameter. Each is encoded to see that it differs from the others, and is in every summary of the study.
MAX_CHOICES: Final = 10_000
_MAX_NAME: Final = 200
_MAX_WHOLE: Final = 2**53  # beyond it a double no longer holds every whole number
_FLAGS: Final = ("log", "int")


@dataclass(frozen=True, slots=True)
class FloatRange:
    """A float between two bounds, uniform or uniform in its logarithm."""

    name: str
    low: float
    high: float
    log: bool = False

    def at(self, position: float) -> float:
        """Return the value at `position` in [0, 1]; never beyond the bounds."""
        if self.log:
            log_low = math.log(self.low)
            value = math.exp(log_low + (math.log(self.high) - log_low) * position)
        else:
            value = self.low + (self.high - self.low) * position
        return min(max(value, self.low), self.high)

    def document(self) -> list[Value]:
        """Return the range as a user writes it."""
        return [self.low, self.high, *(["log"] if self.log else [])]

    def checked(self, field: str, value: object) -> float:
        """Return a given value if it is in the range; ValueError otherwise."""
        number = finite(value)
        if number is None or not self.low <= number <= self.high:
            raise ValueError(f"{field} must be a number from {self.low:g} to {self.high:g}, got {shown(value)}")
        return number


@dataclass(frozen=True, slots=True)
class IntRange:
    """A whole number, both bounds included, uniform or by its logarithm."""

    name: str
    low: int
    high: int
    log: bool = False

    def at(self, position: float) -> int:
        """Return the value at `position` in [0, 1]; never beyond the bounds."""
        if self.log:
            log_low = math.log(self.low)
            value = math.floor(math.exp(log_low + (math.log(self.high + 1) - log_low) * position))
        else:
            value = self.low + math.floor(position * (self.high - self.low + 1))
        return min(max(value, self.low), self.high)

    def document(self) -> list[Value]:
        """Return the range as a user writes it."""
        return [self.low, self.high, "int", *(["log"] if self.log else [])]

    def checked(self, field: str, value: object) -> int:
        """Return a given value if it is in the range; ValueError otherwise."""
        return whole(field, value, self.low, self.high)


@dataclass(frozen=True)
class Choices:
    """One of several values without an order."""

    name: str
    choices: tuple[Value, ...]

    def at(self, position: float) -> Value:
        """Return the value at `position` in [0, 1]: each has an equal share."""
        return self.choices[min(int(position * len(self.choices)), len(self.choices) - 1)]

    def document(self) -> dict[str, list[Value]]:
        """Return the choices as a user writes them."""
        return {"choices": list(self.choices)}

    def checked(self, field: str, value: object) -> Value:
        """Return a value that somebody chose, if it is one of the choices; ValueError otherwise."""
        return self.choices[self.place_of(field, value)]

    def place_of(self, field: str, value: object) -> int:
        """Return the place of `value` among the choices; ValueError where it is none of them."""
        try:
            place = self._places.get(_canonical(plain(value)))
        except (TypeError, ValueError, RecursionError):
            place = None
        if place is None:
            raise ValueError(f"{field} must be one of {shown(list(self.choices))}, got {shown(value)}")
        return place

    @cached_property
    def _places(self) -> dict[str, int]:
        return {_canonical(choice): place for place, choice in enumerate(self.choices)}


Parameter = FloatRange | IntRange | Choices


@dataclass(frozen=True, slots=True)
class Space:
    """The parameters of a study, in the order in which they were given."""

    parameters: tuple[Parameter, ...]

    def at(self, positions: Sequence[float]) -> dict[str, Value]:
        """Return the parameters at `positions: float[n]`, one in [0, 1] for each parameter."""
        return {parameter.name: parameter.at(x) for parameter, x in zip(self.parameters, positions, strict=True)}

    def document(self) -> Json:
        """Return the space as a user writes it; `parse` of it is the same space."""
        return {parameter.name: parameter.document() for parameter in self.parameters}

    def checked(self, field: str, params: object) -> Json:
        """Return parameters that somebody chose, in the order of the space; ValueError names the one that does not fit."""
        names = [parameter.name for parameter in self.parameters]
        if not isinstance(params, Mapping) or set(params) != set(names):
            raise ValueError(f"{field} must be a mapping with the names {', '.join(names)}, got {shown(params)}")
        return {p.name: p.checked(f"{field}[{p.name!r}]", params[p.name]) for p in self.parameters}

    def warnings(self) -> list[str]:
        """Return what is legal and probably not meant."""
        return [
            f"space[{p.name!r}]: {p.low:g} to {p.high:g} is sampled uniformly, so nearly every value is near {p.high:g}; "
            f"if the order of magnitude matters write [{p.low:g}, {p.high:g}, 'log']"
            for p in self.parameters
            if not isinstance(p, Choices) and not p.log and p.low > 0 and p.high / p.low >= WIDE_RATIO
        ]


def parse(space: object) -> Space:
    """Return `space` as a Space; ValueError names the parameter, the value and the rule.

    Optuna's distributions and a ConfigSpace are taken too.

    >>> parse({"dropout": [0.0, 0.5], "layers": [1, 8, "int"]}).at([0.5, 1.0])
    {'dropout': 0.25, 'layers': 8}
    """
    space = plain_space(space)
    if not isinstance(space, Mapping):
        raise ValueError(f"space must be a mapping from names to ranges, got {shown(space)}")
    if not space:
        raise ValueError("space must have at least one parameter, got none")
    if len(space) > _MAX_PARAMETERS:
        raise ValueError(f"space must have at most {_MAX_PARAMETERS} parameters, got {len(space)}")
    return Space(tuple(_parameter(name, value) for name, value in space.items()))


def _parameter(name: object, value: object) -> Parameter:
    if not isinstance(name, str) or not 0 < len(name) <= _MAX_NAME:
        raise ValueError(f"space: a parameter's name must be a string of 1 to {_MAX_NAME} characters, got {shown(name)}")
    field = f"space[{name!r}]"
    if isinstance(value, Mapping):
        return _choices(field, name, value)
    value = _listed(value)
    if value is None or not 2 <= len(value) <= 2 + len(_FLAGS):
        raise ValueError(
            f"{field} must be a pair [min, max], optionally with 'log' or 'int', or {{'choices': [...]}}, got {shown(value)}"
        )
    low, high, *flags = value
    for flag in flags:
        if flag not in _FLAGS or flags.count(flag) > 1:
            raise ValueError(f"{field} must be [min, max] followed by 'log' or 'int' or both, got {shown(flag)}")
    log, is_whole = "log" in flags, "int" in flags
    bounds = [_bound(field, "min", low), _bound(field, "max", high)]
    if not bounds[0] < bounds[1]:
        raise ValueError(f"{field}: min must be below max, got {shown(low)} and {shown(high)}")
    if not math.isfinite(bounds[1] - bounds[0]):
        raise ValueError(f"{field}: the width max - min must be finite, got {shown(low)} and {shown(high)}")
    if log and not bounds[0] > 0:
        raise ValueError(f"{field}: min must be above 0 with 'log', got {shown(low)}")
    if not is_whole:
        return FloatRange(name, bounds[0], bounds[1], log)
    return IntRange(name, _whole(field, "min", low), _whole(field, "max", high), log)


def _listed(value: object) -> list[Any] | None:
    """Return a sequence or a vector of numpy as a list; None for anything else, texts too."""
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return list(value)
    found = plain(value)
    return found if isinstance(found, list) else None


def _bound(field: str, which: str, value: object) -> float:
    number = unboxed(value)
    if isinstance(number, bool) or not isinstance(number, Real):
        raise ValueError(f"{field}: {which} must be a number, got {shown(value)}")
    bound = finite(number)
    if bound is None:
        raise ValueError(f"{field}: {which} must be finite, got {shown(value)}")
    return bound


def _whole(field: str, which: str, value: Any) -> int:
    number = plain(value)
    if number != math.floor(number):
        raise ValueError(f"{field}: {which} must be a whole number with 'int', got {shown(value)}")
    if abs(int(number)) > _MAX_WHOLE:
        raise ValueError(f"{field}: {which} must be between -2**53 and 2**53 with 'int', got {shown(value)}")
    return int(number)


def _choices(field: str, name: str, value: Mapping[Any, Any]) -> Choices:
    if set(value) != {"choices"}:
        raise ValueError(f"{field} must be {{'choices': [...]}} and nothing else, got the keys {shown(list(value))}")
    given = value["choices"]
    size = len(given) if hasattr(given, "__len__") else 0
    if size > MAX_CHOICES:
        raise ValueError(f"{field}: choices must be at most {MAX_CHOICES}, got {size}")
    choices = _listed(given)
    if not choices:
        raise ValueError(f"{field}: choices must be a list with at least one value, got {shown(given)}")
    seen: set[str] = set()
    kept = []
    for choice in map(plain, choices):
        # As JSON: 1 and True and 1.0 are three choices, and what would come back as something else is refused.
        try:
            encoded = _canonical(choice)
            same = _identical(json.loads(encoded), choice)
        except (TypeError, ValueError, RecursionError):
            same = False
        if not same:
            raise ValueError(
                f"{field}: every choice must be a number, string, bool, None, or a list or dict of them "
                f"(JSON), got {shown(choice)}"
            )
        if encoded in seen:
            raise ValueError(f"{field}: choices must differ, got {shown(choice)} twice")
        seen.add(encoded)
        kept.append(choice)
    return Choices(name, tuple(kept))


def _canonical(value: object) -> str:
    return json.dumps(value, allow_nan=False, sort_keys=True)


def _identical(left: Any, right: Any) -> bool:
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(_identical(left[key], right[key]) for key in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(_identical, left, right))
    return bool(left == right)
