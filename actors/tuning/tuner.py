"""Tuner: owns studies and trials, and leases trials to worker tasks.

It never opens an objective: workers do. Workers are launched by the Runner, so they outlive a restart of this process and
go on with what they hold. On restart: studies, outcomes, leases and reports are read from the store; a step that was
answered is answered again, one that was not is taken as new. Nothing that was acknowledged is lost or run again.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any, Concatenate, Final, ParamSpec, TypeVar, Unpack

from actors import people
from actors.checks import shown, whole
from actors.clock import Clock, SystemClock
from actors.cluster import actor, deployment
from actors.cluster.peers import Peers, RayPeers
from actors.cluster.store_thread import unavailable
from actors.replies import (
    Gone,
    Hello,
    Reloaded,
    StepAnswered,
    StudyEnded,
    StudyListing,
    StudySummary,
    Submitted,
    TrialRow,
    Unavailable,
    WorkerTerms,
)
from actors.tuning.desk import Desk, DeskUnavailableError, UnstorableError
from actors.tuning.rules import plan as plans
from actors.tuning.rules.ledger import GONE, STUDY_RUNNING
from actors.tuning.rules.plan import Plan
from actors.tuning.rules.steps import Step, StepFields
from actors.tuning.staff import Staff
from actors.tuning.state import Begun, Reader, TuningState
from actors.tuning.strategies.seeds import fresh_seed
from actors.tuning.tables import TRIALS_PER_PAGE

logger = logging.getLogger(__name__)
P = ParamSpec("P")
T = TypeVar("T")

# The first hello waits so long for the store, so that it can name its epoch.
_OPEN_S: Final = 1.0
_MAX_WAIT_S: Final = 30.0
# Callers that wait for the end of a study at the same time.
MAX_WAITING: Final = 300
_WAIT_AGAIN_S: Final = 1.0
# Calls that wait for the store, or for the end of a study, at the same time.
MAX_IN_FLIGHT: Final = 700
# Written and read in one piece: 16 MiB hold the store thread for 0.2 s, 64 MiB did for more than a second.
MAX_OBJECTIVE_BYTES: Final = 16 * 2**20


def _answered(
    method: Callable[Concatenate[Tuner, P], Awaitable[T]],
) -> Callable[Concatenate[Tuner, P], Awaitable[T | Unavailable]]:
    """Turn a store that cannot be reached into a reply, and refuse what would fill the actor's slots.

    Ray gives an actor 1,000 calls at a time. While the store is locked, calls wait for it; were they to take all slots, `hello`
    would wait with them and the watchdog would take a busy process for a frozen one.
    """

    @functools.wraps(method)
    async def answer(tuner: Tuner, /, *args: P.args, **kwargs: P.kwargs) -> T | Unavailable:
        if tuner.in_flight >= MAX_IN_FLIGHT:
            return unavailable(RuntimeError(f"{tuner.in_flight} calls wait already"))
        tuner.in_flight += 1
        try:
            return await method(tuner, *args, **kwargs)
        except DeskUnavailableError as error:
            return unavailable(error)
        finally:
            tuner.in_flight -= 1

    return answer


class Tuner:
    """The process that searches. Constructed by deployment.py; every public method is a message."""

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
        clock = clock or SystemClock()
        self._state = TuningState(storage, clock)
        self._reader = Reader(self._state, clock)
        self._desk = Desk(self._state, deployment.end_stale_process)
        self._staff = Staff(
            self._state,
            self._desk,
            peers or RayPeers(namespace),
            tuner=name,
            namespace=namespace,
            ended=self._tell_ended,
        )
        self._ended: dict[str, asyncio.Event] = {}  # by study, who waits for its end
        self._waiting = 0
        self.in_flight = 0
        self._sweeping: asyncio.Task[None] | None = None

    async def hello(self) -> Hello:
        """Say who is here; answered while a commit waits. Also begins the work after a restart."""
        self._begin()
        if not self._state.epoch:
            with suppress(TimeoutError, DeskUnavailableError):
                await asyncio.wait_for(self._desk.do(lambda: None), _OPEN_S)
        return actor.hello(self._name, epoch=self._state.epoch, store=self._state.store)

    async def reload(self) -> Reloaded:
        """Nothing of the configuration is kept here."""
        return {"status": "reloaded"}

    @_answered
    async def submit(self, *, objective: bytes | str, plan: Mapping[str, Any]) -> Submitted:
        """Begin a study and do not wait for it; one of that name is taken up where it stands.

        Args:
            objective: What cloudpickle wrote (bytes), or `module:function` that a worker can import.
            plan: `name`, `space`, `trials`, and what else `actors.tuning.rules.plan.check` takes; without a `seed` one is
                drawn.

        Raises:
            ValueError: Names the field, the value and the rule.
        """
        self._begin()
        shipped = _shipped(objective)
        asked = dict(plan) if isinstance(plan, Mapping) else {}
        if asked.get("seed") is None:
            asked["seed"] = await self._desk.read(lambda: self._reader.seed(asked.get("name")))
            asked["seed"] = fresh_seed() if asked["seed"] is None else asked["seed"]
        checked = await asyncio.to_thread(plans.check, asked)  # a strategy's library takes its time to import
        return await self._submitted(checked, shipped)

    @_answered
    async def resume_study(self, *, name: str, trials: int | None = None) -> Submitted:
        """Take up a study with the objective and the settings that it was submitted with; `trials` may ask for more.

        Raises:
            KeyError: No study has that name.
        """
        self._begin()
        plan, objective = await self._desk.read(lambda: self._reader.submitted(name))
        if trials is not None:
            plan = replace(plan, trials=whole("trials", trials, plan.trials, plans.MAX_TRIALS))
        return await self._submitted(plan, objective)

    @_answered
    async def step(self, *, study: str, **said: Unpack[StepFields]) -> StepAnswered | Gone:
        """Take what a worker has done and give it more; idempotent by (incarnation, sequence).

        The fields are those of `actors.tuning.rules.steps.Step`; docs/explanation/tuning.md has the protocol.
        """
        self._begin()
        step = Step.from_wire(said)
        reply: StepAnswered | Gone
        try:
            reply = await self._desk.do(lambda: self._state.step(study, step), study=study)
        except UnstorableError:
            reply = GONE  # the study has ended with the cause
        if reply["status"] == "gone":
            self._tell_ended(study)
            self._staff.look()
        return reply

    @_answered
    async def objective(self, *, study: str) -> WorkerTerms:
        """Return what a worker needs to begin; KeyError where the study is not there any more."""
        return await self._desk.read(lambda: self._reader.terms(study))

    @_answered
    async def study(self, *, name: str, wait_s: float = 0.0) -> StudySummary:
        """Return a study's summary; with `wait_s` (at most 30) wait so long for its end. KeyError where there is none.

        Where too many callers wait already, the reply comes at once and `retry_in_s` in it says when to ask again.
        """
        self._begin()
        summary = await self._summary(name)
        if wait_s <= 0 or summary["state"] != STUDY_RUNNING:
            return summary
        if self._waiting >= MAX_WAITING:
            summary["retry_in_s"] = _WAIT_AGAIN_S
            return summary
        self._waiting += 1
        try:
            ended = self._ended.setdefault(summary["study"], asyncio.Event())
            summary = await self._summary(name)  # it may have ended before we began to wait
            if summary["state"] == STUDY_RUNNING:
                with suppress(TimeoutError):
                    await asyncio.wait_for(ended.wait(), min(wait_s, _MAX_WAIT_S))
                summary = await self._summary(name)
            return summary
        finally:
            self._waiting -= 1

    @_answered
    async def trials(self, *, name: str, since: int = 0, limit: int = TRIALS_PER_PAGE) -> list[TrialRow]:
        """Return a study's trials from number `since` on, up to `limit` and to what a reply holds; none at the end."""
        limit = max(min(limit, TRIALS_PER_PAGE), 0)
        found = await self._desk.do(lambda: self._state.trials(name, since, limit))
        return await self._desk.read(lambda: self._reader.trials(name, since, limit)) if found is None else found

    @_answered
    async def stop_study(self, *, name: str, by: str | None = None, comment: str | None = None) -> StudyEnded:
        """End a study before its time; running trials are cancelled, and the study may be taken up again by its name.

        `by` and `comment` stand with the study as the reason of its end.
        """
        signed = people.signature(by, comment)
        self._begin()
        reply = await self._desk.do(lambda: self._state.stop(name, people.told("stopped", signed)))
        self._tell_ended((await self._summary(name))["study"])
        self._staff.look()
        return reply

    @_answered
    async def delete_study(self, *, name: str) -> StudyEnded:
        """Delete a study that has ended, with its trials; ValueError while it runs, KeyError where there is none."""
        self._begin()
        reply = await self._desk.do(lambda: self._state.delete(name))
        self._tidy()
        return reply

    @_answered
    async def studies(self) -> list[StudyListing]:
        """Return name, state and times of every study, the newest first."""
        self._begin()
        return await self._desk.read(self._reader.studies)

    def _begin(self) -> None:
        self._staff.begin()

    async def _submitted(self, plan: Plan, objective: bytes) -> Submitted:
        begun = await self._begun(plan, objective)
        self._staff.look()
        self._tidy()
        return {
            "status": begun.status,
            "study": begun.study,
            "name": plan.name,
            "seed": plan.seed,
            "warnings": plan.warnings(),
        }

    async def _begun(self, plan: Plan, objective: bytes) -> Begun:
        """Begin or take up the study; one that has ended is read outside the store thread."""
        while True:
            taken_up = await self._desk.read(lambda: self._reader.take_up(plan))
            begun = await self._desk.do(functools.partial(self._state.submit, plan, objective, taken_up))
            if begun is not None:
                return begun  # else it has ended meanwhile

    async def _summary(self, name: str) -> StudySummary:
        running = await self._desk.do(lambda: self._state.study(name))
        return await self._desk.read(lambda: self._reader.study(name)) if running is None else running

    def _tidy(self) -> None:
        """Have the rows of deleted studies deleted, some at a time."""
        if self._state.untidy and self._sweeping is None:
            self._sweeping = asyncio.ensure_future(self._sweep())

    async def _sweep(self) -> None:
        self._state.untidy = False
        try:
            for study in await self._desk.read(self._reader.orphans):
                while await self._desk.do(functools.partial(self._state.sweep, study)):
                    pass
            while await self._desk.do(self._state.give_back):
                pass
        except DeskUnavailableError:
            self._state.untidy = True
        except Exception:
            logger.exception("the rows of deleted studies could not be deleted; retrying with the next study")
        finally:
            self._sweeping = None

    def _tell_ended(self, study: str) -> None:
        """Wake those who wait for the study; they look for themselves whether it has ended."""
        waiting = self._ended.pop(study, None)
        if waiting is not None:
            waiting.set()


def _shipped(objective: bytes | str) -> bytes:
    if isinstance(objective, str):
        module, _, function = objective.partition(":")
        if not (module and function and all(part.isidentifier() for part in [*module.split("."), *function.split(".")])):
            raise ValueError(f"objective must be module:function or pickled bytes, got {shown(objective)}")
        return b"ref:" + objective.encode()
    if not isinstance(objective, bytes) or not objective:
        raise ValueError(f"objective must be module:function or pickled bytes, got {type(objective).__name__}")
    if len(objective) > MAX_OBJECTIVE_BYTES:
        raise ValueError(
            f"objective must be at most {MAX_OBJECTIVE_BYTES} bytes when pickled, got {len(objective)}: "
            "load large data inside the objective"
        )
    return b"pkl:" + objective
