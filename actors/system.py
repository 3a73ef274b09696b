"""What a person or a job holds of a running system, and how one is started, joined, changed and stopped."""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
import time
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, Self

import ray
from ray.exceptions import RayActorError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from sqlalchemy import select

from actors import config, status
from actors.clock import SystemClock
from actors.cluster import card, connection, deployment
from actors.cluster.build import BUILD
from actors.cluster.card import Card
from actors.cluster.peers import BlockingPeers
from actors.config.stored import load_stored, store_settings
from actors.errors import ConflictError
from actors.storage import Store, StoreError, is_local, redacted, schema
from actors.storage.schema import SYSTEM

if TYPE_CHECKING:
    from actors.events import MetricObserver
    from actors.metrics.client import Metrics
    from actors.retraining.client import Retrains
    from actors.tuning.client import Tuning

logger = logging.getLogger(__name__)

DEFAULT_NAMESPACE: Final = "visutility"
BUFFER_BYTES: Final = 64 * 2**20

# An actor imports its packages before it can answer; a loaded laptop takes its time.
_START_S: Final = 90.0
# `status` promises an answer within 2 s: the store and the actors are asked at the same time, each within this.
_STATUS_S: Final = 1.4
_RELOAD_S: Final = 10.0

Source = str | Path | Mapping[str, Any]


