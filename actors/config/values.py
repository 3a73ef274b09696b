"""The value types of a configuration: durations, and references to the environment.

Durations are written with their unit (`30m`, `6h`, `90d`, `1h30m`) and are seconds inside. `${NAME}` in a string refers to an
environment variable. It stays a reference in the settings and in the store; `expand` replaces it only where the value is used,
so no stored text, status or history contains a secret.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from actors.checks import finite, shown

_UNITS_S: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_DURATION: Final = re.compile(r"(?:[0-9]+(?:\.[0-9]+)?(?:ms|s|m|h|d|w))+")
_DURATION_PART: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d|w)")
_SHARE: Final = re.compile(r"([0-9]{1,3}(?:\.[0-9]+)?) ?%")
_PER: Final = re.compile(r"([0-9]{1,9}) per (\S+)")
REFERENCE: Final = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


@dataclass(frozen=True, slots=True)
class Duration:
    """A span of time, for keys in which a plain number means something else: `false_alarm_every: 90d` or `10000` events."""

    seconds: float


def parse_duration(value: object) -> float:
    """Return the seconds of a string like `30m`, `6h`, `90d`, `1h30m`, or of 0. ValueError otherwise."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value == 0:
        return 0.0
    if not isinstance(value, str) or not _DURATION.fullmatch(value.replace(" ", "")):
        hint = ": add the unit" if isinstance(value, (int, float)) and not isinstance(value, bool) else ""
        raise ValueError(f"must be a duration like 30m, 6h or 90d, got {shown(value)}{hint}")
    parts = _DURATION_PART.findall(value.replace(" ", ""))
    seconds = sum(float(number) * _UNITS_S[unit] for number, unit in parts)
    if not seconds <= _UNITS_S["d"] * 36525:
        raise ValueError(f"must be at most 100 years, got {shown(value)}")
    return seconds


def format_duration(seconds: float) -> str:
    """Return `seconds` as `parse_duration` reads it, in the largest unit that fits evenly."""
    for unit in ("d", "h", "m", "s"):
        if seconds and seconds % _UNITS_S[unit] == 0:
            return f"{seconds / _UNITS_S[unit]:.0f}{unit}"
    text = f"{seconds:.6f}".rstrip("0").rstrip(".")
    # A duration below a microsecond must not be read back as none at all.
    return (_plain(seconds) if seconds and not float(text) else text) + "s"


@dataclass(frozen=True, slots=True)
class Price:
    """The price of a retrain: a number of errors, or a share of the rows behind a version's promise."""

    errors: float | None = None
    share: float | None = None

    def in_errors(self, promised_n: float | None) -> float | None:
        """Return the price in errors; None for a share if there is no promise."""
        if self.errors is not None:
            return self.errors
        return None if promised_n is None or self.share is None else self.share * promised_n


@dataclass(frozen=True, slots=True)
class Budget:
    """About `count` retrains in `per_s` seconds: the price rises with each retrain ahead of that plan and falls behind it."""

    count: int
    per_s: float


def parse_price(value: object) -> Price:
    """Return the price in a number of errors or in a text like `1%`; ValueError otherwise.

    >>> parse_price(250), parse_price("1%")
    (Price(errors=250.0, share=None), Price(errors=None, share=0.01))
    """
    if isinstance(value, str) and (written := _SHARE.fullmatch(value)):
        share = float(Decimal(written[1]).scaleb(-2))
        if 0 < share <= 1:
            return Price(share=share)
    number = None if isinstance(value, str) else finite(value)
    if number is None or number <= 0:
        raise ValueError(f"must be a number of errors above 0, or a share above 0% up to 100% like 1%, got {shown(value)}")
    return Price(errors=number)


def format_price(price: Price) -> float | str:
    """Return a price as `parse_price` reads it: the same price, since the store keeps this text.

    >>> format_price(Price(share=0.0000001))
    '0.00001%'
    """
    return f"{_plain(price.share, 2)}%" if price.share is not None else float(price.errors or 0.0)


def parse_budget(value: object) -> Budget:
    """Return the budget in a text like `1 per 30d`; ValueError otherwise.

    >>> parse_budget("2 per 1w")
    Budget(count=2, per_s=604800.0)
    """
    written = _PER.fullmatch(value) if isinstance(value, str) else None
    count = int(written[1]) if written else 0
    per_s = parse_duration(written[2]) if written else 0.0
    if not (count >= 1 and per_s >= 1.0):
        raise ValueError(f"must be retrains per time like '1 per 30d', at least 1 and a second, got {shown(value)}")
    return Budget(count, per_s)


def format_budget(budget: Budget) -> str:
    """Return a budget as `parse_budget` reads it."""
    return f"{budget.count} per {format_duration(budget.per_s)}"


def _plain(number: float, shift: int = 0) -> str:
    """Return a number times 10 to the power of `shift`, all its digits and no exponent."""
    text = f"{Decimal(repr(number)).scaleb(shift):f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def expand(value: Any, environment: Mapping[str, str]) -> Any:
    """Replace `${NAME}` by the environment's value in strings at any depth. ValueError names a missing variable."""

    def found(match: re.Match[str]) -> str:
        try:
            return environment[match[1]]
        except KeyError:
            raise ValueError(f"${{{match[1]}}}: the environment of this process has no {match[1]}") from None

    if isinstance(value, str):
        return REFERENCE.sub(found, value)
    if isinstance(value, Mapping):
        return {key: expand(item, environment) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [expand(item, environment) for item in value]
    return value
