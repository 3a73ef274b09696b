"""What every drift detector promises, run over all of them."""

import dataclasses
import importlib.util
import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from actors.drift import Alarm, check, create, describe, names

OPTIONS: dict[str, dict[str, Any]] = {
    "default": {},
    "default, one side": {"direction": "down"},
    "default, with season": {"season": 12},
    "default, with spread": {"spread": True},
    "default, with min_effect": {"min_effect": 0.01},
    "sliding-window": {"z_threshold": 4.5},
    "cusum": {},
    "page-hinkley": {},
    "ewma": {},
    "threshold": {"lower": 0.8, "window": 5},
    "river:ADWIN": {},
    "river:KSWIN": {"seed": 1, "alpha": 1e-5},
    "river:PageHinkley": {"threshold": 5.0},
    "river:HDDM_A": {},
    "river:HDDM_W": {},
    "river:FHDDM": {},
    "river:EDDM": {},
    "river:DDM": {},
}
HAS_RIVER = importlib.util.find_spec("river") is not None
KINDS = [kind for kind in OPTIONS if HAS_RIVER or not kind.startswith("river:")]
OWN = [kind for kind in KINDS if not kind.startswith("river:")]
MISSES = {"river:DDM", "river:EDDM", "river:HDDM_A", "river:HDDM_W"}  # what they are fed: 1 a miss, 0 a hit


def make(kind: Any) -> Any:
    return create(kind.split(",")[0], **OPTIONS[kind])


def stream(kind: Any, n: int, *, level: Any = 0.9, seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    if kind in MISSES:
        return (rng.random(n) > level).astype(float)
    return np.clip(level + 0.03 * rng.standard_normal(n), 0.0, 1.0)


def feed(detector: Any, values: Any, sizes: Any) -> Any:
    alarms, at = [], 0
    while at < len(values):
        size = next(sizes)
        found = detector.update(values[at : at + size])
        alarms += [dataclasses.replace(alarm, index=alarm.index + at) for alarm in found]
        at += size
    return alarms


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


def test_every_registered_detector_is_in_this_suite() -> None:
    assert set(names()) == {kind.split(",")[0] for kind in OWN}


def test_it_is_quiet_on_a_stationary_stream(kind: Any) -> None:
    if kind == "river:EDDM":
        pytest.skip("alarms on stationary streams: docs/explanation/detection.md shows how often")
    assert make(kind).update(stream(kind, 1500, seed=3)) == []


def test_it_fires_soon_after_an_obvious_drop(kind: Any) -> None:
    detector = make(kind)
    detector.update(stream(kind, 600, seed=3))
    alarms = detector.update(stream(kind, 200, level=0.5, seed=4))
    assert alarms
    assert alarms[0].index < 100
    assert alarms[0].direction == ("up" if kind in MISSES else "down")


def test_an_alarm_carries_the_evidence_as_plain_numbers(kind: Any) -> None:
    detector = make(kind)
    detector.update(stream(kind, 600, seed=3))
    alarm = detector.update(stream(kind, 200, level=0.5, seed=4))[0]
    plain = alarm.as_dict()
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    for field in dataclasses.fields(Alarm):
        value = plain[field.name]
        assert type(value) in {int, float, str, dict}, field.name
    assert alarm.detector == kind.split(",")[0]
    assert alarm.estimated_start >= 1
    assert alarm.window_n >= 1
    assert not kind.startswith(("default", "cusum", "ewma")) or alarm.window_mean < 0.75 < alarm.baseline_mean


def test_it_starts_afresh_after_an_alarm_or_stays_silent(kind: Any) -> None:
    if kind == "sliding-window":
        pytest.skip("the reference alarms at every exceedance")
    detector = make(kind)
    detector.update(stream(kind, 600, seed=3))
    alarms = detector.update(stream(kind, 1200, level=0.5, seed=12))
    assert len(alarms) <= (5 if kind.startswith("river:") else 1)


@pytest.mark.parametrize(
    "bad",
    [[], [math.nan], [0.9, math.inf], [-math.inf], [[0.9, 0.8]], 0.9, ["x"], [None], [0.9, math.nan, 0.8]],
    ids=repr,
)
def test_bad_values_are_refused_and_change_nothing(kind: Any, bad: Any) -> None:
    detector = make(kind)
    detector.update(stream(kind, 130))
    before = detector.state()
    with pytest.raises(ValueError, match=r"^values must"):
        detector.update(bad)
    with pytest.raises(ValueError, match=r"^values must"):
        detector.baseline(bad)
    assert detector.state() == before


@pytest.mark.parametrize(("direction", "level"), [("down", 1.0), ("up", 0.5)])
def test_a_state_that_was_learned_in_both_directions_goes_on_in_one(kind: Any, direction: str, level: float) -> None:
    """So that an upgrade or a reload which gives a metric its direction keeps what a running detector knows."""
    old, new = make(kind), create(kind.split(",")[0], **{**OPTIONS[kind], "direction": direction})
    old.update(stream(kind, 600, seed=3))
    new.restore(old.state())
    assert [new.progress()[key] for key in ("seen", "n_baseline", "baseline")] == [
        old.progress()[key] for key in ("seen", "n_baseline", "baseline")
    ]
    better = np.full(40, level if kind not in MISSES else 1.0 if direction == "down" else 0.0)
    found = new.update(better)
    assert kind.endswith("with spread") or found == []  # the spread is watched either way


@pytest.mark.parametrize("n", [0, 1, 49, 50, 333, 5000])
def test_it_resumes_identically_from_its_saved_state(kind: Any, n: int) -> None:
    if kind == "river:KSWIN" and n > 1000:
        pytest.skip("seconds")
    detector, other = make(kind), make(kind)
    if n:
        detector.update(stream(kind, n))
    other.update(stream(kind, 77, seed=9))  # whatever it has seen is overwritten
    other.restore(detector.state())
    assert other.state() == detector.state()
    assert other.progress() == detector.progress()
    rest = np.concatenate((stream(kind, 300, seed=1), stream(kind, 300, level=0.55, seed=2), stream(kind, 50, seed=8)))
    assert other.update(rest) == detector.update(rest)
    assert other.state() == detector.state()


def test_a_broken_or_foreign_state_is_refused_and_changes_nothing(kind: Any) -> None:
    detector = make(kind)
    detector.update(stream(kind, 130))
    before = detector.state()
    foreign = make("cusum" if kind != "cusum" else "ewma").state()
    for bad in (b"", b"nonsense", before[:-3], b"\x80", foreign):
        with pytest.raises(ValueError, match="state must"):
            detector.restore(bad)
        assert detector.state() == before


def test_reset_makes_it_as_new(kind: Any) -> None:
    detector = make(kind)
    detector.update(stream(kind, 700, seed=5))
    detector.reset()
    assert detector.state() == make(kind).state()


def test_the_same_input_gives_the_same_alarms(kind: Any) -> None:
    values = np.concatenate((stream(kind, 800, seed=1), stream(kind, 800, level=0.6, seed=2)))
    assert make(kind).update(values) == make(kind).update(values)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32 - 1), sizes=st.lists(st.integers(1, 400), min_size=1, max_size=6))