class System:
    """A system in one namespace of the Ray cluster that this process is connected to.

    Holds no actor: every call finds its actor by name, so a System survives restarts, upgrades, pickling and fork.
    """

    def __init__(
        self,
        namespace: str = DEFAULT_NAMESPACE,
        *,
        on_full: Literal["drop", "wait"] = "drop",
        buffer_bytes: int = BUFFER_BYTES,
    ) -> None:
        """Made by `start` and `connect`."""
        self.namespace = namespace
        self._on_full: Literal["drop", "wait"] = on_full
        self._buffer_bytes = buffer_bytes

    def __reduce__(self) -> tuple[Any, ...]:
        return _revived, (self.namespace, self._on_full, self._buffer_bytes)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"System(namespace={self.namespace!r})"

    @functools.cached_property
    def metrics(self) -> Metrics:
        """Where a job logs: `log`, `log_batch`, `baseline`, `flush`."""
        from actors.metrics.client import Metrics  # noqa: PLC0415 each part is imported by those who use it

        return Metrics(self.namespace, on_full=self._on_full, buffer_bytes=self._buffer_bytes)

    @functools.cached_property
    def retrains(self) -> Retrains:
        """Retrain orders: `stream`, `trigger`, `silence`, `history`, ..."""
        from actors.retraining.client import Retrains  # noqa: PLC0415

        return Retrains(BlockingPeers(self.namespace))

    @functools.cached_property
    def tuner(self) -> Tuning:
        """Hyper-parameter studies: `run`, ..."""
        from actors.tuning.client import Tuning  # noqa: PLC0415

        return Tuning(self.namespace)

    def register(self, observer: MetricObserver, *, name: str) -> None:
        """Let `observer.on_event` see every accepted event, in an actor of its own, for as long as this process lives.

        TypeError for an object without `on_event`. An observer that is to stay belongs into the configuration.
        """
        from actors.metrics import observer_host as observers  # noqa: PLC0415

        observers.register(self.namespace, observer, name=name)

    def unregister(self, *, name: str) -> None:
        """Take the observer `name` out again."""
        from actors.metrics import observer_host as observers  # noqa: PLC0415

        observers.unregister(self.namespace, name=name)

    def status(self) -> dict[str, Any]:
        """Give the state of the system as a plain dict, within 2 s whatever is dead or frozen.

        Counts come from the store. `actors` says of each process `alive`, `pid`, `node`, `epoch`; one that does not answer
        is not alive. Where the store does not answer in time, `store_problem` says so and the counts are left out.
        """
        known = self._card()
        stored = status.Pending(functools.partial(self._stored, known))
        actors = self._actors()
        try:
            counts: dict[str, Any] | Exception = stored.answer(_STATUS_S)
        except Exception as error:  # noqa: BLE001 whatever the store does, the rest of the status is told
            counts = error
        return status.joined(
            counts,
            actors,
            namespace=self.namespace,
            build=known.build,
            storage=redacted(known.storage),
            pinned_to=known.node,
        )

    def settings(self) -> config.Settings:
        """Give the configuration that the system runs."""
        return _running_settings(self._card())

    def reload(self, source: Source) -> dict[str, Any]:
        """Take a changed configuration, keeping all state. Gives the version, what changed, and who has read it already.

        ConflictError where it names another storage: that takes `stop` and `start`. An actor that does not answer now reads
        it when it is back.
        """
        known = self._card()
        settings = config.load(source)
        storage = _storage(settings, source)
        if storage is not None and storage != known.storage:
            raise ConflictError(
                f"storage cannot be changed by a reload: the system keeps its state in {redacted(known.storage)}, "
                f"the configuration names {redacted(storage)}; stop the system, then start it on the other"
            )
        changes = config.differences(_running_settings(known), _without_storage(settings))
        version = _store_settings(known, settings)
        card.replace(self.namespace, replace(known, document=config.document(settings)))
        return {"version": version, "changes": changes, **self._reload_actors()}

    def stop(self) -> None:
        """End every actor of the system. What was acknowledged is in the store: `start` on it carries on."""
        _stop(self.namespace)

    def close(self) -> None:
        """Flush what was logged, and let go; the system runs on."""
        metrics = self.__dict__.pop("metrics", None)
        if metrics is not None:
            metrics.close()

    def _card(self) -> Card:
        known = card.read(self.namespace)
        if known is None:
            raise deployment.no_system(self.namespace)
        return known

    def _actors(self) -> dict[str, Any]:
        names = sorted({*deployment.CORE, *deployment.names(self.namespace)})
        found = {name: handle for name in names if (handle := deployment.find(name, self.namespace)) is not None}
        replies = deployment.hello({name: each for name, each in found.items() if not name.startswith("observer:")}, 1.0)
        told: dict[str, Any] = {}
        for name in names:
            if name not in found:
                told[name] = {"pid": None, "node": None, "alive": False, "epoch": None}
                continue
            known, reply = deployment.record(found[name]), replies.get(name)
            answered = isinstance(reply, dict)
            told[name] = {
                "pid": known["pid"] or None,
                "node": known["node"] or None,
                "alive": answered or (name.startswith("observer:") and known["state"] == "ALIVE"),
                "epoch": reply.get("epoch") if isinstance(reply, dict) else None,
            }
        return told

    def _stored(self, known: Card) -> dict[str, Any]:
        now_s = SystemClock().now().wall_s
        if _is_here(known):
            return status.read_url(known.storage, now_s)
        # A SQLite folder of another node: read it there.
        there = NodeAffinitySchedulingStrategy(str(known.node), soft=False)
        reader: Any = ray.remote(status.read_url)
        reply: dict[str, Any] = ray.get(
            reader.options(num_cpus=0, scheduling_strategy=there).remote(known.storage, now_s), timeout=_STATUS_S
        )
        return reply

    def _reload_actors(self) -> dict[str, Any]:
        asked: dict[str, Any] = {}
        for name in deployment.names(self.namespace):
            handle = deployment.find(name, self.namespace)
            if handle is not None and not name.startswith("observer:") and hasattr(handle, "reload"):
                asked[name] = handle.reload.remote()
        ready, _ = ray.wait(list(asked.values()), num_returns=len(asked), timeout=_RELOAD_S) if asked else ([], [])
        reloaded, problems = [], {}
        for name, reference in asked.items():
            try:
                if reference in ready:
                    ray.get(reference)
                    reloaded.append(name)
                else:
                    problems[name] = f"no reply within {_RELOAD_S:g} s"
            except Exception as error:  # noqa: BLE001 one that refuses must not hide what the others did
                problems[name] = str(error).strip().splitlines()[-1]
        return {"reloaded": reloaded, "problems": problems}


