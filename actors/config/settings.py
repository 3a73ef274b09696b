"""The schema of the configuration, and how it gives a model its settings.

One document, every key known, every value of its type, every error with the key's path.

`defaults` override the built-in defaults, and every entry of `models` whose name or pattern (`fnmatch`) matches overrides both.
For each key the most specific entry wins: an exact name before any pattern, then the pattern with more literal characters, then
the later entry. `watch` is merged metric by metric; `null` stops watching a metric, and naming another detector drops the
options of the previous one. A `handler` replaces the previous one completely.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from actors.config.fields import (
    Count,
    FalseAlarms,
    Name,
    OptionalSeconds,
    PositiveSeconds,
    SeasonEntry,
    Seconds,
    Section,
    Target,
)
from actors.config.handlers import ChannelHandlerSettings, HandlerSettings
from actors.config.notify import NotifySettings
from actors.config.registry import RegistrySettings
from actors.config.retrain import OrderLimits, Promotion, PromotionEntry, RetrainEntry, RetrainRule
from actors.config.seasons import Season, written_season
from actors.config.sources import SourceSettings
from actors.config.ui import UiSettings
from actors.config.values import Duration
from actors.drift import usual_direction
from actors.plain import Json

Direction = Literal["up", "down", "both"]
DirectionFrom = Literal["configuration", "name", "unknown name", "limits"]

# A detector whose options already say which way is bad: a direction by the name would silence one of its limits.
_OF_LIMITS: Final = frozenset({"threshold"})


class _Watch(BaseModel):
    """The settings of one metric in an entry; every other key is an option of the detector."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    detector: Annotated[str, Field(min_length=1)] | None = None
    """The name of the detector (default: `default`)."""
    direction: Direction | None = None
    """The direction of change that raises an alarm: `down`, `up` or `both`. Default: the one in which a metric of this
    name gets worse (`down` for val_auc, `up` for p95_latency_ms); `both` for a name that is not in the table, and for the
    detector `threshold`, whose limits say it.
    """
    season: SeasonEntry = None
    """A calendar pattern that is not drift: `day`, `week` or `{period: 12h, zone: Europe/Berlin}`, by each event's own time
    (default zone: UTC). A whole number is a number of events, and an option of the detector.
    """


_Label = Annotated[str, Field(max_length=200)]


class ModelEntry(Section):
    """The keys of `defaults` and of each entry of `models`; a missing key takes its value from the layer below."""

    false_alarm_every: FalseAlarms = Duration(30 * 86400.0)
    """On average at most one false alarm in this time or number of events, over all watched metrics."""
    watch: dict[Name, _Watch | None] = Field(default_factory=dict)
    """The watched metrics by name (default: accuracy). `null` stops watching a metric."""
    cooldown_s: Seconds = Field(default=1800.0, alias="cooldown")
    """Launch at most one retrain in this time."""
    expect_every_s: OptionalSeconds = Field(default=None, alias="expect_every")
    """A model without events for longer shows as `no_data`; this never orders a retrain. `null`: no limit."""
    pinned_version: Name | None = None
    """Compare every version with the baseline of this one, instead of letting each learn its own."""
    handler: HandlerSettings = Field(default_factory=ChannelHandlerSettings)
    """How a retrain is launched."""
    dry_run: bool = False
    """Record orders, but launch nothing."""
    retrain: RetrainEntry = Field(default_factory=RetrainEntry)
    """When a retrain is ordered."""
    promotion: PromotionEntry = Field(default_factory=PromotionEntry)
    """How a new version goes live."""
    labels: dict[Name, _Label] = Field(default_factory=dict)
    """Strings by name, to select models."""


class Detectors(Section):
    """The number of detector processes, and the largest number of models.

    Each model has its own process up to `max_processes`; with `processes`, all models share a fixed number of processes.
    """

    processes: Annotated[int, Field(ge=1, le=1000)] | None = None
    """All models share this number of processes, which suits a laptop. `null`: one process each, up to `max_processes`."""
    max_processes: Annotated[int, Field(ge=1, le=1000)] = 32
    """Each model has its own process up to this number; further models share processes."""
    max_models: Annotated[int, Field(ge=1, le=1_000_000)] = 10_000
    """The largest number of models; events of further models are rejected."""


