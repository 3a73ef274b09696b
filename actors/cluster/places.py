"""Where the store of a system lies: which URL a configuration means, and on which node it can be opened."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from actors import config
from actors.checks import redacted
from actors.cluster import connection
from actors.cluster.card import Card
from actors.storage import Store, StoreError, is_local

Source = str | Path | Mapping[str, Any]
Result = TypeVar("Result")

_REACHED_S = 30.0


def named(settings: config.Settings, source: Source) -> str | None:
    """Return the storage that the settings name, made absolute; None where they name none."""
    if "storage" not in settings.model_fields_set:
        return None
    folder = Path.cwd() if isinstance(source, Mapping) else Path(source).absolute().parent
    return absolute(config.expand(settings.storage, os.environ), folder)


def usual() -> str:
    """Return the storage that is meant where none is named, relative to the working directory."""
    return absolute(config.Settings().storage, Path.cwd())


def absolute(storage: str, folder: Path) -> str:
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


def is_here(known: Card) -> bool:
    """Return whether the store of a system can be opened on this node."""
    return known.node is None or known.node == ray.get_runtime_context().get_node_id()


def on_its_node(known: Card, act: Callable[..., Result], *arguments: object, timeout_s: float) -> Result:
    """Call `act` where the system's store can be opened: here, or as a task on the node of a SQLite store."""
    if is_here(known):
        return act(*arguments)
    there = NodeAffinitySchedulingStrategy(str(known.node), soft=False)
    task: Any = ray.remote(act)
    result: Result = ray.get(task.options(num_cpus=0, scheduling_strategy=there).remote(*arguments), timeout=timeout_s)
    return result


def refuse_unreachable(url: str) -> None:
    """Let every other node open a PostgreSQL store, before anything is started that could not. StoreError names the node."""
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
            problem = ray.get(reference, timeout=_REACHED_S)
        except Exception as error:  # noqa: BLE001 whatever keeps the node from opening it
            problem = str(error).strip().splitlines()[-1]
        if problem is not None:
            raise StoreError(f"storage {redacted(url)} cannot be reached from node {node[:8]}: {problem}")


def _open_once(url: str) -> str | None:
    try:
        Store(url, makes=False).close()
    except Exception as error:  # noqa: BLE001 reported to the caller; our own exceptions do not survive the trip
        return str(error)
    return None
