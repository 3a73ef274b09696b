"""The classical charts against published values and against simulation; the reference against its definition."""

from typing import Any

import msgpack
import numpy as np
import pytest

from actors.drift import SlidingWindowDriftDetector, create, share_budget
from actors.drift.cusum import cusum_threshold
from actors.drift.ewma import ewma_threshold
from actors.drift.normal import normal_quantile, normal_quantiles
from actors.drift.sliding_window import _threshold_for


def test_cusum_thresholds_are_the_published_ones() -> None:
    # Montgomery, Introduction to Statistical Quality Control, two-sided, k = 1/2: h = 4 gives 168, h = 5 gives 465.
    assert cusum_threshold(168, 0.5, two_sided=True) == pytest.approx(4.0, abs=0.03)
    assert cusum_threshold(465, 0.5, two_sided=True) == pytest.approx(5.0, abs=0.03)


def test_ewma_limits_are_the_published_ones() -> None:
    # Lucas and Saccucci 1990: ARL0 = 500 at weight 0.1 needs 2.814, at 0.25 2.998; weight 1 is the Shewhart chart.
    assert ewma_threshold(500, 0.1, two_sided=True) == pytest.approx(2.814, abs=0.01)
    assert ewma_threshold(500, 0.25, two_sided=True) == pytest.approx(2.998, abs=0.01)
    assert ewma_threshold(370.4, 1.0, two_sided=True) == pytest.approx(3.0, abs=0.01)


@pytest.mark.parametrize("name", ["cusum", "page-hinkley", "ewma"])
def test_a_budget_holds_on_gaussian_noise_from_the_end_of_the_warm_up_on(name: str) -> None:
    runs = []
    for seed in range(120):
        rng = np.random.default_rng(seed)
        detector = create(name, false_alarm_every=500)
        n = 0
        while not (alarms := detector.update(rng.standard_normal(500))):
            n += 500
        runs.append(n + alarms[0].index + 1 - 50)
    error = np.std(runs) / np.sqrt(len(runs))
    assert 500 - 3 * error < np.mean(runs) < 900


def test_the_reference_is_its_definition() -> None:
    rng = np.random.default_rng(1)
    x = np.concatenate((rng.normal(0.93, 0.01, 900), np.full(600, 0.9), [0.9 + 1e-9], rng.normal(0.93, 0.01, 300)))
    expected = []
    for i in range(len(x)):
        window = x[max(0, i - 499) : i + 1]
        sd = window.std(ddof=1) if len(window) > 1 else 0.0
        if len(window) >= 50 and sd > np.finfo(np.float32).eps and abs((x[i] - window.mean()) / sd) > 3.0:
            expected.append(i)
    alarms = SlidingWindowDriftDetector().update(x)
    assert [alarm.index for alarm in alarms] == expected
    assert expected
    newest = alarms[-1]
    window = x[newest.index - 499 : newest.index + 1]
    assert newest.extra["z"] == pytest.approx((window[-1] - window.mean()) / window.std(ddof=1))


def test_an_inherited_budget_does_not_change_the_references_threshold() -> None:
    for budget in (100, 10_000, 1_000_000):
        assert create("sliding-window", false_alarm_every=budget).progress()["threshold"] == 3.0
    assert create("sliding-window", false_alarm_every=370.4, z_threshold="budget").progress()["threshold"] < 3.01
    assert create("sliding-window", z_threshold="budget").progress()["threshold"] == pytest.approx(3.88, abs=0.02)


def test_the_references_budget_threshold_is_exact_for_its_window() -> None:
    # z^2 n / (n - 1)^2 is Beta(1/2, (n - 2)/2) (Thompson 1935); scipy's beta.ppf gave these.
    assert _threshold_for(10_000, 500, one_sided=False) == pytest.approx(3.8631, abs=0.003)
    assert _threshold_for(1_000, 500, one_sided=False) == pytest.approx(3.2744, abs=0.003)


def test_fixed_limits_alarm_once_per_crossing() -> None:
    detector = create("threshold", lower=0.8, upper=0.95)
    values = [0.9, 0.7, 0.7, 0.9, 0.7, 0.99, 0.9]
    alarms = detector.update(values)
    # 5: straight from below the lower limit to above the upper one it was outside all along
    assert [(alarm.index, alarm.direction) for alarm in alarms] == [(1, "down"), (4, "down")]
    with pytest.raises(ValueError, match="lower or upper"):
        create("threshold")
    with pytest.raises(ValueError, match="lower must be <"):
        create("threshold", lower=2.0, upper=1.0)


