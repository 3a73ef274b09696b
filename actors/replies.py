"""Replies of the actors, as types: plain dicts on the wire, so that a caller without this package reads them too.

Expected outcomes have a `status`; a caller's mistake raises an exact built-in instead. A section for each room.
"""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict

Json = dict[str, Any]  # arbitrary JSON of a user: parameters, a space, a context


class Unavailable(TypedDict):
    """The store cannot be reached now: nothing has changed, ask again after `retry_in_s`."""

    status: Literal["unavailable"]
    reason: str
    retry_in_s: float


class Reloaded(TypedDict):
    """The configuration has been read again."""

    status: Literal["reloaded"]


class Hello(TypedDict):
    """Who an actor is, what it speaks, and where it runs."""

    actor: str
    build: str
    epoch: int  # that every commit of it must find; 0 for an actor that owns nothing, and before it has opened its store
    schema: int  # of the store
    wire: int  # of packed batches: it takes these and older ones
    pid: int
    node: str
    boot_id: str
    store_problem: NotRequired[str]  # a file that it has open was deleted or replaced, or may not be written any more


# ---- metrics and detection ------------------------------------------------------------------------------------------------


class Rejection(TypedDict):
    """Why one event was not counted; `index` counts within the call."""

    index: int
    field: str
    value: Any
    rule: str


class Ingested(TypedDict):
    """What became of one packed batch; every count is of events.

    `accepted`: it is counted, the commit has been. `gap`: it does not continue the producer's sequence, send from `high_water`.
    `refused`: it never will be. `busy` and `unavailable`: nothing has changed or the outcome is unknown; send the same again
    after `retry_in_s`.
    """

    status: Literal["accepted", "gap", "refused", "busy", "unavailable"]
    accepted: int
    duplicates: int
    rejected: list[Rejection]  # the first thousand of them; how many there are follows from the other counts
    high_water: int | None  # the next sequence number of the producer
    epoch: int  # of the process that replies: a reply of a lower epoch than one seen before counts nothing
    reason: NotRequired[str]
    retry_in_s: NotRequired[float]
    bad_values: NotRequired[int]  # of accepted events: no finite numbers, left out; `bad_value` is the first
    bad_value: NotRequired[Rejection]
    counted: NotRequired[bool]  # of a refused one: whether its model has counted the events as rejected


def ingested(
    status: Literal["accepted", "gap", "refused", "busy", "unavailable"],
    *,
    accepted: int = 0,
    duplicates: int = 0,
    rejected: list[Rejection] | None = None,
    high_water: int | None = None,
    epoch: int = 0,
    reason: str | None = None,
    retry_in_s: float | None = None,
) -> Ingested:
    """Return the reply to one packed batch.

    >>> ingested("busy", reason="too much is in flight", retry_in_s=0.05)["accepted"]
    0
    """
    reply: Ingested = {
        "status": status,
        "accepted": accepted,
        "duplicates": duplicates,
        "rejected": rejected or [],
        "high_water": high_water,
        "epoch": epoch,
    }
    if reason is not None:
        reply["reason"] = reason
    if retry_in_s is not None:
        reply["retry_in_s"] = retry_in_s
    return reply


class Evidence(TypedDict):
    """One alarm of an episode: what was seen against what, by which detector. Levels are in the metric's units."""

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


class RetrainShown(TypedDict):
    """What status shows of a model's retrain rule."""

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
    """What became of an episode's request: asking, skipped, ordered, or informed (nothing was asked for)."""

    state: str
    reason: str | None
    asks: int
    skipped: Skipped | None
    due_at: NotRequired[float]  # event time from which it was asked again


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
    """What a person says of an alarm: whether it was a true or a false one."""

    verdict: Literal["true", "false"]
    at: float
    by: str | None
    comment: str | None


class Episode(TypedDict):
    """The whole record of an episode: what was seen, decided and done, and what came of it."""

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


class Broadcasted(TypedDict):
    """What became of raw events; counts are of events, an index counts within the call."""

    accepted: int
    duplicates: int
    rejected: list[Rejection]
    bad_values: NotRequired[int]
    status: NotRequired[Literal["busy", "unavailable"]]  # nothing or only a part could be taken
    retry_in_s: NotRequired[float]
    models: NotRequired[dict[str, Ingested]]  # where only a part could be taken: what became of each model's events


