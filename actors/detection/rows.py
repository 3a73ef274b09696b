"""What one commit of a detector process writes: rows of its tables, as dicts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypedDict

from actors.replies import Happening, SetAside

Payload = bytes | memoryview


class LogRow(TypedDict):
    """One numbered row of a model's log."""

    model: str
    number: int
    producer: str | None
    sequence: int
    skip: int
    count: int
    received_at: float
    payload: Payload


class ProducerRow(TypedDict):
    """Where a producer of a model goes on."""

    model: str
    producer: str
    high_water: int
    seen_at: float
    client: bytes | None


class ModelRow(TypedDict):
    """A model's counts, and what it keeps in memory."""

    model: str
    process: str
    events: int
    duplicates: int
    rejected: int
    number: int
    snapshot: int
    last_at: float
    memory: bytes


class StateRow(TypedDict):
    """The snapshot of one detector."""

    model: str
    version: str
    metric: str
    kind: str
    state: bytes


class SampleRow(TypedDict):
    """A baseline that was given, or pinned: float64[n], little-endian."""

    model: str
    version: str
    metric: str
    sample: bytes


class EpisodeRow(TypedDict):
    """An episode's record, and what it is found by."""

    id: str
    model: str
    version: str
    ordinal: int
    open: int
    opened_at: float
    record: bytes


class JudgementRow(TypedDict):
    """A person's verdict on an episode: a true or a false alarm."""

    episode: str
    model: str
    opened_at: float
    verdict: str


class OutboxRow(TypedDict):
    """A call that the dispatcher has not recorded yet."""

    id: str
    model: str
    process: str
    method: str
    body: bytes
    created_at: float


class QuarantineRow(SetAside):
    """A batch that was set aside, with its bytes."""

    payload: Payload


@dataclass(frozen=True, slots=True)
class Damage:
    """A row that cannot be read: it goes into quarantine, and its model goes on without it."""

    table: Literal["log", "states", "samples", "episodes", "outbox"]
    model: str
    key: tuple[str | int, ...]  # what its primary key holds besides the model
    content: bytes
    reason: str
    count: int = 0  # events that the detectors do not learn from

    def __str__(self) -> str:
        """Return which row it is, and why it cannot be read."""
        return f"{self.table} {' '.join(map(str, self.key))}: {self.reason}"


@dataclass(slots=True)
class Changes:
    """What one commit writes, at wall time `at_s`."""

    at_s: float = 0.0
    log: list[LogRow] = field(default_factory=list)
    producers: list[ProducerRow] = field(default_factory=list)
    models: list[ModelRow] = field(default_factory=list)
    states: list[StateRow] = field(default_factory=list)
    samples: list[SampleRow] = field(default_factory=list)
    episodes: list[EpisodeRow] = field(default_factory=list)
    judgements: list[JudgementRow] = field(default_factory=list)
    outbox: list[OutboxRow] = field(default_factory=list)
    quarantine: list[QuarantineRow] = field(default_factory=list)
    happenings: list[Happening] = field(default_factory=list)
    damaged: list[Damage] = field(default_factory=list)
    sent: list[str] = field(default_factory=list)  # outbox rows that their receiver has recorded
    tried: list[tuple[str, str]] = field(default_factory=list)  # attempts that came through
    dropped_versions: list[tuple[str, str]] = field(default_factory=list)
