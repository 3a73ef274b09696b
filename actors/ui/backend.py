"""The page's access to the store, through the readers of each package, and to a running `System`."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from sqlalchemy import Connection, select

from actors import happenings, status, story
from actors.checks import redacted
from actors.clock import SystemClock
from actors.config import ModelSettings, Settings
from actors.config.stored import load_stored
from actors.detection import stored as detector_stored
from actors.detection.stored import Shown
from actors.errors import NoSystemError
from actors.rehearsal import Summary
from actors.replies import (
    Broadcasted,
    Episode,
    NumberedHappening,
    OrderRow,
    SilenceRow,
    StudyListing,
    StudySummary,
    TrialRow,
)
from actors.retraining import listing
from actors.retraining import tables as dispatcher_tables
from actors.retraining.tables import DISPATCHER
from actors.storage import StoreError, StoreReader, schema
from actors.storage.schema import SYSTEM
from actors.tuning import tables as tuner_tables
from actors.tuning.tables import TUNER
from actors.ui import fleet, rehearsed, series
from actors.ui.change import Cursor

if TYPE_CHECKING:
    from actors.system import System

T = TypeVar("T")

# Whatever changes, the fleet is read at most this often.
_FRESH_S: Final = 0.5
_ASK_S: Final = 30.0  # a commit on a busy machine
_SLOW_SHARE: Final = 2.0  # and never more than a third of the time


class Backend(Protocol):
    """The queries of pages and of the API. All may be called from several threads."""

    system: System | None

    def status(self) -> dict[str, Any]:
        """Return what the store says of the system."""
        ...

    def fleet(self) -> fleet.Table:
        """Return a row for each model."""
        ...

    def model(self, name: str) -> dict[str, Any]:
        """Return what the status says of one model, as the store has it now. KeyError: no such model."""
        ...

    def settings(self) -> Settings:
        """Return the configuration."""
        ...

    def episodes(self, model: str | None = None, limit: int = 200) -> list[Episode]:
        """Return the newest episodes, the newest first."""
        ...

    def story(self, about: str) -> story.Story:
        """Return a story. KeyError: there is none."""
        ...

    def orders(self, model: str | None = None, state: str | None = None, limit: int = 200) -> list[OrderRow]:
        """Return the newest orders, the newest first."""
        ...

    def studies(self) -> list[StudyListing]:
        """Return every study."""
        ...

    def study(self, name: str) -> StudySummary:
        """Return a study. KeyError: no such study."""
        ...

    def trials(self, name: str, limit: int = 2000) -> list[TrialRow]:
        """Return trials of a study. KeyError: no such study."""
        ...

    def series(self, model: str, batches: int = 500) -> series.Series:
        """Return metrics over time. KeyError: no such model."""
        ...

    def sparks(self, models: Sequence[str]) -> dict[str, list[float]]:
        """Return the newest values of each of these models."""
        ...

    def versions(self, model: str) -> list[dict[str, Any]]:
        """Return the versions of a model, the newest first."""
        ...

    def silences(self, model: str) -> list[SilenceRow]:
        """Return the silences that cover a model."""
        ...

    def rehearse(self, model: str, settings: ModelSettings) -> Summary:
        """Return what these settings would have done. KeyError: no such model."""
        ...

    def configurations(self) -> list[dict[str, Any]]:
        """Return the newest configurations."""
        ...

    def happenings(self, seen: Mapping[str, int], limit: int) -> list[NumberedHappening]:
        """Return the rows after the last number seen of each part, up to `limit` rows of each."""
        ...

    def broadcast(self, events: list[Any], producer: str | None, sequence: int | None) -> Broadcasted:
        """Count raw events, after their commit. ValueError as the broadcaster's; RuntimeError: there is no system."""
        ...

    def high_water(self, model: str, producer: str) -> int:
        """Return the number of a producer's next event of a model."""
        ...

    def look(self, source: str) -> None:
        """Have a source read now instead of at its next turn. RuntimeError: there is no system."""
        ...

    def cursor(self) -> str:
        """Return a text that differs whenever the store has changed."""
        ...

    def actors(self) -> dict[str, Any]:
        """Return the processes."""
        ...

    def storage(self) -> str:
        """Return the store's URL, without its password."""
        ...


