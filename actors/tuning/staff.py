"""The workers of the tuner: how many each study gets, when they are launched, and how their ends are noticed.

Workers are launched by the runner, so they outlive a restart of the tuner. Nothing here happens while no study runs: no clock
ticks and nobody is asked.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final

from actors.cluster.peers import Peers, PeerUnavailableError
from actors.replies import Capacity, Launched, TasksEnded
from actors.tuning.desk import Desk, DeskUnavailableError
from actors.tuning.rules.plan import Plan
from actors.tuning.rules.steps import study_of
from actors.tuning.state import TuningState

logger = logging.getLogger(__name__)

# How often workers are counted against what the cluster could carry while a study runs: nodes come and go.
_TICK_S: Final = 1.0
_CAPACITY_AGE_S: Final = 2.0
# A worker says a step every two seconds; one that is silent this long is stopped and its trials are given to others.
_SILENCE_S: Final = 60.0
_RETRY_S: Final = 0.5
# Workers of a study that has ended leave by themselves; a task that has not left by then is cancelled.
_LEAVE_S: Final = 4.0
_WATCH_S: Final = 10.0
_MAX_SHAPES: Final = 1000  # shapes of trials whose number is remembered
_CALL_S: Final = 5.0
_LAUNCH_S: Final = 10.0
# How often Ray may run a worker task again by itself. Above 0 on purpose: Ray's memory monitor ends tasks that can be run
# again before it ends actors that cannot afford it.
_WORKER_RETRIES: Final = 3

Running = Mapping[str, tuple[Plan, list[str]]]


class Staff:
    """Launches, counts and misses the workers of every running study."""

    def __init__(
        self, state: TuningState, desk: Desk, peers: Peers, *, tuner: str, namespace: str, ended: Callable[[str], None]
    ) -> None:
        """Hold what it works with; `ended` gets each study that may have ended, by id."""
        self._state = state
        self._desk = desk
        self._peers = peers
        self._tuner = tuner
        self._namespace = namespace
        self._study_ended = ended
        self._unlaunched: set[str] = set()
        self._launched: dict[str, str] = {}  # by which instance of the runner
        self._leaving: dict[str, float] = {}  # since when their study has been over
        self._capacity: dict[str, tuple[float, int]] = {}
        self._news = asyncio.Event()  # there is something for `_keep` to do
        self._busy = asyncio.Event()  # there are workers whose end matters
        self._loops: list[asyncio.Task[None]] = []

    def begin(self) -> None:
        """Begin to work, once."""
        if not self._loops:
            self._loops = [asyncio.ensure_future(self._keep()), asyncio.ensure_future(self._watch())]

    def look(self) -> None:
        """Look now: a study has begun or may have ended."""
        self._news.set()

    # ---- how many ---------------------------------------------------------------------------------------------------------

    async def _keep(self) -> None:
        known = False
        while True:
            self._news.clear()
            idle = False
            try:
                if not known:
                    # Launching is put-if-absent, so after a restart every worker on record is launched once more.
                    running = await self._desk.do(self._state.running)
                    self._unlaunched.update(key for _, keys in running.values() for key in keys)
                    known = True
                await self._count()
                idle = not self._busy.is_set()
            except (PeerUnavailableError, DeskUnavailableError) as error:
                logger.warning("workers cannot be launched now: %s", error)
            except Exception:
                logger.exception("launching workers failed; retrying in %g s", _TICK_S)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), None if idle else _TICK_S)

    async def _count(self) -> None:
        running = await self._desk.do(self._state.running)
        limits = {study: await self._limit(plan) for study, (plan, _) in running.items()}
        wanted = await self._desk.do(lambda: self._state.staff(limits)) if limits else []
        if wanted or self._unlaunched:
            self._unlaunched.update(key for _, key in wanted)
            running = await self._desk.do(self._state.running)
            await self._launch_all(running)
        await self._clear_up(running)
        if running:
            for key in await self._desk.do(lambda: self._state.give_up_silent(_SILENCE_S)):
                logger.warning("worker %s has been silent for %g s: stopped, its trials go to others", key, _SILENCE_S)
                await self._peers.call("runner", "cancel", timeout_s=_CALL_S, key=key, force=True)
        if running or self._launched:
            self._busy.set()
        else:
            self._busy.clear()

    async def _limit(self, plan: Plan) -> int:
        if plan.max_concurrent is not None:
            return plan.max_concurrent
        shape = repr(sorted((plan.resources or {}).items()))
        now_s = asyncio.get_running_loop().time()
        asked_s, tasks = self._capacity.get(shape, (-_CAPACITY_AGE_S, 0))
        if now_s - asked_s >= _CAPACITY_AGE_S:
            reply: Capacity = await self._peers.call("runner", "capacity", timeout_s=_CALL_S, resources=plan.resources or {})
            tasks = reply["tasks"]
            if len(self._capacity) >= _MAX_SHAPES:
                self._capacity.clear()
            self._capacity[shape] = (now_s, tasks)
        return max(tasks, 1)  # one task that waits for its resources tells an autoscaler what to add

    async def _launch_all(self, running: Running) -> None:
        wanted = [(study, plan, key) for study, (plan, keys) in running.items() for key in self._unlaunched.intersection(keys)]
        self._unlaunched.intersection_update(key for _, keys in running.values() for key in keys)
        await asyncio.gather(*(self._launch(*each) for each in wanted))

    async def _launch(self, study: str, plan: Plan, key: str) -> None:
        self._busy.set()
        reply: Launched = await self._peers.call(
            "runner",
            "launch",
            timeout_s=_LAUNCH_S,
            key=key,
            target="actors.tuning.worker:run_worker",
            kwargs={"namespace": self._namespace, "tuner": self._tuner, "study": study, "key": key},
            options={
                "resources": plan.resources or {},
                "max_retries": _WORKER_RETRIES,
                "spread": True,
                "name": f"tune {plan.name}",
            },
        )
        self._launched[key] = reply["instance"]
        self._unlaunched.discard(key)

    async def _clear_up(self, running: Running) -> None:
        """Cancel workers of ended studies that have not left by themselves: those still waiting for a processor, or stuck."""
        now_s = asyncio.get_running_loop().time()
        for key in [key for key in self._launched if study_of(key) not in running]:
            if now_s - self._leaving.setdefault(key, now_s) >= _LEAVE_S:
                await self._peers.call("runner", "cancel", timeout_s=_CALL_S, key=key, force=True)
                del self._launched[key], self._leaving[key]

    # ---- their ends -------------------------------------------------------------------------------------------------------

    async def _watch(self) -> None:
        after, instance, wait_s = 0, "", 0.0
        while True:
            await self._busy.wait()
            try:
                reply: TasksEnded = await self._peers.call(
                    "runner", "ended", timeout_s=_WATCH_S + _CALL_S, after=after, wait_s=wait_s
                )
                if reply["instance"] != instance:
                    instance, known_from = reply["instance"], after
                    await self._lose_all_but(instance)
                    after = 0
                    if known_from:  # the numbers were those of its predecessor
                        continue
                await self._take_ended({key: error for key, error in reply["ended"] if key and study_of(key)})
                after, wait_s = reply["next"], _WATCH_S
            except (PeerUnavailableError, DeskUnavailableError):
                wait_s = 0.0  # to learn at once who answers next
                await asyncio.sleep(_RETRY_S)
            except Exception:
                logger.exception("watching the workers failed; retrying")
                wait_s = 0.0
                await asyncio.sleep(_RETRY_S)

    async def _take_ended(self, ended: Mapping[str, str | None]) -> None:
        if not ended:
            return
        await self._desk.do(functools.partial(self._state.lost, ended))
        for key in ended:
            self._launched.pop(key, None)
            self._leaving.pop(key, None)
            self._study_ended(study_of(key) or "")
        self.look()

    async def _lose_all_but(self, instance: str) -> None:
        """Give up the workers that another runner launched: they died with it."""
        await self._take_ended({key: None for key, runner in self._launched.items() if runner != instance})
