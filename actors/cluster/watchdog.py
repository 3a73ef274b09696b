"""Decides when an actor that does not answer is replaced; the loop that pings and acts follows below.

Ray restarts an actor whose process died. It does not notice a process that is frozen (stopped, stuck in the kernel, out of
memory on a swapping host): there an outside ping and a kill are needed. An actor that has ended for good is created again.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, Protocol

import ray
from ray.actor import ActorHandle
from ray.exceptions import GetTimeoutError, RayError

from actors.cluster import deployment
from actors.replies import Hello

logger = logging.getLogger(__name__)

Heard = Literal["answered", "busy", "silent", "restarting", "gone"]
Decision = Literal["leave", "replace", "spawn", "tell"]

# Three pings at two seconds: a frozen actor is replaced within 6 to 8 s, and a loaded one gets time to answer.
PERIOD_S: Final = 2.0
MISSES: Final = 3
# A process that works but does not answer (a batch that takes long, a loaded machine) is given so many pings: a minute.
BUSY_MISSES: Final = 30
# Of a core, between two pings: a process that works uses more, one that is frozen or whose loop is stuck hardly any.
_WORKS: Final = 0.1
# The list of actors is read again after so many rounds, and before anything is done about an actor that is gone: every two
# seconds it was a transaction of a system that has nothing to do.
_ROUNDS_A_LIST: Final = 5
# A kill takes time (Ray asks a process to exit, and ends it 5 s later), and so does the new process.
AFTER_S: Final = 20.0


class Watchdog:
    """Replaces an actor after `misses` silent pings in a row, and not again before the replacement had time to answer.

    A process that is seen to work while it does not answer is busy, not frozen: killing it would only make it begin again. It
    gets `busy_misses` pings.
    """

    def __init__(self, *, misses: int = MISSES, busy_misses: int = BUSY_MISSES, after_s: float = AFTER_S) -> None:
        self._allowed = misses
        self._allowed_busy = busy_misses
        self._after_s = after_s
        self._misses: dict[str, int] = {}  # pings in a row without an answer
        self._silent: dict[str, int] = {}  # of these, the last ones during which the process did not work either
        self._replaced_at_s: dict[str, float] = {}
        self._processes: dict[str, str] = {}  # that answered last

    def decide(self, name: str, heard: Heard, now_s: float, process: str | None = None) -> Decision:
        """Record the outcome of one ping at `now_s` (a clock that only runs forward), and return what to do.

        `process` is the one that answered. Another than before, which was neither replaced nor spawned here, is what Ray has
        started after a crash: `tell`.
        """
        self._misses[name] = self._misses.get(name, 0) + 1 if heard in {"silent", "busy"} else 0
        self._silent[name] = self._silent.get(name, 0) + 1 if heard == "silent" else 0
        if heard == "gone":
            self._processes.pop(name, None)
            return "spawn"
        if process is not None:
            before = self._processes.get(name, process)
            self._processes[name] = process
            return "leave" if before == process else "tell"
        is_frozen = self._silent[name] >= self._allowed or self._misses[name] >= self._allowed_busy
        if not is_frozen or now_s - self._replaced_at_s.get(name, -math.inf) < self._after_s:
            return "leave"
        self._misses[name] = self._silent[name] = 0
        self._replaced_at_s[name] = now_s
        self._processes.pop(name, None)
        return "replace"

    def forget(self, names: Iterable[str]) -> None:
        """Forget actors that are no longer watched."""
        for name in list(names):
            self._misses.pop(name, None)
            self._silent.pop(name, None)
            self._replaced_at_s.pop(name, None)
            self._processes.pop(name, None)

    @property
    def watched(self) -> frozenset[str]:
        """The names that have been pinged."""
        return frozenset(self._misses)


class Ping(NamedTuple):
    """The outcome of one ping, and the process that answered, as `node:pid`."""

    heard: Heard
    process: str | None = None


class Hands(Protocol):
    """The actions of the loop on actors; a unit test passes its own."""

    async def ping(self, name: str, timeout_s: float) -> Ping:
        """Ping `name`."""

    async def replace(self, name: str) -> None:
        """Kill the process of `name`; Ray starts another."""

    async def spawn(self, name: str, slot: int | None) -> None:
        """Create `name` again."""


async def watch(
    expected: Callable[[], dict[str, int | None]],
    *,
    namespace: str,
    storage: str,
    now_s: Callable[[], float],
    hands: Hands | None = None,
    tell: Callable[[str, str], None] = lambda _name, _why: None,
    period_s: float = PERIOD_S,
) -> None:
    """Watch the actors that `expected()` names (with their slots) until cancelled; run in the watcher's event loop.

    `expected` is called in a thread, so it may read the store: every few rounds, and whenever an actor is gone, which may have
    been ended on purpose. `tell` is called in a thread with the name of an actor that is down, and why. `now_s` only runs
    forward (`Clock.now().boot_s`).
    """
    watchdog = Watchdog()
    hands = hands or RayHands(namespace, storage)
    await asyncio.sleep(period_s)  # a start creates one actor after the other: none is missing yet
    rounds = 0
    names: dict[str, int | None] = {}
    while True:
        try:
            if rounds % _ROUNDS_A_LIST == 0:
                names = await asyncio.to_thread(expected)
            rounds += 1
            await _round(watchdog, hands, names, expected, tell=tell, now_s=now_s, period_s=period_s)
        except Exception:
            rounds = 0
            logger.exception("a round of the watch failed; the next one is in %.0f s", period_s)
            await asyncio.sleep(period_s)


async def _round(
    watchdog: Watchdog,
    hands: Hands,
    names: dict[str, int | None],
    expected: Callable[[], dict[str, int | None]],
    *,
    tell: Callable[[str, str], None],
    now_s: Callable[[], float],
    period_s: float,
) -> None:
    watchdog.forget(watchdog.watched - names.keys())
    rest = asyncio.create_task(asyncio.sleep(period_s))
    heard = dict(zip(names, await asyncio.gather(*(hands.ping(name, period_s) for name in names)), strict=True))
    if any(ping.heard == "gone" for ping in heard.values()):
        wanted = await asyncio.to_thread(expected)
        heard = {name: ping for name, ping in heard.items() if name in wanted}
    for name, ping in heard.items():
        match watchdog.decide(name, ping.heard, now_s(), ping.process):
            case "replace":
                logger.warning("%s has not answered %d pings in a row: replacing it", name, MISSES)
                await hands.replace(name)
                await asyncio.to_thread(tell, name, "it did not answer and was replaced")
            case "spawn":
                logger.warning("%s has ended: creating it again", name)
                await hands.spawn(name, names[name])
                await asyncio.to_thread(tell, name, "it was gone and was made again")
            case "tell":
                logger.warning("%s has crashed, and Ray has restarted it", name)
                await asyncio.to_thread(tell, name, "its process ended and was restarted by Ray")
            case "leave":
                pass
    await rest


class RayHands:
    """The actions of the loop on the actors of a real system."""

    def __init__(self, namespace: str, storage: str) -> None:
        self._namespace = namespace
        self._storage = storage
        self._handles: dict[str, ActorHandle[Any]] = {}
        self._used: dict[str, tuple[int, float]] = {}  # pid and processor time of those that did not answer last

    async def ping(self, name: str, timeout_s: float) -> Ping:
        """Call `hello`. Without a reply, the cluster's record distinguishes a frozen process from one that is being created."""
        handle = self._handles.get(name) or await asyncio.to_thread(deployment.find, name, self._namespace)
        if handle is None:
            return Ping("gone")
        self._handles[name] = handle
        try:
            reply: Hello = await asyncio.wait_for(handle.hello.remote(), timeout_s)
        except (TimeoutError, GetTimeoutError, RayError):
            # Ray reports a frozen process as unavailable too, in the end (measured: 17 s), so the error alone proves nothing.
            known = await asyncio.to_thread(deployment.record, handle)
            match known["state"]:
                case "ALIVE":
                    here = known["node"] == ray.get_runtime_context().get_node_id()
                    return Ping("busy" if here and self._works(name, known["pid"], timeout_s) else "silent")
                case "DEAD":
                    self._handles.pop(name, None)
                    return Ping("gone")
                case _:
                    return Ping("restarting")
        return Ping("answered", f"{reply['node']}:{reply['pid']}")

    def _works(self, name: str, pid: int, period_s: float) -> bool:
        """Return whether a process of this machine has used a processor since it was last looked at."""
        before, used_s = self._used.get(name), processor_s(pid)
        if used_s is None:
            self._used.pop(name, None)
            return False
        self._used[name] = (pid, used_s)
        return before is not None and before[0] == pid and used_s - before[1] >= _WORKS * period_s

    async def replace(self, name: str) -> None:
        """Kill without ending: Ray restarts it on a node of its choice."""
        await asyncio.to_thread(deployment.kill, self._handles[name], restart=True)

    async def spawn(self, name: str, slot: int | None) -> None:
        """Create it again, unless the system is being stopped."""
        await asyncio.to_thread(deployment.spawn_if_wanted, name, namespace=self._namespace, storage=self._storage, slot=slot)


def processor_s(pid: int) -> float | None:
    """Return the processor time that a process of this machine has used; None where there is none, or where it is stopped."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "TtZX" else (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
