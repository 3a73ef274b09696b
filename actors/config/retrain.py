"""The configuration of retrains: when one is ordered, how many run at once, and how a new version goes live.

`retrain` and `promotion` are merged key by key over the layers of a model, `price` and `budget` as one: each selects the rule
`shortfall`, and the one in a more specific entry replaces the other. `when` in a more specific entry removes both.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Final, Literal, Self

from pydantic import Field, PlainSerializer, PlainValidator, field_validator, model_validator

from actors.checks import shown
from actors.config.fields import Count, Name, OptionalSeconds, Section
from actors.config.handlers import HandlerSettings, MlflowAliasHandlerSettings, TuneHandlerSettings
from actors.config.values import Budget, Price, format_budget, format_price, parse_budget, parse_price

When = Literal["alarm", "shortfall", "never"]
OnWorse = Literal["flag", "rollback"]
Gate = Literal["challenger", "registry"] | None

_USUAL_PRICE: Final = Price(share=0.01)
_USUAL_METRIC: Final = "accuracy"
_USUAL_GIVE_UP: Final = 3
# Shares of other rows than the n of an event: of the predicted positives, and of the actual ones.
_NO_PROPORTIONS: Final = frozenset({"precision", "recall"})


def _optional_price(value: object) -> Price | None:
    return None if value is None else parse_price(value)


def _optional_budget(value: object) -> Budget | None:
    return None if value is None else parse_budget(value)


def _price_written(value: Price | None) -> float | str | None:
    return None if value is None else format_price(value)


def _budget_written(value: Budget | None) -> str | None:
    return None if value is None else format_budget(value)


_OptionalPrice = Annotated[Price | None, PlainValidator(_optional_price), PlainSerializer(_price_written)]
_OptionalBudget = Annotated[Budget | None, PlainValidator(_optional_budget), PlainSerializer(_budget_written)]


class RetrainEntry(Section):
    """The retrain rule in an entry; a missing key takes its value from the layer below."""

    when: When = "alarm"
    """`alarm`: retrain at each drift episode. `shortfall`: when the errors beyond the promise reach the price. `never`: only by
    `max_age` and by people.
    """
    metric: Name = _USUAL_METRIC
    """The metric that the rule judges, a proportion of `n`: accuracy, or a share of errors."""
    price: _OptionalPrice = None
    """The price of a retrain in errors, or as a share like `1%` of the promise's rows. Selects `shortfall`."""
    budget: _OptionalBudget = None
    """The planned number of retrains, like `1 per 30d`: the price follows the plan. Selects `shortfall`."""
    max_age_s: OptionalSeconds = Field(default=None, alias="max_age")
    """Order a retrain when the live version is older than this. `null`: no limit."""
    give_up: Annotated[int, Field(ge=1, le=1000)] = _USUAL_GIVE_UP
    """After this number of retrains in a row that did not pay, failed or died, request no more until a person acts."""

    @field_validator("metric")
    @classmethod
    def _is_proportion(cls, metric: str) -> str:
        if metric in _NO_PROPORTIONS:
            raise ValueError(f"must be a proportion of n, as accuracy or a share of errors is, got {shown(metric)}")
        return metric

    @model_validator(mode="after")
    def _is_one_rule(self) -> Self:
        if self.price is not None and self.budget is not None:
            both = f"price {format_price(self.price)} and budget {format_budget(self.budget)}"
            raise ValueError(f"has a price or a budget, not both, got {both}")
        priced = "price" if self.price is not None else "budget" if self.budget is not None else None
        if priced is not None and "when" in self.model_fields_set and self.when != "shortfall":
            raise ValueError(f"a {priced} belongs to when: shortfall, got when: {self.when}")
        return self


@dataclass(frozen=True, slots=True)
class RetrainRule:
    """When a model is retrained. Under `shortfall` it has a price or a budget; otherwise neither."""

    when: When = "alarm"
    metric: str = _USUAL_METRIC
    price: Price | None = None
    budget: Budget | None = None
    max_age_s: float | None = None
    give_up: int = _USUAL_GIVE_UP

    @classmethod
    def of_layers(cls, layers: Iterable[RetrainEntry]) -> RetrainRule:
        """Return the rule that results from `layers`, the least specific first."""
        when: When | None = None
        price, budget = None, None
        metric, max_age_s, give_up = _USUAL_METRIC, None, _USUAL_GIVE_UP
        for layer in layers:
            said = layer.model_fields_set
            if "when" in said:
                when, price, budget = layer.when, None, None
            if {"price", "budget"} & said:
                # A null removes only the key that it names; a value replaces either of the two.
                price = layer.price or (None if "price" in said or layer.budget else price)
                budget = layer.budget or (None if "budget" in said or layer.price else budget)
            metric = layer.metric if "metric" in said else metric
            max_age_s = layer.max_age_s if "max_age_s" in said else max_age_s
            give_up = layer.give_up if "give_up" in said else give_up
        if price is not None or budget is not None:
            when = "shortfall"
        elif when == "shortfall":
            price = _USUAL_PRICE
        return cls(when or "alarm", metric, price, budget, max_age_s, give_up)


class PromotionEntry(Section):
    """How a new version goes live, in an entry; a missing key takes its value from the layer below."""

    gate: Gate = None
    """`null`: a new version is live from its first event. `challenger`: once it has beaten the live one. `registry`:
    once the alias of the registry points to it, or a person promotes it.
    """
    handler: HandlerSettings | None = None
    """The handler that delivers promotions and rollbacks."""
    on_worse: OnWorse = "flag"
    """The reaction to a promoted version that turns out to be worse: `flag` it for a person, or `rollback`."""

    @field_validator("handler")
    @classmethod
    def _is_no_study(cls, handler: HandlerSettings | None) -> HandlerSettings | None:
        if isinstance(handler, TuneHandlerSettings):
            raise ValueError("kind must not be tune for a promotion, got 'tune'")
        return handler


@dataclass(frozen=True, slots=True)
class Promotion:
    """How a new version goes live: with its first event, or once it has beaten the live one."""

    gate: Gate = None
    handler: HandlerSettings | None = None
    on_worse: OnWorse = "flag"
    registry: MlflowAliasHandlerSettings | None = None  # by `registry` of the configuration, besides `handler`

    @property
    def is_delivered(self) -> bool:
        """Whether a decision goes anywhere."""
        return self.handler is not None or self.registry is not None

    @classmethod
    def of_layers(cls, layers: Iterable[PromotionEntry]) -> Promotion:
        """Return the result of `layers`, key by key, the least specific first."""
        return cls(**{name: getattr(layer, name) for layer in layers for name in layer.model_fields_set})


class OrderLimits(Section):
    """How many orders of all models run at once and start per hour, and how long one may run; null: no limit."""

    max_running: Count | None = None
    """Orders that run at once."""
    max_per_hour: Count | None = None
    """Orders that start within an hour."""
    timeout_s: OptionalSeconds = Field(default=None, alias="timeout")
    """End a running order after this time."""
