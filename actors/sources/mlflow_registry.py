"""MLflow's model registry: its versions are versions here, with their promises; where the alias moves, that version is live.

The place is, by model, the newest version that was announced, where the alias was, and which of this system's own decisions had
been seen by then. An alias that is where one of the newer decisions has put it was moved by this system and is not announced:
without that, a rollback that follows a promotion at once would be undone by the alias that is still on its way. One that is
where it was at the last look, while a decision has moved it since, was moved back by somebody.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from actors.checks import finite
from actors.config.registry import MlflowRegistrySettings
from actors.http_json import Http, HttpError
from actors.plain import Json
from actors.sources.interface import Announced, Answer, Place, Promised, Refusals

_API: Final = "/api/2.0/mlflow"
_NEWEST: Final = 64  # versions of a model in one look; a model here remembers no more
_NOT_FOUND: Final = 404
BY: Final = "mlflow"


class Decided(NamedTuple):
    """A decision of this system about a version, that moves the alias."""

    number: int
    version: str
    is_active: bool  # nobody knows yet whether the alias was moved
    was_set: bool = False  # the alias was put there
    gave_up: str | None = None  # why it could not be put there, and will not be


Decisions = Callable[[str], Sequence[Decided]]


class MlflowRegistry:
    """Looks at every model each time; one that is gone leaves the others alone."""

    def __init__(self, settings: MlflowRegistrySettings, decisions: Decisions) -> None:
        self._settings = settings
        self._decisions = decisions
        self._http = Http(settings.url, headers=settings.headers, timeout_s=settings.timeout_s)

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
            fresh = _fresh(versions, alias, before)
            promises += [promise for each in fresh if (promise := self._promised(here, each)) is not None]
            moved = _is_moved(alias, decided, before)
            announced += [Announced(here, str(each["version"]), live=False, by=BY) for each in fresh]
            if moved and alias is not None:
                announced.append(Announced(here, alias, live=True, by=BY))
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
        model = self._http.get(f"{_API}/registered-models/get", {"name": there})["registered_model"]
        aliases = {each["alias"]: str(each["version"]) for each in model.get("aliases", ())}
        escaped = there.replace("'", "\\'")
        asked = {"filter": f"name='{escaped}'", "order_by": "version_number DESC", "max_results": _NEWEST}
        versions = self._http.get(f"{_API}/model-versions/search", asked).get("model_versions", [])
        return aliases.get(self._settings.alias), sorted(versions, key=lambda each: int(each["version"]))

    def _promised(self, model: str, version: Mapping[str, Any]) -> Promised | None:
        if self._settings.promise is None:
            return None
        said = _by_key(version, "tags")
        if not {self._settings.promise, self._settings.promise_n} <= said.keys() and version.get("run_id"):
            run = self._http.get(f"{_API}/runs/get", {"run_id": version["run_id"]}).get("run", {})
            data = run.get("data", {})
            said = {**_by_key(data, "params"), **_by_key(data, "metrics"), **said}
        value, n = (_number(said.get(name)) for name in (self._settings.promise, self._settings.promise_n))
        if value is None or n is None or not 0.0 <= value <= 1.0 or not n > 0.0:
            return None
        return Promised(model, str(version["version"]), value, n)


def _fresh(versions: Sequence[Json], alias: str | None, before: Mapping[str, Any] | None) -> list[Json]:
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


def _is_moved(alias: str | None, decided: Sequence[Decided], before: Mapping[str, Any] | None) -> bool:
    """Return whether somebody else than this system has put the alias where it is, since the last look."""
    if alias is None or before is None:
        return alias is not None
    since = [each for each in decided if each.number > before["number"] or each.number in before["active"]]
    expected = max((each for each in since if each.was_set), default=None)
    if alias == (before["alias"] if expected is None else expected.version):
        return False
    return not any(each.is_active and each.version == alias for each in since)


def _by_key(record: Mapping[str, Any], kind: str) -> Json:
    return {each["key"]: each["value"] for each in record.get(kind, ())}


def _number(value: Any) -> float | None:
    try:
        return finite(float(value))
    except (TypeError, ValueError):
        return None


__all__ = ["BY", "Decided", "Decisions", "MlflowRegistry"]
