"""A retrain order: what asks for it, its states, and the only ways from one to the next.

    pending --> running --> done | failed --> dismissed   (a person has dealt with it)
       ^           |------> dead  ----------> dismissed   (launching failed too often, or the receiver is gone for good)
       |-----------|                    (an attempt failed, or a lease ran out: again, later)
       |------> expired                 (a new version came first)

`skipped` and `dry_run` are decisions on the record that launched nothing. `failed` and `dead` orders may be put back.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from actors.clock import Instant
from actors.retraining.rules.countdown import Countdown
from actors.retraining.rules.delivery import Backoff, Done, Failed, HandOn, Jitter, Launched, Outcome, Promise, Retry, Stop

PENDING: Final = "pending"
RUNNING: Final = "running"
DONE: Final = "done"
FAILED: Final = "failed"
DEAD: Final = "dead"
EXPIRED: Final = "expired"
SKIPPED: Final = "skipped"
DRY_RUN: Final = "dry_run"
DISMISSED: Final = "dismissed"

# The store that made a request's key: of an episode, or of another cause.
_MADE_BY: Final = re.compile(r"([0-9a-f]{8})-[eq]-")
STATES: Final = (PENDING, RUNNING, DONE, FAILED, DEAD, EXPIRED, SKIPPED, DRY_RUN, DISMISSED)
ACTIVE: Final = (PENDING, RUNNING)
RETRYABLE: Final = (FAILED, DEAD, EXPIRED)
DISMISSABLE: Final = (FAILED, DEAD)

Cause = Literal["alarm", "shortfall", "age", "manual", "promoted", "rolled_back"]
ALARM: Final = "alarm"  # a drift episode
SHORTFALL: Final = "shortfall"  # the errors lost have reached the price of a retrain
AGE: Final = "age"  # the live version is older than `max_age`
MANUAL: Final = "manual"
CAUSES: Final[tuple[Cause, ...]] = (ALARM, SHORTFALL, AGE, MANUAL)
# Decisions about versions, which the promotion handler carries out: orders of another kind, none of a retrain.
PROMOTED: Final = "promoted"
ROLLED_BACK: Final = "rolled_back"
PROMOTIONS: Final[tuple[Cause, ...]] = (PROMOTED, ROLLED_BACK)

PAID: Final = "paid"
DID_NOT_PAY: Final = "did not pay"
VERDICTS: Final = (PAID, DID_NOT_PAY)

# What the reason of a running order begins with while the tool that runs it cannot tell.
UNKNOWN: Final = "how it goes is unknown: "


@dataclass(frozen=True, slots=True)
class Request:
    """The request for a retrain of `version`, and its reason.

    `episode` is the drift episode of an alarm, else empty. `lost` and `price` are errors, where the cause has them: the order
    that has lost most over its price goes first where orders queue.
    """

    model: str
    version: str
    metric: str
    observed_drift: float | None
    triggered_at: float
    episode: str
    explanation: Mapping[str, object]
    cause: Cause = ALARM
    ordinal: int | None = None
    lost: float | None = None
    price: float | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a retrain paid: the errors that it saved, with the standard error of that estimate."""

    word: str
    saved: float
    standard_error: float
    at: float


@dataclass(frozen=True, slots=True)
class Order:
    """One retrain order, or the record of a decision not to give one. Times are wall-clock seconds, for people.

    `attempts` counts every hand-over and never goes back: it is the fencing token of a lease too. `failures` counts those
    in a row that failed, for the delivery schedule. `wait` is the pause before the next attempt of a pending order, the
    lease of a running one. `launched` says that the effect is known to have happened: of the present attempt, on the
    channel of any. `tuning` is what a study found. `started` is when the present attempt was handed over. `front` is above 0
    where a person has moved the order up in the queue; of two such orders the higher goes first.
    """

    id: str
    request: Request
    state: str
    reason: str
    handler: str
    handler_settings: Mapping[str, object]
    requested_at: float
    dispatched_at: float | None = None
    finished_at: float | None = None
    attempts: int = 0
    failures: int = 0
    rounds: int = 0
    launched: bool = False
    wait: Countdown | None = None
    consumer: str | None = None
    overtaken_by: str | None = None
    new_version: str | None = None
    tuning: Mapping[str, object] | None = None
    promise: Promise | None = None
    verdict: Verdict | None = None
    started: Instant | None = None
    front: int = 0

    @property
    def model(self) -> str:
        """The model to retrain."""
        return self.request.model

    @property
    def manual(self) -> bool:
        """Return whether a person asked for it."""
        return self.request.cause == MANUAL

    @property
    def is_promotion(self) -> bool:
        """Return whether it is a decision about versions, and no retrain."""
        return self.request.cause in PROMOTIONS

    @property
    def is_active(self) -> bool:
        """Return whether it is pending or running: a model has at most one such order."""
        return self.state in ACTIVE

    def is_due(self, now: Instant) -> bool:
        """Return whether a pending order may be attempted now."""
        return self.state == PENDING and (self.wait is None or self.wait.is_over(now))


def order_id(store_id: str, key: str) -> str:
    """Name the one order of a request: the same after any restart and on every resend.

    A store that was restored from a backup has an id of its own; a request that was made before keeps the order's id of then.
    """
    made_by = _MADE_BY.match(key)
    return f"{made_by[1] if made_by else store_id}-r-{_digest(key)}"


def age_key(store_id: str, model: str, version: str, ordinal: int, lives: int = 0) -> str:
    """Name the request for the `ordinal`th retrain of a model because of the age of its version.

    `lives` counts how often the model was removed before: what it asks for after that is never taken for a request of then.
    """
    return f"{store_id}-q-{_digest(model, version, AGE, str(ordinal), *_life(lives))}"


