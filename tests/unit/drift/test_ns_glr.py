"""The default detector against slow versions of itself, and what it promises beyond the contract."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.drift import NormalScoresGLR
from actors.drift import window_scan as ws
from actors.drift.score_map import ORDER_MAX, UNIT, ScoreMap
from actors.drift.window_scan import LENGTHS, LONGEST, SHARE, WindowScan


def noise(n: int, seed: int = 0) -> Any:
    return 0.9 + 0.03 * np.random.default_rng(seed).standard_normal(n)


def slow_first_alarm(scores: Any, heights: Any, early: Any, direction: Any, start: Any, *, unshown: float) -> Any:
    """The definition, length by length and event by event, with no screen."""
    sums = np.concatenate(([0.0], np.cumsum(scores)))
    for n in range(start + 1, len(scores) + 1):
        for j, length in enumerate(LENGTHS):
            if length > SHARE * n or n % ws._STRIDE[ws._BAND[j]]:
                continue
            excess = sums[n] - sums[n - length] - length * sums[n] / n
            size = {"both": abs(excess), "up": excess, "down": -excess}[direction]
            if size >= UNIT * heights[j] * np.sqrt(length * (1 - length / n)) * (1 + early / n + unshown / n**2):
                return n
    return None


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    direction=st.sampled_from(["both", "up", "down"]),
    shift=st.sampled_from([0.0, 0.4, -0.4, 2.0]),
    batch=st.integers(1, 700),
    unshown=st.sampled_from([0.0, 4000.0]),
)
def test_the_screen_never_hides_an_alarm(seed: int, direction: Any, shift: Any, batch: Any, unshown: float) -> None:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(900)
    x[500:] += shift
    scores = np.rint(np.clip(x, -3.6, 3.6) * UNIT)
    heights = np.sqrt(np.maximum(14.0 - 1.6 * np.log(LENGTHS), 4.0))  # low: many alarms
    scan = WindowScan(heights, direction=direction, unshown=unshown)
    scan.restart(scores[:60], n=60, total=float(scores[:60].sum()), atoms=None, early=8.0)
    found, at = None, 60
    while at < len(scores) and found is None:
        part = scores[at : at + batch]
        excess = next(scan.feed(part) if len(part) > 1 else iter(scan.feed_one(float(part[0]))), None)
        found = at + excess.row + 1 if excess else None
        at += len(part)
    assert found == slow_first_alarm(scores, heights, 8.0, direction, 60, unshown=unshown)


def test_autocorrelation_that_does_not_show_yet_makes_few_alarms_under_a_large_budget() -> None:
    # AR(1) of 0.9 under as much white noise, 200 events each: what a budget of 30,000 allows is 3 of these streams.
    alarmed = 0
    for seed in range(500):
        noise = np.random.default_rng([5, seed]).standard_normal((2, 400))
        slow = np.convolve(noise[0], 0.9 ** np.arange(200) * np.sqrt(0.19))[200:400]
        alarmed += bool(NormalScoresGLR(false_alarm_every=30_000).update(0.9 + 0.03 * np.sqrt(0.5) * (slow + noise[1, :200])))
    assert alarmed <= 12


@pytest.mark.parametrize("largest", [1, 3, 40])
def test_rare_hits_alarm_alike_however_they_are_cut(largest: Any) -> None:
    # Their scores are so uneven that a limit of the screen is at or below zero, where a CUSUM at its lowest is a suspect too.
    rng = np.random.default_rng(5)
    values = (rng.random(30_000) < 0.01) * 1.0
    whole, cut = NormalScoresGLR(false_alarm_every=1000), NormalScoresGLR(false_alarm_every=1000)
    alarms, at = [], 0
    while at < len(values):
        part = values[at : at + int(rng.integers(1, largest + 1))]
        alarms += [dataclasses.replace(alarm, index=at + alarm.index) for alarm in cut.update(part)]
        at += len(part)
    assert alarms == whole.update(values)
    assert len(alarms) > 5


@pytest.mark.parametrize("kind", ["continuous", "ties", "correlated"])
def test_single_scores_equal_those_of_a_batch_bit_for_bit(kind: Any) -> None:
    rng = np.random.default_rng(1)
    x = {
        "continuous": rng.standard_t(3, 700),
        "ties": rng.binomial(20, 0.95, 700) / 20,
        "correlated": np.convolve(rng.standard_normal(760), 0.8 ** np.arange(61), "valid"),
    }[kind]
    learned, _ = ScoreMap.fit(x[:400], cap=3.6, caution=2.0)
    assert (len(learned.phi) > 0) == (kind == "correlated")
    assert (learned.atoms is not None) == (kind == "ties")
    raw = learned.raw_scores(x)
    whitened = learned.whitened(raw)
    past = [0.0] * ORDER_MAX
    for i, value in enumerate(x.tolist()):
        score = learned.raw_score(value)
        assert score == raw[i]
        assert learned.whitened_score(score, past) == whitened[i]
        past = [*past[1:], score]


def test_many_values_have_the_scores_that_few_have() -> None:
    rng = np.random.default_rng(3)
    for x in (rng.standard_t(3, 5000), rng.binomial(20, 0.95, 5000) / 20, np.ones(5000)):
        learned, _ = ScoreMap.fit(x[:400], cap=3.6, caution=2.0)
        few = np.concatenate([learned.raw_scores(part) for part in np.array_split(x, 50)])
        assert np.array_equal(learned.raw_scores(x), few)


def test_scores_of_new_values_are_standard_normal_and_independent_whatever_the_stream() -> None:
    rng = np.random.default_rng(2)
    ar = np.convolve(rng.standard_normal(20_100), 0.5 ** np.arange(101), "valid")
    for x in (rng.lognormal(0, 0.5, 20_000), rng.standard_t(3, 20_000), ar):
        learned, _ = ScoreMap.fit(x[:3200], cap=3.6, caution=0.0)
        z = learned.whitened(learned.raw_scores(x[3200:]))[10:] / UNIT
        assert abs(z.mean()) < 0.05
        assert abs(z.std() - 1.0) < 0.04
        assert abs(np.corrcoef(z[1:], z[:-1])[0, 1]) < 0.04


def test_the_rare_mean_of_normal_atoms_is_that_of_the_normal_distribution() -> None:
    value = np.linspace(-8, 8, 2001)
    weight = np.exp(-0.5 * value**2)
    atoms = np.stack((value, weight / weight.sum()))
    rate = np.array([0.01, 0.1, 1.0, 4.0])
    assert ws._rare_mean(atoms, rate) == pytest.approx(np.sqrt(2 * rate), rel=0.01)


def test_the_rare_mean_of_a_coin_is_chernoffs() -> None:
    p = 0.1  # of a 1; rate at mean m is the Kullback-Leibler divergence of coins
    atoms = np.array([[-p, 1 - p], [1 - p, p]])
    for m in (0.15, 0.4, 0.9):
        rate = m * np.log(m / p) + (1 - m) * np.log((1 - m) / (1 - p))
        assert ws._rare_mean(atoms, np.array([rate]))[0] == pytest.approx(m - p, rel=0.01)
    assert ws._rare_mean(atoms, np.array([2.4]))[0] == np.inf  # rarer than always 1


def test_the_state_of_the_default_stays_below_40_kb() -> None:
    detector = NormalScoresGLR()
    for n in (10, 49, 50, 3150, 5000, 20_000):
        detector.update(noise(n, seed=n))
        assert len(detector.state()) <= 40_000


@pytest.mark.parametrize("size", [5.0, 20.0, 1000.0])
def test_an_outlier_among_average_events_never_alarms(size: Any) -> None:
    for seed in range(10):
        for sign in (-1.0, 1.0):
            values = noise(1000, seed=seed)
            values[690:711] = np.median(values[:690])
            values[700] = 0.9 + sign * size * 0.03
            assert not any(700 <= alarm.index <= 710 for alarm in NormalScoresGLR().update(values))


def test_one_deviation_from_a_constant_is_no_alarm_but_a_few_are() -> None:
    detector = NormalScoresGLR()
    detector.update(np.ones(500))
    assert detector.update([0.97]) == []
    assert detector.update(np.ones(300)) == []
    assert len(detector.update(np.full(6, 0.97))) == 1


@pytest.mark.parametrize("n", [60, 500, 5000])
def test_the_second_or_third_deviation_from_a_constant_is_an_alarm_however_long_it_was_constant(n: int) -> None:
    detector = NormalScoresGLR()
    assert detector.update(np.ones(n)) == []
    assert detector.update(1.0 + 1e-12 * np.arange(20)) == []  # rounding is no deviation
    alarms = detector.update(np.full(3, 0.97))
    assert len(alarms) == 1
    assert alarms[0].index >= 1


def test_a_pattern_that_repeats_itself_hides_no_shift() -> None:
    for period in (2, 3, 4, 5, 6, 7, 9, 12):
        detector = NormalScoresGLR()
        pattern = 0.93 + 0.01 * (np.arange(400) % period)
        assert detector.update(pattern) == []
        alarms = detector.update(pattern - 0.02)
        assert alarms
        assert alarms[0].direction == "down"
        assert alarms[0].index < 5 * period


def test_a_change_smaller_than_min_effect_is_no_alarm_and_a_larger_one_is() -> None:
    values = np.concatenate((noise(2000), noise(2000, seed=1) - 0.02))
    assert NormalScoresGLR().update(values)
    assert NormalScoresGLR(min_effect=0.03).update(values) == []
    larger = np.concatenate((noise(2000), noise(2000, seed=1) - 0.045))
    alarms = NormalScoresGLR(min_effect=0.03).update(larger)
    assert len(alarms) == 1
    assert abs(alarms[0].window_mean - alarms[0].baseline_mean) >= 0.03


def test_a_season_is_no_drift_when_its_period_is_known() -> None:
    wave = 0.03 * np.sin(2 * np.pi * np.arange(6000) / 24)
    assert NormalScoresGLR(season=24).update(noise(6000, seed=5) + wave) == []
    detector = NormalScoresGLR(season=24)
    detector.update(noise(3000, seed=5) + wave[:3000])
    assert detector.update(noise(200, seed=6) + wave[:200] - 0.03)
    assert NormalScoresGLR(season=24).progress()["warmup"] == 96


def test_the_spread_channel_sees_a_wider_and_a_narrower_stream_of_the_same_mean() -> None:
    for factor, direction in ((3.0, "up"), (0.5, "down")):
        detector = NormalScoresGLR(spread=True, direction="down")
        detector.update(noise(2000, seed=7))
        sides = np.where(np.arange(150) % 2, 1.0, -1.0)  # so that the mean stays where it is
        alarms = detector.update(0.9 + factor * sides * np.abs(noise(150, seed=8) - 0.9))
        assert alarms
        assert alarms[0].extra["what"] == "spread"
        assert alarms[0].direction == direction
        spreads = [float(alarms[0].extra[name]) for name in ("window_spread", "baseline_spread")]
        assert (spreads[0] / spreads[1] > 1.3) == (direction == "up")


def test_the_change_is_dated_and_described_in_raw_units() -> None:
    values = np.concatenate((noise(1500, seed=1), noise(300, seed=2) - 0.05))
    alarm = NormalScoresGLR().update(values)[0]
    assert 1500 <= alarm.index <= 1512
    assert abs((alarm.index - alarm.estimated_start + 1) - 1500) <= 12
    assert alarm.direction == "down"
    assert alarm.baseline_mean == pytest.approx(values[: alarm.index + 1 - alarm.window_n].mean())
    assert alarm.baseline_sd == pytest.approx(values[: alarm.index + 1 - alarm.window_n].std(), rel=1e-9)
    assert alarm.window_mean == pytest.approx(values[alarm.index + 1 - alarm.window_n : alarm.index + 1].mean())
    assert alarm.baseline_n + alarm.window_n == alarm.index + 1
    assert alarm.statistic >= alarm.threshold


@settings(max_examples=20, deadline=None)
@given(scale=st.sampled_from([1e-9, 1e-3, 1.0, 1e6, 1e12]), shift=st.sampled_from([0.0, -1.0, 1e3]))
def test_units_do_not_matter(scale: Any, shift: Any) -> None:
    values = np.concatenate((noise(700, seed=1), noise(100, seed=2) - 0.04))
    ours = NormalScoresGLR().update(values)
    theirs = NormalScoresGLR().update(scale * (values + shift))
    assert [(a.index, a.direction, a.window_n) for a in theirs] == [(a.index, a.direction, a.window_n) for a in ours]


def test_warning_comes_before_the_alarm_and_progress_tells_the_levels() -> None:
    detector = NormalScoresGLR()
    assert detector.progress()["state"] == "learning"
    detector.update(noise(1000, seed=1))
    assert detector.progress()["state"] == "stable"
    seen = []
    for value in noise(200, seed=2) - 0.02:
        if detector.update([value]):
            break
        seen.append(detector.progress()["state"])
    assert "warning" in seen
    assert seen[0] == "stable"


def test_a_smaller_budget_alarms_no_later() -> None:
    values = np.concatenate((noise(1500, seed=1), noise(3000, seed=2) - 0.01))
    first = [NormalScoresGLR(false_alarm_every=b).update(values)[0].index for b in (1_000, 10_000, 100_000)]
    assert first == sorted(first)


@pytest.mark.parametrize(("budget", "bound"), [(300, 160), (1000, 230 + 60)])  # the latter with two errors of 40 streams
def test_under_a_small_budget_caution_does_not_hide_a_shift_of_an_autocorrelated_stream(budget: Any, bound: Any) -> None:
    delays = []
    for seed in range(40):
        noise = np.random.default_rng(seed).standard_normal(2460)
        values = 0.9 + 0.03 * np.convolve(noise, 0.6 * 0.8 ** np.arange(61), "valid")
        values[300:] -= 0.03
        alarms = [a.index for a in NormalScoresGLR(false_alarm_every=budget, direction="down").update(values) if a.index >= 300]
        delays.append(alarms[0] - 300 if alarms else 2100)
    assert np.mean(delays) <= bound


def test_a_million_events_are_kept_in_the_same_memory() -> None:
    detector = NormalScoresGLR(false_alarm_every=1e9)
    rng = np.random.default_rng(0)
    detector.update(rng.standard_normal(20_000))
    held = len(detector._values), len(detector._channels[0].scan._sums)
    for _ in range(100):
        assert detector.update(rng.standard_normal(10_000)) == []
    assert (len(detector._values), len(detector._channels[0].scan._sums)) == held
    assert detector._end <= len(detector._values)
    assert len(detector._values) <= 4 * LONGEST
    assert detector.progress()["seen"] == 1_020_000


def test_huge_finite_values_break_nothing() -> None:
    detector = NormalScoresGLR()
    with np.errstate(all="ignore"):
        detector.update(np.concatenate((noise(500), [1e300, -1e300], noise(100))))
    assert dataclasses.is_dataclass(detector) is False
    assert detector.progress()["seen"] <= 602


def test_short_baselines_shorten_the_warm_up() -> None:
    detector = NormalScoresGLR()
    detector.baseline(noise(30))
    assert detector.progress()["state"] == "learning"
    detector.update(noise(20, seed=1))
    assert detector.progress()["state"] == "stable"
    assert detector.progress()["seen"] == 20
