"""The schema of the configuration, and what a model gets from it.

One document, every key known, every value of its type, every error with the key's path.

What a model gets: the built-in defaults, over them `defaults`, over them every entry of `models` whose name or pattern
(`fnmatch`) matches, the least specific first. So the most specific wins, key by key: an exact name before any pattern, then
the pattern with more literal characters, then the one further down. `watch` is merged metric by metric; `null` stops watching
a metric, and naming another detector drops the options of the one before. A `handler` is replaced whole.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
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
from actors.config.retrain import OrderLimits, Promotion, PromotionEntry, RetrainEntry, RetrainRule
from actors.config.seasons import Season, written_season
from actors.config.sources import SourceSettings
from actors.config.ui import UiSettings
from actors.config.values import Duration

Direction = Literal["up", "down", "both"]

# Lower is worse for these; of any other number we do not know which way is bad.
_LOWER_IS_WORSE: Final = frozenset({"accuracy", "precision", "recall"})


class _Watch(BaseModel):
    """What an entry says of one metric; every other key is an option of the detector."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    detector: Annotated[str, Field(min_length=1)] | None = None
    """The name of the detector, `default` unless given."""
    direction: Direction | None = None
    """`down`, `up` or `both`: which way is an alarm. Unless given, `down` for accuracy, precision and recall, else
    `both`.
    """
    season: SeasonEntry = None
    """What repeats by the calendar and is no drift: `day`, `week` or `{period: 12h, zone: Europe/Berlin}`, by each
    event's own time (UTC unless a zone is given). A whole number is a number of events, and an option of the detector.
    """


_Label = Annotated[str, Field(max_length=200)]


class ModelEntry(Section):
    """What `defaults` and each entry of `models` may say; what is left out comes from the layer below."""

    false_alarm_every: FalseAlarms = Duration(30 * 86400.0)
    """At most one false alarm on average, of all watched metrics together, in this time or number of events."""
    watch: dict[Name, _Watch | None] = Field(default_factory=dict)
    """What is watched, by metric; by itself, accuracy. `null` stops watching a metric."""
    cooldown_s: Seconds = Field(default=1800.0, alias="cooldown")
    """At most one retrain is launched in this time."""
    expect_every_s: OptionalSeconds = Field(default=None, alias="expect_every")
    """A model that is silent for longer shows as `no_data`; that never orders a retrain. `null`: no limit."""
    pinned_version: Name | None = None
    """Compare every version with the baseline of this one, instead of letting each learn its own."""
    handler: HandlerSettings = Field(default_factory=ChannelHandlerSettings)
    """What a retrain is."""
    dry_run: bool = False
    """Record what would be launched, and launch nothing."""
    retrain: RetrainEntry = Field(default_factory=RetrainEntry)
    """When a retrain is ordered."""
    promotion: PromotionEntry = Field(default_factory=PromotionEntry)
    """How a new version goes live."""
    labels: dict[Name, _Label] = Field(default_factory=dict)
    """Texts by name, to select models by."""


class Detectors(Section):
    """How many processes detectors may take, and how many models there may be.

    Each model has a process of its own up to `max_processes`; with `processes` all of them share so many from the first on.
    """

    processes: Annotated[int, Field(ge=1, le=1000)] | None = None
    """All models share this many processes from the first one on, which suits a laptop. `null`: one each."""
    max_processes: Annotated[int, Field(ge=1, le=1000)] = 32
    """Each model has a process of its own up to this number; models beyond it share."""
    max_models: Annotated[int, Field(ge=1, le=1_000_000)] = 10_000
    """Events of a new model beyond this number are rejected."""


class Retention(Section):
    """How long the event log of a model is kept, by receive time, and how many of its rows (one batch is one row)."""

    age_s: PositiveSeconds = Field(default=90 * 86400.0, alias="age")
    """Batches that were received longer ago are removed."""
    rows: Count = 100_000
    """The newest batches of each model that are kept."""
    model_bytes: Count | None = None
    """The newest batches of each model are kept as far as they fit into so many bytes, packed as they came. `null`: no
    limit.
    """
    store_bytes: Count | None = None
    """The same for all models of a process together: the oldest batches go first, whatever model they are of."""


class Delivery(Section):
    """How often a launch is tried before it is a dead letter; the wait doubles from `backoff` up to `max_backoff`."""

    attempts: Annotated[int, Field(ge=1, le=100)] = 8
    """Attempts to launch an order before it is a dead letter."""
    backoff_s: PositiveSeconds = Field(default=5.0, alias="backoff")
    """The pause after the first failed attempt; it doubles with each."""
    max_backoff_s: PositiveSeconds = Field(default=600.0, alias="max_backoff")
    """The longest pause."""


