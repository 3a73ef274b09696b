"""Turns the arguments of callers into checked values.

A caller's mistake raises ValueError that names the field, the rule and the value, and nothing has changed.
"""

from __future__ import annotations

from typing import Final

from actors import wire
from actors.checks import finite, shown, text
from actors.plain import Json
from actors.retraining.rules import gate, orders
from actors.retraining.rules.delivery import Done, Failed, promise_of
from actors.retraining.rules.orders import CAUSES, Request, Verdict

_MAX_EXPLANATION_CHARACTERS: Final = 256 * 1024
_MAX_REASON_CHARACTERS: Final = 1000
_MAX_ROWS: Final = 1e12
_MAX_HISTORY: Final = 10_000


def number(field: str, value: object) -> float:
    """Return a finite number of any library."""
    found = finite(value)
    if found is None:
        raise ValueError(f"{field} must be a finite number, got {shown(value)}")
    return found


def within(field: str, value: object, least: float, most: float) -> float:
    """Return a number from `least` to `most`."""
    found = number(field, value)
    if not least <= found <= most:
        raise ValueError(f"{field} must be from {least:g} to {most:g}, got {shown(value)}")
    return found


def model_of(value: object) -> str:
    """Return one model's name; a pattern is refused, since an order is for one model."""
    name = text("model", value)
    if gate.is_pattern(name):
        raise ValueError(f"model must be the name of one model, not a pattern, got {shown(name)}")
    return name


def pattern_of(value: object) -> str:
    """Return a model's name or a pattern of names; one that no name can ever match is refused."""
    pattern = text("model", value)
    rule = wire.text_rule(pattern)
    if rule is not None:  # no model has such a name
        raise ValueError(f"model {rule}, got {shown(pattern)}")
    if not gate.can_match(pattern):
        raise ValueError(f"model must be a name, or a pattern like 'fraud-*' that a name can match, got {shown(pattern)}")
    return pattern


def request_of(
    *,
    cause: object,
    ordinal: object,
    episode: object,
    model: object,
    version: object,
    metric: object,
    observed_drift: object,
    triggered_at: object,
    explanation: object,
    lost: object,
    price: object,
) -> Request:
    """Return what a detector asks for."""
    if cause not in CAUSES or cause in {orders.AGE, orders.MANUAL}:
        raise ValueError(f"cause must be {orders.ALARM!r} or {orders.SHORTFALL!r}, got {shown(cause)}")
    return Request(
        model=text("model", model),
        version=text("version", version),
        metric=text("metric", metric),
        observed_drift=_measured(observed_drift),
        triggered_at=number("triggered_at", triggered_at),
        episode=text("episode", episode) if episode or cause == orders.ALARM else "",
        explanation=_explanation(explanation),
        cause=cause,
        ordinal=None if ordinal is None else int(within("ordinal", ordinal, 0, 2**31 - 1)),
        lost=_measured(lost),
        price=_measured(price),
    )


def ending_of(
    *, outcome: object, reason: object, new_version: object, promise: object, promise_n: object, promise_source: object
) -> Done | Failed:
    """Return how a retrain ended, as its consumer or a person says."""
    why = "" if reason is None else str(reason)[:_MAX_REASON_CHARACTERS]
    version = None if new_version is None else text("new_version", new_version)
    promised = promise_of(promise, promise_n, promise_source)
    if promised is not None and version is None:
        raise ValueError("promise must come with its new_version, got no new_version")
    match outcome:
        case "done":
            return Done(version, why, promised)
        case "failed" if promised is None:
            return Failed(why or "the consumer gave no reason")
        case "failed":
            raise ValueError("promise must come with outcome 'done', got 'failed'")
        case _:
            raise ValueError(f"outcome must be 'done' or 'failed', got {shown(outcome)}")


def promotion_of(*, model: object, version: object, over: object, kind: object, evidence: object, at: float) -> Request:
    """Return a decision about versions, as the detector of the model says it."""
    if kind not in orders.PROMOTIONS:
        raise ValueError(f"kind must be one of {', '.join(orders.PROMOTIONS)}, got {shown(kind)}")
    told = {"kind": kind, "over": None if over is None else text("over", over), "evidence": _explanation(evidence or {})}
    return Request(text("model", model), text("version", version), "", None, at, "", told, cause=kind)


def verdict_of(*, verdict: object, saved: object, standard_error: object, at: object) -> Verdict:
    """Return whether a retrain paid, as the detector of its model says."""
    if verdict not in orders.VERDICTS:
        raise ValueError(f"verdict must be one of {', '.join(orders.VERDICTS)}, got {shown(verdict)}")
    error = within("standard_error", standard_error, 0.0, _MAX_ROWS)
    return Verdict(verdict, number("saved", saved), error, number("at", at))


def check_history(limit: int, state: str | None) -> None:
    """Raise ValueError if the limit or the state of a history query is invalid."""
    if not 1 <= limit <= _MAX_HISTORY:
        raise ValueError(f"limit must be from 1 to {_MAX_HISTORY}, got {limit}")
    if state is not None and state not in orders.STATES:
        raise ValueError(f"state must be one of {', '.join(orders.STATES)}, got {shown(state)}")


def _measured(value: object) -> float | None:
    """Return a number, or None: drift against a constant baseline is not finite, and must not cost an order."""
    found = finite(value)
    if found is None and value is not None and not isinstance(value, float) and not hasattr(value, "dtype"):
        raise ValueError(f"observed_drift, lost and price must be numbers or None, got {shown(value)}")
    return found


def _explanation(value: object) -> Json:
    if not isinstance(value, dict):
        raise ValueError(f"explanation must be a mapping, got {shown(value)}")
    if len(str(value)) > _MAX_EXPLANATION_CHARACTERS:
        raise ValueError(f"explanation must have at most {_MAX_EXPLANATION_CHARACTERS} characters, got {len(str(value))}")
    return value
