"""The configuration: what it refuses and how it says so, what a model gets, what is kept of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors import config
from actors.config import (
    ChannelHandlerSettings,
    CustomHandlerSettings,
    Duration,
    RayJobHandlerSettings,
    Settings,
    TaskHandlerSettings,
    TuneHandlerSettings,
    WatchSettings,
    WebhookHandlerSettings,
    format_duration,
    parse_duration,
)
from actors.config.stored import load_stored, store_settings
from actors.storage import Store

EXAMPLE = """
namespace: visutility
storage: sqlite:///./visutility-data
detectors: {max_processes: 32, max_models: 10000}
defaults:
  false_alarm_every: 30d              # or a number of events; at least 300 events
  watch:                              # merged key by key; null stops watching a metric
    accuracy: {detector: default, direction: down}
  cooldown: 30m
  expect_every: null
  handler: {kind: channel}
models:
  fraud-*:
    watch: {recall: {direction: down}, latency_ms: {direction: up}}
    cooldown: 6h
    handler: {kind: ray_job, entrypoint: "python train.py --model {model}"}
"""


def read(text: str) -> Settings:
    return config.parse(config.read_yaml(text, "f.yaml"), "f.yaml")


def test_the_example_of_the_documentation_is_fine() -> None:
    settings = read(EXAMPLE)
    fraud = settings.for_model("fraud-eu")
    assert fraud.cooldown_s == 6 * 3600
    assert fraud.watch == {
        "accuracy": WatchSettings("default", "down", {}),
        "recall": WatchSettings("default", "down", {}),
        "latency_ms": WatchSettings("default", "up", {}),
    }
    assert fraud.handler == RayJobHandlerSettings(kind="ray_job", entrypoint="python train.py --model {model}")
    assert settings.for_model("other").handler == ChannelHandlerSettings()


def test_nothing_written_gives_the_same_as_the_example() -> None:
    assert Settings().for_model("m") == read(EXAMPLE).for_model("m")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1", "f.yaml: a: unknown key"),
        ("detectors: {max_proceses: 3}", "detectors.max_proceses: unknown key, did you mean max_processes?"),
        ("defaults: {handler: {kind: webhook, url: 'http://x', tiemout: 3s}}", "tiemout: unknown key, did you mean timeout"),
        ("namespace: 3", "namespace: must be a valid string, got 3"),
        ("namespace: ''", "namespace: must have 1 to 200 characters"),
        ("storage: null", "storage: must be a valid string, got None"),
        ("detectors: {max_processes: '3'}", "detectors.max_processes: must be a valid integer, got '3'"),
        ("detectors: {max_processes: 3.5}", "detectors.max_processes: must be a valid integer, got 3.5"),
        ("detectors: {max_processes: 0}", "detectors.max_processes: must be greater than or equal to 1, got 0"),
        ("detectors: 3", "detectors: must be a mapping, got 3"),
        ("defaults: {dry_run: 'yes'}", "defaults.dry_run: must be a valid boolean, got 'yes'"),
        ("defaults: {cooldown: 30}", "defaults.cooldown: must be a duration like 30m, 6h or 90d, got 30: add the unit"),
        ("defaults: {cooldown: -1s}", "defaults.cooldown: must be a duration"),
        ("defaults: {cooldown: soon}", "defaults.cooldown: must be a duration like 30m, 6h or 90d, got 'soon'"),
        ("defaults: {cooldown: true}", "defaults.cooldown: must be a duration"),
        ("defaults: {expect_every: 0s}", "defaults.expect_every: must be at least 1ms"),
        ("defaults: {false_alarm_every: .nan}", "false_alarm_every: must be a number of events, 100 or more, or a duration"),
        ("defaults: {false_alarm_every: 0}", "defaults.false_alarm_every: must be a number of events"),
        ("models: {'a.b': {false_alarm_every: often}}", "models.'a.b'.false_alarm_every: must be a duration"),
        ("models: {'': {}}", "models.'': must have 1 to 200 characters"),
        ("defaults: {watch: {accuracy: 3}}", "defaults.watch.accuracy: must be a mapping, got 3"),
        ("defaults: {watch: {accuracy: {direction: sideways}}}", "watch.accuracy.direction: must be 'up', 'down' or 'both'"),
        ("defaults: {watch: {accuracy: {detector: nonsense}}}", "defaults.watch.accuracy: detector must be one of"),
        ("defaults: {watch: {accuracy: {nonsense: 1}}}", "defaults.watch.accuracy: nonsense must be an option"),
        (
            "defaults: {handler: {kind: webhok}}",
            "handler: kind must be one of channel, task, ray_job, webhook, airflow, prefect, kubernetes, tune, mlflow_alias or",
        ),
        ("defaults: {handler: {kind: webhook, url: 'ftp://x'}}", "handler.url: must be an http or https URL, got 'ftp://x'"),
        ("defaults: {handler: {kind: task, target: train}}", "handler.target: must be 'module:name', got 'train'"),
        ("defaults: {handler: {kind: task}}", "handler.target: is missing"),
        ("defaults: {handler: {kind: 'a:b:c'}}", "handler.kind: must be 'module:name', got 'a:b:c'"),
        ("defaults: {handler: {kind: ray_job, entrypoint: 'x {modl}'}}", "handler.entrypoint: may hold {model}, {version}"),
        ("defaults: {handler: {kind: tune, objective: 'a:b', space: {}}}", "handler.space: "),
        (
            "defaults: {handler: {kind: tune, objective: 'a:b', space: {x: [0, 1]}, then: {kind: task}}}",
            "defaults.handler.then.target: is missing",
        ),
        ("observers: {pager: pager}", "observers.pager: must be 'module:name', got 'pager'"),
        ("delivery: {attempts: 0}", "delivery.attempts: must be greater than or equal to 1"),
        ("retention: {age: 30}", "retention.age: must be a duration"),
        ("retention: {model_bytes: 0}", "retention.model_bytes: must be greater than or equal to 1, got 0"),
        ("retention: {store_bytes: 1.5}", "retention.store_bytes: must be a valid integer, got 1.5"),
        ("retention: {store_bytes: 1GB}", "retention.store_bytes: must be a valid integer, got '1GB'"),
        ("- 1", "the document: must be a mapping, got [1]"),
        ("namespace: a\nnamespace: b", "namespace: this key occurs twice (line 2)"),
        ("models:\n  m: {}\n  m: {}", "models.m: this key occurs twice (line 3)"),
        ("x: !!python/object/apply:os.system [ls]", "x: must be a plain value, got the tag !!python/object/apply:os.system"),
        ("x: !!python/name:os.system", "x: must be a plain value, got the tag !!python/name:os.system"),
        ("models: {m: !secret x}", "models.m: must be a plain value, got the tag !secret"),
        ("1: 2", "the document: keys must be strings, got 1: quote it (line 1)"),
        ("models: {true: {}}", "models: keys must be strings, got true: quote it"),
        ("models: {[a]: {}}", "models: keys must be strings, got a collection: quote it"),
        ("a: &x [*x]", "a.0: aliases expand without end"),
        ("a: [", "f.yaml: is no YAML"),
        ("a: *nowhere", "f.yaml: is no YAML"),
        ("a: !!int x", "a: is no int, got 'x'"),
    ],
)
def test_a_mistake_is_refused_with_the_key_s_path_and_the_rule(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=r"f\.yaml: ") as caught:
        read(text)
    assert message in str(caught.value)


def test_every_mistake_is_listed_at_once() -> None:
    with pytest.raises(ValueError) as caught:
        read("a: 1\nnamespace: 3\ndefaults: {cooldown: 1}")
    assert len(str(caught.value).splitlines()) == 3


def test_aliases_that_unfold_to_a_billion_values_are_refused() -> None:
    text = "a: &a [x, x, x, x, x, x, x, x, x]\n"
    for above, below in zip("bcdefghi", "abcdefgh", strict=True):
        text += f"{above}: &{above} [{', '.join([f'*{below}'] * 9)}]\n"
    with pytest.raises(ValueError, match="aliases expand without end"):
        read(text)


def test_a_file_of_megabytes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "big.yaml"
    path.write_text("# " + "x" * 2**20)
    with pytest.raises(ValueError, match="at most 1048576 bytes"):
        config.load(path)


def test_a_mapping_is_checked_like_a_file() -> None:
    with pytest.raises(ValueError, match=r"configuration: defaults\.cooldown: must be a duration"):
        config.load({"defaults": {"cooldown": 5}})
    with pytest.raises(ValueError, match="configuration: models: keys must be strings, got 3"):
        config.load({"models": {3: {}}})


def test_numbers_are_read_as_yaml_1_2_reads_them() -> None:
    values = config.read_yaml("a: 1e-5\nb: no\nc: 12:30\nd: 0x10\ne: 010\nf: 2026-01-01\ng: .inf\nh: ~\ni: -3\nj: True", "f")
    assert values == {
        "a": 1e-5,
        "b": "no",
        "c": "12:30",
        "d": 16,
        "e": 10,
        "f": "2026-01-01",
        "g": float("inf"),
        "h": None,
        "i": -3,
        "j": True,
    }


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30m", 1800.0),
        ("6h", 21600.0),
        ("90d", 7776000.0),
        ("1h30m", 5400.0),
        ("1h 30m", 5400.0),
        ("250ms", 0.25),
        ("1.5s", 1.5),
        (0, 0),
    ],
)
def test_durations_are_seconds(text: object, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "5", "m", "5 minutes", "-5m", "5m-", "1e3s", None, 5, 1.5, True, "999999999d", [], "٣m"])
def test_anything_else_is_no_duration(text: object) -> None:
    with pytest.raises(ValueError, match="must be"):
        parse_duration(text)


@given(st.integers(min_value=1, max_value=10**9))
def test_a_duration_reads_back_what_was_written(milliseconds: int) -> None:
    assert parse_duration(format_duration(milliseconds / 1000)) == pytest.approx(milliseconds / 1000, rel=1e-12)


def test_a_duration_above_none_is_never_read_back_as_none() -> None:
    assert parse_duration(format_duration(1e-7)) == 1e-7


class TestWhatAModelGets:
    def test_the_most_specific_entry_wins_key_by_key(self) -> None:
        settings = read(
            """
            defaults: {cooldown: 1m, dry_run: true}
            models:
              fraud-eu: {cooldown: 4m}
              "*": {cooldown: 2m, expect_every: 1h}
              fraud-*: {cooldown: 3m, false_alarm_every: 500}
            """
        )
        got = settings.for_model("fraud-eu")
        assert (got.cooldown_s, got.false_alarm_every, got.expect_every_s, got.dry_run) == (240.0, 500.0, 3600.0, True)
        assert settings.for_model("fraud-us").cooldown_s == 180.0
        assert settings.for_model("other").cooldown_s == 120.0

    def test_of_two_equally_specific_patterns_the_later_wins(self) -> None:
        settings = read("models: {'a*': {cooldown: 1m}, '*a': {cooldown: 2m}}")
        assert settings.for_model("aa").cooldown_s == 120.0

    def test_an_exact_name_wins_over_a_longer_pattern(self) -> None:
        settings = read("models: {ab: {cooldown: 1m}, '[a][b]*': {cooldown: 2m}}")
        assert settings.for_model("ab").cooldown_s == 60.0

    def test_patterns_mind_the_case(self) -> None:
        assert read("models: {'A*': {cooldown: 1m}}").for_model("ab").cooldown_s == 1800.0

    def test_null_stops_watching_and_a_lower_layer_stays_otherwise(self) -> None:
        settings = read("defaults: {watch: {recall: {}}}\nmodels: {m: {watch: {accuracy: null}}}")
        assert set(settings.for_model("m").watch) == {"recall"}
        assert set(settings.for_model("other").watch) == {"accuracy", "recall"}

    def test_another_detector_drops_the_options_of_the_one_before(self) -> None:
        settings = read(
            """
            defaults: {watch: {accuracy: {detector: sliding-window, window: 100}}}
            models:
              same: {watch: {accuracy: {z_threshold: 4.0}}}
              other: {watch: {accuracy: {detector: default}}}
            """
        )
        assert settings.for_model("same").watch["accuracy"].options == {"window": 100, "z_threshold": 4.0}
        assert settings.for_model("other").watch["accuracy"] == WatchSettings("default", "down", {})

    def test_a_direction_that_no_entry_says_is_that_of_the_name(self) -> None:
        watch = read("defaults: {watch: {precision: {}, latency_ms: {}, val_auc: {}, page_views: {}}}").for_model("m").watch
        assert {metric: (each.direction, each.direction_from) for metric, each in watch.items()} == {
            "accuracy": ("down", "name"),
            "precision": ("down", "name"),
            "latency_ms": ("up", "name"),
            "val_auc": ("down", "name"),
            "page_views": ("both", "unknown name"),
        }

    def test_a_direction_in_an_entry_is_taken_as_it_is_until_another_says_one(self) -> None:
        settings = read(
            """
            defaults: {watch: {loss: {direction: both}, auc: {direction: up}}}
            models:
              m*: {watch: {auc: {detector: cusum}}}
              mm: {watch: {loss: null}}
              mmm: {watch: {loss: {direction: down}}}
            """
        )
        got = {name: settings.for_model(name).watch for name in ("m", "mm", "mmm")}
        assert {name: each["auc"].direction for name, each in got.items()} == {"m": "up", "mm": "up", "mmm": "up"}
        assert (got["m"]["loss"].direction, got["m"]["loss"].direction_from) == ("both", "configuration")
        assert "loss" not in got["mm"]
        assert got["mmm"]["loss"].direction == "down"

    def test_limits_say_which_side_is_bad_and_no_name_silences_one(self) -> None:
        said = "{watch: {latency_ms: {detector: threshold, lower: 1, upper: 90}, accuracy: {detector: threshold, upper: 0.99}}}"
        watch = read(f"defaults: {said}").for_model("m").watch
        assert {(each.direction, each.direction_from) for each in watch.values()} == {("both", "limits")}

    def test_a_handler_is_replaced_whole(self) -> None:
        settings = read(
            "defaults: {handler: {kind: webhook, url: 'http://x', timeout: 3s}}\n"
            "models: {m: {handler: {kind: 'a.b:C', options: {x: 1}}}}"
        )
        assert settings.for_model("m").handler == CustomHandlerSettings(kind="a.b:C", options={"x": 1})
        assert settings.for_model("o").handler == WebhookHandlerSettings.model_validate(
            {"kind": "webhook", "url": "http://x", "timeout": "3s"}
        )

    def test_a_budget_may_be_a_duration(self) -> None:
        assert read("defaults: {false_alarm_every: 90d}").for_model("m").false_alarm_every == Duration(90 * 86400.0)

    def test_every_kind_of_handler_can_be_said(self) -> None:
        handlers = {
            "channel": {"kind": "channel", "lease": "5m"},
            "task": {"kind": "task", "target": "train:run", "resources": {"num_gpus": 1.0}},
            "tune": {
                "kind": "tune",
                "objective": "train:loss",
                "space": {"lr": [1e-5, 1e-2, "log"]},
                "trials": 5,
                "timeout": "1h",
            },
        }
        settings = config.load({"models": {name: {"handler": handler} for name, handler in handlers.items()}})
        assert settings.for_model("channel").handler == ChannelHandlerSettings.model_validate({"lease": "5m"})
        assert isinstance(settings.for_model("task").handler, TaskHandlerSettings)
        tune = settings.for_model("tune").handler
        assert isinstance(tune, TuneHandlerSettings)
        assert (tune.timeout_s, tune.then) == (3600.0, ChannelHandlerSettings())

    def test_a_ray_job_needs_the_dashboard_wherever_it_stands(self) -> None:
        job = {"kind": "ray_job", "entrypoint": "x"}
        tune = {"kind": "tune", "objective": "a:b", "space": {"x": [0, 1]}}
        assert not config.needs_jobs(Settings())
        assert not config.needs_jobs(config.load({"models": {"m": {"handler": tune}}}))
        assert config.needs_jobs(config.load({"defaults": {"handler": job}}))
        assert config.needs_jobs(config.load({"models": {"m": {"handler": tune | {"then": tune | {"then": job}}}}}))


class TestReferencesToTheEnvironment:
    def test_they_stay_references_until_the_value_is_used(self) -> None:
        settings = read("defaults: {handler: {kind: webhook, url: '${HOOK}', headers: {key: 'Bearer ${TOKEN}'}}}")
        handler = settings.for_model("m").handler
        assert "${TOKEN}" in config.document(settings)
        assert isinstance(handler, WebhookHandlerSettings)
        expanded = handler.expanded({"HOOK": "https://example.test", "TOKEN": "t"})
        assert (expanded.url, expanded.headers) == ("https://example.test", {"key": "Bearer t"})

    def test_a_missing_variable_is_named(self) -> None:
        with pytest.raises(ValueError, match=r"\$\{NOPE\}: the environment of this process has no NOPE"):
            config.expand({"a": ["${NOPE}"]}, {})

    def test_an_entrypoint_may_hold_both_kinds(self) -> None:
        settings = read("defaults: {handler: {kind: ray_job, entrypoint: 'cd ${HOME} && train {model} {{x}}'}}")
        assert isinstance(settings.for_model("m").handler, RayJobHandlerSettings)


class TestWhatIsKept:
    def test_what_was_said_survives_the_store(self, tmp_path: Path) -> None:
        store = Store(f"sqlite:///{tmp_path}/s")
        assert load_stored(store) == Settings()
        settings = read(EXAMPLE)
        assert store_settings(store, settings, 1.0) == 1
        assert store_settings(store, settings, 2.0) == 1, "the same again is no new version"
        assert store_settings(store, config.load({"defaults": {"cooldown": "1m"}}), 3.0) == 2
        assert load_stored(store).defaults.cooldown_s == 60.0
        store.close()

    def test_neither_the_url_of_the_store_nor_the_namespace_is_in_it(self) -> None:
        text = config.document(config.load({"storage": "postgresql://u:secret@h/d", "namespace": "n"}))
        assert json.loads(text) == {}

    @given(
        st.fixed_dictionaries(
            {},
            optional={
                "false_alarm_every": st.sampled_from([100, 2.5e4, "90d", "1h30m"]),
                "cooldown": st.sampled_from(["0s", "30m", "1500ms", "90s"]),
                "expect_every": st.sampled_from([None, "1h"]),
                "dry_run": st.booleans(),
                "watch": st.dictionaries(
                    st.sampled_from(["accuracy", "x.y"]), st.sampled_from([None, {}, {"direction": "up"}])
                ),
                "handler": st.sampled_from(
                    [{"kind": "channel", "lease": "5m"}, {"kind": "a:B"}, {"kind": "task", "target": "a:b"}]
                ),
            },
        )
    )
    def test_reading_back_what_is_kept_changes_nothing(self, entry: dict[str, Any]) -> None:
        settings = config.load({"defaults": entry, "models": {"m*": entry}})
        again = config.parse(json.loads(config.document(settings)), "stored")
        assert again == settings
        assert config.differences(settings, again) == []


class TestDifferences:
    def test_each_is_one_readable_line(self) -> None:
        lines = config.differences(
            config.load({"defaults": {"cooldown": "30m"}}),
            config.load({"defaults": {"cooldown": "6h"}, "models": {"m": {"dry_run": True}}}),
        )
        assert lines == ['defaults.cooldown: "30m" -> "6h"', "models.m.dry_run: (nothing) -> true"]

    def test_saying_a_default_aloud_is_no_difference(self) -> None:
        assert config.differences(Settings(), read(EXAMPLE)) != []
        assert config.differences(Settings(), config.load({"defaults": {"cooldown": "30m", "watch": {"accuracy": {}}}})) == []

    def test_headers_and_passwords_are_not_shown(self) -> None:
        def said(secret: str) -> Settings:
            return config.load(
                {
                    "storage": f"postgresql://u:{secret}@h/d",
                    "defaults": {"handler": {"kind": "webhook", "url": "http://x", "headers": {"key": secret}}},
                }
            )

        lines = config.differences(said("hunter2"), said("tr0ub4dor"))
        assert lines == ["defaults.handler.headers.key: differs"]


def test_a_relative_path_is_anchored_and_nothing_else_is() -> None:
    folder = Path("/srv/app")
    assert config.anchored("sqlite:///./data", folder) == "sqlite:////srv/app/data"
    for url in ("sqlite:////var/data", "postgresql://h/d", "${STORE}", "sqlite:///${DIR}/x"):
        assert config.anchored(url, folder) == url
