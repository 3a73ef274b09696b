"""The versions of models: `system.versions`.

system.versions.history("fraud")             # which is live, which is a candidate, and what each promises
system.versions.promote("fraud", "8")
system.versions.rollback("fraud")
"""

from __future__ import annotations

from typing import Any, Final, cast

from actors import people
from actors.cluster.peers import Ask
from actors.replies import Json, VersionChanged, VersionShown

_BROADCASTER: Final = "broadcaster"
_PATIENCE_S: Final = 20.0


class Versions:
    """The versions of the models of one system; a decision is carried out by the model's `promotion.handler`."""

    def __init__(self, ask: Ask) -> None:
        """Made by System."""
        self._ask = ask

    def history(self, model: str) -> list[VersionShown]:
        """Return a row for each version, the oldest first: `version`, `state` (live, candidate, former), `since`, `promise`.

        KeyError: a model that never logged.
        """
        rows: list[VersionShown] = self._asked("versions", model=model)["rows"]
        return rows

    def promote(self, model: str, version: str, *, by: str | None = None, comment: str | None = None) -> VersionChanged:
        """Make `version` the live one, whatever the gate says; `by` and `comment` stand with it.

        KeyError: no such model or version.
        """
        given = people.given(by=by, comment=comment)
        return cast("VersionChanged", self._asked("promote", model=model, version=version, **given))

    def rollback(self, model: str, *, by: str | None = None, comment: str | None = None) -> VersionChanged:
        """Make the version before the live one live again. KeyError: no such model; ValueError: there was none before."""
        return cast("VersionChanged", self._asked("rollback", model=model, **people.given(by=by, comment=comment)))

    def _asked(self, method: str, **arguments: Any) -> Json:
        reply: Json = self._ask.call(_BROADCASTER, method, arguments, timeout_s=_PATIENCE_S)
        if reply.get("status") == "unavailable":
            raise ConnectionError(f"versions.{method}: {reply['reason']}")
        return reply
