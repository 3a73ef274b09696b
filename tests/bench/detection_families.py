"""The families of streams that detectors are judged on, each with the likelihood that its oracle knows.

A metric's stream is rarely clean Gaussian noise: it is discrete, skewed, heavy-tailed, contaminated, autocorrelated,
seasonal. Every family has a mean and a standard deviation `sd` per event; a shift of s means that the mean moves by
s * sd in the family's bad direction.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Draw = Callable[[np.random.Generator, int, float], Floats]
LogRatio = Callable[[Floats, float], Floats]


class Stream(Protocol):
    """An endless stream: `take(n)` returns its next n events, drawn at the shift (in sd) that holds by then."""

    def take(self, n: int, shift: float = 0.0) -> Floats:
        """Return the next `n` events, float64[n]."""


@dataclass
class _Independent:
    draw: Draw
    rng: np.random.Generator

    def take(self, n: int, shift: float = 0.0) -> Floats:
        return self.draw(self.rng, n, shift)


@dataclass
class _Autoregressive:
    """x_t = mean + sd a_t, a_t = phi a_{t-1} + sqrt(1 - phi^2) e_t; `noise` is the share of white noise besides."""

    phi: float
    noise: float
    rng: np.random.Generator
    past: Floats = field(default_factory=lambda: np.empty(0))

    def take(self, n: int, shift: float = 0.0) -> Floats:
        memory = math.ceil(math.log(1e-9) / math.log(self.phi))
        if len(self.past) == 0:
            self.past = self.rng.standard_normal(memory)
        drawn = np.concatenate((self.past, self.rng.standard_normal(n)))
        kernel = self.phi ** np.arange(memory + 1) * math.sqrt(1.0 - self.phi**2)
        a = np.convolve(drawn, kernel, mode="valid")
        self.past = drawn[-memory:]
        if self.noise:
            a = math.sqrt(1.0 - self.noise) * a + math.sqrt(self.noise) * self.rng.standard_normal(n)
        return 0.9 + 0.03 * (a + shift)


@dataclass
class _Seasonal:
    """A sine of amplitude 1 sd and period 24 under Gaussian noise."""

    rng: np.random.Generator
    t: int = 0

    def take(self, n: int, shift: float = 0.0) -> Floats:
        t = np.arange(self.t, self.t + n)
        self.t += n
        return 0.9 + 0.03 * (np.sin(2 * np.pi * t / 24) + self.rng.standard_normal(n) + shift)


@dataclass(frozen=True)
class Family:
    """One kind of stream.

    `log_ratio(values, shift)` is log f1 / f0 of each event, given those before it, after a change before the first of
    `values`. Under autocorrelation it needs the event before, so it leaves out the first value; and the event at
    which the change itself happened has another ratio, `first_ratio`: prewhitening leaves less of a step later on.
    """

    name: str
    what: str
    bad: Literal[-1, 1]
    stream: Callable[[np.random.Generator], Stream]
    log_ratio: LogRatio | None
    options: dict[str, object] = field(default_factory=dict)  # what a user who knows the metric would set
    first_ratio: LogRatio | None = None


def _gaussian(rng: np.random.Generator, n: int, shift: float) -> Floats:
    return 0.9 + 0.03 * (rng.standard_normal(n) + shift)


def _gaussian_ratio(x: Floats, shift: float) -> Floats:
    z = (x - 0.9) / 0.03
    return shift * z - 0.5 * shift * shift


def _binomial(trials: int, p: float) -> tuple[Draw, LogRatio]:
    sd = math.sqrt(p * (1 - p) / trials)

    def draw(rng: np.random.Generator, n: int, shift: float) -> Floats:
        return rng.binomial(trials, p + shift * sd, n) / trials

    def ratio(x: Floats, shift: float) -> Floats:
        q = p + shift * sd
        return trials * (x * math.log(q / p) + (1 - x) * math.log((1 - q) / (1 - p)))

    return draw, ratio


_T3_SD = math.sqrt(3.0)


def _t3(rng: np.random.Generator, n: int, shift: float) -> Floats:
    return 0.9 + 0.03 * (rng.standard_t(3, n) / _T3_SD + shift)


def _t3_ratio(x: Floats, shift: float) -> Floats:
    z = (x - 0.9) / 0.03
    return 2.0 * (np.log1p(z * z) - np.log1p((z - shift) ** 2))


# 100 ms on average, deviation 53 ms; a change multiplies every latency, so that the mean moves by shift * sd.
_LOG_SD = 0.5
_LOG_CV = math.sqrt(math.exp(_LOG_SD**2) - 1.0)


def _lognormal(rng: np.random.Generator, n: int, shift: float) -> Floats:
    return 100.0 * (1.0 + shift * _LOG_CV) * np.exp(_LOG_SD * rng.standard_normal(n) - 0.5 * _LOG_SD**2)


def _lognormal_ratio(x: Floats, shift: float) -> Floats:
    z = (np.log(x / 100.0) + 0.5 * _LOG_SD**2) / _LOG_SD
    d = math.log(1.0 + shift * _LOG_CV) / _LOG_SD
    return d * z - 0.5 * d * d


_CONTAMINATED_SD = math.sqrt(0.95 + 0.05 * 25.0)


def _contaminated(rng: np.random.Generator, n: int, shift: float) -> Floats:
    wide = np.where(rng.random(n) < 0.05, 5.0, 1.0)
    return 0.9 + 0.03 * (rng.standard_normal(n) * wide / _CONTAMINATED_SD + shift)


def _contaminated_ratio(x: Floats, shift: float) -> Floats:
    def density(z: Floats) -> Floats:
        return np.log(0.95 * np.exp(-0.5 * z * z) + 0.01 * np.exp(-0.02 * z * z) + 1e-300)

    z = (x - 0.9) / 0.03
    return density((z - shift) * _CONTAMINATED_SD) - density(z * _CONTAMINATED_SD)


def _ar_ratio(phi: float, *, first: bool) -> LogRatio:
    """Of the event at which the change happened, or of those after it, when prewhitening has left 1 - phi of it."""

    def ratio(x: Floats, shift: float) -> Floats:
        a = (x - 0.9) / 0.03
        e = (a[1:] - phi * a[:-1]) / math.sqrt(1.0 - phi * phi)
        d = shift * (1.0 if first else 1.0 - phi) / math.sqrt(1.0 - phi * phi)
        return np.asarray(d * e - 0.5 * d * d)

    return ratio


def _correlated(name: str, what: str, phi: float) -> Family:
    return Family(
        name,
        what,
        -1,
        lambda rng: _Autoregressive(phi, 0.0, rng),
        _ar_ratio(phi, first=False),
        first_ratio=_ar_ratio(phi, first=True),
    )


def _seasonal_ratio(x: Floats, shift: float) -> Floats:
    return _gaussian_ratio(x, shift)  # of the stream without its season, which the oracle knows


def _independent(draw: Draw) -> Callable[[np.random.Generator], Stream]:
    return lambda rng: _Independent(draw, rng)


_binomial_100, _binomial_100_ratio = _binomial(100, 0.9)
_binomial_20, _binomial_20_ratio = _binomial(20, 0.95)
_bernoulli, _bernoulli_ratio = _binomial(1, 0.9)

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        Family("gaussian", "clean noise", -1, _independent(_gaussian), _gaussian_ratio),
        Family("binomial", "accuracy over batches of 100, p = 0.9", -1, _independent(_binomial_100), _binomial_100_ratio),
        Family("t3", "heavy tails: Student t, 3 degrees", -1, _independent(_t3), _t3_ratio),
        _correlated("ar.5", "autocorrelated: AR(1), 0.5", 0.5),
        _correlated("ar.8", "strongly so: AR(1), 0.8", 0.8),
        Family("lognormal", "skewed: latency, log sd 0.5", 1, _independent(_lognormal), _lognormal_ratio),
        Family("contaminated", "one event in 20 is 5 times as wide", -1, _independent(_contaminated), _contaminated_ratio),
        Family("binomial20", "ties and skew: batches of 20, p = 0.95", -1, _independent(_binomial_20), _binomial_20_ratio),
        Family("bernoulli", "single hits and misses, p = 0.9", -1, _independent(_bernoulli), _bernoulli_ratio),
        Family("seasonal", "sine of 1 sd, period 24", -1, _Seasonal, _seasonal_ratio, {"season": 24}),
        Family("wander", "AR(1) 0.9 with as much white noise", -1, lambda rng: _Autoregressive(0.9, 0.5, rng), None),
    )
}