class HighWater(TypedDict):
    """The next sequence number of a producer, 0 for an unknown one."""

    status: Literal["ok"]
    high_water: int


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


# ---- tuning ---------------------------------------------------------------------------------------------------------------


class Submitted(TypedDict):
    """What `submit` did: a study of that name was begun, runs already, was taken up again, or has all its trials."""

    status: Literal["submitted", "running", "resumed", "done"]
    study: str
    name: str
    seed: int
    warnings: list[str]


class StudyEnded(TypedDict):
    """What `stop_study` and `delete_study` of the tuner did; `ended` where there was nothing to stop."""

    status: Literal["stopped", "ended", "deleted"]


class StudySummary(TypedDict):
    """State, counts and best trial of a study."""

    study: str
    name: str
    state: str
    error: str | None
    trials: int
    done: int
    counts: dict[str, int]
    workers: int
    best: int | None
    best_value: float | None
    mode: str
    seed: int
    space: Json
    strategy: str | Json
    first: int
    retry_in_s: NotRequired[float]  # too many callers wait already: ask again after this time


class StudyListing(TypedDict):
    """One study in the list of all."""

    study: str
    name: str
    state: str
    error: str | None
    created_at: float
    finished_at: float | None


class TrialRow(TypedDict):
    """One trial, parameters decoded."""

    id: int
    params: Json
    value: float | None
    state: str
    attempts: int
    error: str | None
    seconds: float | None
    node: str | None
    finished_at: float | None


Lease = list[Any]  # [trial, attempt, parameters as JSON]


class StepAnswered(TypedDict):
    """The answer to a worker's step: its new leases, and the trials among those it holds that are not worth finishing."""

    status: Literal["ok"]
    leases: list[Lease]
    ahead: bool
    stop: list[int]
    retry_in_s: NotRequired[float]  # it asked for leases and there are none now


class Gone(TypedDict):
    """The study is over, or the worker was given up for lost: it ends."""

    status: Literal["gone"]


class WorkerTerms(TypedDict):
    """What a worker needs to begin."""

    objective: bytes
    executor: str
    seed: int
    context: Json | None
    timeout_s: float | None
    resources: dict[str, float] | None


# ---- the runner -----------------------------------------------------------------------------------------------------------


class Launched(TypedDict):
    """What became of a `launch`; `instance` names the life of the runner that the task belongs to."""

    status: Literal["launched", "exists"]
    instance: str


class TaskState(TypedDict):
    """What became of a task."""

    state: Literal["running", "done", "failed", "unknown"]
    error: str | None
    result: Any


class TasksEnded(TypedDict):
    """Tasks that have ended, as [key, error or None]; ask again with `next`."""

    instance: str
    ended: list[list[str | None]]
    next: int


class TaskStatus(TypedDict):
    """What became of a `cancel` or a `forget`."""

    status: Literal["cancelled", "unknown", "forgotten", "running"]


class Capacity(TypedDict):
    """How many tasks of one shape the nodes could run at once, were they idle."""

    tasks: int


# ---- retraining -----------------------------------------------------------------------------------------------------------


class Recorded(TypedDict):
    """It is on record, now or already."""

    status: Literal["recorded"]


class Admitted(TypedDict):
    """What became of a request. A skipped one may ask again after `retry_in_s`; None: there is nothing to ask again for."""

    status: Literal["recorded"]
    decision: Literal["dispatched", "pending", "skipped"]
    order: str | None
    reason: str
    retry_in_s: float | None
    warning: NotRequired[str]  # of a person's request: the model has never logged


class Overtaken(TypedDict):
    """The order that expired because a new version has come, if one did."""

    status: Literal["recorded"]
    expired: str | None


class EndingRecorded(TypedDict):
    """Whether an ending is on record, or "stale" and why it is not."""

    status: Literal["recorded", "stale"]
    reason: str


class EventFields(TypedDict):
    """A RetrainEvent as plain values."""

    id: str
    model_name: str
    model_version: str
    metric: str
    observed_drift: float
    triggered_at: float
    episode: str
    explanation: Json


