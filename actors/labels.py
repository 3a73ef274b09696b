"""Selects models by their labels: `team=risk,tier!=2`.

One grammar for commands (`--label`), silences, the routes of notifications and the page. A selector is terms that a comma
separates, and all of them must hold:

    team=risk       the label is there and is this text; `==` is the same
    tier!=2         the label is another text, or is not there
    team            the label is there, whatever it is
    !team           it is not there

A value that is empty, or contains a comma or a quote, is in double quotes, as in JSON: `owner="Ada, Grace"`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

_LONGEST: Final = 1000
_TERM: Final = re.compile(
    r"""\s*(?:!\s*(?P<absent>[^\s=!,"][^=!,"]*?)
        |(?P<name>[^\s=!,"][^=!,"]*?)\s*(?:(?P<sign>==|!=|=)\s*(?P<value>"(?:[^"\\]|\\.)*"|[^\s,"=!][^,"]*?))?)\s*(?:,|$)""",
    re.VERBOSE,
)
_PLAIN: Final = re.compile(r'[^\s,"=!]([^,"]*[^\s,"])?')

Sign = Literal["=", "!=", "is there", "is not there"]


@dataclass(frozen=True, slots=True)
class Term:
    """One condition on one label."""

    name: str
    sign: Sign
    value: str = ""

    def holds(self, labels: Mapping[str, str]) -> bool:
        """Return whether the labels of a model meet it."""
        match self.sign:
            case "=":
                return labels.get(self.name) == self.value
            case "!=":
                return labels.get(self.name) != self.value
            case "is there":
                return self.name in labels
            case "is not there":
                return self.name not in labels

    def __str__(self) -> str:
        match self.sign:
            case "is there":
                return self.name
            case "is not there":
                return f"!{self.name}"
        value = self.value if _PLAIN.fullmatch(self.value) else json.dumps(self.value, ensure_ascii=False)
        return f"{self.name}{self.sign}{value}"


@dataclass(frozen=True, slots=True)
class Selector:
    """Conditions that all must hold; one without any selects every model.

    >>> str(parse(" team = risk ,tier!=2"))
    'team=risk,tier!=2'
    """

    terms: tuple[Term, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Return whether a model with these labels is selected."""
        return all(term.holds(labels) for term in self.terms)

    def __bool__(self) -> bool:
        return bool(self.terms)

    def __str__(self) -> str:
        return ",".join(map(str, self.terms))


ALL: Final = Selector()


def parse(text: str | Iterable[str] | None, field: str = "label") -> Selector:
    """Return the selector that `text` writes; several texts must all hold, and none selects everything.

    Raises:
        ValueError: it is no selector; the message names `field` and the part that cannot be read.

    >>> parse("team=risk,!legacy").matches({"team": "risk", "tier": "1"})
    True
    >>> parse("tier!=2").matches({})
    True
    """
    if text is None:
        return ALL
    terms: list[Term] = []
    for each in [text] if isinstance(text, str) else text:
        terms += _terms(each, field)
    return Selector(tuple(dict.fromkeys(terms)))


def _terms(text: str, field: str) -> list[Term]:
    if not isinstance(text, str) or not text.strip() or len(text) > _LONGEST:
        raise ValueError(
            f"{field} must be a selector like team=risk,tier!=2 of at most {_LONGEST} characters, got {text!r:.80}"
        )
    terms: list[Term] = []
    at = 0
    while at < len(text):
        found = _TERM.match(text, at)
        if found is None:
            part = text[at:].partition(",")[0].strip() or text[at:].strip()
            rule = "must be a selector like team=risk,tier!=2,owner,!legacy"
            raise ValueError(f"{field} {rule}, got {text!r:.80}: {part!r:.80} is no part of one")
        terms.append(_term(found, field, text))
        at = found.end()
    if text.rstrip().endswith(","):
        raise ValueError(f"{field} must be a selector like team=risk,tier!=2, got {text!r:.80}: nothing follows the last comma")
    return terms


def _term(found: re.Match[str], field: str, text: str) -> Term:
    if found["absent"] is not None:
        return Term(found["absent"], "is not there")
    if found["sign"] is None:
        return Term(found["name"], "is there")
    value = found["value"]
    if value.startswith('"'):
        try:
            value = str(json.loads(value))
        except ValueError as error:
            raise ValueError(f"{field} must have its quoted texts as in JSON, got {text!r:.80}: {error}") from None
    return Term(found["name"], "!=" if found["sign"] == "!=" else "=", value)
