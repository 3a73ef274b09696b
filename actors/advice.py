"""Which price or budget of a retrain fits a model: a small grid, rehearsed on its history besides the present configuration.

A rehearsal knows how many retrains each would have ordered, when, and the errors lost; it does not know what a retrain
would have gained. So the advice keeps the number of retrains, or takes one that a person names, and puts them where they pay. A
person applies it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, TypedDict

from actors.config import Budget, ModelSettings, Price, RetrainRule, Settings
from actors.config.values import format_budget, format_price
from actors.detection.rules.promises import Promise
from actors.rehearsal import Outcome, Rehearsal, Summary
from actors.wire import Batch, Bools, Floats

PRESENT: Final = "now"
_DAY_S: Final = 86_400.0
# Where two come out the same the earlier is taken: 1% is what `when: shortfall` alone means.
_PRICES: Final = (0.01, 0.03, 0.003, 0.1)
_BUDGET_DAYS: Final = (30, 90, 7)
_MOST_GIVE_UP: Final = 1000
_PLAIN_KEY: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_YAML_WORDS: Final = frozenset({"null", "true", "false", "yes", "no", "on", "off", "y", "n"})

LIMITS: Final = (
    "There is no data on a retrain that never happened: the events stay as they were logged, so its gain is unknown.",
    "The rule requests a retrain of a bad version again and again, while a real retrain might have replaced it.",
    "So a price orders too many retrains here rather than too few, and the proposed price is too high rather than too low.",
    "Such a retrain gets no verdict. The rehearsal ignores give_up, silences and the limits over all models (orders).",
    "Errors lost are those beyond the promise and beyond chance. Each retrain resets the count, so a difference is not a gain.",
)


class RuleSpelled(TypedDict):
    """A rule as a configuration spells it."""

    when: str
    metric: str
    price: float | str | None
    budget: str | None


class TriedShown(Summary):
    """One rule, what it made of the history, and when it ordered."""

    configuration: str
    retrain: RuleSpelled
    retrains_at: list[float]


class AdviceShown(TypedDict):
    """An advice for a program: `tried` has the present configuration first, `diff` is for the configuration's file."""

    model: str
    events: int
    first_at: float | None
    last_at: float | None
    tried: list[TriedShown]
    proposed: str | None
    why: str
    diff: str | None
    limits: list[str]


@dataclass(frozen=True, slots=True)
class Tried:
    """One rule and what it made of the history."""

    name: str
    rule: RetrainRule
    outcome: Outcome

    @property
    def retrains(self) -> int:
        """How many it ordered."""
        return int(self.outcome.summary()["retrains"])

    @property
    def lost(self) -> float:
        """The errors that were lost meanwhile."""
        return self.outcome.errors_lost or 0.0

    def document(self) -> TriedShown:
        """Return what a program reads."""
        return {
            "configuration": self.name,
            "retrain": spelled(self.rule),
            **self.outcome.summary(),
            "retrains_at": self.ordered_at(),
        }

    def ordered_at(self) -> list[float]:
        """Return the times of its orders."""
        ordered = [each.ordered_at for each in self.outcome.episodes if each.ordered_at is not None]
        return sorted([*ordered, *self.outcome.aged])


@dataclass(frozen=True, slots=True)
class Advice:
    """The rehearsed configurations, the present one first, and the proposal: None if the present one stays."""

    model: str
    tried: list[Tried]
    proposed: Tried | None
    why: str
    diff: str | None

    def document(self) -> AdviceShown:
        """Return what a program reads."""
        now = self.tried[0].outcome
        proposed = None if self.proposed is None else self.proposed.name
        return {
            "model": self.model,
            "events": now.events,
            "first_at": now.first_at,
            "last_at": now.last_at,
            "tried": [each.document() for each in self.tried],
            "proposed": proposed,
            "why": self.why,
            "diff": self.diff,
            "limits": list(LIMITS),
        }


class Advisor:
    """Takes the history of one model through the grid.

    Example:
        advisor = Advisor("churn", settings)
        advisor.promise(promise)
        advisor.take(batch)
        print(advisor.advice().diff)
    """

    def __init__(
        self,
        model: str,
        settings: Settings,
        *,
        takes_s: float = 0.0,
        baselines: Mapping[str, Mapping[str, Floats]] | None = None,
    ) -> None:
        """`takes_s` and `baselines` are those of a `Rehearsal`."""
        self._model, self._settings = model, settings
        present = settings.for_model(model)
        self._rules = grid(present.retrain)
        self._rehearsals = {
            name: Rehearsal(model, _with(present, rule), takes_s=takes_s, baselines=baselines)
            for name, rule in self._rules.items()
        }

    def take(self, batch: Batch, ok: Bools | None = None, skip: int = 0) -> None:
        """Take the rows of a batch from `skip` on that are `ok` (None: all)."""
        for each in self._rehearsals.values():
            each.take(batch, ok, skip)

    def promise(self, promise: Promise) -> None:
        """Take a promise where it stands among the batches."""
        for each in self._rehearsals.values():
            each.promise(promise)

    def advice(self, retrains: int | None = None) -> Advice:
        """Compare what came of the history, for at most so many retrains (None: as many as the present rule orders).

        ValueError names what the rule lacks: a promise, or n with the events.
        """
        tried = [Tried(name, rule, self._rehearsals[name].outcome()) for name, rule in self._rules.items()]
        if not tried[0].outcome.events:
            raise ValueError(f"there are no events of {self._model} in the history")
        missing = next((each.outcome.missing for each in tried[1:] if each.outcome.missing), [])
        if missing:
            raise ValueError(_lacking(self._model, missing, tried[0].rule.metric))
        proposed, why = chosen(tried[0], tried[1:], retrains)
        diff = None if proposed is None else difference(self._settings, self._model, proposed.rule)
        return Advice(self._model, tried, proposed, why, diff)