def start(source: Source | None = None, *, address: str | None = None, namespace: str | None = None) -> System:
    """Start a system, or attach to the one that runs.

    `source` is a YAML file or the same as a mapping; nothing means: whatever runs, else what the store was told last, else
    the defaults. Uses the Ray that this process is connected to, else `address` or RAY_ADDRESS, else a private local one.

    Raises ValueError (configuration, address), StoreError (storage), ConflictError (another build or configuration runs
    there, or the names are taken). Whatever is raised, nothing is left half started.
    """
    settings = None if source is None else config.load(source)
    chosen = namespace or (settings.namespace if settings is not None else DEFAULT_NAMESPACE)
    private = connection.attach(address, otherwise="private", dashboard=settings is not None and config.needs_jobs(settings))
    try:
        # After the connection: whether a relative path means something depends on how many nodes there are.
        _start(chosen, settings, None if source is None or settings is None else _storage(settings, source))
    except BaseException:
        if private:
            ray.shutdown()
        raise
    return System(chosen)


def connect(
    *,
    address: str | None = None,
    namespace: str = DEFAULT_NAMESPACE,
    on_full: Literal["drop", "wait"] = "drop",
    buffer_bytes: int = BUFFER_BYTES,
) -> System:
    """Join a system from any process on its cluster. Never starts one, nor a Ray.

    A job may come before its system: what it logs is kept meanwhile (bounded), other calls raise NoSystemError. A full
    buffer drops and counts, or waits (`on_full="wait"`). ConnectionError where there is no Ray at all.
    """
    if on_full not in {"drop", "wait"}:
        raise ValueError(f"on_full must be 'drop' or 'wait', got {on_full!r}")
    if isinstance(buffer_bytes, bool) or not isinstance(buffer_bytes, int) or buffer_bytes < 1:
        raise ValueError(f"buffer_bytes must be a number of bytes, 1 or more, got {buffer_bytes!r}")
    connection.attach(address, otherwise="look")
    known = card.read(namespace)
    if known is None:
        logger.warning("%s; what is logged until then is kept", deployment.no_system(namespace))
    elif known.build != BUILD:
        # Not refused: a job rides through an upgrade of the system, and the wire says what both sides can rely on.
        logger.warning(deployment.other_build(known.build, f"the system in namespace {namespace!r}"))
    return System(namespace, on_full=on_full, buffer_bytes=buffer_bytes)


def _start(namespace: str, settings: config.Settings | None, storage: str | None) -> None:
    known = _after_a_stop(namespace)
    if known is not None and known.node is not None and known.node not in connection.alive_nodes():
        # The node that held the store is gone. Whoever starts here says that the store is here now.
        _stop(namespace)
        known = None
    if known is None:
        deployment.refuse_foreigners(namespace)
        mine = _new_card(settings, storage)
        known = card.claim(namespace, mine)
        if known.token == mine.token:
            try:
                _take(namespace, known)
                _bring_up(namespace, known)
            except BaseException:
                logger.warning("the start did not succeed: what was started is ended again")
                _stop(namespace)
                raise
            return
    _refuse_difference(namespace, known, settings, storage)
    _bring_up(namespace, known)


def _new_card(settings: config.Settings | None, storage: str | None) -> Card:
    """Open the store and decide the configuration; nothing is changed yet."""
    url = storage or _resolved(config.Settings().storage, Path.cwd())
    with contextlib.closing(Store(url)) as store:
        _refuse_unreachable(url)
        if settings is None:
            settings = load_stored(store)
    node = ray.get_runtime_context().get_node_id() if is_local(url) else None
    return Card(build=BUILD, storage=url, node=node, document=config.document(settings), token=uuid.uuid4().hex)


