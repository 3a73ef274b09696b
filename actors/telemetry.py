"""The metrics for Prometheus: their labels and values, and how they reach Ray's own exporter.

The dispatcher sets all metrics from the store, every few seconds. So the totals are exact across restarts, and a dead process
leaves nothing behind: Ray's exporter forgets a gauge about 30 s after its last `set` (measured on 2.60) but never forgets a
counter, which would be summed with that of its successor. That is why totals are gauges here; `rate` and `increase` work on
them as on counters. The series of a replaced dispatcher remain for those 30 s: query with `max by (...)`, as the shipped rules
and dashboard do.

Ray puts `ray_` before every name. Its tags must be ASCII. So a label's value is percent-encoded (`modèle` is exported as
`mod%C3%A8le`, `urllib.parse.unquote` decodes it). A series that still cannot be exported is skipped, counted in
`visutility_series_skipped` and logged once, without effect on the others.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol
from urllib.parse import unquote

from ray.util.metrics import Gauge
from sqlalchemy import Connection, func, select

from actors import status
from actors.checks import brief
from actors.clock import Clock, Instant
from actors.config.stored import load_stored
from actors.detection.tables import DETECTOR, episodes, unpack
from actors.retraining import model_tables
from actors.retraining.tables import DISPATCHER, retrains
from actors.storage import UNAVAILABLE, SchemaError, Store, StoreError, StoreLostError

logger = logging.getLogger(__name__)

# Well under the 20 s after which Ray's exporter was seen to forget a gauge.
PERIOD_S: Final = 5.0
_LONGEST_S: Final = 12.0
_CHUNK: Final = 500  # names in one IN list
# Models with series of their own: each has about ten. The others are summed under one label, and their state is the worst.
MAX_MODELS: Final = 1000
OTHERS: Final = "(others)"

SKIPPED: Final = "visutility_series_skipped"
STORE_UP: Final = "visutility_store_up"
# To join others with, in place of the labels on all of them: `... * on (model) group_left (value) visutility_model_label`. Each
# is a series with fixed keys, since Ray takes a metric's keys once, and a reload may bring others.
LABEL: Final = "visutility_model_label"
# Each series that cannot be exported is logged once, and only so many of them.
_MAX_LOGGED: Final = 1000

# The higher, the more urgent; `visutility_drift_state` is this number.
STATES: Final = {"learning": 0, "stable": 1, "warning": 2, "drifting": 3, "no_data": 4, "unwatched": 5}

NAMES: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "visutility_events_total": ("Events by outcome: accepted, duplicate, rejected", ("model", "outcome")),
    "visutility_refused_events_total": ("Events that count for no model, because they name no known model", ()),
    "visutility_drift_state": (f"State of the newest version: {STATES}", ("model",)),
    "visutility_model_state": ("1 for the state of the newest version, 0 for every other state", ("model", "state")),
    "visutility_drift_detections_total": ("Recorded drift episodes, by the metric that opened them", ("model", "metric")),
    "visutility_retrains_total": ("Recorded retrain orders and decisions, by state", ("model", "outcome")),
    "visutility_last_event_timestamp_seconds": ("When the last batch was received", ("model",)),
    "visutility_cooldown_remaining_seconds": ("Remaining cooldown; with 0 the next order starts at once", ("model",)),
    "visutility_errors_lost": ("Errors of the live version beyond its promise, beyond chance, since deployment", ("model",)),
    "visutility_retrain_price": ("Errors lost at which a retrain pays", ("model",)),
    "visutility_retrains_gave_up": ("Unsuccessful retrains in a row, of a model that requests no more", ("model",)),
    "visutility_model_info": ("1 for the newest version", ("model", "version")),
    LABEL: ("1 for each label that the configuration gives the model", ("model", "label", "value")),
    "visutility_source_up": ("1 while a source can be read, 0 while it fails", ("source",)),
    "visutility_source_rows_total": ("Rows of a source by outcome: read, refused, rejected", ("source", "outcome")),
    "visutility_source_last_success_timestamp_seconds": ("When the source was read last", ("source",)),
    "visutility_receiver_up": ("1 while a receiver of notifications is reachable, 0 while it fails", ("receiver",)),
    "visutility_notifications_total": ("Messages to a receiver by outcome: sent, failed, lost", ("receiver", "outcome")),
    "visutility_running_trials": ("Running trials", ()),
    "visutility_build_info": ("1 for the running build", ("build",)),
    "visutility_page_info": ("1, with the public URL of the page (ui.url)", ("url",)),
    STORE_UP: ("1 while the store is readable, intact and writable, 0 otherwise", ()),
    SKIPPED: ("Series that the last export left out; the log names them", ()),
}

# What a label's value cannot hold as it is: anything but printable ASCII, and the sign of the escape itself.
_ESCAPED: Final = re.compile(r"[^ -$&-~]")


_Series = tuple[str, tuple[tuple[str, str], ...]]  # name, labels


@dataclass(frozen=True, slots=True)
class Sample:
    """One value of one series."""

    name: str
    labels: Mapping[str, str]
    value: float


def label(name: str) -> str:
    """Return `name` as a label's value: percent-encoded UTF-8 in place of everything but printable ASCII.

    Two names never share a label, and no name becomes the label that sums the models without series of their own.

    >>> label("modèle 50%")
    'mod%C3%A8le 50%25'
    """
    escaped = _ESCAPED.sub(_percent, name)
    return f"%{ord(escaped[0]):02X}{escaped[1:]}" if escaped == OTHERS else escaped


def name_of(label: str) -> str:
    """Return the name that `label` was made of.

    >>> name_of("mod%C3%A8le 50%25")
    'modèle 50%'
    """
    return unquote(label, errors="surrogatepass")


def _percent(found: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in found[0].encode(errors="surrogatepass"))


@dataclass(frozen=True, slots=True)
class Facts:
    """The facts in the store at one moment, as plain values; counts by key."""

    stored: Mapping[str, Any]  # `status.read`
    detections: Mapping[tuple[str, str], int]  # (model, metric): episodes
    retrains: Mapping[tuple[str, str], int]  # (model, state): orders and decisions
    cooldowns: Mapping[str, float]  # model: seconds left
    unreadable: int = 0  # rows of the store that were skipped
    page: str | None = None  # the public URL of the page


class Telemetry:
    """Turns facts into samples; a model that once has series of its own keeps them.

    A series that ends (a running order is done, a version changes) is exported once more, as 0: otherwise the exporter would
    show its last value for 30 s, and the order as both running and done.
    """

    def __init__(self, *, build: str, max_models: int = MAX_MODELS) -> None:
        self._build = build
        self._max_models = max_models
        self._named: set[str] = set()
        self._told: dict[_Series, float] = {}
        self._unreadable: set[str] = set()  # models whose state on record cannot be exported; each is logged once
        self.skipped = 0  # of the last samples: what the store holds and cannot be exported

    def samples(self, facts: Facts) -> list[Sample]:
        """Return every series and its value. Remembers which models have series of their own, and what it returned last."""
        models = facts.stored["models"]
        self._name(models)
        found = [Sample("visutility_build_info", {"build": label(self._build)}, 1.0)]
        if facts.page is not None:
            found.append(Sample("visutility_page_info", {"url": label(facts.page)}, 1.0))
        found.append(Sample("visutility_running_trials", {}, float(facts.stored["tuner"].get("running_trials", 0))))
        found.append(Sample("visutility_refused_events_total", {}, float(facts.stored["refused"]["events"])))
        self.skipped = facts.unreadable + len(facts.stored.get("unreadable", ()))
        for model, told in models.items():
            try:
                found += self._of_model(model, told, facts)
            except (KeyError, TypeError, ValueError, AttributeError):
                self.skipped += 1
                if model not in self._unreadable:
                    self._unreadable.add(model)
                    logger.exception("the state of model %r on record cannot be exported; the others are", model)
        for source, seen in facts.stored.get("sources", {}).items():
            found += _of_source(label(source), seen)
        for receiver, told in facts.stored.get("receivers", {}).items():
            found += _of_receiver(label(receiver), told)
        for (model, metric), count in facts.detections.items():
            found.append(self._sample("visutility_drift_detections_total", model, count, metric=metric))
        for (model, state), count in facts.retrains.items():
            found.append(self._sample("visutility_retrains_total", model, count, outcome=state))
        before, self._told = self._told, _summed(found)
        return [
            Sample(name, dict(labels), value) for (name, labels), value in (dict.fromkeys(before, 0.0) | self._told).items()
        ]

    def _name(self, models: Mapping[str, Mapping[str, Any]]) -> None:
        room = self._max_models - len(self._named)
        if room > 0:
            waiting = sorted((model for model in models if model not in self._named), key=lambda each: -_state(models[each]))
            self._named.update(waiting[:room])

    def _of_model(self, model: str, told: Mapping[str, Any], facts: Facts) -> list[Sample]:
        outcomes = {"accepted": told["events"], "duplicate": told["duplicates"], "rejected": told["rejected"]}
        found = [self._sample("visutility_events_total", model, n, outcome=outcome) for outcome, n in outcomes.items()]
        found.append(self._sample("visutility_drift_state", model, _state(told)))
        # OpenMetrics' StateSet: a series for each state, so that a rule names it instead of its number.
        found += [self._sample("visutility_model_state", model, n == _state(told), state=state) for state, n in STATES.items()]
        found.append(self._sample("visutility_last_event_timestamp_seconds", model, told["last_at"]))
        found.append(self._sample("visutility_cooldown_remaining_seconds", model, facts.cooldowns.get(model, 0.0)))
        if told.get("gave_up"):
            found.append(self._sample("visutility_retrains_gave_up", model, told["gave_up"]))
        rule = told.get("retrain") or {}
        for name, value in (("visutility_errors_lost", rule.get("lost")), ("visutility_retrain_price", rule.get("price"))):
            if value is not None:
                found.append(self._sample(name, model, value))
        if model in self._named and told["versions"]:
            newest = next(reversed(told["versions"]))
            found.append(Sample("visutility_model_info", {"model": label(model), "version": label(newest)}, 1.0))
        if model in self._named:
            for name, value in told.get("labels", {}).items():
                found.append(Sample(LABEL, {"model": label(model), "label": label(name), "value": label(value)}, 1.0))
        return found

    def _sample(self, name: str, model: str, value: float, **labels: str) -> Sample:
        shown = {"model": label(model) if model in self._named else OTHERS}
        return Sample(name, shown | {key: label(text) for key, text in labels.items()}, float(value))


def _of_source(source: str, seen: Mapping[str, Any]) -> list[Sample]:
    found = [Sample("visutility_source_up", {"source": source}, float(seen["state"] != "failing"))]
    for outcome in ("read", "refused", "rejected"):
        found += [Sample("visutility_source_rows_total", {"source": source, "outcome": outcome}, float(seen[outcome]))]
    if seen["last_at"] is not None:
        found.append(Sample("visutility_source_last_success_timestamp_seconds", {"source": source}, float(seen["last_at"])))
    return found


def _of_receiver(receiver: str, told: Mapping[str, Any]) -> list[Sample]:
    found = [Sample("visutility_receiver_up", {"receiver": receiver}, float(told["state"] != "failing"))]
    for outcome in ("sent", "failed", "lost"):
        labels = {"receiver": receiver, "outcome": outcome}
        found.append(Sample("visutility_notifications_total", labels, float(told[outcome])))
    return found


def _state(told: Mapping[str, Any]) -> int:
    return STATES.get(told.get("state", ""), STATES["learning"])


def _summed(found: Iterable[Sample]) -> dict[_Series, float]:
    """Put the series of the others together: counts are added, of anything else the largest counts."""
    series: dict[_Series, float] = {}
    for sample in found:
        key = sample.name, tuple(sorted(sample.labels.items()))
        held = series.get(key)
        if held is None:
            series[key] = sample.value
        else:
            series[key] = held + sample.value if sample.name.endswith("_total") else max(held, sample.value)
    return series


class Reader:
    """Reads the facts from the store: some milliseconds, more with thousands of models, so not in an event loop."""

    def __init__(self, store: Store) -> None:
        self._store = store
        # Only an episode's record holds its metric: each is unpacked once. One that retention removes stays counted.
        self._counted: set[str] = set()
        self._detections: Counter[tuple[str, str]] = Counter()
        self._unreadable = 0

    def check(self) -> None:
        """Raise StoreLostError where a file of the store is gone, is another, or is read-only."""
        self._store.check()

    def read(self, now: Instant) -> Facts:
        """Return what the store says now."""
        with self._store.at_once():
            return self._read(now)

    def _read(self, now: Instant) -> Facts:
        for slot in self._store.slots(DETECTOR):
            try:
                with self._store.part(DETECTOR, slot).read() as connection:
                    self._count(connection)
            except (StoreError, StoreLostError) as error:  # the models of other processes are in other files
                logger.warning("the episodes of one file of the store are not counted: %s", brief(error))
        with self._store.part(DISPATCHER).read() as connection:
            grouped = select(retrains.c.model, retrains.c.state, func.count()).group_by(retrains.c.model, retrains.c.state)
            by_state = {(str(model), str(state)): int(count) for model, state, count in connection.execute(grouped)}
            armed = model_tables.read_cooldowns(connection)
        cooldowns = {model: cooldown.countdown.remaining_s(now) for model, cooldown in armed.items()}
        page = load_stored(self._store).ui.url
        return Facts(status.read(self._store), dict(self._detections), by_state, cooldowns, self._unreadable, page)

    def _count(self, connection: Connection) -> None:
        new = set(connection.execute(select(episodes.c.id)).scalars()) - self._counted
        names: Sequence[str] = sorted(new)
        for start in range(0, len(names), _CHUNK):
            columns = select(episodes.c.id, episodes.c.model, episodes.c.record)
            for name, model, record in connection.execute(columns.where(episodes.c.id.in_(names[start : start + _CHUNK]))):
                try:
                    metric = str(unpack(record)["metric"])
                except Exception:
                    self._unreadable += 1
                    logger.exception("episode %s on record cannot be read; it is not counted", name)
                else:
                    self._detections[str(model), metric] += 1
        self._counted |= new


class Settable(Protocol):
    """The part of Ray's Gauge that is used here."""

    def set(self, value: float, tags: dict[str, str]) -> None:
        """Set one series."""


