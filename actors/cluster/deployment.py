"""Makes, finds and ends the actors: their Ray names and options, the check of the build, the end of a stale process.

The only file that applies `ray.remote` to an actor class. Every control actor is detached, takes no CPU of its own, is
restarted by Ray as often as it dies, and no call to it is repeated by Ray: resending is the caller's, by sequence number.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import logging
import os
import signal
import sys
import time
import zlib
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypedDict

import ray
import ray._private.state
from ray.actor import ActorHandle
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from actors.cluster import build, card
from actors.errors import ConflictError, NoSystemError
from actors.plain import Arguments
from actors.replies import Hello

if TYPE_CHECKING:
    from actors.config import Settings

logger = logging.getLogger(__name__)

# The process of each role: imported only where it is made.
_CLASSES: Final = {
    "broadcaster": "actors.metrics.broadcaster:MetricBroadcaster",
    "detector": "actors.detection.detector:DriftDetector",
    "page": "actors.ui.actor:Page",
    "dispatcher": "actors.retraining.dispatcher:RetrainDispatcher",
    "notifier": "actors.notify.actor:NotifierActor",
    "runner": "actors.cluster.runner:Runner",
    "sources": "actors.sources.actor:Sources",
    "tuner": "actors.tuning.tuner:Tuner",
}
_OBSERVER: Final = "actors.metrics.observer_host:ObserverHost"
# Runs in the dispatcher. It reads the stores of all actors, so it is above them in the layers.
_EXPORT: Final = "actors.telemetry:export"
# What a running system always has; detectors come with their models. The watchers last: nobody respawns what is missing.
CORE: Final = ("runner", "tuner", "dispatcher", "broadcaster")
# What a system has only where its configuration needs it.
OPTIONAL: Final = ("sources", "notifier", "page")
# A Ray resource: nodes that offer it are where the actors live on a cluster (cluster.yaml gives it to the steady ones).
HOME: Final = "visutility"
_HEAD: Final = "node:__internal_head__"  # Ray's own
# Ray places an actor that asks for nothing anywhere, whatever its strategy (seen on 2.60: five of five on one of two nodes).
_SOME_MEMORY: Final = 2**20
_EXIT_STALE: Final = 17
_STOP_S: Final = 15.0


def spawn(name: str, *, namespace: str, storage: str, slot: int | None = None) -> ActorHandle[Any]:
    """Return the actor `name`, created if there is none, without waiting for it.

    On SQLite it is pinned to the node that holds the store (by the system's card, else this node); otherwise the nodes take
    turns.

    Raises:
        ConflictError: an actor that is not ours has that name.
    """
    found = find(name, namespace)
    if found is not None:
        refuse_foreign(name, found)
        return found
    # The store's packages take 0.25 s of processor time; a process that only calls actors never imports them.
    from actors.storage import is_local  # noqa: PLC0415

    cls = _class(role(name))
    options: Arguments = {
        "name": name,
        "namespace": namespace,
        "lifetime": "detached",
        "get_if_exists": True,
        "num_cpus": 0,
        "max_restarts": -1,
        "max_task_retries": 0,
        # Only for classes with blocking methods; the loop of an async one answers `hello` at any time.
        **getattr(cls, "ACTOR_OPTIONS", {}),
    }
    if is_local(storage):
        known = card.read(namespace)
        node = (known.node if known else None) or ray.get_runtime_context().get_node_id()
        options["scheduling_strategy"] = NodeAffinitySchedulingStrategy(node, soft=False)
    else:
        options["scheduling_strategy"] = NodeAffinitySchedulingStrategy(_home(name, slot), soft=True)
        options["memory"] = _SOME_MEMORY
    remote: Any = ray.remote(cls)
    handle: ActorHandle[Any] = remote.options(**options).remote(name=name, namespace=namespace, storage=storage, slot=slot)
    return handle


def _home(name: str, slot: int | None) -> str:
    """Return the node whose turn it is. If that node is lost one day, Ray chooses another.

    Nodes that offer the resource `visutility` come first, as on a cluster whose other nodes are spot; then those that have
    CPUs at all.
    """
    alive = sorted((node for node in ray.nodes() if node["Alive"]), key=lambda node: str(node["NodeID"]))
    homes = [node for node in alive if node["Resources"].get(HOME)]
    homes = homes or [node for node in alive if node["Resources"].get("CPU")] or alive
    turn = CORE.index(name) if name in CORE else zlib.crc32(name.encode()) if slot is None else slot
    return str(homes[turn % len(homes)]["NodeID"])


def needed(settings: Settings) -> tuple[str, ...]:
    """Return the actors that a system of this configuration always has; the watchers last."""
    wanted = {
        "sources": settings.sources or settings.registry.mlflow,
        "notifier": settings.notify.receivers,
        "page": settings.ui.enabled,
    }
    return (*(name for name in OPTIONAL if wanted[name]), *CORE)


def check(name: str, settings: Settings) -> None:
    """Let the class of an actor that is to be made on this node say what would keep it from its work, where it can."""
    looks = getattr(_class(role(name)), "check", None)
    if looks is not None:
        looks(settings)


def spawn_observer(name: str, *, namespace: str, detached: bool, **arguments: Any) -> ActorHandle[Any]:
    """Create the host of an observer under a new name; one that is not detached ends with the process that created it."""
    host: Any = ray.remote(_load(_OBSERVER))
    kept: Arguments = {"lifetime": "detached", "max_restarts": -1} if detached else {}
    handle: ActorHandle[Any] = host.options(name=name, namespace=namespace, num_cpus=0, **kept).remote(name=name, **arguments)
    return handle


def exporter() -> Callable[..., Coroutine[Any, Any, None]]:
    """Return `telemetry.export`, the loop that exports the system's metrics."""
    export: Callable[..., Coroutine[Any, Any, None]] = _load(_EXPORT)
    return export


def spawn_if_wanted(name: str, *, namespace: str, storage: str, slot: int | None = None) -> ActorHandle[Any] | None:
    """Spawn for a watchdog: do nothing once the system is being stopped."""
    known = card.read(namespace)
    if known is None or known.state != "running":
        return None
    return spawn(name, namespace=namespace, storage=storage, slot=slot)


def find(name: str, namespace: str) -> ActorHandle[Any] | None:
    """Return the handle of `name`, or None if there is no such actor."""
    try:
        return ray.get_actor(name, namespace=namespace)
    except ValueError:
        return None


def role(name: str) -> str:
    """Return the role of `name`: `detector` for `detector:<model>` and `detectors:<k>`. KeyError for an unknown name."""
    first = name.partition(":")[0]
    known = "detector" if ":" in name and first in {"detector", "detectors"} else name
    if known not in _CLASSES:
        raise KeyError(f"name must be one of {', '.join(CORE)}, detector:<model> or detectors:<k>, got {name!r}")
    return known


def names(namespace: str) -> list[str]:
    """Return the names of this system's actors that exist, alive or being restarted, observers included."""
    listed = ray.util.list_named_actors(all_namespaces=True)
    ours = (entry["name"] for entry in listed if entry["namespace"] == namespace)
    return sorted(
        name for name in ours if name in {*CORE, *OPTIONAL} or name.startswith(("detector:", "detectors:", "observer:"))
    )


class ActorRecord(TypedDict):
    """What the cluster has on record of an actor; a pid of 0 or a node of "" where it has none."""

    state: str
    pid: int
    node: str


def record(handle: ActorHandle[Any]) -> ActorRecord:
    """Return what the cluster knows of an actor without asking the actor: `state`, `pid`, `node`."""
    known = ray._private.state.actors(handle._actor_id.hex())  # noqa: SLF001 the public one needs the dashboard
    return {
        "state": str(known.get("State", "DEAD")),
        "pid": int(known.get("Pid", 0)),
        "node": str(known.get("Address", {}).get("NodeID", "")),
    }


def hello(handles: Mapping[str, ActorHandle[Any]], timeout_s: float) -> dict[str, Hello | Exception | None]:
    """Ask all at once. Return for each its reply, the error that came instead, or None if nothing came in time."""
    asked: dict[str, ray.ObjectRef[Hello]] = {}
    replies: dict[str, Hello | Exception | None] = dict.fromkeys(handles)
    for name, handle in handles.items():
        try:
            asked[name] = handle.hello.remote()
        except AttributeError as error:
            replies[name] = error
    if not asked:
        return replies
    ready, _ = ray.wait(list(asked.values()), num_returns=len(asked), timeout=timeout_s)
    answered = set(ready)
    for name, reference in asked.items():
        if reference not in answered:
            continue
        try:
            replies[name] = ray.get(reference, timeout=timeout_s)
        except (RayError, GetTimeoutError) as error:
            replies[name] = error
    return replies


def no_system(namespace: str) -> NoSystemError:
    """Return the error that says how to start a system."""
    return NoSystemError(
        f"no system runs in namespace {namespace!r}: start one with `visutility start` or actors.start(), "
        "on a laptop with `visutility up`"
    )


def refuse_foreign(name: str, handle: ActorHandle[Any]) -> None:
    """Raise ConflictError if the actor `name` is not of our class; a class of the same name in another module is not ours."""
    made_by = handle._ray_actor_creation_function_descriptor  # noqa: SLF001 the cluster's record leaves the module out
    found = f"{made_by.module_name}:{made_by.class_name}"
    if found != (_OBSERVER if name.startswith("observer:") else _CLASSES[role(name)]):
        raise ConflictError(
            f"the name {name!r} is taken by an actor of class {found}, which is not part of the system: "
            "end it, or start in another namespace"
        )


def refuse_foreigners(namespace: str) -> None:
    """Raise ConflictError if an actor that is not ours has a name that a system uses."""
    for name in names(namespace):
        handle = find(name, namespace)
        if handle is not None:
            refuse_foreign(name, handle)


def refuse_build(running: str, what: str) -> None:
    """Raise ConflictError if `what` runs another build than this process."""
    if running != build.BUILD:
        raise ConflictError(other_build(running, what))


def other_build(running: str, what: str) -> str:
    """Return a message that names both builds, where this process found its own, and what to do."""
    return (
        f"{what} runs build {running}, this process has build {build.BUILD} (package `actors` at {build.PACKAGE}): "
        "install the same build here, or upgrade the system by `visutility stop` and `visutility start`. "
        "If that folder is not where visutility is installed, a package of the same name shadows it: rename yours"
    )


def kill(handle: ActorHandle[Any], *, restart: bool) -> None:
    """Kill the process of an actor; with `restart` Ray creates it again.

    A process of this node is killed directly: Ray first asks a process to exit, and waits 5 s for a frozen one
    that cannot hear it.
    """
    known = record(handle)
    if restart and known["pid"] and known["node"] == ray.get_runtime_context().get_node_id():
        with contextlib.suppress(ProcessLookupError):
            os.kill(known["pid"], signal.SIGKILL)
        return
    ray.kill(handle, no_restart=not restart)


def end_actors(namespace: str, keep: Iterable[str] = ()) -> None:
    """End every actor of the system. TimeoutError if one still exists after 15 s.

    The watchers end first, so that they do not restart ended actors; actors that their last round has started end too.
    """
    deadline = time.monotonic() + _STOP_S
    kept = set(keep)
    while left := [name for name in names(namespace) if name not in kept]:
        for name in sorted(left, key=lambda each: each not in {"dispatcher", "broadcaster"}):
            handle = find(name, namespace)
            if handle is not None:
                kill(handle, restart=False)
        if time.monotonic() > deadline:
            raise TimeoutError(f"still there after {_STOP_S:g} s: {', '.join(left)}")
        time.sleep(0.05)


def end_stale_process(reason: object) -> NoReturn:
    """End this process at once: a successor owns the store, and nothing in the memory of this process counts any more."""
    logger.critical("this process has been replaced and ends: %s", reason)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(_EXIT_STALE)


@functools.cache
def _class(of_role: str) -> Any:
    return _load(_CLASSES[of_role])


def _load(target: str) -> Any:
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)