class Settings(Section):
    """The whole configuration, checked. `storage` may hold references; `for_model` says what a model gets."""

    namespace: Name = "visutility"
    """The Ray namespace of the actors."""
    storage: Annotated[str, Field(min_length=1)] = "sqlite:///./visutility-data"
    """Where the state is kept: `sqlite:///FOLDER`, or `postgresql://user:${PASSWORD}@host/database`."""
    clock: Literal["wall", "event"] = "wall"
    """What cooldowns and silences run on: `wall`, or `event` for replays of what happened before."""
    detectors: Detectors = Field(default_factory=Detectors)
    """Processes and models."""
    retention: Retention = Field(default_factory=Retention)
    """How much of the event log is kept."""
    delivery: Delivery = Field(default_factory=Delivery)
    """How launches are repeated."""
    orders: OrderLimits = Field(default_factory=OrderLimits)
    """Limits for the retrains of all models together."""
    observers: dict[Name, Target] = Field(default_factory=dict)
    """Classes that see every accepted event, by a name of your choice."""
    sources: dict[Name, SourceSettings] = Field(default_factory=dict)
    """Where metrics already are, by a name of your choice; how far each was read belongs to this name."""
    notify: NotifySettings = Field(default_factory=NotifySettings)
    """Who is told what happens."""
    ui: UiSettings = Field(default_factory=UiSettings)
    """The page."""
    defaults: ModelEntry = Field(default_factory=ModelEntry)
    """What every model gets unless an entry of `models` says otherwise."""
    models: dict[Name, ModelEntry] = Field(default_factory=dict)
    """What single models get, by their names or by patterns with `*`, `?` and `[abc]`."""

    def for_model(self, model: str) -> ModelSettings:
        """Return what `model` gets; the module says by which rule. ValueError where a detector refuses its options."""
        layers = [BUILT_IN, self.defaults, *(self.models[name] for name in _matching(self.models, model))]
        said = {name: getattr(layer, name) for layer in layers for name in layer.model_fields_set - _MERGED}
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
            promotion=Promotion.of_layers(layer.promotion for layer in layers),
            labels=self.labels_of(model),
        )

    def labels_of(self, model: str) -> dict[str, str]:
        """Return the labels of `model`, without working out anything else: it is asked for thousands of models at once.

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
    """How one metric of a model is watched; `options` go to the detector as they are."""

    detector: str
    direction: Direction
    options: Mapping[str, Any]
    season: Season | None = None

    def written(self) -> dict[str, Any]:
        """Return what the configuration would say of it."""
        season = {} if self.season is None else {"season": written_season(self.season)}
        return {"detector": self.detector, "direction": self.direction, **season, **self.options}


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """What one model gets. `false_alarm_every` is events, or a Duration to be turned into events by the observed rate.

    `pinned_version`: every version is compared with the baseline of this one, instead of learning its own.
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


# Merged key by key over the layers; anything else is taken whole from the most specific layer that says it.
_MERGED: Final = frozenset({"watch", "retrain", "promotion", "labels"})
BUILT_IN: Final = ModelEntry(watch={"accuracy": _Watch(detector="default", direction="down")})


def _matching(names: Mapping[str, object], model: str) -> list[str]:
    """Return the entries that speak of `model`, the least specific first (a stable sort: of two equals the later wins)."""
    return sorted((name for name in names if name == model or fnmatch.fnmatchcase(model, name)), key=_specificity(model))


def _specificity(model: str) -> Callable[[str], tuple[bool, int]]:
    def rank(name: str) -> tuple[bool, int]:
        return name == model, len(re.sub(r"\[[^\]]*\]|[*?]", "", name))

    return rank


def merged_watch(layers: list[ModelEntry]) -> dict[str, WatchSettings]:
    """Return what is watched under all `layers`, the least specific first."""
    watch: dict[str, WatchSettings] = {}
    for layer in layers:
        for metric, said in layer.watch.items():
            if said is None:
                watch.pop(metric, None)
                continue
            usual: Direction = "down" if metric in _LOWER_IS_WORSE else "both"
            below = watch.get(metric, WatchSettings("default", usual, {}))
            detector = said.detector or below.detector
            options = dict(below.options) if detector == below.detector else {}
            season = below.season
            if "season" in said.model_fields_set:  # of events or by the calendar: one takes the other's place
                options.pop("season", None)
                season = said.season if isinstance(said.season, Season) else None
                if isinstance(said.season, int):
                    options["season"] = said.season
            options |= said.model_extra or {}
            watch[metric] = WatchSettings(detector, said.direction or below.direction, options, season)
    return watch
