"""The demo's serving job: goes through the year day by day, logs what it sees, deploys what the retrain orders bring.

A client like any other. It knows nothing of detectors: it logs its windowed metrics, takes orders from the channel and says
when a new version is live. It only keeps the calendar: it moves on to the next day when the system has decided
about the last one, because here a day takes milliseconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np

from actors.cluster.peers import BlockingPeers
from actors.retraining.client import RetrainOrder
from actors.system import System
from drivers.demo import flights as fl

MODEL: Final = "flights"
FIRST_DAY: Final = 31  # the first of February: January is for training
LAST_DAY: Final = 365
START_S: Final = fl.day(FIRST_DAY)
# A day's decision takes milliseconds; a study a minute. Beyond this something is broken, and the demo says so.
_DECISION_S: Final = 60.0
_ORDER_S: Final = 600.0
_LOOK_S: Final = 0.02


@dataclass(slots=True)
class Version:
    """A version that went live at `live_s`: its parameters, the study that found them, the order that asked for it."""

    name: str
    live_s: float
    params: dict[str, float]
    study: str
    order: dict[str, Any] | None = None
    promise: dict[str, float] = field(default_factory=dict)  # mean of each metric in the backtest


@dataclass(slots=True)
class Year:
    """What came of it: for each flight from February on, what each way to retrain said of it."""

    flights: fl.Flights
    until_s: float
    static: fl.Floats
    closed: fl.Floats
    calendar: fl.Floats  # retrained as often as the closed loop, at equal distances, with the parameters of January
    versions: list[Version] = field(default_factory=list)

    @property
    def served(self) -> slice:
        """The flights that were predicted."""
        return self.flights.between(START_S, self.until_s)


class ServingJob:
    """Serves the newest version, logs its metrics under `MODEL`, and retrains when it is told to."""

    def __init__(self, system: System, *, days: int, space: Mapping[str, Any], trials: int, seed: int | None) -> None:
        """`space`, `trials` and `seed` are of the first study, in January; the later ones come with their orders."""
        self._system = system
        self._search: dict[str, Any] = {"space": dict(space), "trials": trials, "seed": seed}
        flights = fl.load()
        unknown = np.full(len(flights), np.nan)
        until_s = fl.day(min(FIRST_DAY + days, LAST_DAY))
        self.year = Year(flights, until_s, unknown.copy(), unknown.copy(), unknown.copy())
        self._logged = 0  # windows of the live version

    def run(self, tell: Callable[[float, Version | None], None]) -> Year:
        """Go through the days; `tell` is called with each moment, and with the version that has just gone live."""
        start_s = START_S
        study = self._system.tuner.run(
            "drivers.demo.flights:objective",
            **self._search,
            context={"now_s": start_s},
            name=f"{MODEL}-january",
            progress=False,
        )
        self._deploy(Version("v1", start_s, study.best.params, study.name))
        self.year.static[:] = self.year.closed
        tell(start_s, self.year.versions[-1])
        now_s = start_s
        while now_s < self.year.until_s:
            now_s += fl.DAY_S
            self._log_until(now_s)
            order = self._decided()
            if order is not None and now_s < self.year.until_s:
                self._retrain(order, now_s)
                tell(now_s, self.year.versions[-1])
            else:
                tell(now_s, None)
        self._keep_calendar()
        return self.year

    def _keep_calendar(self) -> None:
        """Predict the year once more with a retrain at equal distances, as many as there were."""
        year = self.year
        year.calendar[:] = year.static
        retrains = len(year.versions) - 1
        for number in range(1, retrains + 1):
            at_s = START_S + number * (year.until_s - START_S) / (retrains + 1)
            later = year.flights.between(at_s, np.inf)
            model = fl.fit(year.flights, year.versions[0].params, now_s=at_s)
            year.calendar[later] = model.probability(year.flights.features[later])

    def _log_until(self, now_s: float) -> None:
        """Log every window of the live version whose last flight has landed before `now_s`."""
        year, live = self.year, self.year.versions[-1]
        departed = year.flights.between(live.live_s, now_s)
        index = np.arange(departed.start, departed.stop)
        index = index[year.flights.known_s[index] < now_s]
        cut = fl.windows(year.flights.known_s[index], year.flights.late[index], year.closed[index])
        for number, (at_s, row) in enumerate(cut):
            if number >= self._logged:
                self._system.metrics.log(row, model=MODEL, version=live.name, timestamp=at_s)
                self._logged = number + 1
        counts = self._system.metrics.flush(timeout_s=_DECISION_S)
        if counts["pending"] or counts["rejected"] or counts["dropped"]:
            raise RuntimeError(f"not every event was counted: {counts}")

    def _decided(self) -> RetrainOrder | None:
        """Wait until the system has decided on the logged events; return the order, if there is one."""
        deadline_s = time.monotonic() + _DECISION_S
        while True:
            told = self._system.status()
            if "store_problem" not in told and not told["models"].get(MODEL, {}).get("undelivered", 0):
                break
            if time.monotonic() > deadline_s:
                raise TimeoutError(f"no decision within {_DECISION_S:g} s: {told.get('store_problem', 'requests wait')}")
            time.sleep(_LOOK_S)
        if not told["retrains"]["pending"] + told["retrains"]["running"]:
            return None
        order = next(self._system.retrains.stream(MODEL, timeout_s=_ORDER_S), None)
        if order is None:
            raise TimeoutError(f"the order did not come within {_ORDER_S:g} s: {self._system.retrains.history(MODEL)[-1]}")
        return order

    def _retrain(self, order: RetrainOrder, now_s: float) -> None:
        """Train with the order's parameters, on the data known at `now_s`, and go live."""
        tuning: Mapping[str, Any] = order.event.explanation["tuning"]  # type: ignore[assignment]  # a plain dict, by the wire
        asked = {"id": order.id, **{key: getattr(order.event, key) for key in ("metric", "triggered_at", "episode")}}
        asked["explanation"] = dict(order.event.explanation)
        version = Version(f"v{len(self.year.versions) + 1}", now_s, dict(tuning["params"]), str(tuning["name"]), asked)
        self._deploy(version)
        order.done(new_version=version.name)

    def _deploy(self, version: Version) -> None:
        """Train, give the system what the backtest promises as this version's baseline, and answer from now on."""
        year = self.year
        index, probability = fl.backtest(year.flights, version.params, now_s=version.live_s)
        cut = fl.windows(year.flights.known_s[index], year.flights.late[index], probability)
        rows = [row for _, row in cut]
        promised = {name: np.array([row[name] for row in rows if name in row]) for name in ("auc", "calibration")}
        for name, values in promised.items():  # one by one: a window without a late flight has no AUC
            self._system.metrics.baseline({name: values}, model=MODEL, version=version.name)
        version.promise = {name: float(values.mean()) for name, values in promised.items()}
        model = fl.fit(year.flights, version.params, now_s=version.live_s)
        later = year.flights.between(version.live_s, np.inf)
        year.closed[later] = model.probability(year.flights.features[later])
        year.versions.append(version)
        self._logged = 0


def episodes(system: System) -> list[dict[str, Any]]:
    """Return what the detector saw and decided, one dict an episode: when, on what metric, what became of it."""
    peers = BlockingPeers(system.namespace)
    asked = {row["episode"]: row for row in system.retrains.history(MODEL)}  # the newest row of each
    found = []
    for episode in asked:
        record = peers.call("broadcaster", "explain", {"episode": episode}, timeout_s=_DECISION_S)
        found.append(
            {
                "id": episode,
                "version": record["version"],
                "metric": record["metric"],
                "time": record["time"],
                "closed_by": record["closed_by"],
                "alarms": [{"metric": alarm["metric"], "time": alarm["time"]} for alarm in record["evidence"]],
            }
        )
    return found


def date(at_s: float) -> str:
    """Return the day in New York's winter time."""
    return datetime.fromtimestamp(at_s - 5 * 3600, tz=UTC).strftime("%b %d").replace(" 0", " ")
