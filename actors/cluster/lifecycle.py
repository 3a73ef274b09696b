"""How a system comes to run and ends: who holds the store, the card that says so, the actors that are made and ended."""

from __future__ import annotations

import contextlib
import json
import logging
import time
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Final

import ray
from ray.exceptions import RayActorError
from sqlalchemy import select

from actors import config
from actors.checks import redacted
from actors.clock import SystemClock
from actors.cluster import card, connection, deployment, places
from actors.cluster.build import BUILD
from actors.cluster.card import Card
from actors.config.stored import load_stored, store_settings
from actors.errors import ConflictError
from actors.storage import PartKind, Store, is_local, schema

logger = logging.getLogger(__name__)

# An actor imports its packages before it can answer; a loaded laptop takes its time.
_START_S: Final = 90.0
_STOPPING_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Holder:
    """Who took the store last: one start of a system, by its card's token, and where it was."""

    token: str
    address: str
    namespace: str


def start(namespace: str, settings: config.Settings | None, storage: str | None, kinds: Sequence[PartKind]) -> None:
    """Start the system in `namespace`, or attach to the one that runs there.

    Args:
        namespace: Of Ray, where the actors live.
        settings: None means whatever runs, else what the store was told last, else the defaults.
        storage: Where the store is to be, absolute; None where nothing names it.
        kinds: The parts of the store that are brought forward where an older build wrote them.

    Raises:
        ConflictError: Another build or configuration runs there, the names are taken, or the store is held by another system.
        StoreError: The store cannot be opened from every node.
    """
    known = _after_a_stop(namespace)
    if known is not None and known.node is not None and known.node not in connection.alive_nodes():
        # The node that held the store is gone. A start on this node means that the store is here now.
        stop(namespace)
        known = None
    if known is None:
        deployment.refuse_foreigners(namespace)
        mine = _new_card(namespace, settings, storage or places.usual(), kinds)
        known = card.claim(namespace, mine)
        if known.token == mine.token:
            try:
                _take(namespace, known)
                _bring_up(namespace, known)
            except BaseException:
                logger.warning("the start failed: ending what it had started")
                stop(namespace)
                raise
            return
    _refuse_difference(namespace, known, settings, storage)
    _bring_up(namespace, known)


def stop(namespace: str) -> None:
    """End every actor of the system; nothing where none runs."""
    known = card.read(namespace)
    if known is None:
        return
    card.replace(namespace, replace(known, state="stopping"))
    deployment.end_actors(namespace)
    card.remove(namespace)


def running_settings(known: Card) -> config.Settings:
    """Return the configuration that the system of a card runs."""
    return config.parse(json.loads(known.document), "running configuration")


def complete(namespace: str) -> None:
    """Make the actors that a changed configuration needs and that are not there; without waiting for them."""
    known = card.read(namespace)
    if known is not None:
        for name in deployment.needed(running_settings(known)):
            deployment.spawn(name, namespace=namespace, storage=known.storage)


def without_storage(settings: config.Settings) -> config.Settings:
    """Return what the store keeps of a configuration: neither storage nor namespace."""
    return config.parse(json.loads(config.document(settings)), "configuration")


def _new_card(namespace: str, settings: config.Settings | None, url: str, kinds: Sequence[PartKind]) -> Card:
    """Open the store, bring it forward if nobody uses it, and decide the configuration."""
    with contextlib.closing(Store(url)) as store:
        if store.is_new:
            logger.warning("storage %s is new", redacted(url))
        places.refuse_unreachable(url)
        _refuse_held(_holder(store), redacted(url), namespace)
        migrated = store.migrate(kinds)
        if migrated:
            logger.warning("storage %s was migrated: %s", redacted(url), ", ".join(migrated))
        if settings is None:
            settings = load_stored(store)
        node = ray.get_runtime_context().get_node_id() if is_local(url) else None
        return Card(
            build=BUILD,
            storage=url,
            node=node,
            document=config.document(settings),
            token=uuid.uuid4().hex,
            store_id=store.store_id,
        )


def _take(namespace: str, mine: Card) -> None:
    """Note in the store who holds it, and what it was told. ConflictError while the holder before runs, on whatever cluster.

    Without this, two systems on one store (a second Ray on the same laptop is enough) would end each other's actors for ever:
    each restart raises the epoch, which makes the other's process stale.
    """
    holder = Holder(mine.token, ray.get_runtime_context().gcs_address, namespace)
    notes = schema.notes
    with contextlib.closing(Store(mine.storage, makes=False)) as store:
        before = _holder(store)
        _refuse_held(before, redacted(mine.storage), namespace)
        with store.part(schema.SYSTEM).write() as connected:
            found = connected.execute(select(notes.c.value).where(notes.c.name == "holder")).scalar()
            if found != before:
                raise ConflictError(f"storage {redacted(mine.storage)} was just taken by another start: try again")
            row = {"name": "holder", "value": json.dumps(asdict(holder)).encode()}
            connected.execute(schema.upsert(connected, notes, "value").values(**row))
        store_settings(store, running_settings(mine), SystemClock().now().wall_s)


def _holder(store: Store) -> bytes | None:
    notes = schema.notes
    with store.system.read() as connected:
        found = connected.execute(select(notes.c.value).where(notes.c.name == "holder")).scalar()
    return None if found is None else bytes(found)


def _refuse_held(noted: bytes | None, storage: str, namespace: str) -> None:
    """Raise ConflictError where another system holds the store. One in `namespace` is ours: the claim of its card decides."""
    if noted is None:
        return
    holder = Holder(**json.loads(noted))
    if holder.address == ray.get_runtime_context().gcs_address:
        if holder.namespace == namespace:
            return
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
    settings = running_settings(known)
    names = deployment.needed(settings)
    if places.is_here(known) and is_local(known.storage):  # then actors are made on this node
        for name in set(names) - set(deployment.names(namespace)):
            deployment.check(name, settings)
    handles = {name: deployment.spawn(name, namespace=namespace, storage=known.storage) for name in names}
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
                raise ConflictError(f"the name {name!r} is taken by an actor that is not part of the system: {reply}")
        if waiting and time.monotonic() > deadline:
            raise TimeoutError(f"no answer within {_START_S:g} s from: {', '.join(waiting)}")


def _could_not_start(name: str, error: Exception) -> str:
    return (
        f"{name} could not be created: {error}\nIf an import failed: install visutility on every node, or ship it by "
        "py_modules; and a package `actors` in the job's own working directory shadows ours"
    )


def _refuse_difference(namespace: str, known: Card, settings: config.Settings | None, storage: str | None) -> None:
    deployment.refuse_build(known.build, f"the system in namespace {namespace!r}")
    if settings is None:
        return
    lines = config.differences(running_settings(known), without_storage(settings))
    if storage is not None and storage != known.storage:
        lines.insert(0, f"storage: {redacted(known.storage)} -> {redacted(storage)}")
    if lines:
        listed = "\n  ".join(lines)
        raise ConflictError(
            f"the system in namespace {namespace!r} runs another configuration; running -> given:\n  {listed}\n"
            "Use `visutility reload` (System.reload) to change it, or start under another namespace"
        )


def _after_a_stop(namespace: str) -> Card | None:
    """Return the card, once a stop that is under way has ended; one that broke off is carried out here."""
    deadline = time.monotonic() + _STOPPING_S
    while (known := card.read(namespace)) is not None and known.state == "stopping":
        if time.monotonic() > deadline:
            stop(namespace)
            return None
        time.sleep(0.1)
    return known
