"""Plug-ins of other packages by entry points: named in their `pyproject.toml`, found once they are installed.

[project.entry-points."visutility.strategies"]
halving = "my_package:Halving"
"""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final, Literal, NamedTuple, get_args

Kind = Literal["strategies", "detectors", "handlers", "sources", "notifiers"]
_GROUP: Final = "visutility."


def names(kind: Kind) -> list[str]:
    """Return the names that installed packages give to plug-ins of this kind.

    >>> isinstance(names("strategies"), list)
    True
    """
    return sorted(point.name for point in entry_points(group=f"{_GROUP}{kind}"))


def load(kind: Kind, name: str) -> Any:
    """Return the plug-in of that name; KeyError where no package has one, ValueError where it cannot be imported."""
    found: list[EntryPoint] = list(entry_points(group=f"{_GROUP}{kind}", name=name))
    if not found:
        raise KeyError(name)
    if len({point.value for point in found}) > 1:
        raise ValueError(f"{kind} {name!r} is given by several packages: {', '.join(sorted(point.value for point in found))}")
    try:
        return found[0].load()
    except Exception as error:  # noqa: BLE001  whatever the import of another's package raises
        raise ValueError(f"{kind} {name!r} of {found[0].value} cannot be imported: {type(error).__name__}: {error}") from None


class Plugin(NamedTuple):
    """What an installed package gives; `problem` says why it cannot be used, None where it can."""

    kind: Kind
    name: str
    target: str
    package: str
    problem: str | None


def installed() -> list[Plugin]:
    """Return every plug-in of every kind, each imported to see whether it can be.

    >>> isinstance(installed(), list)
    True
    """
    found = []
    for kind in get_args(Kind):
        for point in sorted(entry_points(group=f"{_GROUP}{kind}")):
            problem = None
            try:
                load(kind, point.name)
            except ValueError as error:
                problem = str(error)
            package = "" if point.dist is None else f"{point.dist.name} {point.dist.version}"
            found.append(Plugin(kind, point.name, point.value, package, problem))
    return found