class Gauges:
    """Passes samples to Ray's exporter one by one, so that a refused sample does not affect the others."""

    def __init__(self, make: Callable[..., Settable] = Gauge) -> None:
        self._gauges = {name: make(name, description=text, tag_keys=labels) for name, (text, labels) in NAMES.items()}
        self._refused: set[_Series] = set()

    def set(self, samples: Iterable[Sample], *, skipped: int = 0) -> int:
        """Set every series, and count those that had to be left out, `skipped` before among them; return the count.

        A series that is no longer set disappears from the exporter after some 30 s.
        """
        for sample in samples:
            try:
                self._gauges[sample.name].set(sample.value, tags=dict(sample.labels))
            except Exception:  # whatever Ray has against this series
                skipped += 1
                series = sample.name, tuple(sorted(sample.labels.items()))
                if series not in self._refused and len(self._refused) < _MAX_LOGGED:
                    self._refused.add(series)
                    logger.exception("the series %s %r cannot be exported; the others are", *series)
        self._gauges[SKIPPED].set(float(skipped), tags={})
        return skipped

    def store_is_up(self, *, is_up: bool) -> None:
        """Set whether the store is available."""
        self._gauges[STORE_UP].set(float(is_up), tags={})


async def export(
    store: Callable[[], Store],
    clock: Clock,
    *,
    build: str,
    period_s: float = PERIOD_S,
    tell: Callable[[str], None] = lambda _why: None,
) -> None:
    """Export until cancelled; run by the dispatcher, in its event loop. A store that is unavailable is opened again next time.

    `tell` is called in a thread with what is wrong with the store, once each time that it is found to be.

    `visutility_store_up` is always exported: 0 if the store cannot be read, is damaged or is read-only.
    """
    telemetry, gauges = Telemetry(build=build), Gauges()
    reader: Reader | None = None
    told: str | None = None
    while True:
        began = clock.now().boot_s
        is_up, problem = False, None
        try:
            reader = reader or Reader(await asyncio.to_thread(store))
            facts = await asyncio.to_thread(reader.read, clock.now())
            gauges.set(telemetry.samples(facts), skipped=telemetry.skipped)
            await asyncio.to_thread(reader.check)
            problem = facts.stored.get("store_problem")
            is_up = problem is None
        except (*UNAVAILABLE, StoreError, SchemaError) as error:
            reader, problem = None, brief(error)
            logger.warning("the store is unavailable, its metrics are not exported: %s", problem)
        except Exception:
            reader = None
            logger.exception("an export of metrics failed; the next one is in %.0f s", period_s)
        gauges.store_is_up(is_up=is_up)
        if problem is not None and told is None:
            await asyncio.to_thread(tell, problem)
        told = problem
        # With very many models reading takes long: no more than a tenth of the time, and still before gauges are forgotten.
        took_s = clock.now().boot_s - began
        await asyncio.sleep(min(max(period_s, 10 * took_s), _LONGEST_S))
