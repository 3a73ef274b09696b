"""What a study is asked to do: checked once, kept with the study, the same document on the wire and in the store."""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from actors.tuning.rules import stopping
from actors.tuning.strategies import space as spaces
from actors.tuning.strategies.create import create
from actors.tuning.strategies.interface import TuningStrategy

EXECUTORS = ("inline", "child", "fork")
MAX_TRIALS = 10_000_000
_MAX_NAME = 200
_MAX_CONTEXT_BYTES = 64 * 1024
# What may not change when a study is taken up again: together they decide the parameters of every trial.
_FIXED = ("space", "strategy", "seed", "mode", "early_stopping", "first")
_MAX_FIRST = 1000


@dataclass(frozen=True, slots=True)
class Plan:
    """A study's settings, as plain values.

    `resources` are those of one trial: `cpu`, `gpu` (fractions allowed), `memory_bytes`, and custom ones by name.
    `context` is handed to the objective as `trial.context`. `first` are parameters that are tried before the strategy is
    asked, such as those in force: with k of them, the strategy's nth parameters are trial k + n.
    """

    name: str
    space: dict[str, Any]
    trials: int
    seed: int
    strategy: str | dict[str, Any] = "random"
    mode: str = "min"
    max_concurrent: int | None = None
    timeout_s: float | None = None
    retries: int = 0
    executor: str = "inline"
    resources: dict[str, float] | None = None
    early_stopping: str | dict[str, Any] | None = None
    context: dict[str, Any] | None = None
    first: tuple[dict[str, Any], ...] = ()

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
        """Give the same plan with a strategy that can always be made: for keeping the book of a study that has failed."""
        return replace(self, strategy="random", early_stopping=None)

    def warnings(self) -> list[str]:
        """Name what is legal and probably not meant."""
        return spaces.parse(self.space).warnings()

    def document(self) -> str:
        """Give the plan as JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_document(cls, document: str) -> Plan:
        """Read what `document` wrote."""
        fields = json.loads(document)
        return cls(**fields | {"first": tuple(fields["first"])})

    def continued_by(self, other: Plan) -> Plan:
        """Give the plan of a study that is taken up again with `other`; ValueError where that would be another search."""
        for field in _FIXED:
            if getattr(self, field) != getattr(other, field):
                raise ValueError(
                    f"{field} of the study {self.name!r} must stay {_shown(getattr(self, field))}, got "
                    f"{_shown(getattr(other, field))}; give the new search another name"
                )
        return replace(other, trials=max(self.trials, other.trials))


def check(
    *,
    name: object,
    space: object,
    trials: object,
    seed: object,
    strategy: Any = "random",
    mode: object = "min",
    max_concurrent: object = None,
    timeout_s: object = None,
    retries: object = 0,
    executor: object = "auto",
    resources: object = None,
    early_stopping: Any = None,
    context: object = None,
    first: object = (),
) -> Plan:
    """Check what a caller asks for and give it as a Plan; ValueError names the field, the value and the rule."""
    if not isinstance(name, str) or not 0 < len(name) <= _MAX_NAME or not name.isprintable() or set(name) & set("*?["):
        raise ValueError(f"name must be 1 to {_MAX_NAME} printable characters without * ? [, got {_shown(name)}")
    document = spaces.parse(space).document()
    timeout = None if timeout_s is None else _positive("timeout_s", timeout_s)
    if executor == "auto":
        executor = "inline" if timeout is None else "child"
    if executor not in EXECUTORS:
        raise ValueError(f"executor must be auto, {', '.join(EXECUTORS)}, got {_shown(executor)}")
    if executor == "inline" and timeout is not None:
        raise ValueError(f"timeout_s must be None with executor 'inline', which cannot be interrupted, got {timeout:g}; "
                         "use 'child' or 'fork'")  # fmt: skip
    if mode not in {"min", "max"}:
        raise ValueError(f"mode must be 'min' or 'max', got {_shown(mode)}")
    plan = Plan(
        name=name,
        space=document,
        trials=_whole("trials", trials, 1, MAX_TRIALS),
        seed=_whole("seed", seed, 0, 2**63 - 1),
        strategy=strategy if isinstance(strategy, str) or not isinstance(strategy, Mapping) else dict(strategy),
        mode=str(mode),
        max_concurrent=None if max_concurrent is None else _whole("max_concurrent", max_concurrent, 1, 100_000),
        timeout_s=timeout,
        retries=_whole("retries", retries, 0, 1000),
        executor=str(executor),
        resources=_resources(resources),
        early_stopping=dict(early_stopping) if isinstance(early_stopping, Mapping) else early_stopping,
        context=_context(context),
        first=_first(first, document),
    )
    plan.strategy_made()
    plan.stopping_rule()
    return plan


def check_wire(plan: Mapping[str, Any]) -> Plan:
    """Check a plan that came as one mapping; ValueError names an unknown or missing field too."""
    known = set(inspect.signature(check).parameters)
    if not isinstance(plan, Mapping) or not set(plan) <= known:
        unknown = sorted(map(str, set(plan) - known)) if isinstance(plan, Mapping) else _shown(plan)
        raise ValueError(f"plan must be a mapping of {', '.join(sorted(known))}, got {unknown}")
    missing = {"name", "space", "trials", "seed"} - set(plan)
    if missing:
        raise ValueError(f"plan must have {', '.join(sorted(missing))}")
    return check(**plan)


def _resources(resources: object) -> dict[str, float] | None:
    if resources is None:
        return None
    if not isinstance(resources, Mapping):
        raise ValueError(f"resources must be a mapping from names to amounts, got {_shown(resources)}")  # noqa: TRY004  ValueError is the rule for bad input
    for name, amount in resources.items():
        if not isinstance(name, str) or not name:
            raise ValueError(f"resources: a name must be a string, got {_shown(name)}")
        if isinstance(amount, bool) or not isinstance(amount, int | float) or not 0 <= amount < math.inf:
            raise ValueError(f"resources[{name!r}] must be a number of at least 0, got {_shown(amount)}")
        if float(amount) > 1 and not float(amount).is_integer():
            raise ValueError(f"resources[{name!r}] must be whole above 1 (Ray's rule), got {_shown(amount)}")
    return {name: float(amount) for name, amount in resources.items()}


def _first(first: object, space: Mapping[str, Any]) -> tuple[dict[str, Any], ...]:
    if not isinstance(first, list | tuple) or len(first) > _MAX_FIRST:
        raise ValueError(f"first must be a list of at most {_MAX_FIRST} mappings of parameters, got {_shown(first)}")
    for params in first:
        if not isinstance(params, Mapping) or set(params) != set(space):
            raise ValueError(f"first: parameters must be a mapping with the names {', '.join(space)}, got {_shown(params)}")
        try:
            json.dumps(dict(params), allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ValueError(f"first: parameters must encode as JSON, got {_shown(params)}: {error}") from None
    return tuple(dict(params) for params in first)


def _context(context: object) -> dict[str, Any] | None:
    if context is None:
        return None
    if not isinstance(context, Mapping):
        raise ValueError(f"context must be a mapping of plain values, got {_shown(context)}")  # noqa: TRY004  ValueError is the rule for bad input
    try:
        encoded = json.dumps(dict(context))
    except (TypeError, ValueError) as error:
        raise ValueError(f"context must encode as JSON: {error}") from None
    if len(encoded) > _MAX_CONTEXT_BYTES:
        raise ValueError(f"context must be at most {_MAX_CONTEXT_BYTES} bytes as JSON, got {len(encoded)}")
    plain: dict[str, Any] = json.loads(encoded)
    return plain


def _whole(field: str, value: object, least: int, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ValueError(f"{field} must be a whole number from {least} to {most}, got {_shown(value)}")
    return value


def _positive(field: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ValueError(f"{field} must be a finite number above 0, got {_shown(value)}")
    return float(value)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
