"""The configuration: read and checked once, and what a model gets from it.

One YAML document, every key known, every value of its type, every error with the key's path. Durations are written with
their unit (`30m`, `6h`, `90d`, `1h30m`) and are seconds inside.

What a model gets: the built-in defaults, over them `defaults`, over them every entry of `models` whose name or pattern
(`fnmatch`) matches, the least specific first. So the most specific wins, key by key: an exact name before any pattern, then
the pattern with more literal characters, then the one further down. `watch` is merged metric by metric; `null` stops watching
a metric, and naming another detector drops the options of the one before. A `handler` is replaced whole.

`${NAME}` in a text stands for a variable of the environment. It stays a reference here and in the store, and is expanded
only where the value is used (`expand`), so no secret is in a stored text, a status or a history.
"""

from __future__ import annotations

import difflib
import fnmatch
import importlib
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal, Self

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    PlainSerializer,
    PlainValidator,
    Tag,
    ValidationError,
)
from sqlalchemy import select

from actors.storage import Store, redacted, schema
from actors.storage.schema import SYSTEM

Direction = Literal["up", "down", "both"]

_UNITS_S: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_DURATION: Final = re.compile(r"(?:[0-9]+(?:\.[0-9]+)?(?:ms|s|m|h|d|w))+")
_DURATION_PART: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d|w)")
_REFERENCE: Final = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_TARGET: Final = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
_PLACEHOLDER: Final = re.compile(r"(?<![${])\{([A-Za-z_]\w*)\}(?!\})")
# A file of this size is no configuration; it also bounds what aliases can unfold to.
_MAX_FILE_BYTES: Final = 2**20
_MAX_NODES: Final = 200_000
# Lower is worse for these; of any other number we do not know which way is bad.
_LOWER_IS_WORSE: Final = frozenset({"accuracy", "precision", "recall"})
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")


# --- values ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Duration:
    """A span of time where a number would mean something else: `false_alarm_every: 90d` beside `10000` events."""

    seconds: float


