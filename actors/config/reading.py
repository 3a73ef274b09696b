"""Reads a configuration and explains what is wrong with one; compares two, and writes one out."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from actors import drift
from actors.checks import redacted, shown
from actors.config.handlers import (
    KINDS,
    TAGS,
    ChannelHandlerSettings,
    CustomHandlerSettings,
    MlflowAliasHandlerSettings,
    RayJobHandlerSettings,
    TaskHandlerSettings,
    TuneHandlerSettings,
    WebhookHandlerSettings,
    kind_of,
)
from actors.config.notify import NOTIFY_SECTIONS
from actors.config.registry import MlflowRegistrySettings, RegistrySettings
from actors.config.remote import AirflowHandlerSettings, KubernetesHandlerSettings, PrefectHandlerSettings
from actors.config.retrain import OrderLimits, PromotionEntry, RetrainEntry
from actors.config.settings import BUILT_IN, Delivery, Detectors, ModelEntry, Retention, Settings, merged_watch
from actors.config.sources import (
    SOURCE_KINDS,
    SOURCE_TAGS,
    Columns,
    CustomSourceSettings,
    FilesSettings,
    MlflowSettings,
    PrometheusSettings,
    SqlSettings,
)
from actors.config.yaml import dotted, read_yaml
from actors.plain import Json

# A larger file is not a configuration; the limit also bounds the expansion of aliases.
_MAX_FILE_BYTES: Final = 2**20


def load(source: str | Path | Mapping[str, Any] | None = None) -> Settings:
    """Read a YAML file, the same as a mapping, or nothing (the defaults).

    `storage` stays as written (see `anchored`). ValueError lists all errors, one per line, with the path of the key;
    FileNotFoundError: there is no such file.
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
    """Check a document that was read from `source`. ValueError lists all errors."""
    if document is None:
        document = {}
    try:
        settings = Settings.model_validate(_plain_copy(document, source))
    except ValidationError as error:
        lines = sorted({_explained(source, details) for details in error.errors(include_url=False)})
        raise ValueError("\n".join(lines)) from None
    _check_detectors(settings, source)
    return settings


def anchored(storage: str, folder: Path) -> str:
    """Make a relative SQLite path relative to `folder`; any other URL stays as it is."""
    prefix = "sqlite:///"
    if not is_relative(storage):
        return storage
    return prefix + str((folder / storage.removeprefix(prefix)).resolve())


def is_relative(storage: str) -> bool:
    """Return whether `storage` is a SQLite folder whose location depends on a working directory."""
    path = storage.removeprefix("sqlite:///")
    return path != storage and not path.startswith(("/", "${"))


def document(settings: Settings) -> str:
    """Return the text for the store: the configuration without the store's own URL and the namespace.

    References stay references. A store keeps its configuration when it is moved or used under another namespace.
    """
    said = settings.model_dump(exclude={"storage", "namespace"}, exclude_unset=True, by_alias=True)
    return json.dumps(said, sort_keys=True, ensure_ascii=False)


def needs_jobs(settings: Settings) -> bool:
    """Return whether a handler submits Ray jobs; the cluster then needs its dashboard, which has the Jobs API."""
    entries = (settings.defaults, *settings.models.values())
    handlers = [each for entry in entries for each in (entry.handler, entry.promotion.handler)]
    while any(isinstance(handler, TuneHandlerSettings) for handler in handlers):
        handlers = [handler.then if isinstance(handler, TuneHandlerSettings) else handler for handler in handlers]
    return any(isinstance(handler, RayJobHandlerSettings) for handler in handlers)


def differences(old: Settings, new: Settings) -> list[str]:
    """Return one readable line for each value that differs; name values that may be secret, but do not show them."""
    before, after = _leaves(old), _leaves(new)
    lines = []
    for path in sorted(before.keys() | after.keys()):
        if before.get(path) == after.get(path):
            continue
        if ".headers." in path or ".runtime_env." in path or _may_hold_a_secret(path):
            lines.append(f"{path}: differs")
        else:
            lines.append(f"{path}: {_told(before, path)} -> {_told(after, path)}")
    return lines


def _leaves(settings: Settings) -> Json:
    said = settings.model_dump(by_alias=True)
    said["storage"] = redacted(settings.storage)
    said["defaults"]["watch"] = {
        metric: watch.written() for metric, watch in merged_watch([BUILT_IN, settings.defaults]).items()
    }
    # In `models` only the given keys count: the others come from the layers below.
    said["models"] = {name: entry.model_dump(by_alias=True, exclude_unset=True) for name, entry in settings.models.items()}
    return dict(_flattened(said, ()))


def _may_hold_a_secret(path: str) -> bool:
    """Return whether a value is a URL, which may hold a password, or an option of a class of the user's own."""
    return path.startswith(("sources", "notify.receivers", "registry")) and (path.endswith(".url") or ".options." in path)


