"""When a retrain is ordered and how a version goes live: what may be written, what the layers of a model make of it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from actors import config
from actors.config import Budget, OrderLimits, Price, Promotion, RetrainRule, Settings, WebhookHandlerSettings
from actors.config.values import format_budget, format_price, parse_budget, parse_price


def read(text: str) -> Settings:
    return config.parse(config.read_yaml(text, "f.yaml"), "f.yaml")


def rule(*layers: dict[str, Any]) -> RetrainRule:
    """Return the rule of a model that every entry matches, `defaults` first, then `*`, then `m*`, then `m`."""
    names = ("*", "m*", "m")
    document = {
        "defaults": {"retrain": layers[0]},
        "models": {n: {"retrain": each} for n, each in zip(names, layers[1:], strict=False)},
    }
    return config.parse(document, "f.yaml").for_model("m").retrain


def test_nothing_written_asks_at_an_alarm_without_price_age_or_limits() -> None:
    got = Settings().for_model("m")
    assert got.retrain == RetrainRule(when="alarm", metric="accuracy", price=None, budget=None, max_age_s=None, give_up=3)
    assert got.promotion == Promotion(gate=None, handler=None, on_worse="flag")
    assert Settings().orders == OrderLimits(max_running=None, max_per_hour=None, timeout=None)


def test_the_example_of_the_documentation_is_read_as_it_is_meant() -> None:
    settings = read("""
defaults:
  retrain: {when: shortfall, metric: accuracy, price: 250, budget: null, max_age: 90d, give_up: 5}
  promotion: {gate: challenger, handler: {kind: webhook, url: 'https://x'}, on_worse: rollback}
orders: {max_running: 4, max_per_hour: 20, timeout: 6h}
""")
    got = settings.for_model("m")
    assert got.retrain == RetrainRule("shortfall", "accuracy", Price(errors=250.0), None, 90 * 86400.0, 5)
    assert got.promotion == Promotion("challenger", WebhookHandlerSettings(kind="webhook", url="https://x"), "rollback")
    assert (settings.orders.max_running, settings.orders.max_per_hour, settings.orders.timeout_s) == (4, 20, 6 * 3600.0)


@pytest.mark.parametrize(
    ("layers", "when", "price", "budget"),
    [
        ([{"price": "1.5%"}], "shortfall", Price(share=0.015), None),
        ([{"price": 250}], "shortfall", Price(errors=250.0), None),
        ([{"budget": "1 per 30d"}], "shortfall", None, Budget(1, 30 * 86400.0)),
        ([{"when": "shortfall"}], "shortfall", Price(share=0.01), None),
        ([{"when": "never"}], "never", None, None),
        # The more specific entry decides, and price and budget are one question.
        ([{"price": "1%"}, {"budget": "2 per 1w"}], "shortfall", None, Budget(2, 7 * 86400.0)),
        ([{"budget": "2 per 1w"}, {"price": 9}], "shortfall", Price(errors=9.0), None),
        ([{"price": "1%"}, {"when": "alarm"}], "alarm", None, None),
        ([{"when": "alarm"}, {"price": "2%"}], "shortfall", Price(share=0.02), None),
        ([{"price": "2%"}, {"when": "alarm"}, {"give_up": 4}], "alarm", None, None),
        ([{"price": "2%"}, {"when": "shortfall"}], "shortfall", Price(share=0.01), None),
        # A null removes what it names, and the rule that only this had selected.
        ([{"price": "2%"}, {"price": None}], "alarm", None, None),
        ([{"when": "shortfall", "price": "2%"}, {"price": None}], "shortfall", Price(share=0.01), None),
        ([{"price": "2%"}, {"budget": None}], "shortfall", Price(share=0.02), None),
    ],
)
def test_price_and_budget_select_the_rule_and_the_most_specific_entry_wins(
    layers: list[dict[str, Any]], when: str, price: Price | None, budget: Budget | None
) -> None:
    got = rule(*layers)
    assert (got.when, got.price, got.budget) == (when, price, budget)


def test_retrain_promotion_and_labels_are_merged_key_by_key() -> None:
    got = read("""
defaults: {retrain: {max_age: 90d}, promotion: {gate: challenger}, labels: {team: ml, tier: '2'}}
models:
  'fraud-*': {retrain: {metric: error_share}, promotion: {on_worse: rollback}, labels: {team: risk}}
  fraud-eu: {retrain: {max_age: null}, promotion: {gate: null}}
