"""The plan of a study: checked once, stored with the study, the same document on the wire and in the store."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Final, Literal, TypedDict

from actors.checks import bounded, finite, plain, shown, whole
from actors.replies import Json
from actors.tuning.rules import stopping
from actors.tuning.strategies import space as spaces
from actors.tuning.strategies.create import create
from actors.tuning.strategies.interface import TuningStrategy

MODES: Final = ("min", "max")
EXECUTORS: Final = ("inline", "child", "fork")
# A book holds every trial of its study in memory, about 500 bytes each.
MAX_TRIALS: Final = 1_000_000
_MAX_NAME: Final = 200
# Of one field as JSON: it is checked on the way, written with the study, and read with each summary.
MAX_PLAN_BYTES: Final = 2**20
_MAX_CONTEXT_BYTES: Final = 64 * 1024
_MAX_FIRST: Final = 1000
# What may not change when a study is taken up again: together they decide the parameters of every trial.
_FIXED: Final = ("space", "strategy", "seed", "mode", "early_stopping", "first")


class StudyOptions(TypedDict, total=False):
    """The settings of a study besides its objective, space, trials and name.

    - `strategy`: `random` (the default), `grid`, `optuna:<Sampler>`, `scipy:<Sequence>`, `module:Class`, or
      `{"name": ..., **options}`
    - `mode`: `min` (the default) or `max`
    - `seed`: decides the parameters of every trial; one is drawn where it is left out
    - `max_concurrent`: trials at once; by default as many as the cluster's nodes carry
    - `timeout_s`: a hard limit for one trial, which then runs in a child process
    - `retries`: how often a trial that raises is tried again
    - `executor`: `auto`, `inline`, `child` or `fork`
    - `resources`: what one trial needs, `{"cpu": 0.5, "gpu": 1, "memory_bytes": 2e9, "custom": 1}`
    - `early_stopping`: `asha`, `median`, or `{"name": ..., **options}`
    - `context`: plain values that reach the objective as `trial.context`
    - `first`: parameters to try before those of the strategy, such as the current ones
    """

    strategy: str | Mapping[str, Any]
    mode: Literal["min", "max"]
    seed: int | None
    max_concurrent: int | None
    timeout_s: float | None
    retries: int
    executor: Literal["auto", "inline", "child", "fork"]
    resources: Mapping[str, float] | None
    early_stopping: str | Mapping[str, Any] | None
    context: Mapping[str, Any] | None
    first: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Plan:
    """A study's settings, as plain values.

    `resources` are those of one trial: `cpu`, `gpu` (fractions allowed), `memory_bytes`, and custom ones by name.
    `context` is handed to the objective as `trial.context`. `first` are parameters that are tried before the strategy is
    asked, such as those in force: with k of them, the strategy's nth parameters are trial k + n.
    """

    name: str
    space: Json
    trials: int
    seed: int
    strategy: str | Json = "random"
    mode: str = "min"
    max_concurrent: int | None = None
    timeout_s: float | None = None
    retries: int = 0
    executor: str = "inline"
    resources: dict[str, float] | None = None
    early_stopping: str | Json | None = None
    context: Json | None = None
    first: tuple[Json, ...] = ()

    def strategy_made(self) -> TuningStrategy:
        """Make the strategy of this study, at its beginning."""
        return create(self.strategy, self.space, seed=self.seed)

    def stopping_rule(self) -> stopping.StoppingRule:
        """Make the rule that ends hopeless trials."""
        return stopping.create(self.early_stopping)

    def loss(self, value: float) -> float:
        """Turn a value of the objective into a loss: smaller is better."""
        return -value if self.mode == "max" else value

    def with_random_strategy(self) -> Plan:
        """Return the same plan with a strategy that can always be made: it keeps the book of a study that has failed."""
        return replace(self, strategy="random", early_stopping=None)

    def warnings(self) -> list[str]:
        """Return what is legal and probably not meant."""
        return spaces.parse(self.space).warnings()

    def wire(self) -> Json:
        """Return the plan as plain values, as `check` takes them."""
        return asdict(self)

    def document(self) -> str:
        """Return the plan as JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_document(cls, document: str) -> Plan:
        """Read what `document` wrote."""
        kept = json.loads(document)
        return cls(**kept | {"first": tuple(kept["first"])})

    def continued_by(self, other: Plan) -> Plan:
        """Return the plan of a study that is taken up again with `other`; ValueError where that would be another search.

        What decides the parameters stays exactly as it was, the order of the space's parameters included: a space that names
        them in another order is the same space.
        """
        for field in _FIXED:
            if _canonical(field, getattr(self, field)) != _canonical(field, getattr(other, field)):
                raise ValueError(
                    f"{field} of the study {self.name!r} must stay {shown(getattr(self, field))}, got "
                    f"{shown(getattr(other, field))}; give the new search another name"
                )
        fixed = {field: getattr(self, field) for field in _FIXED}
        return replace(other, trials=max(self.trials, other.trials), **fixed)


_FIELDS: Final = {field.name for field in fields(Plan)}
_REQUIRED: Final = {"name", "space", "trials", "seed"}