@dataclass(frozen=True, slots=True)
class Holder:
    """Who took the store last: one start of a system, by its card's token, and where it was."""

    token: str
    address: str
    namespace: str


def _take(namespace: str, mine: Card) -> None:
    """Note in the store who holds it, and what it was told. ConflictError while the holder before runs, on whatever cluster.

    Without this, two systems on one store (a second Ray on the same laptop is enough) would end each other's actors for ever:
    each restart raises the epoch, which makes the other's process stale.
    """
    holder = Holder(mine.token, ray.get_runtime_context().gcs_address, namespace)
    notes = schema.notes
    wanted = select(notes.c.value).where(notes.c.name == "holder")
    with contextlib.closing(Store(mine.storage)) as store:
        part = store.part(SYSTEM)
        with part.read() as connected:
            before = connected.execute(wanted).scalar()
        if before is not None:
            _refuse_held(Holder(**json.loads(before)), redacted(mine.storage))
        with part.write() as connected:
            if connected.execute(wanted).scalar() != before:
                raise ConflictError(f"storage {redacted(mine.storage)} was taken by another start this moment: try again")
            row = {"name": "holder", "value": json.dumps(asdict(holder)).encode()}
            connected.execute(schema.upsert(connected, notes, "value").values(**row))
        store_settings(store, _running_settings(mine), SystemClock().now().wall_s)


def _refuse_held(holder: Holder, storage: str) -> None:
    if holder.address == ray.get_runtime_context().gcs_address:
        known = card.read(holder.namespace)
    elif connection.listens(holder.address):
        known = card.elsewhere(holder.address, holder.namespace)
    else:
        known = None
    if known is not None and known.token == holder.token:
        raise ConflictError(
            f"storage {storage} is in use by the system in namespace {holder.namespace!r} on the Ray at {holder.address}: "
            "connect to that one (actors.connect(), --address), stop it, or name another storage"
        )


def _bring_up(namespace: str, known: Card) -> None:
    """Make what is missing and wait until all have answered."""
    handles = {name: deployment.spawn(name, namespace=namespace, storage=known.storage) for name in deployment.CORE}
    deadline = time.monotonic() + _START_S
    waiting = dict(handles)
    while waiting:
        for name, reply in deployment.hello(waiting, 2.0).items():
            if isinstance(reply, dict):
                deployment.refuse_build(str(reply.get("build")), f"the actor {name!r} in namespace {namespace!r}")
                del waiting[name]
            elif isinstance(reply, RayActorError) and deployment.record(waiting[name])["state"] == "DEAD":
                raise RuntimeError(_could_not_start(name, reply))
            elif isinstance(reply, AttributeError):
                raise ConflictError(f"the name {name!r} is taken by an actor that is none of ours: {reply}")
        if waiting and time.monotonic() > deadline:
            raise TimeoutError(f"no answer within {_START_S:g} s from: {', '.join(waiting)}")


def _could_not_start(name: str, error: Exception) -> str:
    return (
        f"{name} could not be made: {error}\nIf an import failed: install visutility on every node, or ship it by "
        "py_modules; and a package `actors` in the job's own working directory shadows ours"
    )


def _refuse_difference(namespace: str, known: Card, settings: config.Settings | None, storage: str | None) -> None:
    deployment.refuse_build(known.build, f"the system in namespace {namespace!r}")
    if settings is None:
        return
    lines = config.differences(_running_settings(known), _without_storage(settings))
    if storage is not None and storage != known.storage:
        lines.insert(0, f"storage: {redacted(known.storage)} -> {redacted(storage)}")
    if lines:
        listed = "\n  ".join(lines)
        raise ConflictError(
            f"the system in namespace {namespace!r} runs another configuration; running -> given:\n  {listed}\n"
            "Use `visutility reload` (System.reload) to change it, or start under another namespace"
        )