class TakenOrder(TypedDict):
    """An order as its consumer gets it."""

    id: str
    attempt: int
    requested_at: float
    event: EventFields


class Taken(TypedDict):
    """An order with its token and lease, "none", or "unavailable" where too many wait already."""

    status: Literal["order", "none", "unavailable"]
    order: NotRequired[TakenOrder]
    token: NotRequired[int]
    lease_s: NotRequired[float]
    reason: NotRequired[str]
    retry_in_s: NotRequired[float]


class Renewed(TypedDict):
    """The seconds of the renewed lease, or "lost" and why."""

    status: Literal["renewed", "lost"]
    lease_s: NotRequired[float]
    reason: NotRequired[str]


class SilenceMade(TypedDict):
    """The id of a silence that is in force now; a warning where it covers no model that has ever logged."""

    status: Literal["recorded"]
    silence: str
    warning: NotRequired[str]


class SilenceRow(TypedDict):
    """A silence in force; `model` is the pattern that it covers, `label` the selector, `by` the person who made it."""

    id: str
    model: str
    label: str
    comment: str
    by: str | None
    created_at: float
    remaining_s: float


class SilenceListing(TypedDict):
    """The silences in force."""

    status: Literal["ok"]
    silences: list[SilenceRow]


class OrderState(TypedDict):
    """How the order of a request stands, and what the new version promises."""

    order: str
    state: str
    reason: str
    new_version: str | None
    promise: float | None
    promise_n: float | None
    verdict: str | None


class ActRow(TypedDict):
    """What a person has done with an order: triggered, retried, front or dismissed."""

    at: float
    act: str
    by: str | None
    comment: str | None


class OrderRow(TypedDict):
    """One order or decision of the history. Times are seconds since the epoch, or None."""

    id: str
    model: str
    version: str
    metric: str
    cause: str
    episode: str
    observed_drift: float | None
    lost: float | None
    price: float | None
    state: str
    reason: str
    handler: str
    requested_at: float
    dispatched_at: float | None
    finished_at: float | None
    attempts: int
    new_version: str | None
    promise: float | None
    promise_n: float | None
    promise_source: str | None
    verdict: str | None
    saved: float | None
    saved_error: float | None
    consumer: str | None
    acts: list[ActRow]


class OrderHistory(TypedDict):
    """The newest orders and decisions, oldest first."""

    status: Literal["ok"]
    rows: list[OrderRow]


class QueueRow(OrderRow):
    """An order that waits: its place in the line, from 1, and why it waits."""

    place: int
    why: str


class OrderQueue(TypedDict):
    """The orders that wait, the next one first, and how many run."""

    status: Literal["ok"]
    rows: list[QueueRow]


class AttemptRow(TypedDict):
    """One attempt of an order. Times are wall-clock seconds."""

    attempt: int
    handler: str
    consumer: str | None
    started_at: float
    ended_at: float | None
    outcome: str | None
    reason: str | None


class OrderShown(OrderRow):
    """One order with its explanation, what a study found, and its attempts."""

    status: Literal["ok"]
    explanation: Json
    tuning: Json | None
    attempt_log: list[AttemptRow]


class CooldownListing(TypedDict):
    """The seconds that are left of every cooldown in force, by model; and the models that ask no more."""

    status: Literal["ok"]
    cooldowns: dict[str, float]
    gave_up: dict[str, int]


# ---- the whole system -----------------------------------------------------------------------------------------------------


class ActorStatus(TypedDict):
    """One process; what does not answer is not alive."""

    pid: int | None
    node: str | None
    alive: bool
    epoch: int | None
    store_problem: NotRequired[str]  # as its hello says


class Status(TypedDict):
    """The state of the system, as `System.status` returns it. Counts come from the store, not from memory."""

    namespace: str | None
    build: str | None
    storage: str
    pinned_to: str | None  # the node that holds a SQLite store
    models: dict[str, Json]
    refused: Json
    clients: dict[str, Json]
    retrains: dict[str, int]
    tuner: dict[str, int]
    actors: dict[str, ActorStatus]
    store_problem: NotRequired[str]  # the store did not answer, is not whole, or is another
