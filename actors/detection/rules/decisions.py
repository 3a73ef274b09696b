"""What an episode asks for, and what people and other parts are told of it: values that the actor carries out."""

from __future__ import annotations

from dataclasses import dataclass

from actors.replies import ShortfallNumbers


@dataclass(frozen=True, slots=True)
class Ask:
    """Ask for a retrain order of this episode."""

    episode: str


@dataclass(frozen=True, slots=True)
class Overtaken:
    """Tell that this version has come, so that an order that nobody has begun may expire."""

    version: str
    over: tuple[str, ...]  # the versions that it came after: an order for a later one is none of its business


@dataclass(frozen=True, slots=True)
class Rearm:
    """Let a metric learn its level afresh, if what its detector has learned since the alarm is the drifted one."""

    version: str
    metric: str
    baseline_mean: float
    margin: float
    since_alarm: int


@dataclass(frozen=True, slots=True)
class Tell:
    """Tell people: `kind` is opened, closed, flagged, skipped or ordered."""

    kind: str
    episode: str
    text: str


@dataclass(frozen=True, slots=True)
class Ordered:
    """An episode has got its order."""

    episode: str


@dataclass(frozen=True, slots=True)
class Retrained:
    """The order of an episode of `version` is done; `numbers` are those of the shortfall that opened it."""

    version: str
    order: str
    new_version: str | None
    numbers: ShortfallNumbers | None


Effect = Ask | Overtaken | Rearm | Tell | Ordered | Retrained
