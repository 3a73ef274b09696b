"""The state of the whole system, from its store: joins the states of all parts.

Counts come from the store and not from an actor's memory, so they are available while an actor is dead or frozen, and no reader
makes a writer wait.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar, cast

from actors.checks import brief
from actors.config import Settings
from actors.config.stored import load_stored
from actors.detection import judgements
from actors.detection import stored as detector_stored
from actors.detection.stored import Shown
from actors.detection.tables import DETECTOR
from actors.metrics import refusals
from actors.plain import Json
from actors.replies import ActorStatus, ClockAhead, Status, StoredStatus
from actors.retraining import model_tables
from actors.retraining import tables as dispatcher_tables
from actors.retraining.tables import DISPATCHER
from actors.storage import UNAVAILABLE, Store, StoreError, StoreLostError, StoreReader
from actors.storage.notify import NOTIFY, ReceiverShown, read_receivers
from actors.storage.schema import SYSTEM
from actors.storage.sources import SOURCES, SourceShown, read_sources
from actors.tuning import tables as tuner_tables
from actors.tuning.tables import TUNER

Result = TypeVar("Result")

_NOTHING: Final[StoredStatus] = {
    "models": {},
    "refused": {"events": 0, "last": None},
    "clients": {},
    "unreadable": [],
    "sources": {},
    "receivers": {},
    "retrains": {},
    "tuner": {},
}
# A client that has not sent anything for so long has most likely ended.
_CLIENTS_S: Final = 3600.0
_MAX_CLIENTS: Final = 100
# If a sender has sent no event from the future for so long, its clock has been corrected, or it has ended.
_CLOCK_AHEAD_S: Final = 3600.0


def read(store: Store, now_s: float = 0.0, known: dict[str, Shown] | None = None) -> StoredStatus:
    """Return `models`, `refused`, `clients` (of the hour before `now_s`, the newest 100), `retrains` and `tuner` of the store.

    `refused` has the events that count for no model, because they name no known model, and the last reason; `unreadable` names
    the rows of the store that cannot be read. A model that requests no more retrains has `gave_up`, the number of unsuccessful
    retrains in a row; `labels` are those of the configuration, and `judged` counts what people say of its alarms, against the
    budget that is `stated`. A client is listed by an alias, because anybody with its producer id can send in its place. If the
    file of a detector cannot be read, `store_problem` has the reason and its models are missing. A caller that reads
    again and again hands in the same `known`.
    """
    models: Json = {}
    clients: dict[str, Json] = {}
    unreadable: list[str] = []
    counts: dict[str, dict[str, int]] = {}
    problem = None
    for slot in store.slots(DETECTOR):
        try:
            with store.part(DETECTOR, slot).read() as connection:
                models.update(detector_stored.read_status(connection, unreadable=unreadable, known=known))
                counts |= judgements.count(connection, now_s)
                found = detector_stored.read_clients(connection, now_s - _CLIENTS_S, _MAX_CLIENTS)
        except (StoreError, StoreLostError) as error:  # the models of other processes are in other files
            problem = problem or brief(error)
            continue
        for name, seen in found.items():
            # Its models may live in several processes; the counts that it sent last are the newest.
            if name not in clients or seen["seen_at"] > clients[name]["seen_at"]:
                clients[name] = seen
    with store.part(DISPATCHER).read() as connection:
        retrains = dispatcher_tables.read_status(connection)
        in_a_row = model_tables.read_patience(connection)
    settings = _settings(store)
    for model, number in _gave_up(settings, in_a_row).items():
        if model in models:
            models[model]["gave_up"] = number
    for model, seen in models.items():
        seen["labels"] = settings.labels_of(model)
        seen["clock_ahead"] = _clock_ahead(seen["clock_ahead"], now_s)
    for model, judged in judgements.against_the_budget(counts, settings).items():
        if model in models:
            models[model]["judged"] = judged
    with store.part(TUNER).read() as connection:
        tuner = tuner_tables.read_status(connection)
    newest = sorted(clients.items(), key=lambda item: -float(item[1]["seen_at"]))[:_MAX_CLIENTS]
    told: StoredStatus = {
        "models": dict(sorted(models.items())),
        "refused": {**refusals.read(store.part(SYSTEM))},
        "sources": {name: {**shown} for name, shown in _sources(store).items()},
        "receivers": {name: {**shown} for name, shown in _receivers(store, settings).items()},
        "clients": {_alias(producer): seen for producer, seen in newest},
        "unreadable": unreadable,
        "retrains": retrains,
        "tuner": tuner,
    }
    return told if problem is None else {**told, "store_problem": problem}


def _gave_up(settings: Settings, in_a_row: dict[str, int]) -> dict[str, int]:
    """Return the models that request no more retrains, with the number of unsuccessful retrains in a row."""
    return {model: number for model, number in in_a_row.items() if number >= settings.for_model(model).retrain.give_up}


def _clock_ahead(seen: ClockAhead | None, now_s: float) -> ClockAhead | None:
    return None if seen is None or seen["at"] < now_s - _CLOCK_AHEAD_S else seen


def _sources(store: Store) -> dict[str, SourceShown]:
    with store.part(SOURCES).read() as connection:
        return read_sources(connection)


def _receivers(store: Store, settings: Settings) -> dict[str, ReceiverShown]:
    if not settings.notify.receivers:
        return {}
    with store.part(NOTIFY).read() as connection:
        return read_receivers(connection, settings.notify.receivers)


def _settings(store: Store) -> Settings:
    try:
        return load_stored(store)
    except ValueError:  # the settings of another build
        return Settings()


def _alias(producer: str) -> str:
    return f"client-{hashlib.sha256(producer.encode()).hexdigest()[:12]}"


def read_url(url: str, now_s: float, store_id: str = "") -> StoredStatus:
    """Return the same for a store that is opened for this one time; runs as a task on the node that holds a SQLite store.

    `store_problem` is there where the store is not whole: a file of it is gone or is read-only, or the store is another
    than `store_id`.
    """
    store = StoreReader(url)
    try:
        told = read(store, now_s)
        problem = _problem(store, store_id)
        if problem is not None:
            told.setdefault("store_problem", problem)
        return told
    finally:
        store.close()


def _problem(store: Store, store_id: str) -> str | None:
    if store_id not in {"", store.store_id}:
        return f"the store is {store.store_id}, the system was started on {store_id}: stop the system, then start it"
    try:
        store.check()
    except UNAVAILABLE as error:
        return brief(error)
    return None


class Pending(Generic[Result]):
    """A query in its own thread, so that the caller can stop waiting for the answer."""

    def __init__(self, question: Callable[[], Result]) -> None:
        self._answer: Result | None = None
        self._problem: Exception | None = None
        self._thread = threading.Thread(target=self._ask, args=(question,), daemon=True)
        self._thread.start()

    def answer(self, timeout_s: float) -> Result:
        """Return the answer, or raise the exception of the query; TimeoutError after `timeout_s`."""
        self._thread.join(timeout_s)
        if self._problem is not None:
            raise self._problem
        if self._thread.is_alive() or self._answer is None:
            raise TimeoutError(f"no answer within {timeout_s:g} s")
        return self._answer

    def _ask(self, question: Callable[[], Result]) -> None:
        try:
            self._answer = question()
        except Exception as error:  # noqa: BLE001 handed to the caller
            self._problem = error


def joined(stored: StoredStatus | Exception, actors: dict[str, ActorStatus], **head: str | None) -> Status:
    """Put the answer together; a store that did not answer is named under `store_problem`, never guessed at.

    The actors' reports on the files that they have open count too: a process that opens a replaced file finds it intact.
    """
    if isinstance(stored, Exception):
        problem = f"{type(stored).__name__}: {stored}".splitlines()[0]
        stored = {**_NOTHING, "store_problem": problem}
    found = next((each["store_problem"] for each in actors.values() if "store_problem" in each), None)
    told: Any = {**head, **({} if found is None else {"store_problem": found}), **stored, "actors": actors}
    return cast("Status", told)