def test_the_cut_into_batches_does_not_matter(kind: Any, seed: int, sizes: Any) -> None:
    if kind == "river:KSWIN":
        pytest.skip("seconds; the adapter feeds all of river's alike")
    rng = np.random.default_rng(seed)
    parts = [
        stream(kind, int(rng.integers(20, 500)), level=float(rng.choice([0.9, 0.88, 0.7])), seed=seed + i) for i in range(4)
    ]
    values = np.concatenate(parts)
    if kind not in MISSES:
        values = np.round(values, int(rng.integers(1, 9)))  # from many ties to none
    whole, cut = make(kind), make(kind)
    cycle = (sizes[i % len(sizes)] for i in range(10**9))
    assert feed(cut, values, cycle) == whole.update(values)
    assert cut.state() == whole.state()
    assert cut.progress() == whole.progress()


def test_singly_fed_it_alarms_alike(kind: Any) -> None:
    values = np.concatenate((stream(kind, 700, seed=1), stream(kind, 100, level=0.8, seed=2), stream(kind, 400, seed=6)))
    singly, whole = make(kind), make(kind)
    assert feed(singly, values, iter(lambda: 1, 0)) == whole.update(values)
    assert singly.state() == whole.state()


def test_a_constant_stream_never_alarms(kind: Any) -> None:
    if kind in MISSES:
        pytest.skip("nothing but misses")
    detector = make(kind)
    assert detector.update(np.full(600 if kind == "river:KSWIN" else 5000, 1.0)) == []
    json.dumps(detector.progress())


REGULAR = {  # streams without chance, by the number of the event
    "constant": lambda i: 0.93 + 0.0 * i,
    "two values in turn": lambda i: 0.93 + 0.01 * (i % 2),
    "five values in turn": lambda i: 0.93 + 0.01 * (i % 5 - 2),
    "a sine": lambda i: 0.93 + 0.01 * np.sin(0.7 * i),
    "a ramp": lambda i: 0.92 + 2e-5 * i,
}


