"""The client of a running system, and the functions that start, join, change and stop one."""

from __future__ import annotations

import contextlib
import functools
import json
import logging
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, Self, cast

import ray
from ray import ObjectRef

from actors import config, people, status
from actors.clock import SystemClock
from actors.cluster import card, connection, deployment, lifecycle, places
from actors.cluster.build import BUILD
from actors.cluster.card import Card
from actors.cluster.peers import BlockingPeers, PeerUnavailableError
from actors.cluster.places import Source
from actors.config.stored import store_settings
from actors.detection.tables import DETECTOR
from actors.errors import ConflictError
from actors.replies import ActorStatus, EpisodeJudged, Reload, Status, StoredStatus
from actors.retraining.tables import DISPATCHER
from actors.storage import Store, redacted
from actors.storage.notify import NOTIFY
from actors.storage.sources import SOURCES
from actors.tuning.tables import TUNER

if TYPE_CHECKING:
    from actors.events import MetricObserver
    from actors.metrics.client import Metrics
    from actors.metrics.versions import Versions
    from actors.retraining.client import Retrains
    from actors.tuning.client import Tuning

logger = logging.getLogger(__name__)

DEFAULT_NAMESPACE: Final = "visutility"
BUFFER_BYTES: Final = 64 * 2**20

# `status` promises an answer within 2 s: it queries the store and the actors at the same time, each within this time.
_STATUS_S: Final = 1.4
_WARM_S: Final = 1.0
_RELOAD_S: Final = 10.0
_KEPT_S: Final = 30.0
_EPISODE_S: Final = 20.0


