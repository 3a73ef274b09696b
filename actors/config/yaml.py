"""Reads YAML as plain values: version 1.2's scalars, no duplicate keys, no tags, no aliases that expand without end."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

import yaml

from actors.plain import Json

_MAX_NODES: Final = 200_000


def dotted(path: tuple[str, ...]) -> str:
    """Return the path of a key as a message names it; a key that holds a dot is quoted."""
    return ".".join(f"'{part}'" if "." in part or not part else part for part in path) or "the document"


class _Loader(yaml.SafeLoader):
    """YAML with the plain values of version 1.2: `1e-5` is a number, `no` and `12:30` are strings."""

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
            raise self._error(node, path, "aliases expand without end")
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

    def _mapping(self, node: yaml.MappingNode, path: tuple[str, ...]) -> Json:
        values: Json = {}
        for key_node, value_node in node.value:
            key = self.value(key_node, path) if key_node.tag in _SCALARS else None
            if not isinstance(key, str):
                text = key_node.value if isinstance(key_node, yaml.ScalarNode) else "a collection"
                raise self._error(key_node, path, f"keys must be strings, got {text}: quote it")
            if key in values:
                raise self._error(key_node, (*path, key), "this key occurs twice")
            values[key] = self.value(value_node, (*path, key))
        return values

    def _scalar(self, node: yaml.ScalarNode, path: tuple[str, ...]) -> Any:
        try:
            return _SCALARS[node.tag](node.value)
        except (ValueError, KeyError):
            raise self._error(node, path, f"is no {node.tag.rpartition(':')[2]}, got {node.value!r}") from None

    def _error(self, node: yaml.Node, path: tuple[str, ...], rule: str) -> ValueError:
        return ValueError(f"{self._source}: {dotted(path)}: {rule} (line {node.start_mark.line + 1})")


def read_yaml(text: str, source: str) -> Any:
    """Return the plain values of a YAML text.

    ValueError for a duplicate key, a tag, a key that is not a string, or malformed YAML.
    """
    try:
        node = yaml.compose(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise ValueError(f"{source}: is no YAML: {error}") from None
    return None if node is None else _Reader(source).value(node, ())
