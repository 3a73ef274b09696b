"""The rules for names of models, versions and metrics."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from typing import Final, TypeGuard

from actors.checks import shown

Rule = Callable[[object], str | None]  # says what is wrong with a name, None if nothing is
NAMED: Final = ("accuracy", "precision", "recall")
UNVERSIONED: Final = "unversioned"
FIELDS: Final = frozenset({"model_name", "model_version", "timestamp", "extras", "n", *NAMED})
RESERVED: Final = FIELDS - {*NAMED, "n"}  # a metric of such a name would look like the field; `n` has a place of its own
MAX_NAME: Final = 200
_UNWANTED: Final = (  # categories of characters that no name may hold
    *((kind, "must not contain a control character") for kind in ("Cc", "Zl", "Zp")),
    ("Cs", "must be encodable as UTF-8"),
    ("Cf", "must not contain an invisible character (zero width, direction, format)"),
)


def check_model(name: object) -> str:
    """Return the model's name, or raise ValueError naming the rule."""
    rule = model_rule(name)
    if rule is not None:
        raise ValueError(f"model_name {rule}, got {shown(name)}")
    return str(name)


def check_version(version: object) -> str:
    """Return the version, or raise ValueError naming the rule."""
    rule = text_rule(version)
    if rule is not None:
        raise ValueError(f"model_version {rule}, got {shown(version)}")
    return str(version)


def metric_rule(name: object) -> str | None:
    """Say what is wrong with a metric's name, None if nothing is."""
    if name in RESERVED:
        return "must not be the name of a field"
    return text_rule(name)


def text_rule(value: object) -> str | None:
    """Say what is wrong with a name, None if nothing is."""
    if not isinstance(value, str):
        return "must be a string"
    if not 1 <= len(value) <= MAX_NAME:
        return f"must have 1 to {MAX_NAME} characters"
    if value.isascii() and value.isprintable():
        return None
    kinds = set(map(unicodedata.category, value))
    return next((rule for bad, rule in _UNWANTED if bad in kinds), None)


def stored_rule(value: object) -> str | None:
    """Return the problem of a name in the store, which may hold names from earlier builds; None if there is none."""
    return None if isinstance(value, str) and 1 <= len(value) <= MAX_NAME else f"must be a string of 1 to {MAX_NAME} characters"


def is_model(name: object) -> TypeGuard[str]:
    """Return whether the name can be a model's."""
    return model_rule(name) is None


def model_rule(value: object) -> str | None:
    """Say what is wrong with a model's name, None if nothing is."""
    rule = text_rule(value)
    if rule is None and any(c in "*?[" for c in str(value)):
        return "must not contain * ? or ["
    return rule