class System:
    """A system in one namespace of the Ray cluster that this process is connected to.

    It holds no actor: every call finds its actor by name, so a System survives restarts, upgrades, pickling and fork. As a
    context manager it flushes logged events when the block ends.
    """

    def __init__(
        self,
        namespace: str = DEFAULT_NAMESPACE,
        *,
        on_full: Literal["drop", "wait"] = "drop",
        buffer_bytes: int = BUFFER_BYTES,
    ) -> None:
        """Use `start` or `connect` instead."""
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
        """The metrics client: `log`, `log_batch`, `promise`, `baseline`, `flush`."""
        from actors.metrics.client import Metrics  # each part is imported by those who use it

        return Metrics(self.namespace, on_full=self._on_full, buffer_bytes=self._buffer_bytes)

    @functools.cached_property
    def retrains(self) -> Retrains:
        """Retrain orders: `stream`, `trigger`, `silence`, `history`, ..."""
        from actors.retraining.client import Retrains  # as above

        return Retrains(BlockingPeers(self.namespace))

    @functools.cached_property
    def versions(self) -> Versions:
        """The versions of models: `history`, `promote`, `rollback`."""
        from actors.metrics.versions import Versions  # as above

        return Versions(BlockingPeers(self.namespace))

    @functools.cached_property
    def tuner(self) -> Tuning:
        """Hyper-parameter studies: `run`, ..."""
        from actors.tuning.client import Tuning  # as above

        return Tuning(self.namespace)

    def register(self, observer: MetricObserver, *, name: str) -> None:
        """Pass every accepted event to `observer.on_event`, in a separate actor, while this process lives.

        Put permanent observers into the configuration.

        Raises:
            TypeError: `observer` has no method `on_event`.

        Example:
            system.register(Pager(), name="pager")
        """
        from actors.metrics import observer_host as observers  # as above

        observers.register(self.namespace, observer, name=name)

    def unregister(self, *, name: str) -> None:
        """Remove the observer `name`.

        Example:
            system.unregister(name="pager")
        """
        from actors.metrics import observer_host as observers  # as above

        observers.unregister(self.namespace, name=name)

    def status(self) -> Status:
        """Return the state of the system as a plain dict, within 2 s even if processes are dead or frozen.

        Counts come from the store. `actors` has `alive`, `pid`, `node` and `epoch` of each process; one that does not answer
        is not alive. If the store does not answer in time, `store_problem` has the reason and the counts are missing.

        Example:
            system.status()["models"]["fraud"]["state"]
        """
        known = self._card()
        stored = status.Pending(functools.partial(self._stored, known))
        actors = self._actors()
        try:
            counts: StoredStatus | Exception = stored.answer(_STATUS_S)
        except Exception as error:  # noqa: BLE001 whatever the store does, the rest of the status is returned
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
        """Return the configuration that the system runs.

        Example:
            system.settings().for_model("fraud").cooldown_s
        """
        return lifecycle.running_settings(self._card())

    def reload(self, source: Source) -> Reload:
        """Apply a changed configuration and keep all state.

        An actor that does not answer now reads the configuration when it restarts.

        Args:
            source: a YAML file, or the same as a mapping.

        Returns:
            The `version` of the stored configuration, its `changes`, the actors that have `reloaded` it, and `problems`.

        Raises:
            ValueError: the configuration is wrong.
            ConflictError: it names another storage, which takes `stop` and `start`.

        Example:
            system.reload("visutility.yaml")["changes"]
        """
        known = self._card()
        settings = config.load(source)
        storage = places.named(settings, source)
        if storage is not None and storage != known.storage:
            raise ConflictError(
                f"storage cannot be changed by a reload: the system keeps its state in {redacted(known.storage)}, "
                f"the configuration names {redacted(storage)}; stop the system, then start it on the other"
            )
        changes = config.differences(lifecycle.running_settings(known), lifecycle.without_storage(settings))
        version = places.on_its_node(known, _keep, known.storage, config.document(settings), timeout_s=_KEPT_S)
        card.replace(self.namespace, replace(known, document=config.document(settings)))
        lifecycle.complete(self.namespace)
        reloaded, problems = self._reload_actors()
        return {"version": version, "changes": changes, "reloaded": reloaded, "problems": problems}

    def acknowledge(self, episode: str, *, by: str | None = None, comment: str | None = None) -> None:
        """Record that a person has seen an episode, which then requests nothing more. KeyError: no such episode.

        Example:
            system.acknowledge(episode, by="ada", comment="the sale")
        """
        self._of_episode("acknowledge", episode, people.given(by=by, comment=comment))

    def verdict(self, episode: str, verdict: str, *, by: str | None = None, comment: str | None = None) -> EpisodeJudged:
        """Record whether a person calls an episode a true or a false alarm; the last verdict counts.

        Args:
            episode: its id, also of one that was closed long ago.
            verdict: "true" or "false".
            by: who says so.
            comment: why.

        Raises:
            KeyError: no such episode.
            ValueError: another verdict.

        Example:
            system.verdict(episode, "false", by="ada", comment="a holiday")
        """
        arguments = {"verdict": people.verdict(verdict), **people.given(by=by, comment=comment)}
        return cast("EpisodeJudged", self._of_episode("judge", episode, arguments))

    def _of_episode(self, method: str, episode: str, arguments: dict[str, str]) -> Any:
        reply = BlockingPeers(self.namespace).call(
            "broadcaster", method, {"episode": episode, **arguments}, timeout_s=_EPISODE_S
        )
        if reply.get("status") == "unavailable":
            raise ConnectionError(f"{method}: {reply['reason']}")
        return reply

    def stop(self) -> None:
        """End every actor of the system. The store keeps everything acknowledged; `start` with it continues."""
        lifecycle.stop(self.namespace)

    def close(self) -> None:
        """Flush logged events and release the client; the system keeps running."""
        metrics = self.__dict__.pop("metrics", None)
        if metrics is not None:
            metrics.close()

    def _card(self) -> Card:
        known = card.read(self.namespace)
        if known is None:
            raise deployment.no_system(self.namespace)
        return known

    def _actors(self) -> dict[str, ActorStatus]:
        names = sorted({*deployment.CORE, *deployment.names(self.namespace)})
        found = {name: handle for name in names if (handle := deployment.find(name, self.namespace)) is not None}
        replies = deployment.hello({name: each for name, each in found.items() if not name.startswith("observer:")}, 1.0)
        told: dict[str, ActorStatus] = {}
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
            if isinstance(reply, dict) and "problem" in reply:
                told[name]["problem"] = reply["problem"]
            if isinstance(reply, dict) and "store_problem" in reply:
                told[name]["store_problem"] = reply["store_problem"]
        return told

    def _stored(self, known: Card) -> StoredStatus:
        if not places.is_here(known):
            # An actor that is up reads it there; a task in a new process takes longer than a status may (measured: 1 to 3 s).
            with contextlib.suppress(PeerUnavailableError, AttributeError):
                arguments = {"store_id": known.store_id}
                told: StoredStatus = BlockingPeers(self.namespace).call("runner", "stored", arguments, timeout_s=_WARM_S)
                return told
        now_s = SystemClock().now().wall_s
        return places.on_its_node(known, status.read_url, known.storage, now_s, known.store_id, timeout_s=_STATUS_S)

    def _reload_actors(self) -> tuple[list[str], dict[str, str]]:
        """Return the actors that have read the new configuration, and the problem of each other one."""
        asked: dict[str, ObjectRef[Any]] = {}
        for name in deployment.names(self.namespace):
            handle = deployment.find(name, self.namespace)
            if handle is not None and not name.startswith("observer:") and hasattr(handle, "reload"):
                asked[name] = handle.reload.remote()
        ready, _ = ray.wait(list(asked.values()), num_returns=len(asked), timeout=_RELOAD_S) if asked else ([], [])
        reloaded: list[str] = []
        problems: dict[str, str] = {}
        for name, reference in asked.items():
            try:
                if reference in ready:
                    ray.get(reference)
                    reloaded.append(name)
                else:
                    problems[name] = f"no reply within {_RELOAD_S:g} s"
            except Exception as error:  # noqa: BLE001 one that refuses must not hide what the others did
                problems[name] = str(error).strip().splitlines()[-1]
        return reloaded, problems


