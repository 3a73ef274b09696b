"""Where each value of a model's configuration comes from: the same layers, in the same order, as `Settings.for_model`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from actors.config import Settings, document
from actors.config.settings import MERGED
from actors.config.values import Duration, format_duration
from actors.drift import usual_direction

BUILT_IN: Final = "built in"
_DIRECTION_FROM: Final = {
    "name": "the metric's name",
    "unknown name": "no table has the metric's name",
    "limits": "the limits of the detector",
}
_SHOWN: Final = ("false_alarm_every", "cooldown_s", "expect_every_s", "pinned_version", "dry_run")


class Origin(NamedTuple):
    """One value as the file writes it, and the entry that says it: `defaults`, `models.PATTERN` or `built in`."""

    setting: str
    value: str
    entry: str


def origins(settings: Settings, model: str) -> list[Origin]:
    """Return each value that `model` gets with the entry that it comes from, by the names of the settings.

    >>> from actors import config
    >>> found = origins(config.parse({"models": {"f-eu*": {"cooldown": "2h"}, "f*": {"cooldown": "1h"}}}, "file"), "f-eu")
    >>> [(each.value, each.entry) for each in found if each.setting == "cooldown"]
    [('2h', 'models.f-eu*')]
    """
    written: Mapping[str, Any] = json.loads(document(settings))
    entries = written.get("models", {})
    layers = [("defaults", written.get("defaults", {}))]
    layers += [(f"models.{name}", entries[name]) for name in settings.matching(model)]
    said: dict[str, tuple[str, str]] = {}
    for layer, entry in layers:
        for key, value in entry.items():
            if key == "watch":
                for metric, watched in value.items():
                    _replace_watch(said, f"watch.{metric}", watched)
            elif key not in MERGED:
                _drop(said, key)
            said |= {path: (shown, layer) for path, shown in _leaves(value, key)}
    got = settings.for_model(model)
    for name in _SHOWN:
        key = name.removesuffix("_s")
        said.setdefault(key, (_written(getattr(got, name), seconds=name.endswith("_s")), BUILT_IN))
    for metric, each in got.watch.items():
        path = f"watch.{metric}"
        said.setdefault(f"{path}.detector", (each.detector, BUILT_IN))
        if each.direction_from != "configuration":
            said[f"{path}.direction"] = (each.direction, _DIRECTION_FROM[each.direction_from])
    return [Origin(path, *said[path]) for path in sorted(said)]


def directions(settings: Settings, model: str) -> list[Origin]:
    """Return the direction of each watched metric of `model`, and of the retrain rule's, with what says it.

    >>> from actors import config
    >>> settings = config.parse({"defaults": {"watch": {"accuracy": None, "val_loss": {}}}}, "file")
    >>> [tuple(each) for each in directions(settings, "fraud")]
    [('val_loss', 'up', "the metric's name"), ('accuracy', 'down', "the retrain rule: the metric's name")]
    """
    got = settings.for_model(model)
    entries = {each.setting: each.entry for each in origins(settings, model)}
    found = [Origin(metric, each.direction, entries[f"watch.{metric}.direction"]) for metric, each in got.watch.items()]
    if got.retrain.metric not in got.watch:
        usual = usual_direction(got.retrain.metric)
        why = _DIRECTION_FROM["unknown name" if usual == "both" else "name"]
        found.append(Origin(got.retrain.metric, usual, f"the retrain rule: {why}"))
    return found


def _replace_watch(said: dict[str, tuple[str, str]], path: str, watched: Mapping[str, Any] | None) -> None:
    """Drop what an entry takes the place of: `null` ends the watch, another detector takes its own options."""
    before = said.get(f"{path}.detector", ("default", ""))[0]
    if watched is None or watched.get("detector", before) != before:
        kept = {} if watched is None else {name: said[name] for name in (f"{path}.direction", f"{path}.season") if name in said}
        _drop(said, path)
        said |= kept
    else:
        said.pop(path, None)  # a `null` of a layer below


def _drop(said: dict[str, tuple[str, str]], key: str) -> None:
    for path in [each for each in said if each == key or each.startswith(f"{key}.")]:
        del said[path]


def _leaves(entry: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(entry, Mapping) and entry:
        for name, value in entry.items():
            yield from _leaves(value, f"{path}.{name}")
    else:
        yield path, _written(entry)


def _written(value: object, *, seconds: bool = False) -> str:
    """Write a value of the configuration as a person would."""
    if isinstance(value, Duration):
        return format_duration(value.seconds)
    if seconds and isinstance(value, float):
        return format_duration(value)
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
