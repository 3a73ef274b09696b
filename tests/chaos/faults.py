"""The faults, in an order that the seed decides: each is followed by a wait until every model is acknowledged again.

A fault is noted with the moment it struck. Some come in pairs, the second before anybody has recovered from the first.
"""

from __future__ import annotations

import functools
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from actors import failpoints
from actors.cluster import deployment
from tests.chaos import processes
from tests.chaos.crew import Crew
from tests.chaos.machine import Machine
from tests.chaos.zombies import Zombies
from tests.speed import slow

# Every boundary at which a process can end between a commit, a reply and an effect: those that every batch passes,
BOUNDARIES: Final = (
    "broadcaster.before_forward",
    "broadcaster.after_forward",
    "detector.before_commit",
    "fence.held",
    "detector.in_commit",
    "detector.after_commit",
    "detector.before_reply",
)
# and those that only an order passes, which may take a phase or two, or a producer's first batch in a detector's new life.
RARE_BOUNDARIES: Final = (
    "detector.after_attempt",
    "outbox.before_send",
    "outbox.after_send",
    "dispatcher.before_claim",
    "dispatcher.after_claim",
    "dispatcher.before_attempt",
    "dispatcher.after_attempt",
    "dispatcher.before_effect",
    "dispatcher.after_effect",
    "dispatcher.before_done",
    "dispatcher.after_done",
    "dispatcher.before_take",
    "dispatcher.after_take",
    "dispatcher.before_finish",
    "dispatcher.after_finish",
    "runner.before_launch",
)

# What a fault does to the way from a producer to its acknowledgement; the table has a limit for each.
ACTOR, NODE_KILL, FREEZE, OTHER = "actor kill", "node kill", "freeze", "other"
_STRIKES_S: Final = slow(5.0)  # a point that every batch passes
_AMBUSH_S: Final = slow(20.0)
_RECOVERS_S: Final = slow(60.0)
_PAIR_SHARE: Final = 0.15
_NODE_FROZEN_S: Final = (6.0, 10.0)


@dataclass(slots=True)
class Fault:
    """One fault that was injected. `struck_s` is of the monotonic clock; `latency_s` until every model was acknowledged."""

    kind: str
    what: str
    struck_s: float
    latency_s: float | None = None
    crossed: bool = False  # another fault overlapped with it


