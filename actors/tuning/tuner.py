"""Tuner: owns studies and trials, and leases trials to worker tasks.

It never opens an objective: workers do. Workers are launched by the Runner, so they outlive a restart of this process and
go on with what they hold. On restart: studies, outcomes, leases and reports are read from the store; a step that was
answered is answered again, one that was not is taken as new. Nothing that was acknowledged is lost or run again.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import os
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, Final, ParamSpec

from actors.clock import Clock, SystemClock, boot_id
from actors.cluster import deployment
from actors.cluster.build import BUILD
from actors.cluster.peers import Peers, PeerUnavailableError, RayPeers
from actors.storage import SCHEMA_VERSION, StaleEpochError
from actors.tuning.rules import plan as plans
from actors.tuning.rules.book import TRIALS_PER_PAGE
from actors.tuning.rules.ledger import STUDY_RUNNING
from actors.tuning.rules.plan import Plan
from actors.tuning.state import DeskUnavailableError, StudyDesk
from actors.tuning.strategies.seeds import fresh_seed

logger = logging.getLogger(__name__)
P = ParamSpec("P")

# How often workers are counted against what the cluster could carry: nodes come and go.
_TICK_S: Final = 1.0
_CAPACITY_AGE_S: Final = 2.0
# A worker is heard every two seconds; one that is silent this long is stopped and its trials are given to others.
_SILENCE_S: Final = 60.0
_RETRY_S: Final = 0.5
# Workers of a study that is over leave by themselves; a task that has not left by then is cancelled.
_LEAVE_S: Final = 4.0
# The first hello waits so long for the store, so that it can name its epoch.
_OPEN_S: Final = 1.0
_MAX_WAIT_S: Final = 30.0
_MAX_OBJECTIVE_BYTES: Final = 64 * 2**20
# How often Ray may run a worker task again by itself. Above 0 on purpose: Ray's memory monitor ends tasks that can be run
# again before it ends actors that cannot afford it.
_WORKER_RETRIES: Final = 3


def _answered(method: Callable[P, Awaitable[Any]]) -> Callable[P, Awaitable[Any]]:
    """Turn a store that cannot be reached into a reply."""

    @functools.wraps(method)
    async def answer(*args: P.args, **kwargs: P.kwargs) -> Any:
        try:
            return await method(*args, **kwargs)
        except DeskUnavailableError as error:
            return {"status": "unavailable", "reason": str(error), "retry_in_s": _RETRY_S}

    return answer


class Tuner:
    """The process that searches. Constructed by deployment.py; every public method is a message."""

    def __init__(
        self,
        *,
        name: str,
        namespace: str,
        storage: str,
        slot: int | None = None,  # noqa: ARG002  every actor is made alike
        clock: Clock | None = None,
        peers: Peers | None = None,
    ) -> None:
        self._name = name
        self._namespace = namespace
        self._peers = peers or RayPeers(namespace)
        self._desk = StudyDesk(storage, clock or SystemClock(), self._end_stale)
        self._unlaunched: set[str] = set()
        self._launched: dict[str, str] = {}  # by which instance of the runner
        self._leaving: dict[str, float] = {}  # since when their study has been over
        self._capacity: dict[str, tuple[float, int]] = {}
        self._news = asyncio.Event()  # somebody has something for `_keep_staffed` to do
        self._ended: dict[str, asyncio.Event] = {}
        self._loops: list[asyncio.Task[None]] = []

    async def hello(self) -> dict[str, Any]:
        """Say who is here; answered while a commit waits. Also begins the work after a restart."""
        self._begin()
        if not self._desk.epoch:
            with suppress(TimeoutError, DeskUnavailableError):
                await asyncio.wait_for(self._desk.do(lambda: None), _OPEN_S)
        return {
            "actor": self._name,
            "build": BUILD,
            "epoch": self._desk.epoch,
            "schema": SCHEMA_VERSION,
            "pid": os.getpid(),
            "node": _node(),
            "boot_id": boot_id(),
        }

    async def reload(self) -> dict[str, Any]:
        """Nothing of the configuration is kept here."""
        return {"status": "reloaded"}

    @_answered
    async def submit(self, *, objective: bytes | str, plan: dict[str, Any]) -> dict[str, Any]:
        """Begin a study and do not wait for it; one of that name is taken up where it stands.

        `objective` is what cloudpickle wrote (bytes), or `module:function` that a worker can import. `plan` has `name`,
        `space`, `trials`, and what `actors.tuning.rules.plan.check` takes beside; without a `seed` one is drawn. Replies
        `{"status": "submitted" | "running" | "resumed" | "done", "study", "name", "seed", "warnings"}`. ValueError says what is
        wrong.
        """
        self._begin()
        shipped = _shipped(objective)
        asked = dict(plan)
        if asked.get("seed") is None:
            asked["seed"] = await self._kept_seed(asked.get("name"))
        checked = await asyncio.to_thread(plans.check_wire, asked)  # a strategy's library takes its time to import
        reply = await self._desk.do(lambda: self._desk.submit(checked, shipped))
        self._news.set()
        return reply | {"seed": checked.seed, "warnings": checked.warnings()}

    @_answered
    async def step(
        self,
        *,
        study: str,
        key: str,
        incarnation: str,
        sequence: int,
        results: Sequence[Sequence[Any]] = (),
        wanted: bool = False,
        holding: int = 0,
        reports: Sequence[Sequence[Any]] = (),
        node: str | None = None,
        leaving: bool = False,
        load_error: str | None = None,
    ) -> dict[str, Any]:
        """Take what a worker has done and give it more; idempotent by (incarnation, sequence)."""
        self._begin()
        said = functools.partial(
            self._desk.step, study=study, key=key, incarnation=incarnation, sequence=sequence, results=results, wanted=wanted,
            holding=holding, reports=reports, node=node, leaving=leaving, load_error=load_error,
        )  # fmt: skip
        reply = await self._desk.do(said)
        if reply["status"] == "gone":
            self._tell_ended(study)
            self._news.set()
        return reply

    @_answered
    async def objective(self, *, study: str) -> dict[str, Any]:
        """Give a worker what it needs to begin."""
        return await self._desk.do(lambda: self._desk.objective(study))

    @_answered
    async def study(self, *, name: str, wait_s: float = 0.0) -> dict[str, Any]:
        """Give a study's summary; with `wait_s` (at most 30) wait so long for its end. KeyError where there is none."""
        self._begin()
        summary = await self._desk.do(lambda: self._desk.study(name))
        if wait_s > 0 and summary["state"] == STUDY_RUNNING:
            ended = self._ended.setdefault(summary["study"], asyncio.Event())
            summary = await self._desk.do(lambda: self._desk.study(name))  # it may have ended before we began to wait
            if summary["state"] == STUDY_RUNNING:
                with suppress(TimeoutError):
                    await asyncio.wait_for(ended.wait(), min(wait_s, _MAX_WAIT_S))
                summary = await self._desk.do(lambda: self._desk.study(name))
        return summary

    @_answered
    async def trials(self, *, name: str, since: int = 0, limit: int = TRIALS_PER_PAGE) -> list[dict[str, Any]]:
        """Give a study's trials from number `since` on, up to `limit` (at most 50,000)."""
        return await self._desk.do(lambda: self._desk.trials(name, since, min(limit, TRIALS_PER_PAGE)))

    @_answered
    async def stop_study(self, *, name: str) -> dict[str, Any]:
        """End a study before its time; running trials are cancelled, and the study may be taken up again by its name."""
        self._begin()
        reply = await self._desk.do(lambda: self._desk.stop(name))
        summary = await self._desk.do(lambda: self._desk.study(name))
        self._tell_ended(summary["study"])
        return reply

    @_answered
    async def studies(self) -> list[dict[str, Any]]:
        """Give name, state and times of every study, the newest first."""
        self._begin()
        return await self._desk.do(self._desk.all)

    # ---- the staff --------------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        if not self._loops:
            self._loops = [asyncio.ensure_future(self._keep_staffed()), asyncio.ensure_future(self._watch_ended())]

    async def _keep_staffed(self) -> None:
        known = False
        while True:
            self._news.clear()
            try:
                if not known:
                    # Launching is put-if-absent, so after a restart every worker on record is launched once more.
                    self._unlaunched.update(
                        key for _, keys in (await self._desk.do(self._desk.running)).values() for key in keys
                    )
                    known = True
                await self._staff()
            except (PeerUnavailableError, DeskUnavailableError) as error:
                logger.warning("workers cannot be launched now: %s", error)
            except Exception:
                logger.exception("launching workers failed; it is tried again in %g s", _TICK_S)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), _TICK_S)

    async def _staff(self) -> None:
        desk = self._desk
        running = await desk.do(desk.running)
        limits = {study: await self._limit(plan) for study, (plan, _) in running.items()}
        wanted = await desk.do(lambda: desk.staff(limits))
        self._unlaunched.update(key for _, key in wanted)
        if self._unlaunched:
            running = await desk.do(desk.running)
            await asyncio.gather(
                *(
                    self._launch(study, plan, key)
                    for study, (plan, keys) in running.items()
                    for key in self._unlaunched.intersection(keys)
                )
            )
            self._unlaunched.intersection_update(key for _, keys in running.values() for key in keys)
        await self._clear_up(set(running))
        for key in await desk.do(lambda: desk.give_up_silent(_SILENCE_S)):
            logger.warning("worker %s has been silent for %g s: stopped, its trials go to others", key, _SILENCE_S)
            await self._peers.call("runner", "cancel", timeout_s=5.0, key=key, force=True)

    async def _clear_up(self, running: set[str]) -> None:
        """Cancel workers of ended studies that have not left by themselves: those still waiting for a processor, or stuck."""
        now_s = asyncio.get_running_loop().time()
        for key in [key for key in self._launched if key.rpartition("-w-")[0] not in running]:
            if now_s - self._leaving.setdefault(key, now_s) >= _LEAVE_S:
                await self._peers.call("runner", "cancel", timeout_s=5.0, key=key, force=True)
                del self._launched[key], self._leaving[key]

    async def _launch(self, study: str, plan: Plan, key: str) -> None:
        reply = await self._peers.call(
            "runner",
            "launch",
            timeout_s=10.0,
            key=key,
            target="actors.tuning.worker:run_worker",
            kwargs={"namespace": self._namespace, "tuner": self._name, "study": study, "key": key},
            options={"resources": plan.resources or {}, "max_retries": _WORKER_RETRIES, "spread": True,
                     "name": f"tune {plan.name}"},
        )  # fmt: skip
        self._launched[key] = reply["instance"]
        self._unlaunched.discard(key)

    async def _limit(self, plan: Plan) -> int:
        if plan.max_concurrent is not None:
            return plan.max_concurrent
        shape = repr(sorted((plan.resources or {}).items()))
        now_s = asyncio.get_running_loop().time()
        asked_s, capacity = self._capacity.get(shape, (-_CAPACITY_AGE_S, 0))
        if now_s - asked_s >= _CAPACITY_AGE_S:
            reply = await self._peers.call("runner", "capacity", timeout_s=5.0, resources=plan.resources or {})
            capacity = int(reply["tasks"])
            self._capacity[shape] = (now_s, capacity)
        return max(capacity, 1)  # one task that waits for its resources shows an autoscaler what is wanted

    async def _watch_ended(self) -> None:
        after, instance, wait_s = 0, "", 0.0
        while True:
            try:
                reply = await self._peers.call("runner", "ended", timeout_s=_MAX_WAIT_S, after=after, wait_s=wait_s)
                if reply["instance"] != instance:
                    instance, known_from = reply["instance"], after
                    await self._lose_all_but(instance)
                    after = 0
                    if known_from:  # the numbers were those of its predecessor
                        continue
                await self._take_ended({key: error for key, error in reply["ended"] if "-w-" in key})
                after, wait_s = reply["next"], 10.0
            except (PeerUnavailableError, DeskUnavailableError):
                wait_s = 0.0  # to learn at once who answers next
                await asyncio.sleep(_RETRY_S)
            except Exception:
                logger.exception("watching the workers failed; it is tried again")
                wait_s = 0.0
                await asyncio.sleep(_RETRY_S)

    async def _take_ended(self, ended: dict[str, str | None]) -> None:
        if not ended:
            return
        await self._desk.do(functools.partial(self._desk.lost, ended))
        for key in ended:
            self._launched.pop(key, None)
            self._leaving.pop(key, None)
            self._tell_ended(key.rpartition("-w-")[0])
        self._news.set()

    async def _lose_all_but(self, instance: str) -> None:
        """Give up the workers that another runner launched: they died with it."""
        died: dict[str, str | None] = {key: None for key, runner in self._launched.items() if runner != instance}
        await self._take_ended(died)

    def _tell_ended(self, study: str) -> None:
        """Wake those who wait for the study; they look for themselves whether it has ended."""
        waiting = self._ended.pop(study, None)
        if waiting is not None:
            waiting.set()

    async def _kept_seed(self, name: object) -> int:
        try:
            return int((await self._desk.do(lambda: self._desk.study(str(name))))["seed"])
        except KeyError:
            return fresh_seed()

    def _end_stale(self, error: StaleEpochError) -> None:
        deployment.end_stale_process(error)


def _shipped(objective: bytes | str) -> bytes:
    if isinstance(objective, str):
        module, _, function = objective.partition(":")
        if not (module and function and all(part.isidentifier() for part in [*module.split("."), *function.split(".")])):
            raise ValueError(f"objective must be module:function or pickled bytes, got {objective!r:.80}")
        return b"ref:" + objective.encode()
    if not isinstance(objective, bytes) or not objective:
        raise ValueError(f"objective must be module:function or pickled bytes, got {type(objective).__name__}")
    if len(objective) > _MAX_OBJECTIVE_BYTES:
        raise ValueError(
            f"objective must be at most {_MAX_OBJECTIVE_BYTES} bytes when pickled, got {len(objective)}: "
            "load large data inside the objective"
        )
    return b"pkl:" + objective


def _node() -> str:
    import ray  # noqa: PLC0415  a unit test asks without a Ray

    return str(ray.get_runtime_context().get_node_id()) if ray.is_initialized() else ""