def grid(present: RetrainRule) -> dict[str, RetrainRule]:
    """Return the present rule and those to try by their names; metric, max_age and give_up are the present ones.

    >>> list(grid(RetrainRule()))[:3]
    ['now', 'price 1%', 'price 3%']
    """
    prices = [replace(present, when="shortfall", price=Price(share=share), budget=None) for share in _PRICES]
    budgets = [replace(present, when="shortfall", price=None, budget=Budget(1, days * _DAY_S)) for days in _BUDGET_DAYS]
    return {PRESENT: present} | {_name(rule): rule for rule in [*prices, *budgets] if rule != present}


def chosen(present: Tried, others: list[Tried], limit: int | None = None) -> tuple[Tried | None, str]:
    """Return the proposal and its reason; None if the present rule stays.

    It is what orders most retrains within the limit, by default the number that the present rule orders, and among equals what
    lost least; where nothing keeps within, what orders fewest. A price or a budget that is there already says what a retrain
    is worth, which no rehearsal can refute: it stays unless a limit is given.
    """
    asked, priced = limit is not None, present.rule.when == "shortfall"
    if priced and not asked:
        why = f"{_name(present.rule)} is what a person says that a retrain is worth, and no rehearsal can refute it"
        return None, f"{why}; ask for another number of retrains"
    fewest = min((each.retrains for each in others if each.retrains), default=0)
    if fewest == present.retrains == 0:
        return None, "neither the present configuration nor any price or budget of the grid orders a retrain"
    most = limit or present.retrains or fewest
    pool = [present, *others] if priced else others
    within = [each for each in pool if each.retrains <= most]
    if within:
        best = max(within, key=lambda each: (each.retrains, -round(each.lost)))  # the first of equals
    else:
        best = min(pool, key=lambda each: (each.retrains, round(each.lost)))
    if best is present:
        return None, f"the present configuration orders {_retrains(present)}, and none of the grid comes nearer to {most}"
    if not within:
        reason = "; none of the grid orders fewer"
    elif asked:
        reason = f"; the most that is no more than {most}"
    elif present.retrains == 0:
        reason = f", though {present.lost:.0f} errors were lost; none of the grid orders fewer without ordering none"
    else:
        reason = "; the most that is no more than now, ordered when they pay"
    return best, f"{best.name} orders {_retrains(best)}, the present configuration {_retrains(present)}{reason}"


def difference(settings: Settings, model: str, rule: RetrainRule) -> str:
    """Return the change of the configuration file that gives `model` the price or budget of `rule`."""
    entry = settings.models.get(model)
    said = {} if entry is None else entry.retrain.model_dump(by_alias=True, exclude_unset=True)
    removed = [f"-      {key}: {_value(said[key])}" for key in ("when", "price", "budget") if key in said]
    new = {key: value for key, value in spelled(rule).items() if key in {"price", "budget"} and value is not None}
    added = [f"+      {key}: {_value(value)}" for key, value in new.items()]
    marks = (
        " " if settings.models else "+",
        "+" if entry is None else " ",
        " " if entry is not None and "retrain" in entry.model_fields_set else "+",
    )
    return "\n".join([f"{marks[0]}models:", f"{marks[1]}  {_key(model)}:", f"{marks[2]}    retrain:", *removed, *added])


def spelled(rule: RetrainRule) -> RuleSpelled:
    """Return a rule as a configuration spells it.

    >>> spelled(RetrainRule(when="shortfall", price=Price(share=0.01)))
    {'when': 'shortfall', 'metric': 'accuracy', 'price': '1%', 'budget': None}
    """
    price = None if rule.price is None else format_price(rule.price)
    return {
        "when": rule.when,
        "metric": rule.metric,
        "price": price,
        "budget": None if rule.budget is None else format_budget(rule.budget),
    }


def _with(settings: ModelSettings, rule: RetrainRule) -> ModelSettings:
    # The verdict on a retrain that never happened is no evidence: it must not make the model give up.
    return replace(settings, retrain=replace(rule, give_up=_MOST_GIVE_UP))


def _name(rule: RetrainRule) -> str:
    said = spelled(rule)
    return f"price {said['price']}" if rule.budget is None else f"budget {said['budget']}"


def _retrains(tried: Tried) -> str:
    return f"{tried.retrains} retrain" + ("" if tried.retrains == 1 else "s")


def _lacking(model: str, missing: list[str], metric: str) -> str:
    needed = {
        "promise": f"a cross-validated promise of {metric} (system.metrics.promise({{{metric!r}: 0.87}}, n=2500, ...))",
        "n": f"the number of predictions with its {metric} (system.metrics.log({{{metric!r}: 0.9}}, n=200, ...))",
    }
    return f"there is no advice for {model}: its history lacks {' and '.join(needed[each] for each in missing)}"


def _value(value: object) -> str:
    return "null" if value is None else str(value)


def _key(name: str) -> str:
    is_plain = _PLAIN_KEY.fullmatch(name) and name.lower() not in _YAML_WORDS
    return name if is_plain else json.dumps(name, ensure_ascii=False)
