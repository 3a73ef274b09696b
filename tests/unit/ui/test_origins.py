"""Which entry each value of a model's configuration comes from."""

from __future__ import annotations

import pytest

from actors import config
from actors.ui.origins import origins


def found(
    models: dict[str, object], model: str = "fraud-eu", defaults: dict[str, object] | None = None
) -> dict[str, tuple[str, str]]:
    settings = config.parse({"models": models, "defaults": defaults or {}}, "file")
    return {each.setting: (each.value, each.entry) for each in origins(settings, model)}


@pytest.mark.parametrize("turned", [False, True])
def test_the_more_specific_of_two_patterns_wins_wherever_it_stands(turned: bool) -> None:
    entries: list[tuple[str, object]] = [("fraud-e*", {"cooldown": "2h"}), ("fraud-*", {"cooldown": "1h", "dry_run": True})]
    told = found(dict(reversed(entries) if turned else entries))
    assert told["cooldown"] == ("2h", "models.fraud-e*")
    assert told["dry_run"] == ("true", "models.fraud-*")


def test_the_exact_name_wins_over_every_pattern_that_matches_it() -> None:
    told = found({"fraud-eu": {"cooldown": "3h"}, "fraud-e[u]*": {"cooldown": "2h"}}, defaults={"expect_every": "1h"})
    assert told["cooldown"] == ("3h", "models.fraud-eu")
    assert told["expect_every"] == ("1h", "defaults")
    assert told["pinned_version"] == ("null", "built in")


def test_a_handler_that_replaces_another_leaves_nothing_of_it() -> None:
    url = {"kind": "webhook", "url": "https://example.org/a", "secret_env": "S"}
    told = found({"fraud-*": {"handler": url}, "fraud-eu": {"handler": {"kind": "channel"}}})
    assert told["handler.kind"] == ("channel", "models.fraud-eu")
    assert "handler.url" not in told


def test_null_ends_a_watch_and_another_detector_drops_the_options_of_the_one_before() -> None:
    watched = {"accuracy": {"detector": "sliding-window", "window": 300, "direction": "down"}}
    told = found({"fraud-*": {"watch": watched}, "fraud-eu": {"watch": {"accuracy": {"detector": "default"}}}})
    assert "watch.accuracy.window" not in told
    assert told["watch.accuracy.direction"] == ("down", "models.fraud-*")
    assert told["watch.accuracy.detector"] == ("default", "models.fraud-eu")
    ended = found({"fraud-*": {"watch": watched}, "fraud-eu": {"watch": {"accuracy": None}}})
    assert [name for name in ended if name.startswith("watch.")] == ["watch.accuracy"]
    assert ended["watch.accuracy"] == ("null", "models.fraud-eu")


def test_a_direction_comes_from_the_entry_that_says_it_or_from_the_name() -> None:
    told = found({"fraud-*": {"watch": {"loss": {}, "recall": {"direction": "both"}}}})
    assert told["watch.loss.direction"] == ("up", "the metric's name")
    assert told["watch.recall.direction"] == ("both", "models.fraud-*")
    assert (told["watch.accuracy.direction"], told["watch.accuracy.detector"]) == (
        ("down", "the metric's name"),
        ("default", "built in"),
    )
