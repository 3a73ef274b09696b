"""The episodes of one model that are not settled yet: which are open, flagged or changed, and how one is closed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from actors.clock import Instant
from actors.detection.rules.decisions import Effect, Tell
from actors.detection.rules.record import is_shortfall, order_is_settled
from actors.replies import Episode

MAX_DECISIONS: Final = 200  # the first and the newest are kept
MAX_HELD: Final = 64  # of one model; a version that drifts again and again must not fill the memory


class Shelf:
    """Holds the records, and knows which of them a commit has to write."""

    def __init__(self, records: Iterable[Episode] = ()) -> None:
        self._held: dict[str, Episode] = {record["id"]: record for record in records}
        self._dirty: dict[str, Episode] = {}

    # --- questions

    @property
    def has_shortfall(self) -> bool:
        """Whether a shortfall's request is open: there is one at a time."""
        return any(is_shortfall(r) and r["closed_at"] is None for r in self._held.values())

    def open_of(self, version: str) -> Episode | None:
        """Return the open episode of a version."""
        return next((record for record in self.open_episodes if record["version"] == version), None)

    @property
    def open_episodes(self) -> list[Episode]:
        """The episodes of alarms that are open."""
        return [record for record in self._held.values() if record["closed_at"] is None and not is_shortfall(record)]

    @property
    def flagged(self) -> list[str]:
        """The episodes that a person must look at."""
        return [record["id"] for record in self._held.values() if record["flagged"] and record["acknowledged_at"] is None]

    def drifting(self, version: str) -> dict[str, float]:
        """Return the metrics of the version that have drifted and not recovered, and what their baselines were."""
        record = self.open_of(version)
        return {} if record is None else {metric: watch["baseline_mean"] for metric, watch in record["watches"].items()}

    @property
    def open_versions(self) -> set[str]:
        """The versions that have an open episode."""
        return {record["version"] for record in self.open_episodes}

    def followed(self) -> list[str]:
        """Return the episodes whose order's state is worth asking for."""
        return [r["id"] for r in self._held.values() if r["order"] is not None and not order_is_settled(r)]

    def get(self, episode: str) -> Episode | None:
        """Return an episode that is held."""
        return self._held.get(episode)

    def changed(self) -> list[Episode]:
        """Return the records that changed since they were written; `held` says whether the book still needs them."""
        return list(self._dirty.values())

    def written(self) -> None:
        """Learn that the changed records are in the store."""
        self._dirty.clear()

    # --- records

    def _hold(self, record: Episode, now: Instant) -> None:
        self._held[record["id"]] = record
        self._dirty[record["id"]] = record
        for old in sorted(self._held.values(), key=lambda r: int(r["ordinal"]))[: len(self._held) - MAX_HELD]:
            if old["closed_at"] is None:
                self._close(old, "too many", f"more than {MAX_HELD} episodes of the model are unsettled", now)
            self._let_go(old)

    def _close(self, record: Episode, by: str, why: str, now: Instant) -> list[Effect]:
        if record["closed_at"] is not None:
            return []
        record["closed_at"], record["closed_by"] = now.wall_s, by
        record["request"]["skipped"] = None
        for watch in record["watches"].values():
            watch["seen"] = 0  # patience is with what comes after the retrain, not with the drifted events before it
        self._decide(record, "close", why, now)
        self._dirty[record["id"]] = record
        self._settle(record)
        return [Tell("closed", record["id"], why)]

    def _flag(self, record: Episode, why: str, now: Instant, numbers: Mapping[str, object]) -> Effect:
        record["flagged"] = why
        self._decide(record, "flag", why, now, numbers)
        self._dirty[record["id"]] = record
        return Tell("flagged", record["id"], why)

    def _decide(
        self, record: Episode, decision: str, why: str, now: Instant, numbers: Mapping[str, object] | None = None
    ) -> None:
        entries = record["decisions"]
        entries.append({"at": now.wall_s, "decision": decision, "why": why, "numbers": dict(numbers or {})})
        if len(entries) > MAX_DECISIONS:
            del entries[MAX_DECISIONS // 2]

    def _settle(self, record: Episode) -> None:
        """Let go of a closed episode of which nothing more is to be learned."""
        waits_for_order = record["order"] is not None and not order_is_settled(record)
        asked = record["request"]["state"] == "asking"  # its request may be on its way: the reply belongs on the record
        follows = record["after"] is not None and bool(record["watches"])
        flagged = record["flagged"] is not None and record["acknowledged_at"] is None
        if record["closed_at"] is not None and not (waits_for_order or asked or follows or flagged):
            self._let_go(record)

    def _let_go(self, record: Episode) -> None:
        record["held"] = False
        self._dirty[record["id"]] = record
        self._held.pop(record["id"], None)