def manual_key(key: str, lives: int = 0) -> str:
    """Name a person's request for a model that was removed `lives` times before."""
    return "\0".join(("manual", key, *_life(lives)))


def promotion_id(store_id: str, key: str) -> str:
    """Name the one decision about versions of a key: the same after any restart and on every resend."""
    return f"{store_id}-p-{_digest(key)}"


def skip_id(store_id: str, key: str, because: str) -> str:
    """Name the record that the request `key` was skipped because of something: one each, however often it asks."""
    return f"{store_id}-k-{_digest(key, because)}"


def begun(order: Order, now: Instant, *, lease: Countdown | None = None, consumer: str | None = None) -> Order:
    """Start the next attempt; it goes on record before anything is handed over."""
    return replace(
        order,
        state=RUNNING,
        attempts=order.attempts + 1,
        dispatched_at=now.wall_s if order.dispatched_at is None else order.dispatched_at,
        wait=lease,
        consumer=consumer,
        started=now,
    )


def settled(order: Order, outcome: Outcome, now: Instant, backoff: Backoff, jitter: Jitter) -> Order:
    """Apply what came of the present attempt to a running order."""
    match outcome:
        case Launched():
            return going_on(order, outcome)
        case Done(new_version=new_version, reason=reason, promise=promise):
            done = replace(order, launched=True, new_version=new_version or order.new_version, promise=promise or order.promise)
            return _ended(done, DONE, reason or order.reason, now)
        case Failed(reason=reason):
            return _ended(order, FAILED, reason, now)
        case Stop(reason=reason):
            return _ended(order, DEAD, reason, now)
        case HandOn(tuning=tuning, handler=handler, handler_settings=settings):
            return replace(
                order,
                state=PENDING,
                tuning=tuning,
                handler=handler,
                handler_settings=settings,
                failures=0,
                wait=None,
                consumer=None,
            )
        case Retry(reason=reason, after_s=after_s):
            delay_s = backoff.delay_s(order.failures + 1, jitter, at_least_s=after_s)
            return _again(order, reason, delay_s, now)


def going_on(order: Order, outcome: Launched) -> Order:
    """Return a running order as it is after somebody was asked how it goes.

    A tool that cannot tell proves nothing of whether the order was launched; its reason goes when the tool tells again, and
    any other reason stays.
    """
    kept = "" if order.reason.startswith(UNKNOWN) else order.reason
    return replace(order, launched=order.launched or not outcome.reason, reason=outcome.reason or kept)


def overtaken(order: Order, version: str, now: Instant, over: Sequence[str] | None = None) -> Order:
    """Note that `version` has come: a pending order expires, a running one is not started over again.

    `over`: the versions that it came after (None: all others). The notification may arrive after a newer version has itself
    drifted.
    """
    if not order.is_active or order.request.version in {"", version}:
        return order
    if over is not None and order.request.version not in over:
        return order
    if order.state == PENDING:
        return _ended(replace(order, overtaken_by=version), EXPIRED, f"version {version!r} came first", now)
    return replace(order, overtaken_by=version)


def ran_s(order: Order, now: Instant) -> float:
    """Return for how many seconds the present attempt has been under way."""
    return 0.0 if order.started is None else now.seconds_since(order.started)


def timed_out(timeout_s: float) -> Failed:
    """Return the ending of an order that ran for too long."""
    return Failed(f"ended by orders.timeout after {timeout_s:g} s")


def said_again(order: Order, ending: Done | Failed) -> Order | None:
    """Return an order that has ended as `ending` says it did, with what that adds; None where it contradicts the record."""
    if isinstance(ending, Failed):
        return order if order.state == FAILED else None
    if order.state != DONE:
        return None
    if ending.new_version is not None and order.new_version not in {None, ending.new_version}:
        return None
    if ending.promise is not None and order.promise not in {None, ending.promise}:
        return None
    return replace(order, new_version=order.new_version or ending.new_version, promise=order.promise or ending.promise)


def dismissed(order: Order, reason: str) -> Order:
    """Close a failed or dead order: a person has dealt with it."""
    if order.state not in DISMISSABLE:
        raise ValueError(f"order {order.id!r} must be {' or '.join(DISMISSABLE)} to be dismissed, got {order.state!r}")
    return replace(order, state=DISMISSED, reason=f"dismissed: {reason}; it was {order.state}: {order.reason}")


def put_back(order: Order, reason: str) -> Order:
    """Make a failed, dead or expired order pending again, with a fresh delivery schedule."""
    if order.state not in RETRYABLE:
        raise ValueError(f"order {order.id!r} must be one of {', '.join(RETRYABLE)} to be retried, got {order.state!r}")
    return replace(
        order,
        state=PENDING,
        reason=reason,
        failures=0,
        rounds=order.rounds + 1,
        finished_at=None,
        wait=None,
        consumer=None,
        overtaken_by=None,
        launched=False,
    )


def _again(order: Order, reason: str, delay_s: float | None, now: Instant) -> Order:
    failures = order.failures + 1
    if order.overtaken_by is not None:
        return _ended(order, EXPIRED, f"{reason}; version {order.overtaken_by!r} has come since", now)
    failed = replace(order, failures=failures)
    if delay_s is None:
        return _ended(failed, DEAD, f"given up after {failures} failed attempts: {reason}", now)
    wait = Countdown(now, delay_s) if delay_s > 0 else None
    return replace(failed, state=PENDING, reason=reason, wait=wait, consumer=None)


def _ended(order: Order, state: str, reason: str, now: Instant) -> Order:
    return replace(order, state=state, reason=reason, finished_at=now.wall_s, wait=None, consumer=None)


def _life(lives: int) -> tuple[str, ...]:
    return (str(lives),) if lives else ()


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
