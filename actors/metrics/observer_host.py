"""ObserverHost: the process in which one observer sees the events, and how drivers register theirs.

An observer that a driver registers is owned by that driver and ends with it. One that the configuration names is detached and
made again by the broadcaster. A failing `on_event` is logged and counted, and the next event follows.
"""

from __future__ import annotations

import importlib
import logging
import uuid
from typing import Any, Final, TypedDict

import ray
from ray import cloudpickle

from actors import wire
from actors.checks import shown
from actors.clock import SystemClock
from actors.cluster import connection, deployment
from actors.cluster.peers import BlockingPeers
from actors.events import MetricObserver, MetricsEvent
from actors.plain import Json

logger = logging.getLogger(__name__)

_REGISTER_S: Final = 30.0


class Shown(TypedDict):
    """What became of the events of a batch: how many the observer took, how many it failed on, and its last error."""

    delivered: int
    failed: int
    error: str


class ObserverHost:
    """Holds one observer and shows it one event after another."""

    def __init__(self, *, name: str, pickled: bytes | None = None, target: str | None = None) -> None:
        self._name = name
        self._pickled = pickled
        self._target = target
        self._observer: MetricObserver | None = None

    def on_batch(self, *, model: str, payload: bytes, skip: int, stamped: bool = False) -> Shown:
        """Show the accepted events of a packed batch."""
        observer = self._opened()
        delivered = failed = 0
        error = ""
        for event in events_of(model, payload, skip, SystemClock().now().wall_s, is_stamped=stamped):
            try:
                observer.on_event(event)
                delivered += 1
            except Exception as raised:  # noqa: BLE001  an observer's failure is its own: the next event follows
                failed += 1
                error = f"{type(raised).__name__}: {raised}"
        return {"delivered": delivered, "failed": failed, "error": error}

    def check(self) -> str:
        """Say that the observer could be made; raises what it raised."""
        self._opened()
        return self._name

    def _opened(self) -> MetricObserver:
        if self._observer is None:
            if self._pickled is not None:
                self._observer = cloudpickle.loads(self._pickled)
            else:
                self._observer = make(str(self._target))
        return self._observer


def make(target: str) -> MetricObserver:
    """Make the observer that `module:Class` names. ValueError where that cannot be imported or has no `on_event`."""
    module, _, name = target.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"observer must be importable as module:Class, got {target!r}: {error}") from None
    made: MetricObserver = found() if isinstance(found, type) else found
    check_observer(made)
    return made


def check_observer(observer: object) -> None:
    """Raise TypeError unless the object can take events."""
    if isinstance(observer, type) or not callable(getattr(observer, "on_event", None)):
        raise TypeError(f"observer must be an object with a method on_event(event), got {observer!r:.80}")


def events_of(model: str, payload: bytes, skip: int, now_s: float, *, is_stamped: bool = False) -> list[MetricsEvent]:
    """Return the events of a packed batch that count, from row `skip` on."""
    batch = wire.unpack(payload)
    if is_stamped:
        batch, _ = wire.clamped(batch, now_s)
    verdict = wire.check(batch, now_s, skip)
    batch, ok = verdict.batch, verdict.ok
    events = []
    for row in range(skip, batch.rows):
        if ok is not None and not ok[row]:
            continue
        cells: dict[str, float | str | None] = {
            name: None if column.present is not None and not column.present[row] else float(column.values[row])
            for name, column in batch.columns.items()
        }
        cells.update({name: texts[row] for name, texts in batch.texts.items() if texts[row] is not None})
        named: Json = {name: cells.pop(name, None) for name in wire.NAMED}
        extras = {name: cell for name, cell in cells.items() if cell is not None}
        version = batch.versions[0 if batch.which is None else int(batch.which[row])]
        events.append(MetricsEvent(model, version, float(batch.times[row]), **named, extras=extras, n=_weight(batch, row)))
    return events


def _weight(batch: wire.Batch, row: int) -> float | None:
    weights = batch.weights
    if weights is None or (weights.present is not None and not weights.present[row]):
        return None
    return float(weights.values[row])


def register(namespace: str, observer: object, *, name: str) -> None:
    """Let `observer` see every accepted event in an actor of its own that ends with this driver. TypeError, ValueError."""
    check_observer(observer)
    if not isinstance(name, str) or not 1 <= len(name) <= 100:
        raise ValueError(f"name must be a string of 1 to 100 characters, got {shown(name)}")
    connection.require_own("register")
    # A name of its own each time: Ray takes a moment to give the name of a killed actor free.
    actor = f"observer:{name}:{uuid.uuid4().hex[:8]}"
    pickled = cloudpickle.dumps(observer)
    handle = deployment.spawn_observer(actor, namespace=namespace, detached=False, pickled=pickled)
    ray.get(handle.check.remote(), timeout=_REGISTER_S)
    arguments = {"name": name, "observer": actor}
    BlockingPeers(namespace).call("broadcaster", "register", arguments, timeout_s=_REGISTER_S)
    old = _owned.pop((namespace, name), None)
    _owned[namespace, name] = handle
    if old is not None:
        deployment.kill(old, restart=False)


def unregister(namespace: str, *, name: str) -> None:
    """Take an observer out. KeyError where there is none of that name."""
    BlockingPeers(namespace).call("broadcaster", "unregister", {"name": name}, timeout_s=_REGISTER_S)
    handle = _owned.pop((namespace, name), None)
    if handle is not None:
        deployment.kill(handle, restart=False)


def spawn(namespace: str, name: str, target: str) -> str:
    """Have the actor of an observer that the configuration names; return its name."""
    actor = f"observer:{name}"
    handle = deployment.find(actor, namespace)
    if handle is None:
        handle = deployment.spawn_observer(actor, namespace=namespace, detached=True, target=target)
    ray.get(handle.check.remote(), timeout=_REGISTER_S)
    return actor


# Ray ends an actor that nobody holds; these live as long as the driver that registered them.
_owned: dict[tuple[str, str], Any] = {}