class Retention(Section):
    """How long, by receive time, and how many rows (one batch is one row) the event log of a model is kept."""

    age_s: PositiveSeconds = Field(default=90 * 86400.0, alias="age")
    """Remove batches that were received longer ago."""
    rows: Count = 100_000
    """Keep this number of the newest batches per model."""
    model_bytes: Count | None = None
    """Keep the newest batches of each model that fit into this number of bytes, in packed form. `null`: no limit.
    """
    store_bytes: Count | None = None
    """The same over all models of a process: the oldest batches are removed first."""


class Delivery(Section):
    """How often a launch is tried before a dead letter; the pause doubles from `backoff` up to `max_backoff`."""

    attempts: Annotated[int, Field(ge=1, le=100)] = 8
    """Attempts to launch an order before it becomes a dead letter."""
    backoff_s: PositiveSeconds = Field(default=5.0, alias="backoff")
    """The pause after the first failed attempt; it doubles with each further one."""
    max_backoff_s: PositiveSeconds = Field(default=600.0, alias="max_backoff")
    """The longest pause."""


class Settings(Section):
    """The whole configuration, checked. `storage` may contain references; `for_model` returns the settings of a model."""

    namespace: Name = "visutility"
    """The Ray namespace of the actors."""
    storage: Annotated[str, Field(min_length=1)] = "sqlite:///./visutility-data"
    """The URL of the store: `sqlite:///FOLDER`, or `postgresql://user:${PASSWORD}@host/database`."""
    clock: Literal["wall", "event"] = "wall"
    """The clock of cooldowns and silences: `wall`, or `event` (the times of the events) for replays."""
    detectors: Detectors = Field(default_factory=Detectors)
    """Processes and models."""
    retention: Retention = Field(default_factory=Retention)
    """How much of the event log the system keeps."""
    delivery: Delivery = Field(default_factory=Delivery)
    """How the dispatcher repeats launches."""
    orders: OrderLimits = Field(default_factory=OrderLimits)
    """Limits over the retrains of all models."""
    observers: dict[Name, Target] = Field(default_factory=dict)
    """Classes that get every accepted event, by a name of your choice."""
    sources: dict[Name, SourceSettings] = Field(default_factory=dict)
    """Other systems to read metrics from, by a name of your choice; the read position belongs to this name."""
    notify: NotifySettings = Field(default_factory=NotifySettings)
    """Who gets which notifications."""
    registry: RegistrySettings = Field(default_factory=RegistrySettings)
    """The model registries."""
    ui: UiSettings = Field(default_factory=UiSettings)
    """The page."""
    defaults: ModelEntry = Field(default_factory=ModelEntry)
    """The settings of every model, unless an entry of `models` overrides them."""
    models: dict[Name, ModelEntry] = Field(default_factory=dict)
    """The settings of single models, by name or by pattern with `*`, `?` and `[abc]`."""

    def for_model(self, model: str) -> ModelSettings:
        """Return the settings of `model`, by the rule in the module's docstring. ValueError: a detector refuses its options."""
        layers = [BUILT_IN, self.defaults, *(self.models[name] for name in self.matching(model))]
        said = {name: getattr(layer, name) for layer in layers for name in layer.model_fields_set - MERGED}
        merged = ModelEntry.model_construct(**{name: getattr(BUILT_IN, name) for name in ModelEntry.model_fields} | said)
        return ModelSettings(
            false_alarm_every=merged.false_alarm_every,
            watch=merged_watch(layers),
            cooldown_s=merged.cooldown_s,
            expect_every_s=merged.expect_every_s,
            pinned_version=merged.pinned_version,
            handler=merged.handler,
            dry_run=merged.dry_run,
            retrain=RetrainRule.of_layers(layer.retrain for layer in layers),
            promotion=replace(
                Promotion.of_layers(layer.promotion for layer in layers), registry=self.registry.sets_alias(model)
            ),
            labels=self.labels_of(model),
        )

    def matching(self, model: str) -> list[str]:
        """Return the entries of `models` that speak of `model`, the least specific first.

        >>> Settings(models={"fraud-eu*": ModelEntry(), "fraud*": ModelEntry()}).matching("fraud-eu")
        ['fraud*', 'fraud-eu*']
        """
        return _matching(self.models, model)

    def labels_of(self, model: str) -> dict[str, str]:
        """Return the labels of `model` only: a status calls this for thousands of models at once.

        >>> Settings(models={"fraud-*": ModelEntry(labels={"team": "risk"})}).labels_of("fraud-eu")
        {'team': 'risk'}
        """
        labelled = {name: entry.labels for name, entry in self.models.items() if entry.labels}
        found = dict(self.defaults.labels)
        for name in _matching(labelled, model):
            found |= labelled[name]
        return found


