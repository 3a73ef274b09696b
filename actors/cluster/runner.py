"""Runner: submits Ray tasks for other actors, which may restart while the tasks run.

A task dies with the process that submitted it, so an actor submits a task here that must survive its own restart. Each
key is launched once. On restart: nothing is kept and nothing needs to be, since the tasks died with their submitter; `state`
then says `unknown`, and a new `instance` tells watchers that everything launched before has ended.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import uuid
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Literal, TypedDict

import ray
from ray.exceptions import RayError, RayTaskError

from actors import failpoints
from actors.clock import Clock, SystemClock
from actors.cluster import actor, launched
from actors.cluster.peers import Peers
from actors.plain import Arguments
from actors.replies import Capacity, Hello, Json, Launched, Reloaded, TasksEnded, TaskState, TaskStatus

logger = logging.getLogger(__name__)

# How many ended tasks are remembered, by key and in order.
_MAX_ENDED: Final = 10_000
_MAX_ERROR: Final = 4000
# By name: they are in a higher layer, and a process that only looks up this actor need not import them.
_SYSTEM: Final = "actors.system:System"
_STORED: Final = "actors.status:read_url"
_STORY: Final = "actors.story:read_url"
_MAX_WAIT_S: Final = 30.0


class TaskOptions(TypedDict, total=False):
    """Ray's options for a task; `resources` are those of one task: `cpu`, `gpu`, `memory_bytes`, custom ones."""

    resources: Mapping[str, float]
    max_retries: int  # 0
    spread: bool
    name: str
    runtime_env: Json


@dataclass(slots=True)
class _Task:
    reference: Any
    state: Literal["running", "done", "failed"] = "running"
    error: str | None = None
    result: Any = None


