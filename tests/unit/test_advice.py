"""The advice keeps the number of retrains, says what is missing, and proposes a change that means what it says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import yaml

from actors import config, wire
from actors.advice import Advice, Advisor, difference, grid
from actors.config import Price, RetrainRule
from actors.detection.rules.promises import Promise

PROMISED_N = 10_000.0


def windows(*rates: float, n: int | None = 200, each: int = 80) -> wire.Batch:
    rng = np.random.default_rng(3)
    hits = np.concatenate([rng.binomial(200, rate, each) for rate in rates])
    times = 3600.0 * np.arange(1, len(hits) + 1)
    return wire.batch_of_columns({"accuracy": hits / 200}, version="v1", timestamps=times, now_s=0.0, n=n)


def settings(**entry: Any) -> config.Settings:
    return config.parse({"defaults": {"watch": {"accuracy": {"direction": "down"}}, "cooldown": "30m"} | entry}, "test")


def advised(
    *rates: float, promise: Promise | None = None, n: int | None = 200, retrains: int | None = None, **entry: Any
) -> Advice:
    advisor = Advisor("m", settings(**entry))
    advisor.promise(promise or Promise("v1", {"accuracy": 0.87}, PROMISED_N, "cross_validation"))
    advisor.take(windows(*rates, n=n))
    return advisor.advice(retrains)


def counts(advice: Advice) -> dict[str, int]:
    return {each.name: each.retrains for each in advice.tried}


def test_a_dearer_retrain_is_ordered_more_seldom_and_the_present_rule_comes_first() -> None:
    found = counts(advised(0.87, 0.80))
    assert list(found) == [
        "now",
        "price 1%",
        "price 3%",
        "price 0.3%",
        "price 10%",
        "budget 1 per 30d",
        "budget 1 per 90d",
        "budget 1 per 7d",
    ]
    prices = [found[f"price {share}%"] for share in ("0.3", "1", "3", "10")]
    assert prices == sorted(prices, reverse=True)
    assert prices[0] > prices[2] > prices[3]


def test_what_is_proposed_orders_most_of_what_is_no_more_than_wanted() -> None:
    for wanted in (3, 9, 28):
        advice = advised(0.87, 0.80, 0.70, retrains=wanted)
        assert advice.proposed is not None
        assert advice.proposed.retrains == max(each.retrains for each in advice.tried[1:] if each.retrains <= wanted)
        assert f"no more than {wanted}" in advice.why


def test_without_a_wish_alarms_give_their_number_and_the_fewest_are_taken_where_none_keeps_within() -> None:
    advice = advised(0.87, 0.80, 0.70)
    found = counts(advice)
    assert 0 < found.pop("now") < min(found.values())
    assert advice.proposed is not None
    assert advice.proposed.retrains == min(found.values())
    assert advice.why.endswith("none of the grid orders fewer")
    some = advised(0.87, 0.84, 0.88)
    found = counts(some)
    now = found.pop("now")
    assert some.proposed is not None
    assert some.proposed.retrains == max((each for each in found.values() if each <= now), default=min(found.values()))


def test_alarms_of_a_version_that_keeps_its_promise_are_what_a_price_saves() -> None:
    """From 0.99 to 0.92 is an alarm, and better than promised."""
    advice = advised(0.99, 0.92)
    assert counts(advice)["now"] >= 1
    assert advice.proposed is not None
    assert (advice.proposed.name, advice.proposed.retrains) == ("price 1%", 0)
    assert advice.diff == "+models:\n+  m:\n+    retrain:\n+      price: 1%"


def test_where_nothing_is_lost_and_nothing_ordered_nothing_is_proposed() -> None:
    advice = advised(0.88, 0.88)
    assert set(counts(advice).values()) == {0}
    assert (advice.proposed, advice.diff) == (None, None)
    assert "neither" in advice.why


def test_where_nothing_is_ordered_though_errors_are_lost_the_fewest_retrains_are_proposed() -> None:
    advice = advised(0.87, 0.80, retrain={"when": "never"})
    assert counts(advice)["now"] == 0
    assert advice.proposed is not None
    assert advice.proposed.retrains == min(each for each in counts(advice).values() if each)


def test_a_price_that_a_person_has_set_stays_unless_another_number_of_retrains_is_wanted() -> None:
    advice = advised(0.87, 0.80, retrain={"price": "1%"})
    assert "price 1%" not in counts(advice)  # it is the present one
    assert (advice.proposed, advice.diff) == (None, None)
    assert "price 1% is what a person says" in advice.why
    now = counts(advice)["now"]
    assert advised(0.87, 0.80, retrain={"price": "1%"}, retrains=now).proposed is None
    fewer = advised(0.87, 0.80, retrain={"price": "1%"}, retrains=now - 1).proposed
    assert fewer is not None
    assert fewer.retrains < now


def test_a_retrain_that_never_happened_does_not_make_the_model_give_up() -> None:
    advice = advised(0.87, *[0.70] * 4)
    assert counts(advice)["price 0.3%"] > 3
    assert not any("gave up" in skip for each in advice.tried for seen in each.outcome.episodes for skip in seen.skips)


def test_without_a_promise_or_n_the_error_says_what_is_missing() -> None:
    with pytest.raises(ValueError, match=r"there is no advice for m: its history lacks a cross-validated promise of accuracy"):
        advised(0.87, promise=Promise("v1", {"accuracy": 0.87}, PROMISED_N, "hold_out"))
    with pytest.raises(ValueError, match=r"its history lacks the number of predictions with its accuracy"):
        advised(0.87, n=None)
    with pytest.raises(ValueError, match="there are no events of m"):
        Advisor("m", settings()).advice()


@pytest.mark.parametrize("name", list(grid(RetrainRule()))[1:])
@pytest.mark.parametrize(
    "document",
    [
        {},
        {"defaults": {"retrain": {"when": "never", "max_age": "90d"}}},
        {"models": {"te*": {"retrain": {"budget": "1 per 5d"}}}},
        {"models": {"te*": {"retrain": {"price": 70}}, "team: é": {"cooldown": "2h"}}},
        {"models": {"team: é": {"retrain": {"when": "alarm", "give_up": 5}}}},
        {"models": {"team: é": {"retrain": {"price": 100}}}},
    ],
)
def test_the_change_applied_gives_the_rule_that_was_rehearsed(name: str, document: dict[str, Any]) -> None:
    before = config.parse(document, "test")
    rule = grid(before.for_model("team: é").retrain)[name]
    lines = difference(before, "team: é", rule).splitlines()
    assert all(line[0] in " +-" for line in lines)
    new = yaml.safe_load("\n".join(line[1:] for line in lines if line[0] != "-"))["models"]["team: é"]["retrain"]
    gone = {line[1:].split(":")[0].strip() for line in lines if line[0] == "-"}
    models = document.get("models", {})
    entry = models.get("team: é", {})
    kept = {key: value for key, value in entry.get("retrain", {}).items() if key not in gone}
    after = config.parse(document | {"models": models | {"team: é": entry | {"retrain": kept | new}}}, "test")
    assert after.for_model("team: é").retrain == rule


def test_a_price_that_is_of_the_grid_already_is_not_tried_twice() -> None:
    rule = RetrainRule(when="shortfall", price=Price(share=0.03))
    assert list(grid(rule).values()).count(rule) == 1
