"""What a look at a registry brings: the versions that are new, and whether somebody else than this system moved the alias.

An alias that is where one of the newer decisions of this system has put it was moved by this system and is not announced:
without that, a rollback that follows a promotion at once would be undone by the alias that is still on its way. One that is
where it was at the last look, while a decision has moved it since, was moved back by somebody.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from actors.plain import Json


class Decided(NamedTuple):
    """A decision of this system about a version, that moves the alias."""

    number: int
    version: str
    is_active: bool  # nobody knows yet whether the alias was moved
    was_set: bool = False  # the alias was put there
    gave_up: str | None = None  # why it could not be put there, and will not be


def fresh(versions: Sequence[Json], alias: str | None, before: Mapping[str, Any] | None) -> list[Json]:
    """Return the versions to announce: what is newer than the newest so far; at first, from the alias on, else the newest."""
    if before is not None:
        return [
            each for each in versions if int(each["version"]) > before["newest"] or str(each["version"]) == _new(alias, before)
        ]
    if alias is None:
        return list(versions[-1:])
    return [each for each in versions if int(each["version"]) >= int(alias)]


def _new(alias: str | None, before: Mapping[str, Any]) -> str | None:
    return alias if alias != before["alias"] else None


def is_moved(alias: str | None, decided: Sequence[Decided], before: Mapping[str, Any] | None) -> bool:
    """Return whether somebody else than this system has put the alias where it is, since the last look."""
    if alias is None or before is None:
        return alias is not None
    since = [each for each in decided if each.number > before["number"] or each.number in before["active"]]
    expected = max((each for each in since if each.was_set), default=None)
    if alias == (before["alias"] if expected is None else expected.version):
        return False
    return not any(each.is_active and each.version == alias for each in since)