def _told(leaves: Mapping[str, Any], path: str) -> str:
    return json.dumps(leaves[path], ensure_ascii=False) if path in leaves else "(nothing)"


def _flattened(value: Any, path: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _flattened(item, (*path, str(key)))
    else:
        yield dotted(path), value


def _check_detectors(settings: Settings, source: str) -> None:
    """Let every detector check its options, at the entry that has them."""
    for path, name in [(("defaults",), ""), *((("models", name), name) for name in settings.models)]:
        for metric, watch in settings.for_model(name).watch.items():
            try:
                drift.check(watch.detector, dict(watch.options))
            except (ValueError, KeyError) as error:
                raise ValueError(f"{source}: {dotted((*path, 'watch', metric))}: {error.args[0]}") from None


def _plain_copy(value: Any, source: str, path: tuple[str, ...] = ()) -> Any:
    """Copy a document that came as Python values, refusing keys that are no text."""
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise ValueError(f"{source}: {dotted(path)}: keys must be strings, got {shown(key)}")
        return {key: _plain_copy(item, source, (*path, key)) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain_copy(item, source, (*path, str(index))) for index, item in enumerate(value)]
    return value


def _explained(source: str, details: Any) -> str:
    """Return a pydantic error as our message: path, rule, value."""
    path = tuple(str(part) for index, part in enumerate(details["loc"]) if not _is_tag(details["loc"], index))
    match details["type"]:
        case "extra_forbidden":
            known = _known_keys(details["loc"])
            near = difflib.get_close_matches(path[-1], known, n=1)
            rule = f"unknown key{f', did you mean {near[0]}?' if near else ''} (known: {', '.join(known)})"
        case "missing":
            rule = "is missing"
        case "union_tag_invalid" | "union_tag_not_found":
            kinds = SOURCE_KINDS if details["loc"][0] == "sources" else KINDS
            rule = f"kind must be one of {', '.join(kinds)} or 'module:Class', got {shown(kind_of(details['input']))}"
        case "value_error":
            rule = str(details["ctx"]["error"])
        case "model_type" | "model_attributes_type" | "dict_type":
            rule = f"must be a mapping, got {shown(details['input'])}"
        case _:
            rule = f"{details['msg'].replace('Input should', 'must', 1)}, got {shown(details['input'])}"
    return f"{source}: {dotted(path)}: {rule}"


def _is_tag(loc: tuple[Any, ...], index: int) -> bool:
    """Pydantic puts the chosen kind, and `[key]` for a key, into the path; neither is in the document."""
    return (
        loc[index] == "[key]"
        or (index > 0 and loc[index - 1] in {"handler", "then"} and loc[index] in TAGS)
        or (index == 2 and loc[0] == "sources" and loc[2] in SOURCE_TAGS)
        or (index == 3 and loc[0] == "notify" and loc[3] in NOTIFY_SECTIONS and loc[1] == "receivers")
    )


_SECTIONS: Final[Mapping[object, type[BaseModel]]] = {
    "detectors": Detectors,
    "retention": Retention,
    "delivery": Delivery,
    "orders": OrderLimits,
    "defaults": ModelEntry,
    "models": ModelEntry,
    "retrain": RetrainEntry,
    "promotion": PromotionEntry,
    "channel": ChannelHandlerSettings,
    "task": TaskHandlerSettings,
    "ray_job": RayJobHandlerSettings,
    "webhook": WebhookHandlerSettings,
    "airflow": AirflowHandlerSettings,
    "prefect": PrefectHandlerSettings,
    "kubernetes": KubernetesHandlerSettings,
    "tune": TuneHandlerSettings,
    "mlflow_alias": MlflowAliasHandlerSettings,
    "module:Class": CustomHandlerSettings,
    "registry": RegistrySettings,
    "prometheus": PrometheusSettings,
    "sql": SqlSettings,
    "files": FilesSettings,
    "mlflow": MlflowSettings,
    "custom": CustomSourceSettings,
    "columns": Columns,
    **NOTIFY_SECTIONS,
}


def _known_keys(loc: tuple[Any, ...]) -> list[str]:
    """Return the keys of the innermost section on the way to `loc`."""
    section: type[BaseModel] = Settings
    entry = {"defaults": 0, "models": 1}.get(loc[0], len(loc))  # where the keys of a model begin
    for index, part in enumerate(loc[:-1]):
        if index == 1 and loc[0] == "registry":
            section = MlflowRegistrySettings
        elif (
            index in {0, entry + 1}
            or (loc[0] == "sources" and index > 2)
            or (loc[0] == "notify" and index != 2)
            or _is_tag(loc, index)
        ):
            section = _SECTIONS.get(part, section)
    return [field.alias or name for name, field in section.model_fields.items()]