class Faults:
    """Injects faults into one system."""

    def __init__(self, machine: Machine, namespace: str, points: Path, crew: Crew, *, zombies: Zombies, seed: int) -> None:
        self._machine, self._namespace, self._points = machine, namespace, points
        self._crew, self._zombies = crew, zombies
        self._random = np.random.default_rng([seed, 1])
        self.done: list[Fault] = []
        self._ambushes: list[threading.Thread] = []
        self._calm = threading.Event()
        self.missed: list[str] = []  # boundaries that were armed in vain

    # --- the schedule

    def until(self, end_s: float, *, nodes: bool, cut: Callable[[], None] | None, kills: int = 0) -> None:
        """Inject faults until the monotonic clock reads `end_s` and `kills` actors were killed.

        `cut` makes the database go away and come back.
        """
        rounds = self._rounds(nodes=nodes, cut=cut)
        while time.monotonic() < end_s or counts(self.done).get(ACTOR, 0) < kills:
            pair = self._random.random() < _PAIR_SHARE
            next(rounds)()
            if pair:
                time.sleep(float(self._random.uniform(0.0, 0.5)))
                next(rounds)()
            self.recovered()
            time.sleep(float(self._random.uniform(0.1, 0.8)))

    def _rounds(self, *, nodes: bool, cut: Callable[[], None] | None) -> Iterator[Callable[[], Fault | None]]:
        """Return faults for ever: in each round every boundary once and every other kind in its share, shuffled."""
        points: list[Callable[[], Fault | None]] = [functools.partial(self.at_boundary, point) for point in BOUNDARIES]
        points += [functools.partial(self.ambush, point) for point in RARE_BOUNDARIES]
        kills = [self.kill_actor] * 24
        others: list[Callable[[], Fault | None]] = [
            self.freeze_actor,
            self.kill_worker,
            self.kill_producer,
            self.kill_consumer,
            self._zombies_of_a_detector,
            self._zombie_of_the_dispatcher,
        ]
        others += [self.kill_node] * 5 + [self.freeze_node] * 5 if nodes else [self.freeze_actor, *others[1:4]]
        if cut is not None:
            others += [lambda: self._cut(cut)] * 2
        # The rare and costly ones are spread evenly, whatever the length of the run: the cheap ones fill in between.
        while True:
            cheap = [*points, *kills]
            cheap = [cheap[i] for i in self._random.permutation(len(cheap))]
            rare = [others[i] for i in self._random.permutation(len(others))]
            share = len(cheap) // len(rare)
            for each in rare:
                taken, cheap = cheap[:share], cheap[share:]
                yield from [*taken, each]
            yield from cheap

    def recovered(self) -> None:
        """Wait until every model was acknowledged for a call that began after the last fault; note how long it took."""
        last_s = max((fault.struck_s for fault in self.done), default=0.0)
        self._crew.keep()
        deadline = time.monotonic() + _RECOVERS_S
        while time.monotonic() < deadline:
            if self._crew.acknowledged_since(last_s) is not None:
                return
            self._crew.keep()
            time.sleep(0.05)

    # --- actors and processes

    def actors(self) -> dict[str, deployment.ActorRecord]:
        """Return pid and node of every actor that runs."""
        found = {}
        for name in deployment.names(self._namespace):
            handle = deployment.find(name, self._namespace)
            known = None if handle is None else deployment.record(handle)
            if known and known["state"] == "ALIVE" and processes.title(known["pid"]).startswith("ray::"):
                found[name] = known
        return found

    def kill_actor(self) -> Fault | None:
        """Kill -9 one: the data path's more often than the others."""
        found = self.actors()
        names = sorted(found)
        if not names:
            return None
        weights = np.array([3.0 if name.startswith("detector") or name == "broadcaster" else 1.0 for name in names])
        name = str(self._random.choice(names, p=weights / weights.sum()))
        return self.kill(name, found[name]["pid"])

    def kill(self, name: str, pid: int) -> Fault:
        """Kill -9 this one."""
        struck_s = time.monotonic()
        processes.kill([pid])
        return self._noted(ACTOR, name, struck_s)

    def at_boundary(self, point: str) -> Fault | None:
        """Let the process that reaches this point end there, as by kill -9."""
        struck_s = self.strike(point, "exit")
        if struck_s is None:
            self.missed.append(point)
            return None
        return self._noted(ACTOR, point, struck_s)

    def ambush(self, point: str) -> Fault | None:
        """Arm a point and go on: the process that reaches it ends there, in the middle of other faults."""
        ambush = threading.Thread(target=self._watch, args=(point,), daemon=True)
        ambush.start()
        self._ambushes.append(ambush)
        return None

    def _watch(self, point: str) -> None:
        struck_s = self.strike(point, "exit", within_s=_AMBUSH_S)
        if struck_s is None:
            self.missed.append(point)
        else:
            self._noted(ACTOR, point, struck_s)

    def calm(self) -> None:
        """Disarm the points that no process has reached."""
        self._calm.set()
        for ambush in self._ambushes:
            ambush.join()

    def strike(self, point: str, action: str, *, within_s: float = _STRIKES_S) -> float | None:
        """Arm a point and wait until a process has reached it; return the time, None where none has."""
        failpoints.arm(self._points, point, action)
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline and not self._calm.is_set():
            if not (self._points / point).exists():
                return time.monotonic()
            time.sleep(0.005)
        try:
            (self._points / point).unlink()
        except FileNotFoundError:  # just now
            return time.monotonic()
        return None

    def freeze_actor(self) -> Fault | None:
        """Stop one for so long that sometimes it is replaced, and sometimes it wakes up in time."""
        found = self.actors()
        if not found:
            return None
        name = str(self._random.choice(sorted(found)))
        pid = found[name]["pid"]
        struck_s = time.monotonic()
        processes.freeze([pid])
        fault = self._noted(FREEZE, name, struck_s)
        self._crew.thaw_later([pid], float(self._random.uniform(1.0, 12.0)))
        return fault

    def kill_worker(self) -> Fault | None:
        """Kill -9 a worker process that is no actor: it may run somebody's retrain."""
        workers = self._machine.workers()
        if not workers:
            return None
        pid = int(self._random.choice(workers))
        struck_s = time.monotonic()
        processes.kill([pid])
        return self._noted(OTHER, "worker process", struck_s)

    def kill_producer(self) -> Fault | None:
        """Kill -9 a producer; the crew begins it again."""
        return self._noted(OTHER, self._crew.kill_producer(self._random), time.monotonic())

    def kill_consumer(self) -> Fault | None:
        """Kill -9 a consumer while it holds orders."""
        return self._noted(OTHER, self._crew.kill_consumer(self._random), time.monotonic())

    # --- nodes and the database

    def kill_node(self) -> Fault | None:
        """End a node: half the time only its own processes, so that its actors run on as zombies until they notice."""
        node = self._machine.nodes[int(self._random.integers(len(self._machine.nodes)))]
        own, workers = self._machine.processes_of(node)
        struck_s = time.monotonic()
        processes.kill(own if self._random.random() < 0.5 else [*own, *workers])
        fault = self._noted(NODE_KILL, "node", struck_s)
        self.recovered()
        self._machine.remove(node)
        processes.kill(pid for pid in workers if processes.title(pid).startswith("ray::"))
        self._machine.add(wait=False)
        return fault

    def freeze_node(self) -> Fault | None:
        """Stop every process of a node, until others have taken over; then let it go on: its actors are zombies now."""
        node = self._machine.nodes[int(self._random.integers(len(self._machine.nodes)))]
        own, workers = self._machine.processes_of(node)
        struck_s = time.monotonic()
        processes.freeze([*workers, *own])
        fault = self._noted(FREEZE, "node", struck_s)
        self.recovered()
        left_s = struck_s + float(self._random.uniform(*_NODE_FROZEN_S)) - time.monotonic()
        time.sleep(max(left_s, 0.0))
        processes.thaw([*workers, *own])  # the workers first: they run for a moment before their raylet ends them
        time.sleep(2.0)
        processes.kill(own)
        self._machine.remove(node)
        processes.kill(pid for pid in workers if processes.title(pid).startswith("ray::"))
        self._machine.add(wait=False)
        return fault

    def _cut(self, cut: Callable[[], None]) -> Fault:
        struck_s = time.monotonic()
        cut()
        return self._noted(OTHER, "database", struck_s)

    # --- zombies

    def _zombies_of_a_detector(self) -> Fault | None:
        return self._drilled(self._zombies.of_a_detector(self._random))

    def _zombie_of_the_dispatcher(self) -> Fault | None:
        return self._drilled(self._zombies.of_the_dispatcher())

    def _drilled(self, what: str) -> Fault:
        return self._noted(OTHER, what, time.monotonic())

    def _noted(self, kind: str, what: str, struck_s: float) -> Fault:
        fault = Fault(kind, what, struck_s)
        self.done.append(fault)
        return fault


def cross(faults: list[Fault]) -> None:
    """Mark the faults during whose recovery another one struck."""
    ordered = sorted(faults, key=lambda fault: fault.struck_s)
    over_s, last = 0.0, None
    for fault in ordered:
        if last is not None and fault.struck_s < over_s:
            fault.crossed = last.crossed = True
        if fault.struck_s + (fault.latency_s or 0.0) >= over_s:
            over_s, last = fault.struck_s + (fault.latency_s or 0.0), fault


def counts(faults: list[Fault]) -> dict[str, int]:
    """Count faults by kind."""
    kinds = sorted(fault.kind for fault in faults)
    return {kind: len(list(each)) for kind, each in itertools.groupby(kinds)}