class StoreBackend:
    """Reads the store at `url`, which must be readable from here; acts through `system`, None where it only reads."""

    def __init__(self, url: str, system: System | None = None) -> None:
        self._url = url
        self.system = system
        self._store = StoreReader(url)
        self._cursor = Cursor(self._store, url)
        self._clock = SystemClock()
        self._lock = threading.Lock()
        self._status: dict[str, Any] = {}
        self._rows = fleet.Table()
        self._seen: str | None = None
        self._read_at = float("-inf")
        self._took_s = 0.0
        self._reads = 0
        self._behind = False  # somebody was shown a fleet that is older than the store
        self._known: dict[str, Shown] = {}

    def storage(self) -> str:
        """Return the store's URL, without its password."""
        return redacted(self._url)

    def cursor(self) -> str:
        """Return a text that differs whenever the store has changed, and when the fleet has caught up with a change."""
        if self._behind and self._is_due():
            threading.Thread(target=self._refresh, name="fleet", daemon=True).start()
        return f"{self._cursor.read()}/{self._reads}"

    def status(self) -> dict[str, Any]:
        """Return what the store says of the system, at most a moment old."""
        self._refresh()
        return self._status

    def fleet(self) -> fleet.Table:
        """Return the row of each model, in the order of names."""
        self._refresh()
        return self._rows

    def model(self, name: str) -> dict[str, Any]:
        """Return what the status says of one model, as the store has it now: the fleet may be a moment older."""
        for part in detector_stored.detector_parts(self._store):
            with part.read() as connection:
                found = detector_stored.read_status(connection, name).get(name)
            if found is not None:
                kept = self._status.get("models", {}).get(name, {})
                return {**kept, **found, "labels": self.settings().labels_of(name)}
        raise KeyError(f"model must be one of this store, got {name!r}")

    def settings(self) -> Settings:
        """Return the configuration that the store was given last. StoreError: another build wrote it, and knows more."""
        try:
            return load_stored(self._store)
        except StoreError:
            raise
        except ValueError as error:
            raise StoreError(f"this build cannot read the configuration in the store: {error}") from None

    def configurations(self) -> list[dict[str, Any]]:
        """Return the newest 50 configurations with their times, the newest first; secrets are references in them."""
        table = schema.settings
        with self._store.part(SYSTEM).read() as connection:
            rows = connection.execute(select(table).order_by(table.c.version.desc()).limit(50)).all()
        return [{"version": row.version, "stored_at": row.stored_at, "document": json.loads(row.document)} for row in rows]

    def episodes(self, model: str | None = None, limit: int = 200) -> list[Episode]:
        """Return the newest episodes, the newest first."""
        found: list[Episode] = []
        for part in detector_stored.detector_parts(self._store):
            with part.read() as connection:
                found += detector_stored.list_episodes(connection, model, limit)
        return sorted(found, key=lambda each: -each["opened_at"])[:limit]

    def story(self, about: str) -> story.Story:
        """Return the story of an episode, an order or a model. KeyError: the store has none of that name."""
        return story.read(self._store, about)

    def orders(self, model: str | None = None, state: str | None = None, limit: int = 200) -> list[OrderRow]:
        """Return the newest orders, the newest first."""
        with self._store.part(DISPATCHER).read() as connection:
            found = dispatcher_tables.read_history(connection, model=model, limit=limit, state=state)
            acts = dispatcher_tables.read_acts(connection, [order.id for order in found])
        return [listing.row_of(order, acts.get(order.id, ())) for order in reversed(found)]

    def studies(self) -> list[StudyListing]:
        """Return every study, the newest first."""
        with self._store.part(TUNER).read() as connection:
            return tuner_tables.read_studies(connection)

    def study(self, name: str) -> StudySummary:
        """Return the summary of a study, by its name or its id. KeyError: no such study."""
        with self._store.part(TUNER).read() as connection:
            row = tuner_tables.read_study(connection, name)
            if row is None:  # an order knows the id of its study
                known = next((each["name"] for each in tuner_tables.read_studies(connection) if each["study"] == name), None)
                row = None if known is None else tuner_tables.read_study(connection, known)
            if row is None:
                raise KeyError(f"study must be one of this store, got {name!r}")
            return tuner_tables.read_summary(connection, row)

    def trials(self, name: str, limit: int = 2000) -> list[TrialRow]:
        """Return the first `limit` trials of a study."""
        known = self.study(name)
        with self._store.part(TUNER).read() as connection:
            return tuner_tables.read_page(connection, known["study"], since=0, limit=limit)

    def series(self, model: str, batches: int = 500) -> series.Series:
        """Return the metrics of a model over time. KeyError: no such model."""
        return self._of_model(model, lambda connection: series.read(connection, model, batches))

    def sparks(self, models: Sequence[str]) -> dict[str, list[float]]:
        """Return the newest means of the first metric of each of these models, oldest first: one question a part."""
        found: dict[str, list[float]] = {}
        for part in detector_stored.detector_parts(self._store):
            with part.read() as connection:
                found |= series.sparks(connection, models)
        return found

    def versions(self, model: str) -> list[dict[str, Any]]:
        """Return the versions of a model, the newest first: with states and promises where a system runs."""
        if self.system is not None:
            with contextlib.suppress(OSError, RuntimeError):
                return [dict(row) for row in reversed(self.system.versions.history(model))]
        seen = self.status()["models"].get(model, {"versions": {}})
        return [{"version": name} for name in reversed(seen["versions"])]

    def silences(self, model: str) -> list[SilenceRow]:
        """Return the silences that cover a model, where a system runs."""
        if self.system is None:
            return []
        with contextlib.suppress(OSError, RuntimeError):
            return self.system.retrains.silences(model)
        return []

    def rehearse(self, model: str, settings: ModelSettings) -> Summary:
        """Return what `settings` would have made of a model's log. KeyError: no such model."""
        return self._of_model(model, lambda connection: rehearsed.summary(connection, model, settings))

    def _of_model(self, model: str, read: Callable[[Connection], T | None]) -> T:
        """Return what `read` finds in the part that has the model."""
        for part in detector_stored.detector_parts(self._store):
            with part.read() as connection:
                found = read(connection)
            if found is not None:
                return found
        raise KeyError(f"model must be one of this store, got {model!r}")

    def happenings(self, seen: Mapping[str, int], limit: int) -> list[NumberedHappening]:
        """Return the rows after the last number seen of each part, in the order of each part's numbers."""
        return happenings.after(self._store, seen, limit)

    def broadcast(self, events: list[Any], producer: str | None, sequence: int | None) -> Broadcasted:
        """Count raw events of a job that is not on Ray; the reply comes after the commit."""
        arguments = {"events": events, "producer": producer, "sequence": sequence}
        reply: Broadcasted = self._asked("broadcast", arguments)
        return reply

    def high_water(self, model: str, producer: str) -> int:
        """Return the number of a producer's next event of a model, 0 for one that is new."""
        return int(self._asked("high_water", {"model": model, "producer": producer})["high_water"])

    def look(self, source: str) -> None:
        """Have a source read now."""
        self._asked("look", {"source": source}, of="sources")

    def _asked(self, method: str, arguments: dict[str, Any], of: str = "broadcaster") -> Any:
        if self.system is None:
            raise NoSystemError("this page reads a store; events need a running system")
        from actors.cluster.peers import BlockingPeers  # noqa: PLC0415  Ray; a page of a store does without

        reply = BlockingPeers(self.system.namespace).call(of, method, arguments, timeout_s=_ASK_S)
        if reply.get("status") == "unavailable" and method != "broadcast":
            raise ConnectionError(f"{method}: {reply['reason']}")
        return reply

    def actors(self) -> dict[str, Any]:
        """Return each process of the running system, nothing where none is known."""
        return dict(self.system.status()["actors"]) if self.system is not None else {}

    def close(self) -> None:
        """Close the store."""
        self._cursor.close()
        self._store.close()

    def _is_due(self) -> bool:
        age_s = self._clock.now().boot_s - self._read_at
        return self._seen is None or age_s >= max(_FRESH_S, _SLOW_SHARE * self._took_s)

    def _refresh(self) -> None:
        """Read the status again where the store has changed since, one thread at a time; others get what there is."""
        if not self._lock.acquire(blocking=self._seen is None):
            self._behind = True
            return
        with contextlib.ExitStack() as stack:
            stack.callback(self._lock.release)
            now = self._clock.now()
            seen = self._cursor.read()
            if seen == self._seen:
                self._behind = False
                return
            if not self._is_due():
                self._behind = True
                return
            told = status.read(self._store, now.wall_s, self._known)
            if len(self._known) > len(told["models"]):  # models were removed
                self._known = {name: each for name, each in self._known.items() if name in told["models"]}
            self._rows = fleet.rows_of(told["models"])
            self._status, self._seen = {**told}, seen
            self._read_at = self._clock.now().boot_s
            self._took_s = self._read_at - now.boot_s
            self._reads += 1
            self._behind = False


@contextlib.contextmanager
def opened(url: str, system: System | None = None) -> Iterator[StoreBackend]:
    """Open a backend and close it.

    Example:
        with opened("sqlite:///./visutility-data") as backend: backend.fleet()
    """
    backend = StoreBackend(url, system)
    try:
        yield backend
    finally:
        backend.close()