@dataclass(frozen=True, slots=True)
class WatchSettings:
    """How one metric of a model is watched; the detector gets `options` unchanged."""

    detector: str
    direction: Direction
    options: Mapping[str, Any]
    season: Season | None = None
    direction_from: DirectionFrom = field(default="configuration", compare=False)

    def written(self) -> Json:
        """Return it as the configuration writes it."""
        season = {} if self.season is None else {"season": written_season(self.season)}
        return {"detector": self.detector, "direction": self.direction, **season, **self.options}


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """The settings of one model. `false_alarm_every` is events, or a Duration to convert into events by the observed rate.

    `pinned_version`: detectors compare every version with the baseline of this one.
    """

    false_alarm_every: float | Duration
    watch: Mapping[str, WatchSettings]
    cooldown_s: float
    expect_every_s: float | None
    pinned_version: str | None
    handler: HandlerSettings
    dry_run: bool
    retrain: RetrainRule = field(default_factory=RetrainRule)
    promotion: Promotion = field(default_factory=Promotion)
    labels: Mapping[str, str] = field(default_factory=dict)


# Merged key by key over the layers; any other value comes from the most specific layer that has it.
MERGED: Final = frozenset({"watch", "retrain", "promotion", "labels"})
BUILT_IN: Final = ModelEntry(watch={"accuracy": _Watch(detector="default")})


def _matching(names: Mapping[str, object], model: str) -> list[str]:
    """Return the entries that match `model`, the least specific first (a stable sort: of two equals the later wins)."""
    return sorted((name for name in names if name == model or fnmatch.fnmatchcase(model, name)), key=_specificity(model))


def _specificity(model: str) -> Callable[[str], tuple[bool, int]]:
    def rank(name: str) -> tuple[bool, int]:
        return name == model, len(re.sub(r"\[[^\]]*\]|[*?]", "", name))

    return rank


def merged_watch(layers: list[ModelEntry]) -> dict[str, WatchSettings]:
    """Return the watched metrics under all `layers`, the least specific first."""
    watch: dict[str, WatchSettings] = {}
    written: dict[str, Direction] = {}
    for layer in layers:
        for metric, said in layer.watch.items():
            if said is None:
                watch.pop(metric, None)
                written.pop(metric, None)
                continue
            below = watch.get(metric, WatchSettings("default", "both", {}))
            detector = said.detector or below.detector
            options = dict(below.options) if detector == below.detector else {}
            season = below.season
            if "season" in said.model_fields_set:  # of events or by the calendar: one replaces the other
                options.pop("season", None)
                season = said.season if isinstance(said.season, Season) else None
                if isinstance(said.season, int):
                    options["season"] = said.season
            options |= said.model_extra or {}
            watch[metric] = WatchSettings(detector, "both", options, season)
            if said.direction is not None:
                written[metric] = said.direction
    return {metric: _directed(metric, each, written.get(metric)) for metric, each in watch.items()}


def _directed(metric: str, watch: WatchSettings, written: Direction | None) -> WatchSettings:
    """Return `watch` in the direction that is written, else in the usual one of the metric's name."""
    if written is not None:
        return replace(watch, direction=written, direction_from="configuration")
    if watch.detector in _OF_LIMITS:
        return replace(watch, direction="both", direction_from="limits")
    usual = usual_direction(metric)
    return replace(watch, direction=usual, direction_from="unknown name" if usual == "both" else "name")