@pytest.mark.parametrize("before", REGULAR)
@pytest.mark.parametrize("n", [400, 5000])
@pytest.mark.parametrize("kind", OWN)
def test_a_drop_is_found_however_regular_the_stream_was(kind: Any, before: Any, n: int) -> None:
    detector = make(kind)
    alarms = detector.update(REGULAR[before](np.arange(n)))
    if before != "a ramp":  # which is a drift itself
        assert alarms == []
    assert alarms or detector.update(np.full(400, 0.6))


def test_a_given_baseline_ends_the_learning(kind: Any) -> None:
    detector = make(kind)
    detector.update(stream(kind, 333, level=0.6))
    detector.baseline(stream(kind, 1000, seed=2))
    progress = detector.progress()
    assert progress["seen"] == 0
    assert progress["state"] != "learning" or kind == "threshold"
    if kind in {"river:KSWIN", "river:FHDDM"} or kind == "threshold":
        return
    assert detector.update(stream(kind, 60, level=0.5, seed=4))


def test_progress_is_plain_and_complete(kind: Any) -> None:
    detector = make(kind)
    for n in (0, 1, 30, 700):
        if n:
            detector.update(stream(kind, n))
        progress = detector.progress()
        assert set(progress) == {
            "state",
            "baseline",
            "recent",
            "seen",
            "warmup",
            "n_baseline",
            "statistic",
            "threshold",
        }
        assert progress["state"] in {"learning", "stable", "warning"}
        assert all(type(value) in {int, float, str, type(None)} for value in progress.values()), progress


def test_state_does_not_grow_without_bound(kind: Any) -> None:
    if kind == "river:KSWIN":
        pytest.skip("seconds; its window is fixed")
    detector = make(kind)
    values = stream(kind, 12_000, seed=11)
    detector.update(values[:6_000])
    first = len(detector.state())
    detector.update(values[6_000:])
    assert len(detector.state()) <= first * 1.1 + 400


@pytest.mark.parametrize("kind", OWN)
def test_a_direction_that_is_not_watched_is_silent(kind: Any) -> None:
    name, options = kind.split(",")[0], OPTIONS[kind] | {"direction": "up"}
    detector = create(name, **options)
    detector.update(stream(kind, 600, seed=3))
    assert [a for a in detector.update(stream(kind, 200, level=0.5, seed=4)) if a.extra.get("what") != "spread"] == []


@pytest.mark.parametrize("name", names())
@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"direction": "sideways"}, "direction"),
        ({"false_alarm_every": 0}, "false_alarm_every"),
        ({"false_alarm_every": math.nan}, "false_alarm_every"),
        ({"false_alarm_every": "often"}, "false_alarm_every"),
        ({"no_such_option": 1}, "no_such_option"),
        ({"warmup": 1.5}, "warmup"),
        ({"window": 0}, "window"),
    ],
)
def test_a_bad_option_is_named_before_anything_runs(name: str, options: Any, field: Any) -> None:
    with pytest.raises(ValueError, match=field):
        check(name, {"lower": 0.5} | options if name == "threshold" else options)


def test_an_unknown_name_is_refused_with_the_choices() -> None:
    with pytest.raises(KeyError, match="sliding-window"):
        create("adwin")
    with pytest.raises(KeyError, match="default"):
        check("", {})


@pytest.mark.skipif(not HAS_RIVER, reason="needs river")
def test_an_unknown_name_of_rivers_is_refused_with_rivers_choices() -> None:
    with pytest.raises(KeyError, match="river:ADWIN"):
        create("river:ADVIN")
    with pytest.raises(ValueError, match="no_such_option"):
        create("river:ADWIN", no_such_option=1)


def test_without_river_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.import_module", lambda name: (_ for _ in ()).throw(ImportError(name)))
    with pytest.raises(ValueError, match=r"pip install 'visutility\[river\]'"):
        create("river:ADWIN")


@pytest.mark.parametrize("name", names())
def test_each_describes_itself_with_its_options(name: str) -> None:
    described = describe(name)
    assert described["name"] == name
    assert described["summary"].startswith("Alarm when") or name == "sliding-window"
    check(
        name,
        {key: value for key, value in described["options"].items() if value is not None}
        | ({"lower": 0.1} if name == "threshold" else {}),
    )