def parse_duration(value: object) -> float:
    """Give the seconds of a text like `30m`, `6h`, `90d`, `1h30m`; 0 stands for itself. ValueError otherwise."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value == 0:
        return 0.0
    if not isinstance(value, str) or not _DURATION.fullmatch(value.replace(" ", "")):
        hint = ": add the unit" if isinstance(value, (int, float)) and not isinstance(value, bool) else ""
        raise ValueError(f"must be a duration like 30m, 6h or 90d, got {_shown(value)}{hint}")
    parts = _DURATION_PART.findall(value.replace(" ", ""))
    seconds = sum(float(number) * _UNITS_S[unit] for number, unit in parts)
    if not seconds <= _UNITS_S["d"] * 36525:
        raise ValueError(f"must be at most 100 years, got {_shown(value)}")
    return seconds


def format_duration(seconds: float) -> str:
    """Give `seconds` as `parse_duration` reads it, in the largest unit that fits evenly."""
    for unit in ("d", "h", "m", "s"):
        if seconds and seconds % _UNITS_S[unit] == 0:
            return f"{seconds / _UNITS_S[unit]:.0f}{unit}"
    return f"{seconds:.6f}".rstrip("0").rstrip(".") + "s"


def expand(value: Any, environment: Mapping[str, str]) -> Any:
    """Put the environment's values in the place of `${NAME}`, in texts however deep. ValueError names a missing one."""

    def found(match: re.Match[str]) -> str:
        try:
            return environment[match[1]]
        except KeyError:
            raise ValueError(f"${{{match[1]}}}: the environment of this process has no {match[1]}") from None

    if isinstance(value, str):
        return _REFERENCE.sub(found, value)
    if isinstance(value, Mapping):
        return {key: expand(item, environment) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [expand(item, environment) for item in value]
    return value


def _positive_duration(value: object) -> float:
    seconds = parse_duration(value)
    if not seconds >= 0.001:
        raise ValueError(f"must be at least 1ms, got {_shown(value)}")
    return seconds


def _optional_duration(value: object) -> float | None:
    return None if value is None else _positive_duration(value)


def _budget(value: object) -> float | Duration:
    if isinstance(value, str):
        return Duration(_positive_duration(value))
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not (math.isfinite(value) and value >= 1):
        raise ValueError(f"must be a number of events, 1 or more, or a duration like 90d, got {_shown(value)}")
    return float(value)


def _target(value: str) -> str:
    if not _TARGET.fullmatch(value):
        raise ValueError(f"must be 'module:name', got {_shown(value)}")
    return value


def _url(value: str) -> str:
    if not (value.startswith(("http://", "https://")) or _REFERENCE.match(value)):
        raise ValueError(f"must be an http or https URL, got {_shown(value)}")
    return value


def _template(value: str) -> str:
    for name in _PLACEHOLDER.findall(value):
        if name not in RayJobHandler.PLACEHOLDERS:
            known = ", ".join(f"{{{each}}}" for each in RayJobHandler.PLACEHOLDERS)
            raise ValueError(f"may hold {known} (a literal brace is doubled), got {{{name}}}")
    return value


def _printable(value: str) -> str:
    if not 1 <= len(value) <= 200 or _CONTROL.search(value):
        raise ValueError(f"must have 1 to 200 characters, none a control character, got {_shown(value)}")
    return value


def _budget_written(value: float | Duration) -> float | str:
    return format_duration(value.seconds) if isinstance(value, Duration) else value


def _optional_written(value: float | None) -> str | None:
    return None if value is None else format_duration(value)


# Seconds inside, written with their unit.
_Seconds = Annotated[float, PlainValidator(parse_duration), PlainSerializer(format_duration)]
_PositiveSeconds = Annotated[float, PlainValidator(_positive_duration), PlainSerializer(format_duration)]
_OptionalSeconds = Annotated[float | None, PlainValidator(_optional_duration), PlainSerializer(_optional_written)]
_Budget = Annotated[float | Duration, PlainValidator(_budget), PlainSerializer(_budget_written)]
_Target = Annotated[str, AfterValidator(_target)]
_Name = Annotated[str, AfterValidator(_printable)]
_Count = Annotated[int, Field(ge=1)]


class _Section(BaseModel):
    """One mapping of the document: unknown keys are errors, nothing is converted, nothing changes afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


# --- handlers --------------------------------------------------------------------------------------------------------


class _Handler(_Section):
    def expanded(self, environment: Mapping[str, str]) -> Self:
        """Give the same with every `${NAME}` expanded; only to be held as long as the launch takes."""
        return self.model_copy(
            update={name: expand(getattr(self, name), environment) for name in type(self).model_fields if name != "then"}
        )


class ChannelHandler(_Handler):
    """Keeps the order until a consumer of `system.retrains.stream()` takes it."""

    kind: Literal["channel"] = "channel"
    lease_s: _PositiveSeconds = Field(default=60.0, alias="lease")


class TaskHandler(_Handler):
    """Runs `module:function` as a Ray task. `resources`: num_cpus, num_gpus, memory (bytes), and custom ones by name."""

    kind: Literal["task"]
    target: _Target
    resources: dict[str, float] = Field(default_factory=dict)


class RayJobHandler(_Handler):
    """Submits a Ray job; its submission id is the order's id."""

    PLACEHOLDERS: ClassVar[tuple[str, ...]] = ("model", "version", "order", "metric")

    kind: Literal["ray_job"]
    entrypoint: Annotated[str, Field(min_length=1), AfterValidator(_template)]
    runtime_env: dict[str, Any] = Field(default_factory=dict)
    metadata: dict[str, str] = Field(default_factory=dict)
    resources: dict[str, float] = Field(default_factory=dict)
    address: str | None = None  # of the dashboard, http://...; the cluster's own where it is left out


class WebhookHandler(_Handler):
    """Posts a CloudEvent. `secret_env` names the variable of the environment that holds the signing secret."""

    kind: Literal["webhook"]
    url: Annotated[str, AfterValidator(_url)]
    secret_env: str | None = Field(default=None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    timeout_s: _PositiveSeconds = Field(default=10.0, alias="timeout")
    headers: dict[str, str] = Field(default_factory=dict)


class TuneHandler(_Handler):
    """Runs a study, then hands the best parameters to the handler under `then`."""

    kind: Literal["tune"]
    objective: _Target
    space: dict[str, Any] = Field(min_length=1)
    trials: _Count = 20
    strategy: str = "random"
    mode: Literal["min", "max"] = "min"
    seed: int | None = None
    max_concurrent: _Count | None = None
    timeout_s: _OptionalSeconds = Field(default=None, alias="timeout")  # of one trial
    retries: Annotated[int, Field(ge=0)] = 0
    # The parameters in force until a study has found better ones; those in force are trial 0 of every study.
    current: dict[str, Any] | None = None
    min_improvement: Annotated[float, Field(ge=0)] | None = None  # over the parameters in force; None: always hand on
    then: HandlerSettings = Field(default_factory=ChannelHandler)


class CustomHandler(_Handler):
    """A RetrainHandler of the user's own, `module:Class`, made with `options` as keyword arguments."""

    kind: _Target
    options: dict[str, Any] = Field(default_factory=dict)


_KINDS: Final = ("channel", "task", "ray_job", "webhook", "tune")


def _kind(value: Any) -> str:
    kind = value.get("kind", "channel") if isinstance(value, Mapping) else getattr(value, "kind", "")
    return "module:Class" if isinstance(kind, str) and ":" in kind else str(kind)


HandlerSettings = Annotated[
    Annotated[ChannelHandler, Tag("channel")]
    | Annotated[TaskHandler, Tag("task")]
    | Annotated[RayJobHandler, Tag("ray_job")]
    | Annotated[WebhookHandler, Tag("webhook")]
    | Annotated[TuneHandler, Tag("tune")]
    | Annotated[CustomHandler, Tag("module:Class")],
    Discriminator(_kind),
]
_TAGS: Final = frozenset({*_KINDS, "module:Class"})


# --- the document ----------------------------------------------------------------------------------------------------


class _Watch(BaseModel):
    """What an entry says of one metric; every other key is an option of the detector."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    detector: Annotated[str, Field(min_length=1)] | None = None
    direction: Direction | None = None


class ModelEntry(_Section):
    """What `defaults` and each entry of `models` may say; what is left out comes from the layer below."""

    false_alarm_every: _Budget = 10_000.0
    watch: dict[_Name, _Watch | None] = Field(default_factory=dict)
    cooldown_s: _Seconds = Field(default=1800.0, alias="cooldown")
    expect_every_s: _OptionalSeconds = Field(default=None, alias="expect_every")
    pinned_version: _Name | None = None
    handler: HandlerSettings = Field(default_factory=ChannelHandler)
    dry_run: bool = False


class Detectors(_Section):
    """How many processes detectors may take, and how many models there may be."""

    max_processes: Annotated[int, Field(ge=1, le=1000)] = 32
    max_models: Annotated[int, Field(ge=1, le=1_000_000)] = 10_000


class Retention(_Section):
    """How long the event log of a model is kept, by receive time, and how many of its rows (one batch is one row)."""

    age_s: _PositiveSeconds = Field(default=90 * 86400.0, alias="age")
    rows: _Count = 100_000


class Delivery(_Section):
    """How often a launch is tried before it is a dead letter; the wait doubles from `backoff` up to `max_backoff`."""

    attempts: Annotated[int, Field(ge=1, le=100)] = 8
    backoff_s: _PositiveSeconds = Field(default=5.0, alias="backoff")
    max_backoff_s: _PositiveSeconds = Field(default=600.0, alias="max_backoff")


class Settings(_Section):
    """The whole configuration, checked. `storage` may hold references; `for_model` says what a model gets."""

    namespace: _Name = "visutility"
    storage: Annotated[str, Field(min_length=1)] = "sqlite:///./visutility-data"
    # What cooldowns and silences run on: the wall's time, or the events' own, for replays of what happened before.
    clock: Literal["wall", "event"] = "wall"
    detectors: Detectors = Field(default_factory=Detectors)
    retention: Retention = Field(default_factory=Retention)
    delivery: Delivery = Field(default_factory=Delivery)
    observers: dict[_Name, _Target] = Field(default_factory=dict)
    defaults: ModelEntry = Field(default_factory=ModelEntry)
    models: dict[_Name, ModelEntry] = Field(default_factory=dict)

    def for_model(self, model: str) -> ModelSettings:
        """Give what `model` gets; the module says by which rule. ValueError where a detector refuses its options."""
        layers = [_BUILT_IN, self.defaults, *(self.models[name] for name in _matching(self.models, model))]
        said = {name: getattr(layer, name) for layer in layers for name in layer.model_fields_set if name != "watch"}
        merged = ModelEntry.model_construct(**{name: getattr(_BUILT_IN, name) for name in ModelEntry.model_fields} | said)
        return ModelSettings(
            false_alarm_every=merged.false_alarm_every,
            watch=_merged_watch(layers),
            cooldown_s=merged.cooldown_s,
            expect_every_s=merged.expect_every_s,
            pinned_version=merged.pinned_version,
            handler=merged.handler,
            dry_run=merged.dry_run,
        )


@dataclass(frozen=True, slots=True)
class WatchSettings:
    """How one metric of a model is watched; `options` go to the detector as they are."""

    detector: str
    direction: Direction
    options: Mapping[str, Any]


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
    handler: ChannelHandler | TaskHandler | RayJobHandler | WebhookHandler | TuneHandler | CustomHandler
    dry_run: bool


_BUILT_IN: Final = ModelEntry(watch={"accuracy": _Watch(detector="default", direction="down")})


def _matching(names: Mapping[str, object], model: str) -> list[str]:
    """Give the entries that speak of `model`, the least specific first (a stable sort: of two equals the later wins)."""
    return sorted((name for name in names if name == model or fnmatch.fnmatchcase(model, name)), key=_specificity(model))


def _specificity(model: str) -> Callable[[str], tuple[bool, int]]:
    def rank(name: str) -> tuple[bool, int]:
        return name == model, len(re.sub(r"\[[^\]]*\]|[*?]", "", name))

    return rank


def _merged_watch(layers: list[ModelEntry]) -> dict[str, WatchSettings]:
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
            watch[metric] = WatchSettings(detector, said.direction or below.direction, options | (said.model_extra or {}))
    return watch


# --- reading ---------------------------------------------------------------------------------------------------------


def load(source: str | Path | Mapping[str, Any] | None = None) -> Settings:
    """Read a YAML file, the same as a mapping, or nothing (the defaults).

    `storage` stays as it is written (see `anchored`). ValueError lists everything that is wrong, one line each, with the
    key's path; FileNotFoundError where there is no such file.
    """
    if source is None:
        return Settings()
    if isinstance(source, Mapping):
        return parse(source, "configuration")
    path = Path(source)
    if path.stat().st_size > _MAX_FILE_BYTES:
        raise ValueError(f"{path}: a configuration has at most {_MAX_FILE_BYTES} bytes, got {path.stat().st_size}")
    return parse(read_yaml(path.read_text(encoding="utf-8"), path.name), path.name)


def parse(document: object, source: str) -> Settings:
    """Check a document that was read from `source`. ValueError lists everything that is wrong."""
    if document is None:
        document = {}
    try:
        settings = Settings.model_validate(_plain_copy(document, source))
    except ValidationError as error:
        lines = sorted({_explained(source, details) for details in error.errors(include_url=False)})
        raise ValueError("\n".join(lines)) from None
    _check_detectors(settings, source)
    return settings


def read_yaml(text: str, source: str) -> Any:
    """Give the plain values of a YAML text. ValueError for a duplicate key, a tag, a key that is no text, a broken text."""
    try:
        node = yaml.compose(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise ValueError(f"{source}: is no YAML: {error}") from None
    return None if node is None else _Reader(source).value(node, ())


def anchored(storage: str, folder: Path) -> str:
    """Make a relative SQLite path relative to `folder`; any other URL stays as it is."""
    prefix = "sqlite:///"
    if not is_relative(storage):
        return storage
    return prefix + str((folder / storage.removeprefix(prefix)).resolve())


def is_relative(storage: str) -> bool:
    """Tell whether `storage` is a SQLite folder whose place depends on a working directory."""
    path = storage.removeprefix("sqlite:///")
    return path != storage and not path.startswith(("/", "${"))


def document(settings: Settings) -> str:
    """Give the text that is kept in the store: what was said, without the store's own URL and the namespace.

    References stay references. A store that is moved, or taken up under another namespace, keeps its configuration.
    """
    said = settings.model_dump(exclude={"storage", "namespace"}, exclude_unset=True, by_alias=True)
    return json.dumps(said, sort_keys=True, ensure_ascii=False)


def needs_jobs(settings: Settings) -> bool:
    """Tell whether a handler submits Ray jobs: then the cluster needs its dashboard, which has the Jobs API."""
    handlers = [entry.handler for entry in (settings.defaults, *settings.models.values())]
    while any(isinstance(handler, TuneHandler) for handler in handlers):
        handlers = [handler.then if isinstance(handler, TuneHandler) else handler for handler in handlers]
    return any(isinstance(handler, RayJobHandler) for handler in handlers)


def load_stored(store: Store) -> Settings:
    """Give the settings that the running system was told last; the defaults where it was told none."""
    with store.part(SYSTEM).read() as connection:
        newest = select(schema.settings.c.document).order_by(schema.settings.c.version.desc()).limit(1)
        text = connection.execute(newest).scalar()
    return Settings() if text is None else parse(json.loads(text), "stored configuration")


def has_stored(store: Store) -> bool:
    """Tell whether a system on this store was ever told its settings."""
    with store.part(SYSTEM).read() as connection:
        return connection.execute(select(schema.settings.c.version).limit(1)).scalar() is not None


def store_settings(store: Store, settings: Settings, now_s: float) -> int:
    """Keep `settings` as the newest of the store, unless they are already; give their version."""
    text = document(settings)
    table = schema.settings
    with store.part(SYSTEM).write() as connection:
        newest = connection.execute(select(table.c.version, table.c.document).order_by(table.c.version.desc())).first()
        if newest is not None and newest.document == text:
            return int(newest.version)
        version = 1 if newest is None else int(newest.version) + 1
        connection.execute(table.insert().values(version=version, document=text, stored_at=now_s))
        return version


def differences(old: Settings, new: Settings) -> list[str]:
    """Give one readable line for each value that differs; what may hold a secret is named, not shown."""
    before, after = _leaves(old), _leaves(new)
    lines = []
    for path in sorted(before.keys() | after.keys()):
        if before.get(path) == after.get(path):
            continue
        if ".headers." in path or ".runtime_env." in path:
            lines.append(f"{path}: differs")
        else:
            lines.append(f"{path}: {_told(before, path)} -> {_told(after, path)}")
    return lines


def _leaves(settings: Settings) -> dict[str, Any]:
    said = settings.model_dump(by_alias=True)
    said["storage"] = redacted(settings.storage)
    said["defaults"]["watch"] = {
        metric: {"detector": watch.detector, "direction": watch.direction, **watch.options}
        for metric, watch in _merged_watch([_BUILT_IN, settings.defaults]).items()
    }
    # Of `models` only what was said counts: the rest of an entry comes from the layers below.
    said["models"] = {name: entry.model_dump(by_alias=True, exclude_unset=True) for name, entry in settings.models.items()}
    return dict(_flattened(said, ()))


def _told(leaves: Mapping[str, Any], path: str) -> str:
    return json.dumps(leaves[path], ensure_ascii=False) if path in leaves else "(nothing)"


def _flattened(value: Any, path: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _flattened(item, (*path, str(key)))
    else:
        yield _dotted(path), value


def _check_detectors(settings: Settings, source: str) -> None:
    """Let every detector see its options, at the entry that says them."""
    check = _detector_check()
    if check is None:
        return
    for path, name in [(("defaults",), ""), *((("models", name), name) for name in settings.models)]:
        for metric, watch in settings.for_model(name).watch.items():
            try:
                check(watch.detector, dict(watch.options))
            except (ValueError, KeyError) as error:
                raise ValueError(f"{source}: {_dotted((*path, 'watch', metric))}: {error.args[0]}") from None


def _detector_check() -> Callable[[str, dict[str, Any]], object] | None:
    try:
        drift = importlib.import_module("actors.drift")
    except ModuleNotFoundError:
        return None
    return getattr(drift, "check", None)


def _plain_copy(value: Any, source: str, path: tuple[str, ...] = ()) -> Any:
    """Copy a document that came as Python values, refusing keys that are no text."""
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise ValueError(f"{source}: {_dotted(path)}: keys must be text, got {_shown(key)}")  # noqa: TRY004 a value of the caller
        return {key: _plain_copy(item, source, (*path, key)) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain_copy(item, source, (*path, str(index))) for index, item in enumerate(value)]
    return value


class _Loader(yaml.SafeLoader):
    """YAML with the plain values of version 1.2: `1e-5` is a number, `no` and `12:30` are texts."""

    yaml_implicit_resolvers = {}  # noqa: RUF012 so declared in the base


_TAG: Final = "tag:yaml.org,2002:"
_Loader.add_implicit_resolver(f"{_TAG}null", re.compile(r"(?:null|Null|NULL|~|)$"), ["n", "N", "~", ""])
_Loader.add_implicit_resolver(f"{_TAG}bool", re.compile(r"(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF"))
_Loader.add_implicit_resolver(f"{_TAG}int", re.compile(r"(?:[-+]?[0-9]+|0x[0-9a-fA-F]+)$"), list("-+0123456789"))
_Loader.add_implicit_resolver(
    f"{_TAG}float",
    re.compile(r"(?:[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"),
    list("-+.0123456789"),
)
_SCALARS: Final[Mapping[str, Callable[[str], Any]]] = {
    f"{_TAG}null": lambda _text: None,
    f"{_TAG}bool": lambda text: {"true": True, "false": False}[text.lower()],
    f"{_TAG}int": lambda text: int(text, 16) if text.startswith("0x") else int(text),
    f"{_TAG}float": lambda text: float(text.lower().replace(".inf", "inf").replace(".nan", "nan")),
    f"{_TAG}str": str,
}


class _Reader:
    """Turns composed YAML nodes into plain values, knowing at each the path to it."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._open: set[int] = set()
        self._nodes = 0

    def value(self, node: yaml.Node, path: tuple[str, ...]) -> Any:
        self._nodes += 1
        if self._nodes > _MAX_NODES or id(node) in self._open:
            raise self._error(node, path, "aliases unfold without end")
        self._open.add(id(node))
        try:
            match node:
                case yaml.MappingNode() if node.tag == f"{_TAG}map":
                    return self._mapping(node, path)
                case yaml.SequenceNode() if node.tag == f"{_TAG}seq":
                    return [self.value(item, (*path, str(index))) for index, item in enumerate(node.value)]
                case yaml.ScalarNode() if node.tag in _SCALARS:
                    return self._scalar(node, path)
        finally:
            self._open.discard(id(node))
        tag = node.tag.replace(_TAG, "!!")
        raise self._error(node, path, f"must be a plain value, got the tag {tag}")

    def _mapping(self, node: yaml.MappingNode, path: tuple[str, ...]) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = self.value(key_node, path) if key_node.tag in _SCALARS else None
            if not isinstance(key, str):
                text = key_node.value if isinstance(key_node, yaml.ScalarNode) else "a collection"
                raise self._error(key_node, path, f"keys must be text, got {text}: quote it")
            if key in values:
                raise self._error(key_node, (*path, key), "this key stands twice")
            values[key] = self.value(value_node, (*path, key))
        return values

    def _scalar(self, node: yaml.ScalarNode, path: tuple[str, ...]) -> Any:
        try:
            return _SCALARS[node.tag](node.value)
        except (ValueError, KeyError):
            raise self._error(node, path, f"is no {node.tag.rpartition(':')[2]}, got {node.value!r}") from None

    def _error(self, node: yaml.Node, path: tuple[str, ...], rule: str) -> ValueError:
        return ValueError(f"{self._source}: {_dotted(path)}: {rule} (line {node.start_mark.line + 1})")


def _explained(source: str, details: Any) -> str:
    """Say a pydantic error in our words: where, which rule, which value."""
    path = tuple(str(part) for index, part in enumerate(details["loc"]) if not _is_tag(details["loc"], index))
    match details["type"]:
        case "extra_forbidden":
            known = _known_keys(details["loc"])
            near = difflib.get_close_matches(path[-1], known, n=1)
            rule = f"unknown key{f', did you mean {near[0]}?' if near else ''} (known: {', '.join(known)})"
        case "missing":
            rule = "is missing"
        case "union_tag_invalid" | "union_tag_not_found":
            rule = f"kind must be one of {', '.join(_KINDS)} or 'module:Class', got {_shown(_kind(details['input']))}"
        case "value_error":
            rule = str(details["ctx"]["error"])
        case "model_type" | "model_attributes_type" | "dict_type":
            rule = f"must be a mapping, got {_shown(details['input'])}"
        case _:
            rule = f"{details['msg'].replace('Input should', 'must', 1)}, got {_shown(details['input'])}"
    return f"{source}: {_dotted(path)}: {rule}"


def _is_tag(loc: tuple[Any, ...], index: int) -> bool:
    """Pydantic puts the chosen kind, and for a key `[key]`, into the path; neither stands in the document."""
    return loc[index] == "[key]" or (index > 0 and loc[index - 1] in {"handler", "then"} and loc[index] in _TAGS)


_SECTIONS: Final[Mapping[object, type[BaseModel]]] = {
    "detectors": Detectors,
    "retention": Retention,
    "delivery": Delivery,
    "defaults": ModelEntry,
    "models": ModelEntry,
    "channel": ChannelHandler,
    "task": TaskHandler,
    "ray_job": RayJobHandler,
    "webhook": WebhookHandler,
    "tune": TuneHandler,
    "module:Class": CustomHandler,
}


def _known_keys(loc: tuple[Any, ...]) -> list[str]:
    """Give the keys of the innermost section on the way to `loc`."""
    section: type[BaseModel] = Settings
    for index, part in enumerate(loc[:-1]):
        if index == 0 or _is_tag(loc, index):
            section = _SECTIONS.get(part, section)
    return [field.alias or name for name, field in section.model_fields.items()]


def _dotted(path: tuple[str, ...]) -> str:
    return ".".join(f"'{part}'" if "." in part or not part else part for part in path) or "the document"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