""").for_model("fraud-eu")
    assert got.retrain == RetrainRule(metric="error_share")
    assert got.promotion == Promotion(gate=None, on_worse="rollback")
    assert got.labels == {"team": "risk", "tier": "2"}


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (
            "retrain: {price: 0}",
            "retrain.price: must be a number of errors above 0, or a share above 0% up to 100% like 1%, got 0",
        ),
        (
            "retrain: {price: -1}",
            "retrain.price: must be a number of errors above 0, or a share above 0% up to 100% like 1%, got -1",
        ),
        ("retrain: {price: .nan}", "retrain.price: must be a number of errors above 0"),
        ("retrain: {price: true}", "retrain.price: must be a number of errors above 0"),
        ("retrain: {price: 0%}", "retrain.price: must be a number of errors above 0"),
        ("retrain: {price: 101%}", "retrain.price: must be a number of errors above 0"),
        ("retrain: {price: -1%}", "retrain.price: must be a number of errors above 0"),
        ("retrain: {price: '250'}", "retrain.price: must be a number of errors above 0"),
        (
            "retrain: {price: 1%, budget: 1 per 30d}",
            "retrain: has a price or a budget, not both, got price 1% and budget 1 per 30d",
        ),
        ("retrain: {when: alarm, price: 1%}", "retrain: a price belongs to when: shortfall, got when: alarm"),
        ("retrain: {when: never, budget: 1 per 30d}", "retrain: a budget belongs to when: shortfall, got when: never"),
        ("retrain: {when: often}", "retrain.when: must be 'alarm', 'shortfall' or 'never', got 'often'"),
        (
            "retrain: {budget: 30d}",
            "retrain.budget: must be retrains per time like '1 per 30d', at least 1 and a second, got '30d'",
        ),
        ("retrain: {budget: 0 per 30d}", "retrain.budget: must be retrains per time like '1 per 30d'"),
        ("retrain: {budget: 1 per 0s}", "retrain.budget: must be retrains per time like '1 per 30d'"),
        ("retrain: {budget: 1 per month}", "retrain.budget: must be a duration like 30m, 6h or 90d, got 'month'"),
        (
            "retrain: {metric: precision}",
            "retrain.metric: must be a proportion of n, as accuracy or a share of errors is, got 'precision'",
        ),
        ("retrain: {max_age: 0}", "retrain.max_age: must be at least 1ms, got 0"),
        ("retrain: {max_age: 30}", "retrain.max_age: must be a duration like 30m, 6h or 90d, got 30: add the unit"),
        ("retrain: {give_up: 0}", "retrain.give_up: must be greater than or equal to 1, got 0"),
        (
            "retrain: {prise: 1%}",
            "retrain.prise: unknown key, did you mean price? (known: when, metric, price, budget, max_age, give_up)",
        ),
        ("promotion: {gate: champion}", "promotion.gate: must be 'challenger' or 'registry', got 'champion'"),
        ("promotion: {on_worse: stop}", "promotion.on_worse: must be 'flag' or 'rollback', got 'stop'"),
        ("promotion: {handler: {kind: webhok}}", "promotion.handler: kind must be one of channel"),
        (
            "promotion: {handler: {kind: webhook, url: 'http://x', tiemout: 3s}}",
            "promotion.handler.tiemout: unknown key, did you mean timeout",
        ),
        (
            "promotion: {handler: {kind: tune, objective: 'a:b', space: {x: [0, 1]}}}",
            "promotion.handler: kind must not be tune for a promotion, got 'tune'",
        ),
        ("labels: {team: 3}", "labels.team: must be a valid string, got 3"),
    ],
)
@pytest.mark.parametrize("place", ["defaults", "models.retrain"])
def test_a_mistake_is_refused_with_the_key_s_path_the_value_and_the_rule(entry: str, message: str, place: str) -> None:
    text = f"defaults: {{{entry}}}" if place == "defaults" else f"models: {{retrain: {{{entry}}}}}"
    with pytest.raises(ValueError, match=r"f\.yaml: ") as caught:
        read(text)
    assert f"f.yaml: {place}.{message}" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("orders: {max_running: 0}", "orders.max_running: must be greater than or equal to 1, got 0"),
        ("orders: {max_per_hour: 1.5}", "orders.max_per_hour: must be a valid integer, got 1.5"),
        ("orders: {timeout: 0}", "orders.timeout: must be at least 1ms, got 0"),
        ("orders: {max_runing: 1}", "orders.max_runing: unknown key, did you mean max_running?"),
        ("detectors: {processes: 0}", "detectors.processes: must be greater than or equal to 1, got 0"),
        (
            "defaults: {false_alarm_every: 99}",
            "defaults.false_alarm_every: must be a number of events, 100 or more, or a duration",
        ),
    ],
)
def test_a_mistake_in_the_limits_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=r"f\.yaml: ") as caught:
        read(text)
    assert message in str(caught.value)


def test_a_promotion_by_a_ray_job_needs_the_jobs_api_too() -> None:
    assert config.needs_jobs(read("models: {m: {promotion: {handler: {kind: ray_job, entrypoint: 'promote {model}'}}}}"))


def test_what_was_said_survives_the_store_s_text_and_a_change_is_told() -> None:
    text = (
        "defaults: {retrain: {price: 1.5%, max_age: 90d}, promotion: {gate: challenger}, labels: {a: b}}\norders: {timeout: 6h}"
    )
    settings = read(text)
    again = config.parse(json.loads(config.document(settings)), "stored")
    assert again.for_model("m") == settings.for_model("m")
    assert again.orders == settings.orders
    assert config.differences(settings, read(text.replace("1.5%", "250"))) == ['defaults.retrain.price: "1.5%" -> 250.0']


def test_a_share_is_taken_of_the_rows_behind_the_promise() -> None:
    assert Price(share=0.01).in_errors(2500) == 25.0
    assert Price(share=0.01).in_errors(None) is None
    assert Price(errors=7.0).in_errors(None) == 7.0


@given(st.floats(1e-3, 1e12))
def test_a_price_in_errors_is_read_as_it_was_written(errors: float) -> None:
    assert parse_price(format_price(Price(errors=errors))) == Price(errors=errors)


@given(st.floats(0, 1, exclude_min=True))
@example(1e-7)  # 0.00001%: the store kept "1e-05%", which no actor could read
@example(0.01)
@example(0.3333333333333333)
def test_a_share_of_any_size_is_read_as_it_was_written(share: float) -> None:
    assert parse_price(format_price(Price(share=share))) == Price(share=share)


def test_a_share_that_is_too_small_for_a_number_is_refused() -> None:
    with pytest.raises(ValueError, match="a share above 0%"):
        parse_price(f"0.{'0' * 322}9%")


@given(st.integers(1, 999_999), st.integers(1, 10_000))
def test_a_budget_is_read_as_it_was_written(count: int, days: int) -> None:
    assert parse_budget(format_budget(Budget(count, days * 86400.0))) == Budget(count, days * 86400.0)