def _after_a_stop(namespace: str) -> Card | None:
    """Give the card, once a stop that is under way has ended; one that broke off is carried out here."""
    deadline = time.monotonic() + 5.0
    while (known := card.read(namespace)) is not None and known.state == "stopping":
        if time.monotonic() > deadline:
            _stop(namespace)
            return None
        time.sleep(0.1)
    return known


def _stop(namespace: str) -> None:
    known = card.read(namespace)
    if known is None:
        return
    card.replace(namespace, replace(known, state="stopping"))
    deployment.end_actors(namespace)
    card.remove(namespace)


def _storage(settings: config.Settings, source: Source) -> str | None:
    """Give the storage that the settings name, made absolute; None where they name none."""
    if "storage" not in settings.model_fields_set:
        return None
    folder = Path.cwd() if isinstance(source, Mapping) else Path(source).absolute().parent
    return _resolved(config.expand(settings.storage, os.environ), folder)


def _resolved(storage: str, folder: Path) -> str:
    """Make a relative path absolute where that means something. StoreError on several nodes and in a job's own folder."""
    if not config.is_relative(storage):
        return storage
    nodes = len(connection.alive_nodes()) if ray.is_initialized() else 1
    if nodes > 1 or connection.in_job_folder(folder):
        where = f"a cluster of {nodes} nodes" if nodes > 1 else "a job, whose working directory is temporary"
        raise StoreError(
            f"storage must be postgresql://... or an absolute path (sqlite:////var/lib/visutility) on {where}, got {storage!r}"
        )
    return config.anchored(storage, folder)


def _refuse_unreachable(url: str) -> None:
    """Let every other node open a PostgreSQL store, before anything is started that could not."""
    here = ray.get_runtime_context().get_node_id()
    others = [node for node in connection.alive_nodes() if node != here]
    if is_local(url) or not others:
        return
    probe: Any = ray.remote(_open_once)
    asked = {
        node: probe.options(
            num_cpus=0, max_retries=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)
        ).remote(url)
        for node in others
    }
    for node, reference in asked.items():
        try:
            problem = ray.get(reference, timeout=30.0)
        except Exception as error:  # noqa: BLE001 whatever keeps the node from opening it
            problem = str(error).strip().splitlines()[-1]
        if problem is not None:
            raise StoreError(f"storage {redacted(url)} cannot be reached from node {node[:8]}: {problem}")


def _open_once(url: str) -> str | None:
    try:
        Store(url).close()
    except Exception as error:  # noqa: BLE001 told to whoever asked; our own exceptions do not survive the way
        return str(error)
    return None


def _is_here(known: Card) -> bool:
    return known.node is None or known.node == ray.get_runtime_context().get_node_id()


def _store_settings(known: Card, settings: config.Settings) -> int:
    if _is_here(known):
        return _keep(known.storage, config.document(settings))
    there = NodeAffinitySchedulingStrategy(str(known.node), soft=False)
    keeper: Any = ray.remote(_keep)
    reference = keeper.options(num_cpus=0, scheduling_strategy=there).remote(known.storage, config.document(settings))
    return int(ray.get(reference, timeout=30.0))


def _keep(url: str, document: str) -> int:
    store = Store(url)
    with contextlib.closing(store):
        settings = config.parse(json.loads(document), "configuration")
        return store_settings(store, settings, SystemClock().now().wall_s)


def _running_settings(known: Card) -> config.Settings:
    return config.parse(json.loads(known.document), "running configuration")


def _without_storage(settings: config.Settings) -> config.Settings:
    """Give what the store keeps of it: neither storage nor namespace."""
    return config.parse(json.loads(config.document(settings)), "configuration")


def _revived(namespace: str, on_full: Literal["drop", "wait"], buffer_bytes: int) -> System:
    return System(namespace, on_full=on_full, buffer_bytes=buffer_bytes)