def start(source: Source | None = None, *, address: str | None = None, namespace: str | None = None) -> System:
    """Start a system, or attach to a running one.

    It uses the Ray of this process, else `address` or RAY_ADDRESS, else a private local one. A failed start ends everything
    that it started.

    Args:
        source: the configuration, a YAML file or a mapping. None: that of the running system, else the newest in the store,
            else the defaults.
        address: the Ray cluster, HOST:PORT.
        namespace: the Ray namespace of the system; by default the configuration's.

    Raises:
        ValueError: the configuration or the address is wrong.
        StoreError: the storage cannot be opened.
        ConflictError: another build or configuration runs there, or the names are taken.

    Example:
        system = actors.start("visutility.yaml")
    """
    settings = None if source is None else config.load(source)
    chosen = namespace or (settings.namespace if settings is not None else DEFAULT_NAMESPACE)
    private = connection.attach(address, otherwise="private", dashboard=settings is not None and config.needs_jobs(settings))
    try:
        # After the connection: whether a relative path means something depends on how many nodes there are.
        storage = None if source is None or settings is None else places.named(settings, source)
        lifecycle.start(chosen, settings, storage, (DISPATCHER, TUNER, DETECTOR, SOURCES, NOTIFY))
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
    """Join a system from any process on its cluster. Never starts a system or a Ray.

    A job may start before its system: the client buffers events until then, and other calls raise NoSystemError.

    Args:
        address: the Ray cluster, HOST:PORT; by default RAY_ADDRESS, else the Ray of `visutility up`, else any on this machine.
        namespace: where the system runs.
        on_full: "drop" drops and counts events when the buffer is full, for jobs that must not wait; "wait" lets `log` wait,
            for replays and backfills.
        buffer_bytes: the bound of unacknowledged data.

    Raises:
        ConnectionError: there is no Ray.

    Example:
        actors.connect().metrics.log({"accuracy": 0.93}, model="fraud", version="7")
    """
    if on_full not in {"drop", "wait"}:
        raise ValueError(f"on_full must be 'drop' or 'wait', got {on_full!r}")
    if isinstance(buffer_bytes, bool) or not isinstance(buffer_bytes, int) or buffer_bytes < 1:
        raise ValueError(f"buffer_bytes must be a number of bytes, 1 or more, got {buffer_bytes!r}")
    connection.attach(address, otherwise="look")
    known = card.read(namespace)
    if known is None:
        logger.warning("%s; events logged until then are buffered", deployment.no_system(namespace))
    elif known.build != BUILD:
        # Not refused: a job must survive an upgrade of the system, and both sides use the stable wire format.
        logger.warning(deployment.other_build(known.build, f"the system in namespace {namespace!r}"))
    return System(namespace, on_full=on_full, buffer_bytes=buffer_bytes)


def _keep(url: str, document: str) -> int:
    with contextlib.closing(Store(url, makes=False)) as store:
        settings = config.parse(json.loads(document), "configuration")
        return store_settings(store, settings, SystemClock().now().wall_s)


def _revived(namespace: str, on_full: Literal["drop", "wait"], buffer_bytes: int) -> System:
    return System(namespace, on_full=on_full, buffer_bytes=buffer_bytes)
