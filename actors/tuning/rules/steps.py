"""A worker's message to the tuner: a step, and its results and reports, as values.

On the wire a step is keyword arguments of plain values and a result is a list; `Step.from_wire` checks them once, so that the
ledger works on values that it can rely on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, NotRequired, TypedDict, cast, get_args

from actors.checks import finite, shown, whole

Kind = Literal["completed", "stopped", "failed", "timed_out"]
KINDS: Final = get_args(Kind)

# A step carries no more than a worker can hold: a lease is 256 trials at most, each with its latest reports.
MAX_RESULTS: Final = 1_000
MAX_REPORTS: Final = 5_000
MAX_STEP: Final = 2**31 - 1  # the widest that the store's columns hold
MAX_ERROR: Final = 4_000  # characters of an error that are kept

_WORKER: Final = "-w-"


def worker_key(study: str, unique: str) -> str:
    """Return the key of one worker of `study`; `unique` tells it from the study's other workers.

    >>> worker_key("ab12-s-1", "c0ffee")
    'ab12-s-1-w-c0ffee'
    """
    return f"{study}{_WORKER}{unique}"


def study_of(key: str) -> str | None:
    """Return the study of the worker `key`; None where the key is that of another kind of task.

    >>> study_of("ab12-s-1-w-c0ffee")
    'ab12-s-1'
    """
    study, separator, _ = key.rpartition(_WORKER)
    return study if separator else None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an attempt came to; `value` of one that completed, `error` of one that failed."""

    kind: Kind
    value: float | None
    error: str | None


class Result(NamedTuple):
    """A worker's result of one attempt: a row of the wire."""

    trial: int
    attempt: int
    kind: Kind
    value: float | None
    seconds: float
    error: str | None


class Report(NamedTuple):
    """An intermediate value of one attempt: a row of the wire. `value` is None for a value that is not a finite number."""

    trial: int
    attempt: int
    step: int
    value: float | None


class StepFields(TypedDict):
    """A step as it travels; every field but the first three may be left out."""

    key: str
    incarnation: str
    sequence: int
    results: NotRequired[Sequence[Sequence[object]]]
    wanted: NotRequired[bool]
    holding: NotRequired[int]
    reports: NotRequired[Sequence[Sequence[object]]]
    node: NotRequired[str | None]
    leaving: NotRequired[bool]
    load_error: NotRequired[str | None]


@dataclass(frozen=True, slots=True)
class Step:
    """One step of one worker, numbered by `sequence` within its incarnation.

    `wanted` asks for leases. `holding` says how many leases the worker has in hand and does not report yet: it gets those
    beyond them. `leaving` and `load_error` are the last words of a worker that ends.
    """

    key: str
    incarnation: str
    sequence: int
    results: tuple[Result, ...] = ()
    wanted: bool = False
    holding: int = 0
    reports: tuple[Report, ...] = ()
    node: str | None = None
    leaving: bool = False
    load_error: str | None = None

    @classmethod
    def from_wire(cls, fields: StepFields) -> Step:
        """Return the step that came over the wire; ValueError names the field, the value and the rule."""
        results, reports = fields.get("results", ()), fields.get("reports", ())
        for field, rows, most in (("results", results, MAX_RESULTS), ("reports", reports, MAX_REPORTS)):
            if not isinstance(rows, list | tuple) or len(rows) > most:
                raise ValueError(f"step: {field} must be a list of at most {most} rows, got {shown(rows)}")
        return cls(
            key=_text("key", fields["key"]),
            incarnation=_text("incarnation", fields["incarnation"]),
            sequence=_whole("sequence", fields["sequence"], 1),
            results=tuple([_result(row) for row in results]),
            wanted=bool(fields.get("wanted", False)),
            holding=_whole("holding", fields.get("holding", 0), 0),
            reports=tuple([_report(row) for row in reports]),
            node=_optional("node", fields.get("node")),
            leaving=bool(fields.get("leaving", False)),
            load_error=_optional("load_error", fields.get("load_error")),
        )


def _result(row: Sequence[object]) -> Result:
    try:
        trial, attempt, kind, value, seconds, error = row
    except (TypeError, ValueError):
        raise ValueError(f"step: a result must be [trial, attempt, kind, value, seconds, error], got {shown(row)}") from None
    if kind not in KINDS:
        raise ValueError(f"step: a result's kind must be one of {', '.join(KINDS)}, got {shown(kind)}")
    number = finite(seconds)
    if number is None or number < 0:
        raise ValueError(f"step: a result's seconds must be a finite number of at least 0, got {shown(seconds)}")
    return Result(
        _whole("trial", trial, 0),
        _whole("attempt", attempt, 1),
        cast(Kind, kind),
        finite(value),
        number,
        _optional("error", error),
    )


def _report(row: Sequence[object]) -> Report:
    try:
        trial, attempt, step, value = row
    except (TypeError, ValueError):
        raise ValueError(f"step: a report must be [trial, attempt, step, value], got {shown(row)}") from None
    return Report(_whole("trial", trial, 0), _whole("attempt", attempt, 1), _whole("step", step, 0), finite(value))


def _whole(field: str, value: object, least: int) -> int:
    return whole(f"step: {field}", value, least, MAX_STEP)


def _text(field: str, value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"step: {field} must be a string, got {shown(value)}")
    return value


def _optional(field: str, value: object) -> str | None:
    return None if value is None else _text(field, value)[:MAX_ERROR]