def test_page_hinkley_names_its_own_option() -> None:
    with pytest.raises(ValueError, match="tolerance must be"):
        create("page-hinkley", tolerance=-1)


def test_metrics_share_a_budget_so_that_their_false_alarms_add_up_to_it() -> None:
    for n in (1, 2, 7):
        assert n * (1.0 / share_budget(10_000, n)) == pytest.approx(1.0 / 10_000)
    with pytest.raises(ValueError, match="n_metrics"):
        share_budget(10_000, 0)
    with pytest.raises(ValueError, match="false_alarm_every"):
        share_budget(float("nan"), 1)


def test_normal_quantiles() -> None:
    assert normal_quantile(0.975) == pytest.approx(1.959963984540054)
    assert normal_quantiles(np.array([0.5, 0.975])).tolist() == [0.0, normal_quantile(0.975)]


CHARTS = ["cusum", "page-hinkley", "ewma"]


@pytest.mark.parametrize("name", [*CHARTS, "default"])
@pytest.mark.parametrize("level", [0.0, 1.0])
@pytest.mark.parametrize("power", [-990, 990])  # about 1e-298 and 1e298
def test_alarms_are_the_same_at_any_size_of_the_values(name: str, level: Any, power: Any) -> None:
    if name == "default" and level == 0.0:
        pytest.skip("the default adds squares up in the unit of the first value")
    rng = np.random.default_rng(3)
    values = level + np.concatenate((0.03 * rng.standard_normal(600), 0.09 + 0.03 * rng.standard_normal(200)))

    def told(unit: Any) -> Any:
        detector = create(name)
        alarms = [alarm for part in np.array_split(values * unit, 7) for alarm in detector.update(part)]
        return [
            (a.direction, a.window_n, a.baseline_n, *(pytest.approx(x / unit) for x in (a.baseline_mean, a.baseline_sd)))
            for a in alarms
        ]

    assert told(1.0)
    assert told(2.0**power) == told(1.0)


@pytest.mark.parametrize("name", CHARTS)
def test_differences_below_a_billionth_of_the_level_are_rounding(name: str) -> None:
    rng = np.random.default_rng(4)
    values = 1e6 * (1.0 + 1e-12 * rng.standard_normal(2000))
    values[1000:] += 1e6 * 3e-11
    assert create(name).update(values) == []
    values[1000:] += 1e6 * 1e-7
    assert create(name).update(values)


def test_sizes_beyond_1e300_count_as_1e300() -> None:
    values = np.concatenate((np.full(100, 1.7e308), np.full(100, -1.7e308)))
    for name in [*CHARTS, "sliding-window"]:
        assert create(name).update(values)
    assert create("threshold", lower=0.0, window=3).update(values)


def test_the_reference_is_its_definition_for_huge_values_too() -> None:
    rng = np.random.default_rng(6)
    values = rng.standard_normal(1200)
    values[900:930] *= 1e200  # and back: windows of usual values are judged as ever
    whole, cut = SlidingWindowDriftDetector(window=50, min_samples=20), SlidingWindowDriftDetector(window=50, min_samples=20)
    alarms = whole.update(values)
    again = [(start + a.index, a.extra["z"]) for start in range(0, 1200, 7) for a in cut.update(values[start : start + 7])]
    assert again == [(a.index, a.extra["z"]) for a in alarms]
    usual = SlidingWindowDriftDetector(window=50, min_samples=20).update(rng.standard_normal(1200))
    assert len(usual) < len(alarms) < 60


@pytest.mark.parametrize("name", [*CHARTS, "threshold"])
def test_a_state_that_kept_squares_is_still_read(name: str) -> None:
    options: dict[str, Any] = {"lower": -9.0} if name == "threshold" else {}
    values = np.random.default_rng(5).standard_normal(300)
    detector, again = create(name, **options), create(name, **options)
    detector.update(values)
    envelope = msgpack.unpackb(detector.state())
    body = envelope["body"]
    n, mean, root = body.pop("known")
    if name == "threshold":
        body["moments"] = [n, mean, root**2]
    else:
        body["counts"], body["moments"] = [n, body.pop("seen")], [mean, root**2]
    again.restore(msgpack.packb(envelope))
    found, expected = again.update(values - 20.0), detector.update(values - 20.0)
    assert [a.index for a in found] == [a.index for a in expected]
    assert found[0].baseline_sd == pytest.approx(expected[0].baseline_sd)
