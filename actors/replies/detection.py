"""Replies of the detectors: episodes with their evidence, versions, baselines."""

from __future__ import annotations

from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict

from actors.plain import Json


class Evidence(TypedDict):
    """One alarm of an episode: the level, its baseline, and the detector. Levels are in the metric's units."""

    metric: str
    at: float  # when it was received
    time: float  # of the event
    detector: str
    direction: str
    statistic: float
    threshold: float
    baseline_n: int
    baseline_mean: float
    baseline_sd: float
    window_n: int
    window_mean: float
    estimated_start: int  # events back from the alarming one, which counts as 1
    extra: NotRequired[Json]


class Decision(TypedDict):
    """One thing that was decided about an episode, or done, with its numbers."""

    at: float
    decision: str
    why: str
    numbers: Json


class ShortfallNumbers(TypedDict):
    """Why a retrain pays: what the live version has lost of its promise, beyond chance, in the stretch that ends now.

    Errors and hits are of the rows of the stretch; for a share of errors the promise and the rate are those of the rows
    without one.
    """

    cause: Literal["shortfall"]
    metric: str
    promised: float
    promised_n: float
    inherited_from: str | None  # the version whose promise it is, where the version has none of its own
    price: float
    lost: float
    z: float
    stretch_rows: int
    stretch_hits: int
    stretch_rate: float
    stretch_windows: int
    stretch_since: float | None  # event time
    standard_error: float
    drift: float  # distance of the rate from the promise, in standard errors


class MetricProgress(TypedDict):
    """How far the detector of one metric has got; `state`: learning, stable, warning, drifting or error."""

    state: str
    baseline: float | None  # mean of the level that new events are compared with
    recent: float | None  # mean of the last events
    seen: int  # events since the last alarm
    warmup: int  # events that are learned from before an alarm is possible
    n_baseline: int
    statistic: float
    threshold: float
    error: NotRequired[str]  # why the detector cannot take the metric


class VersionProgress(TypedDict):
    """One version in `status`."""

    events: int
    late: int
    state: str
    metrics: dict[str, MetricProgress]


class LastRejection(TypedDict):
    """Why the last rejected event was not counted, and when it came."""

    field: str
    value: Any
    rule: str
    at: float


class ClockAhead(TypedDict):
    """How far a sender's clock ran ahead of ours, in seconds, and when that was noticed last."""

    s: float
    at: float


class ModelStatus(TypedDict):
    """One model in `status`, as its detector's process has stored it."""

    events: int
    duplicates: int
    rejected: int
    last_at: float
    open_episodes: list[str]
    open_requests: list[str]
    undelivered: int  # calls that the dispatcher has not confirmed yet
    damaged: DamageShown | None
    state: str
    late: int
    quarantined: int
    flagged: list[str]
    last_rejection: LastRejection | None
    bad_values: int
    clock_ahead: ClockAhead | None
    pinned: str | None
    retrain: RetrainShown | None
    versions: dict[str, VersionProgress]


class SetAside(TypedDict):
    """A batch, or a damaged row, that was set aside."""

    model: str
    producer: str
    sequence: int
    count: int
    received_at: float
    reason: str


class DamageShown(TypedDict):
    """Rows of a model that the store could not give back as they were written; the last of them, and when it was found."""

    rows: int
    last: str
    at: float


class RetrainShown(TypedDict):
    """A model's retrain rule in `status`."""

    when: str
    metric: str
    lost: float | None  # errors beyond the promise since deployment; None where they cannot be told
    price: float | None
    promised: float | None
    promised_n: float | None
    promise_source: str | None
    inherited_from: str | None
    missing: list[str]  # what keeps the rule from working: promise, n
    live_version: str | None
    unused: int  # events with n that are no share of n rows


class VersionShown(TypedDict):
    """One version as `versions` lists it."""

    version: str
    state: str  # live, candidate or former
    since: float  # event time at which it got its state
    promise: Json | None
    evidence: Json | None
    by: str | None  # the person who gave it its state, where one did
    comment: str | None


