"""Whether a request becomes an order now: the one place where that is decided."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Final

from actors.clock import Instant
from actors.labels import ALL, Selector
from actors.retraining.rules.countdown import Countdown

# While another order of the model is under way, an episode is told to ask again after this time; asking costs one read.
ASK_AGAIN_S = 60.0
_NONE: Final[Mapping[str, str]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Cooldown:
    """The pause after a dispatched order of a model."""

    order: str
    countdown: Countdown


@dataclass(frozen=True, slots=True)
class Silence:
    """No automatic order for the models that `pattern` and `selector` both match, until the countdown ends."""

    id: str
    pattern: str
    countdown: Countdown
    comment: str
    selector: Selector = ALL
    by: str | None = None

    def covers(self, model: str, now: Instant, labels: Mapping[str, str] = _NONE) -> bool:
        """Return whether it holds `model`, which has these labels, back at `now`."""
        return matches(self.pattern, model) and self.selector.matches(labels) and not self.countdown.is_over(now)


@dataclass(frozen=True, slots=True)
class Dispatch:
    """Launch it. `passed` names what a person's order has passed by."""

    passed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CoolingDown:
    """The model's last order is too recent."""

    order: str
    retry_in_s: float


@dataclass(frozen=True, slots=True)
class Silenced:
    """A person has silenced the model."""

    silence: str
    comment: str
    retry_in_s: float


@dataclass(frozen=True, slots=True)
class AlreadyActive:
    """Another order of the model is pending or running."""

    order: str
    retry_in_s: float = ASK_AGAIN_S


@dataclass(frozen=True, slots=True)
class GivenUp:
    """So many retrains in a row came to nothing: a person has to look."""

    in_a_row: int


@dataclass(frozen=True, slots=True)
class DryRun:
    """It would be launched, and is only put on record."""

    passed: tuple[str, ...] = ()


Decision = Dispatch | CoolingDown | Silenced | AlreadyActive | GivenUp | DryRun


def admit(
    model: str,
    *,
    now: Instant,
    active: str | None,
    cooldown: Cooldown | None,
    silences: Sequence[Silence],
    labels: Mapping[str, str] = _NONE,
    in_a_row: int = 0,
    give_up: int | None = None,
    manual: bool = False,
    dry_run: bool = False,
) -> Decision:
    """Decide on a request for `model`.

    `active` is the id of its pending or running order; `in_a_row` counts the unsuccessful retrains, and `give_up` of
    them are enough. A person's request (`manual`) passes all but an active order. A dry run stands last: it records exactly
    what would have been launched.
    """
    if active is not None:
        return AlreadyActive(active)
    passed: list[str] = []
    if give_up is not None and in_a_row >= give_up:
        if not manual:
            return GivenUp(in_a_row)
        passed.append(f"{in_a_row} unsuccessful retrains")
    silence = next((silence for silence in silences if silence.covers(model, now, labels)), None)
    if silence is not None:
        if not manual:
            return Silenced(silence.id, silence.comment, silence.countdown.remaining_s(now))
        passed.append(f"silence {silence.id}")
    if cooldown is not None and not cooldown.countdown.is_over(now):
        if not manual:
            return CoolingDown(cooldown.order, cooldown.countdown.remaining_s(now))
        passed.append(f"cooldown of {cooldown.order}")
    return DryRun(tuple(passed)) if dry_run else Dispatch(tuple(passed))


def matches(pattern: str, model: str) -> bool:
    """Return whether `pattern` is the model's name or a pattern of it."""
    return pattern == model or fnmatchcase(model, pattern)


def is_pattern(name: str) -> bool:
    """Return whether `name` is a pattern; the names of models contain none of `* ? [`."""
    return any(mark in name for mark in _MARKS)


def can_match(pattern: str) -> bool:
    """Return whether the name of any model can match `pattern`.

    >>> can_match("fraud-*"), can_match("fraud-["), can_match("fraud-[z-a]")
    (True, False, False)
    """
    at = 0
    while (at := pattern.find("[", at)) >= 0:
        # As fnmatch reads a class: `!` and `]` may come first in it.
        end = pattern.find("]", at + 2 + pattern.startswith("!", at + 1))
        if end < 0:
            return False  # a literal bracket, which no name contains
        one = pattern[at : end + 1]
        if not any(fnmatchcase(each, one) for each in {*one, *_PRINTABLE} - set(_MARKS)):
            return False
        at = end + 1
    return True


_MARKS = "*?["
_PRINTABLE = "".join(map(chr, range(32, 127)))