class Runner:
    """Launches tasks put-if-absent by key, and reports what became of them."""

    def __init__(
        self,
        *,
        name: str,
        namespace: str,
        storage: str,
        slot: int | None = None,  # every actor is made alike
        clock: Clock | None = None,
        peers: Peers | None = None,
    ) -> None:
        self._name = name
        self._namespace = namespace
        self._storage = storage
        self._instance = uuid.uuid4().hex
        self._tasks: dict[str, _Task] = {}
        self._ended: deque[tuple[str, str | None]] = deque(maxlen=_MAX_ENDED)
        self._ended_before = 0  # of all that ended, those that the deque has dropped
        self._news = asyncio.Event()
        self._following: set[asyncio.Task[None]] = set()

    async def hello(self) -> Hello:
        """Return who this actor is."""
        return actor.hello(self._name)

    async def reload(self) -> Reloaded:
        """Do nothing: the runner keeps nothing of the configuration."""
        return {"status": "reloaded"}

    async def status(self) -> Arguments:
        """Return the state of the whole system, as `System.status` does.

        For commands: this process has its packages imported and its store's tables known, which takes each new one 1 s.
        """
        told: Arguments = await asyncio.to_thread(lambda: _named(_SYSTEM)(self._namespace).status())
        return told

    async def stored(self, *, store_id: str) -> Arguments:
        """Return what the store holds, for a process on a node that cannot open it; see `actors.status.read_url`."""
        now_s = SystemClock().now().wall_s
        told: Arguments = await asyncio.to_thread(lambda: _named(_STORED)(self._storage, now_s, store_id))
        return told

    async def story(self, *, about: str, model: str | None = None) -> Arguments:
        """Return the story of an episode, an order or a model, as `actors.story.read` does. KeyError if there is none."""
        told: Arguments = await asyncio.to_thread(lambda: _named(_STORY)(self._storage, about, model))
        return told

    async def launch(self, *, key: str, target: str, kwargs: Mapping[str, Any], options: TaskOptions | None = None) -> Launched:
        """Run `target` (`module:function`) with `kwargs` as a Ray task, unless `key` has been launched already.

        ValueError names an unknown option or a malformed target.
        """
        if key in self._tasks:
            return {"status": "exists", "instance": self._instance}
        module, _, function = target.partition(":")
        if not module or not function:
            raise ValueError(f"target must be module:function, got {target!r}")
        known = TaskOptions.__annotations__
        if unknown := set(options or {}) - set(known):
            raise ValueError(f"options must be among {', '.join(sorted(known))}, got {', '.join(sorted(unknown))}")
        failpoints.reach("runner.before_launch")
        reference = _launchable().options(**_ray_options(options or {})).remote(target, kwargs)
        self._tasks[key] = task = _Task(reference)
        following = asyncio.ensure_future(self._follow(key, task))
        self._following.add(following)
        following.add_done_callback(self._following.discard)
        return {"status": "launched", "instance": self._instance}

    async def state(self, *, key: str) -> TaskState:
        """Return what became of a task: running, done (with its result), failed (with its error) or unknown."""
        task = self._tasks.get(key)
        if task is None:
            return {"state": "unknown", "error": None, "result": None}
        return {"state": task.state, "error": task.error, "result": task.result}

    async def ended(self, *, after: int = 0, wait_s: float = 0.0) -> TasksEnded:
        """Return the tasks that ended since number `after`, waiting up to `wait_s` (at most 30) for one.

        A new `instance` means that all tasks launched before have ended without being listed.
        """
        if self._ended_before + len(self._ended) <= after and wait_s > 0:
            self._news.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), min(wait_s, _MAX_WAIT_S))
        skip = max(after - self._ended_before, 0)
        ended = [list(entry) for entry in self._ended][skip:] if after <= self._ended_before + len(self._ended) else []
        return {"instance": self._instance, "ended": ended, "next": self._ended_before + len(self._ended)}

    async def cancel(self, *, key: str, force: bool = False) -> TaskStatus:
        """Stop a task; with `force` its process is killed."""
        task = self._tasks.get(key)
        if task is None:
            return {"status": "unknown"}
        if task.state == "running":
            await asyncio.to_thread(ray.cancel, task.reference, force=force)
        return {"status": "cancelled"}

    async def forget(self, *, key: str) -> TaskStatus:
        """Forget a task that has ended, so that its key may be launched again."""
        task = self._tasks.get(key)
        if task is not None and task.state != "running":
            del self._tasks[key]
        return {"status": "forgotten" if key not in self._tasks else "running"}

    async def capacity(self, *, resources: Mapping[str, float]) -> Capacity:
        """Return how many tasks that need `resources` the nodes of the cluster could run at once, were they idle."""
        nodes = await asyncio.to_thread(ray.nodes)
        return {"tasks": capacity([node["Resources"] for node in nodes if node["Alive"]], resources)}

    async def _follow(self, key: str, task: _Task) -> None:
        try:
            task.result = await task.reference
            task.state = "done"
        except RayTaskError as error:
            task.state, task.error = "failed", str(error.cause or error)[:_MAX_ERROR]
        except RayError as error:
            task.state, task.error = "failed", f"{type(error).__name__}: {error}"[:_MAX_ERROR]
        except asyncio.CancelledError:
            task.state, task.error = "failed", "cancelled"
        task.reference = None
        if len(self._ended) == _MAX_ENDED:
            oldest, _ = self._ended[0]
            self._tasks.pop(oldest, None)
            self._ended_before += 1
        self._ended.append((key, task.error))
        self._news.set()


def capacity(nodes: Sequence[Mapping[str, float]], resources: Mapping[str, float]) -> int:
    """Return how many tasks of one shape fit on `nodes` (Ray's totals by resource name)."""
    needs = {name: amount for name, amount in _as_ray(resources).items() if amount > 0}
    if not needs:
        return int(sum(node.get("CPU", 0.0) for node in nodes))  # a task that needs nothing still needs a processor
    return sum(min(int(node.get(name, 0.0) / amount + 1e-9) for name, amount in needs.items()) for node in nodes)


def _as_ray(resources: Mapping[str, float]) -> dict[str, float]:
    names = {"cpu": "CPU", "gpu": "GPU", "memory_bytes": "memory"}
    return {"CPU": 1.0} | {names.get(name, name): amount for name, amount in resources.items()}


def _ray_options(options: TaskOptions) -> Arguments:
    needs = _as_ray(options.get("resources") or {})
    asked: Arguments = {
        "num_cpus": needs.pop("CPU"),
        "num_gpus": needs.pop("GPU", 0),
        "max_retries": options.get("max_retries", 0),
        "name": options.get("name", "task"),
    }
    if "memory" in needs:
        asked["memory"] = int(needs.pop("memory"))
    if needs:
        asked["resources"] = needs
    if options.get("spread"):
        asked["scheduling_strategy"] = "SPREAD"
    if options.get("runtime_env"):
        asked["runtime_env"] = options["runtime_env"]
    return asked


def _launchable() -> Any:
    return ray.remote(launched.run)


def _named(target: str) -> Any:
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)
