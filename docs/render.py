"""Write the reference pages that follow from the code: the command line, and every key of the configuration.

The pages hold blocks like

    ```python exec="1"
    from docs import render
    print(render.commands())
    ```

which the build replaces by what they print, so nothing has to be kept up to date.
"""

from __future__ import annotations

import functools
import html
import inspect
import json
from collections.abc import Iterator
from typing import Any, cast, get_args

import griffe
from pydantic import BaseModel, PlainSerializer
from pydantic.fields import FieldInfo

from actors.config import Settings, settings
from actors.config.handlers import CustomHandlerSettings
from actors.config.notify import CustomReceiverSettings
from actors.config.sources import CustomSourceSettings
from drivers import cli

# What a person writes, for the names of the schema's types.
_WRITTEN = {
    "FalseAlarms": "duration, or number of events",
    "Seconds": "duration",
    "Reference": "`${NAME}`",
    "PositiveSeconds": "duration",
    "OptionalSeconds": "duration or null",
    "_OptionalPrice": "number, share, or null",
    "_OptionalBudget": "number per duration, or null",
    "SeasonEntry": "`day`, `week`, a mapping of `period` and `zone`, a number of events, or null",
    "Target": "`module:name`",
    "Name": "text",
    "Count": "number",
}
# What the kinds below a key are.
_GROUPS = {"sources": "source", "receivers": "receiver"}
# The same for Python's own types, by how they begin; anything else is a mapping.
_PLAIN = {
    "str": "text",
    "bool": "true or false",
    "int": "number",
    "float": "number",
    "Annotated[str": "text",
    "Annotated[int": "number",
    "Annotated[float": "number",
}


def commands() -> str:
    """Return a section for each command: its help, as a terminal shows it."""
    return "\n".join(f"## {path}\n\n```text\n{text.strip()}\n```\n" for path, text in cli.helps())


def configuration() -> str:
    """Return a section for each mapping of the document: its keys with their defaults and what they mean."""
    found: dict[type[BaseModel], str] = {}
    _walk(Settings, "", found)
    return "\n".join(_section(model, path) for model, path in found.items())


def _walk(model: type[BaseModel], path: str, found: dict[type[BaseModel], str]) -> None:
    """Put `model` and every mapping below it into `found`, each at the path where it stands first."""
    found[model] = path
    for name, info in model.model_fields.items():
        key = f"{path}.{info.alias or name}".lstrip(".")
        for below in _models_in(info.annotation):
            if below not in found:
                kind = below.model_fields.get("kind")
                named = f"{key}.<{'metric' if name == 'watch' else 'name'}>" if _is_mapping(info) else key
                _walk(
                    below,
                    named.removeprefix("defaults.") if kind is None else f"{_GROUPS.get(name, 'handler')}: {_kind(below)}",
                    found,
                )


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        yield annotation
    for each in get_args(annotation):
        yield from _models_in(each)


def _is_mapping(info: FieldInfo) -> bool:
    return str(info.annotation).startswith("dict[")


def _kind(model: type[BaseModel]) -> str:
    if model in {CustomHandlerSettings, CustomSourceSettings, CustomReceiverSettings}:
        return "module:Class"
    kinds: tuple[str, ...] = get_args(model.model_fields["kind"].annotation)
    return kinds[0]


@functools.cache
def _sources() -> griffe.Object | griffe.Alias:
    """Return the package of the schema as it is written: attributes with their docstrings, and the names of their types."""
    return griffe.load("actors.config")


def _section(model: type[BaseModel], path: str) -> str:
    described = _sources()[f"{model.__module__.removeprefix('actors.config.')}.{model.__name__}"]
    rows = []
    for name, info in model.model_fields.items():
        attribute = cast(griffe.Attribute, described.all_members[name])
        if attribute.docstring is None and name != "kind":
            raise ValueError(f"{model.__name__}.{name} needs a docstring: it is a row of the configuration's reference")
        meaning = "Which kind." if attribute.docstring is None else " ".join(attribute.docstring.value.split())
        written = _typed(str(attribute.annotation), info)
        rows.append(f"| `{info.alias or name}` | {written} | {_default(info)} | {meaning} |")
    if model is settings.ModelEntry:
        path = "defaults, and models.<name>"
    head = f"## {html.escape(path)}" if path else "## The document"  # `<name>` would be taken for a tag
    summary = "" if model is Settings else inspect.getdoc(model)
    return f"{head}\n\n{summary}\n\n| key | value | default | what it does |\n|---|---|---|---|\n" + "\n".join(rows) + "\n"


def _typed(annotation: str, info: FieldInfo) -> str:
    """Return what may be written, from the name of the type in the source where it has one, else from the type itself."""
    if annotation in _WRITTEN:
        return _WRITTEN[annotation]
    parts = (info.annotation, *get_args(info.annotation))
    if choices := [each for part in parts for each in get_args(part) if isinstance(each, str)]:
        return " or ".join(f"`{each}`" for each in choices) + (" or null" if "None" in annotation else "")
    plain = annotation.removesuffix(" | None")
    named = _WRITTEN.get(plain) or next((word for start, word in _PLAIN.items() if plain.startswith(start)), "mapping")
    return named + (" or null" if annotation.endswith("| None") else "")


def _default(info: FieldInfo) -> str:
    """Return the default as it is written in YAML."""
    if info.is_required():
        return "(required)"
    value = info.get_default(call_default_factory=True)
    for each in info.metadata:
        if isinstance(each, PlainSerializer):
            value = each.func(value)  # type: ignore[call-arg]
    if isinstance(value, BaseModel):
        return f"`{{kind: {value.kind}}}`" if hasattr(value, "kind") else ""
    return f"`{value}`" if isinstance(value, str) else f"`{json.dumps(value)}`"
