"""What an attempt to launch a retrain came to, and when to try again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from actors.checks import finite, shown


@dataclass(frozen=True, slots=True)
class Launched:
    """It runs somewhere; ask again how it goes. `reason`: why nobody can tell now."""

    reason: str = ""


CROSS_VALIDATION: Final = "cross_validation"
_MAX_ROWS: Final = 1e12
SOURCES: Final = (CROSS_VALIDATION, "hold_out")


@dataclass(frozen=True, slots=True)
class Promise:
    """The promise of a new version: the value of the model's metric on its `n` training rows, and its source."""

    value: float
    n: float
    source: str = CROSS_VALIDATION


def promise_of(value: object, n: object, source: object = None) -> Promise | None:
    """Return what a new version promises: a proportion, and the number of training rows that it was found on."""
    if value is None and n is None:
        return None
    if value is None or n is None:
        raise ValueError(f"promise and promise_n must be given together, got promise {shown(value)}, promise_n {shown(n)}")
    rows, share = finite(n), finite(value)
    if rows is None or not 1 <= rows <= _MAX_ROWS:
        raise ValueError(f"promise_n must be from 1 to {_MAX_ROWS:g}, got {shown(n)}")
    source = CROSS_VALIDATION if source is None else source
    if source not in SOURCES:
        raise ValueError(f"promise_source must be one of {', '.join(SOURCES)}, got {shown(source)}")
    if share is None or not 0 <= share <= 1:
        raise ValueError(f"promise must be from 0 to 1, got {shown(value)}")
    return Promise(share, rows, source)


@dataclass(frozen=True, slots=True)
class Done:
    """The retrain is through, or in the hands of a receiver that reports no further."""

    new_version: str | None = None
    reason: str = ""
    promise: Promise | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """It was launched and the retrain itself failed: a person decides whether to put it back."""

    reason: str


@dataclass(frozen=True, slots=True)
class Retry:
    """The attempt failed, or its outcome is unknown and it can be sent again. `after_s`: not before so many seconds.

    `after_s` of 0 asks for the next attempt at once. `silent`: the receiver was not heard at all, so that other orders for it
    will most likely fare no better now.
    """

    reason: str
    after_s: float | None = None
    silent: bool = False


@dataclass(frozen=True, slots=True)
class Stop:
    """Another attempt cannot help: the order becomes a dead letter."""

    reason: str


@dataclass(frozen=True, slots=True)
class HandOn:
    """A study is through: the order goes on to `handler` with what it found."""

    tuning: Mapping[str, object]
    handler: str
    handler_settings: Mapping[str, object]


Outcome = Launched | Done | Failed | Retry | Stop | HandOn


class Jitter(Protocol):
    """A numpy Generator, as far as the schedule needs it."""

    def random(self) -> float:
        """Draw uniformly from [0, 1)."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential pauses with jitter, then none: after `max_failures` in a row the order becomes a dead letter.

    The nth pause is between 1/2 and 1 times min(first_s * factor ** (n - 1), ceiling_s). The defaults span about half an hour.
    """

    first_s: float = 1.0
    factor: float = 2.0
    ceiling_s: float = 600.0
    max_failures: int = 12

    def __post_init__(self) -> None:
        if not (self.first_s > 0 and self.factor >= 1 and self.ceiling_s >= self.first_s):
            raise ValueError(f"backoff needs 0 < first_s <= ceiling_s and factor >= 1, got {self}")
        if self.max_failures < 1:
            raise ValueError(f"max_failures must be >= 1, got {self.max_failures}")

    def delay_s(self, failures: int, jitter: Jitter, *, at_least_s: float | None = None) -> float | None:
        """Return the pause after the `failures`th failure in a row; None: give up.

        `at_least_s` is what the receiver asked for (Retry-After, at most a day of it is obeyed); 0 means at once.
        """
        if failures >= self.max_failures:
            return None
        if at_least_s == 0:
            return 0.0
        # The exponent is bounded before it is used: a float overflows at 2.0 ** 1024.
        steps = min(failures - 1, 64)
        planned_s = min(self.first_s * self.factor**steps, self.ceiling_s) * (0.5 + 0.5 * jitter.random())
        return max(planned_s, min(at_least_s or 0.0, _LONGEST_OBEYED_S))


# A receiver that asks for a pause of more than a day is tried again after a day.
_LONGEST_OBEYED_S = 86_400.0