def check(asked: Mapping[str, Any]) -> Plan:
    """Return what a caller asks for as a Plan; ValueError names the field, the value and the rule.

    `asked` has the fields of a Plan: `name`, `space`, `trials`, `seed`, and those of StudyOptions that it needs. Its size is
    bounded before anything else is looked at.
    """
    if not isinstance(asked, Mapping) or not set(asked) <= _FIELDS:
        unknown = sorted(map(str, set(asked) - _FIELDS)) if isinstance(asked, Mapping) else shown(asked)
        raise ValueError(f"plan must be a mapping of {', '.join(sorted(_FIELDS))}, got {unknown}")
    if missing := _REQUIRED - set(asked):
        raise ValueError(f"plan must have {', '.join(sorted(missing))}")
    for field, value in asked.items():
        bounded(field, value, _MAX_CONTEXT_BYTES if field == "context" else MAX_PLAN_BYTES)
    name, mode = asked["name"], asked.get("mode", "min")
    if not isinstance(name, str) or not 0 < len(name) <= _MAX_NAME or not name.isprintable() or set(name) & set("*?["):
        raise ValueError(f"name must be 1 to {_MAX_NAME} printable characters without * ? [, got {shown(name)}")
    if mode not in MODES:
        raise ValueError(f"mode must be 'min' or 'max', got {shown(mode)}")
    space = spaces.parse(asked["space"])
    timeout_s = _timeout(asked.get("timeout_s"))
    limit = asked.get("max_concurrent")
    plan = Plan(
        name=name,
        space=space.document(),
        trials=whole("trials", asked["trials"], 1, MAX_TRIALS),
        seed=whole("seed", asked["seed"], 0, 2**63 - 1),
        strategy=_named(asked.get("strategy", "random")),
        mode=str(mode),
        max_concurrent=None if limit is None else whole("max_concurrent", limit, 1, 100_000),
        timeout_s=timeout_s,
        retries=whole("retries", asked.get("retries", 0), 0, 1000),
        executor=_executor(asked.get("executor", "auto"), timeout_s),
        resources=_resources(asked.get("resources")),
        early_stopping=_named(asked.get("early_stopping")),
        context=_context(asked.get("context")),
        first=_first(asked.get("first", ()), space),
    )
    try:
        plan.document()
    except (TypeError, ValueError) as error:
        raise ValueError(f"plan must encode as JSON: {error}") from None
    plan.strategy_made()
    plan.stopping_rule()
    return plan


def _canonical(field: str, value: object) -> str:
    # As JSON: 1, 1.0 and True are equal to Python and three values to a search.
    return json.dumps(_named(value) if field in {"strategy", "early_stopping"} else value, sort_keys=True)


def _timeout(timeout_s: object) -> float | None:
    if timeout_s is None:
        return None
    number = finite(timeout_s)
    if number is None or number <= 0:
        raise ValueError(f"timeout_s must be a finite number above 0, got {shown(timeout_s)}")
    return number


def _executor(executor: object, timeout_s: float | None) -> str:
    if executor == "auto":
        return "inline" if timeout_s is None else "child"
    if executor not in EXECUTORS:
        raise ValueError(f"executor must be auto, {', '.join(EXECUTORS)}, got {shown(executor)}")
    if executor == "inline" and timeout_s is not None:
        raise ValueError(
            f"timeout_s must be None with executor 'inline', which cannot be interrupted, got {timeout_s:g}; "
            "use 'child' or 'fork'"
        )
    return str(executor)


def _named(asked: Any) -> Any:
    """Return a strategy or a rule, `name` or `{"name": ..., **options}`, in its shortest form; its maker checks it."""
    if not isinstance(asked, Mapping):
        return asked
    options = plain(dict(asked))
    return options["name"] if set(options) == {"name"} else options


def _resources(resources: object) -> dict[str, float] | None:
    if resources is None:
        return None
    if not isinstance(resources, Mapping):
        raise ValueError(f"resources must be a mapping from names to amounts, got {shown(resources)}")
    amounts: dict[str, float] = {}
    for name, amount in resources.items():
        if not isinstance(name, str) or not name:
            raise ValueError(f"resources: a name must be a string, got {shown(name)}")
        number = finite(amount)
        if number is None or number < 0:
            raise ValueError(f"resources[{name!r}] must be a number of at least 0, got {shown(amount)}")
        if number > 1 and not number.is_integer():
            raise ValueError(f"resources[{name!r}] must be whole above 1 (Ray's rule), got {shown(amount)}")
        amounts[name] = number
    return amounts


def _first(first: object, space: spaces.Space) -> tuple[Json, ...]:
    if not isinstance(first, list | tuple) or len(first) > _MAX_FIRST:
        raise ValueError(f"first must be a list of at most {_MAX_FIRST} mappings of parameters, got {shown(first)}")
    return tuple(space.checked(f"first[{place}]", params) for place, params in enumerate(first))


def _context(context: object) -> Json | None:
    if context is None:
        return None
    if not isinstance(context, Mapping):
        raise ValueError(f"context must be a mapping of plain values, got {shown(context)}")
    try:
        encoded = json.dumps(plain(dict(context)))
    except (TypeError, ValueError) as error:
        raise ValueError(f"context must encode as JSON: {error}") from None
    if len(encoded) > _MAX_CONTEXT_BYTES:
        raise ValueError(f"context must be at most {_MAX_CONTEXT_BYTES} bytes as JSON, got {len(encoded)}")
    kept: Json = json.loads(encoded)
    return kept