class VersionsListed(TypedDict):
    """The versions of a model, in the order in which they appeared."""

    status: Literal["ok"]
    rows: list[VersionShown]


class PromiseRecorded(TypedDict):
    """A promise is on record, also when the same is said again."""

    status: Literal["recorded"]


class VersionAnnounced(TypedDict):
    """The reply to a version that a registry has announced."""

    status: Literal["recorded"]
    live: str | None  # the live version now


class VersionChanged(TypedDict):
    """A version is live because a person has said so; `over` was live before."""

    status: Literal["promoted", "rolled_back"]
    version: str
    over: str | None


class Skipped(TypedDict):
    """How long a request that was skipped waits before it is made again, and since when."""

    s: float
    wall_s: float
    boot_s: float
    boot_id: str


class Asked(TypedDict):
    """The state of an episode's request: asking, skipped, ordered, or informed (no request)."""

    state: str
    reason: str | None
    asks: int
    skipped: Skipped | None
    due_at: NotRequired[float]  # event time from which it was requested again


class OrderOf(TypedDict):
    """The order that an episode got, as the dispatcher says."""

    order: str
    state: str
    reason: str | None
    new_version: str | None


class After(TypedDict):
    """The version that came of the retrain; None where none has come yet."""

    version: str | None


class Judgement(TypedDict):
    """A person's verdict on an alarm: true or false."""

    verdict: Literal["true", "false"]
    at: float
    by: str | None
    comment: str | None


class Episode(TypedDict):
    """The whole record of an episode: observations, decisions, actions and outcome."""

    id: str
    model: str
    version: str
    ordinal: int
    metric: str
    opened_at: float
    time: float  # of the event that opened it
    closed_at: float | None
    closed_by: str | None
    alarms: int
    evidence: list[Evidence]
    watches: dict[str, Json]  # by metric that has not recovered: see detection.rules.recovery
    recovered: list[str]
    request: Asked
    order: OrderOf | None
    after: After | None
    acknowledged_at: float | None
    flagged: str | None
    decisions: list[Decision]
    held: bool  # whether its state machine still waits for something
    acknowledged_by: NotRequired[str | None]
    judged: NotRequired[Judgement]  # what a person says of it
    cause: NotRequired[str]  # what opened it: alarm (also where it is left out) or shortfall
    shortfall: NotRequired[ShortfallNumbers]


class Quietest(TypedDict):
    """The model of a process that was silent longest, and when it last logged; None where none has logged."""

    status: Literal["ok"]
    model: str | None
    last_at: float | None


class Removable(TypedDict):
    """The ordinal of a model's last episode and the number of the last row of its log: a removed model goes on from them."""

    status: Literal["ok"]
    ordinal: int
    number: int


class ModelRemoved(TypedDict):
    """A model's rows are gone; "changed": it has moved on since its numbers were noted, and nothing has changed."""

    status: Literal["removed", "changed"]


class ModelGone(TypedDict):
    """A model is removed; its episodes and orders too where it was purged."""

    status: Literal["removed"]
    model: str
    purged: bool


class ModelForgotten(TypedDict):
    """The dispatcher keeps nothing of a model, or would keep nothing; "refused": `order` is not finished."""

    status: Literal["forgotten", "refused"]
    order: str | None


class BaselineLearned(TypedDict):
    """The metrics that learned from a given baseline, and those of it that nobody watches."""

    status: Literal["learned"]
    metrics: list[str]
    unwatched: list[str]


class Pinned(TypedDict):
    """The metrics whose baseline holds for every version now; none where it was unpinned."""

    status: Literal["pinned", "unpinned"]
    metrics: list[str]


class Acknowledged(TypedDict):
    """A person has seen an episode; `settled`: nobody waits for it any more."""

    status: Literal["acknowledged", "settled"]


class EpisodeJudged(TypedDict):
    """A person's verdict on an episode is on record; `changed` says whether it was another one, or none, before."""

    status: Literal["recorded"]
    episode: str
    verdict: str
    changed: bool
