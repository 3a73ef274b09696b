"""The facts of a report, read from a store; needs no running system."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Final

from actors import status, story, wire
from actors.clock import SystemClock
from actors.config import Settings
from actors.config.stored import load_stored
from actors.detection import logged
from actors.detection import stored as detector_stored
from actors.labels import ALL, Selector
from actors.replies import Episode, OrderRow, StudyListing
from actors.retraining import listing
from actors.retraining import tables as dispatcher_tables
from actors.storage import Store
from actors.story import Story
from actors.tuning import tables as tuner_tables
from actors.tuning.tables import TUNER
from actors.ui.origins import Origin, origins
from drivers.report.series import Series, bounds, chosen

# A report is read by people: models with figures and stories of their own, and what each of them may have.
MOST_MODELS: Final = 30
_MOST_METRICS: Final = 6
_MOST_STORIES: Final = 20
_MOST_ORDERS: Final = 500
_HOUR_S: Final = 3600.0


@dataclass(slots=True)
class ModelFacts:
    """One model: what status says of it, what happened to it, and its metrics over time by metric and version."""

    name: str
    seen: Mapping[str, Any]
    settings: Sequence[Origin]
    stories: list[Story] = field(default_factory=list)
    episodes: int = 0  # in the period; `stories` holds the newest of them
    orders: list[OrderRow] = field(default_factory=list)
    series: dict[str, dict[str, Series]] = field(default_factory=dict)

    @property
    def records(self) -> list[Episode]:
        """The episodes of the stories."""
        return [told["episode"] for told in self.stories if told["episode"] is not None]

    @property
    def weight(self) -> tuple[int, int, int]:
        """How much there is to tell: what fires first, then episodes and orders."""
        return int(self.seen["state"] in {"drifting", "no_data"}), self.episodes + len(self.orders), int(self.seen["events"])

    @property
    def span(self) -> tuple[float, float] | None:
        """The first and the last event of the period."""
        return bounds(each for of_metric in self.series.values() for each in of_metric.values())


@dataclass(slots=True)
class Facts:
    """The whole report."""

    since_s: float
    until_s: float
    written_at: float
    models: list[ModelFacts]
    others: int  # models that are counted and not told of
    studies: list[StudyListing]
    settings: Settings
    told: Mapping[str, Any]


def read(store: Store, pattern: str | None, selector: Selector = ALL, *, period_s: float | None = None) -> Facts:
    """Return what happened to the models that `pattern` and `selector` match in the `period_s` before the newest event.

    Raises:
        KeyError: no model matches.
    """
    now_s = SystemClock().now().wall_s
    told = status.read(store, now_s)
    settings = load_stored(store)
    chosen_models = {
        name: seen
        for name, seen in told["models"].items()
        if (pattern is None or name == pattern or fnmatchcase(name, pattern)) and selector.matches(seen["labels"])
    }
    if not chosen_models:
        raise KeyError(_no_model(pattern, selector, told["models"]))
    episodes = _episodes(store, chosen_models)
    orders = _orders(store, chosen_models)
    every = {name: [each for each in episodes if each["model"] == name] for name in chosen_models}
    facts = [
        ModelFacts(name, seen, origins(settings, name), orders=[row for row in orders if row["model"] == name])
        for name, seen in chosen_models.items()
    ]
    for each in facts:
        each.episodes = len(every[each.name])
    facts.sort(key=lambda each: each.weight, reverse=True)
    kept = facts[:MOST_MODELS]
    until_s = _newest(store, [each.name for each in kept]) or now_s
    since_s = float("-inf") if period_s is None else until_s - period_s
    for each in kept:
        recent = [record for record in every[each.name] if record["time"] >= since_s or record["closed_at"] is None]
        each.episodes = len(recent)
        each.stories = [story.read(store, record["id"]) for record in recent[-_MOST_STORIES:]]
        ids = {record["id"] for record in recent}
        each.orders = [row for row in each.orders if row["episode"] in ids or row["requested_at"] >= since_s]
        each.series = _series(store, each.name, list(settings.for_model(each.name).watch), since_s)
    spans = [each.span for each in kept]
    begin_s = min((span[0] for span in spans if span is not None), default=until_s - _HOUR_S)
    with store.part(TUNER).read() as connection:
        studies = tuner_tables.read_studies(connection)
    return Facts(
        begin_s if period_s is None else since_s, until_s, now_s, kept, len(facts) - len(kept), studies, settings, told
    )


def _no_model(pattern: str | None, selector: Selector, models: Mapping[str, Any]) -> str:
    asked = f"model {pattern!r}" if pattern is not None else "a model"
    labelled = f" with {selector}" if selector else ""
    known = ", ".join(list(models)[:5]) or "none has logged"
    return f"the store must hold {asked}{labelled} to report on, it has: {known}"


def _episodes(store: Store, models: Mapping[str, Any]) -> list[Episode]:
    found: list[Episode] = []
    for part in detector_stored.detector_parts(store):
        with part.read() as connection:
            found += [each for each in detector_stored.list_episodes(connection) if each["model"] in models]
    return sorted(found, key=lambda each: each["time"])


def _orders(store: Store, models: Mapping[str, Any]) -> list[OrderRow]:
    with store.part(dispatcher_tables.DISPATCHER).read() as connection:
        found = dispatcher_tables.read_history(connection, model=None, limit=_MOST_ORDERS, selects=models.__contains__)
        acts = dispatcher_tables.read_acts(connection, [order.id for order in found])
    return [listing.row_of(order, acts.get(order.id, ())) for order in found]


def _newest(store: Store, models: Sequence[str]) -> float | None:
    """Return the time of the newest event: that of the last batches, since events of one come in no order."""
    newest: list[float] = []
    for part in detector_stored.detector_parts(store):
        for name in models:
            with part.read() as connection:
                rows = logged.newest_logged(connection, name, 1)
            newest += [float(wire.recheck(row.payload, row.received_at, row.skip).batch.times.max()) for row in rows]
    return max(newest, default=None)


def _series(store: Store, model: str, watched: Sequence[str], since_s: float) -> dict[str, dict[str, Series]]:
    found: dict[str, dict[str, Series]] = {metric: {} for metric in watched[:_MOST_METRICS]}
    for part in detector_stored.detector_parts(store):
        with part.read() as connection:
            for row in logged.read_log(connection, model):
                seen = wire.recheck(row.payload, row.received_at, row.skip)
                _take(found, seen.batch, chosen(seen.batch.times, seen.ok, since_s))
    return {metric: versions for metric, versions in found.items() if versions}


def _take(found: Mapping[str, dict[str, Series]], batch: wire.Batch, counts: wire.Bools) -> None:
    weights = None if batch.weights is None else batch.weights.values
    for metric, versions in found.items():
        column = batch.columns.get(metric)
        if column is None:
            continue
        there = counts if column.present is None else counts & column.present
        for number, version in enumerate(batch.versions):
            mine = there if batch.which is None else there & (batch.which == number)
            if mine.any():
                held = versions.setdefault(version, Series())
                held.take(batch.times[mine], column.values[mine], None if weights is None else weights[mine])
