"""MLflow's model registry: its versions are versions here, with their promises; where the alias moves, that version is live.

The place is, by model, the newest version that was announced, where the alias was, and which of this system's own decisions had
been seen by then.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from actors.config.registry import MlflowRegistrySettings
from actors.http_json import Http, HttpError
from actors.plain import Json
from actors.sources.interface import Announced, Answer, Place, Promised, Refusals
from actors.sources.mlflow_api import MlflowApi, by_key, logged, promised
from actors.sources.registry_rules import Decided, fresh, is_moved

_NEWEST: Final = 64  # versions of a model in one look; a model here remembers no more
_NOT_FOUND: Final = 404
_BY: Final = "mlflow"

Decisions = Callable[[str], Sequence[Decided]]


class MlflowRegistry:
    """Looks at every model each time; one that is gone leaves the others alone."""

    def __init__(self, settings: MlflowRegistrySettings, decisions: Decisions) -> None:
        self._settings = settings
        self._decisions = decisions
        self._api = MlflowApi(Http(settings.url, headers=settings.headers, timeout_s=settings.timeout_s))

    def read(self, place: Place, now_s: float) -> Answer:  # the registry has no times that are used
        """Return the versions that are new and the aliases that have moved."""
        known: Mapping[str, Json] = place or {}
        left: Json = {}
        promises: list[Promised] = []
        announced: list[Announced] = []
        problems = Refusals()
        for there, here in self._settings.models.items():
            before = known.get(here)
            # Before the alias is read: a decision that comes after it was looked for cannot have moved it by then.
            decided = self._decisions(here)
            try:
                alias, versions = self._looked(there)
            except HttpError as error:
                if error.code != _NOT_FOUND:
                    raise
                problems.add(f"{here}: there is no registered model {there}")
                left[here] = before
                continue
            if alias is None:
                problems.add(f"{here}: the alias {self._settings.alias} of {there} points to nothing")
            last = max(decided, default=None)
            if last is not None and last.gave_up is not None:
                problems.add(f"{here}: {self._settings.alias} of {there} was not moved to {last.version}: {last.gave_up}")
            new = fresh(versions, alias, before)
            for each in new:
                promises += self._promised(here, each)
            moved = is_moved(alias, decided, before)
            announced += [Announced(here, str(each["version"]), live=False, by=_BY) for each in new]
            if moved and alias is not None:
                announced.append(Announced(here, alias, live=True, by=_BY))
            newest = max([int(each["version"]) for each in versions] + [(before or {}).get("newest", 0)])
            left[here] = {
                "newest": newest,
                "alias": alias,
                "number": max((each.number for each in decided), default=0),
                "active": [each.number for each in decided if each.is_active],
            }
        return Answer([], left, promises, announced, problem=problems.problem, is_whole=True)

    def _looked(self, there: str) -> tuple[str | None, list[Json]]:
        """Return where the alias is, and the newest versions, the oldest first."""
        aliases = self._api.aliases(there)
        escaped = there.replace("'", "\\'")
        versions = self._api.versions(f"name='{escaped}'", order_by="version_number DESC", max_results=_NEWEST)
        return aliases.get(self._settings.alias), sorted(versions, key=lambda each: int(each["version"]))

    def _promised(self, model: str, version: Mapping[str, Any]) -> list[Promised]:
        value, n = self._settings.promise, self._settings.promise_n
        if value is None:
            return []
        said = by_key(version, "tags")
        if not {value, n} <= said.keys() and version.get("run_id"):
            said = {**logged(self._api.run(version["run_id"])), **said}
        return promised(model, str(version["version"]), said.get(value), said.get(n))
