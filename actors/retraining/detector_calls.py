"""The detectors' calls to the dispatcher besides requests: versions, verdicts, removed models."""

from __future__ import annotations

import logging

from actors import checks, failpoints, people
from actors.checks import shown
from actors.clock import Instant
from actors.plain import Json
from actors.replies import ModelForgotten, Overtaken, Recorded, Unavailable
from actors.retraining import arguments
from actors.retraining.calls import Calls
from actors.retraining.state import RetrainingState

logger = logging.getLogger(__name__)


class DetectorCalls(Calls):
    """The calls of detectors."""

    async def overtaken(self, *, model: str, version: str, over: list[str] | None = None) -> Overtaken | Unavailable:
        """Learn that a new version of `model` has come: an order that has not been started yet expires.

        `over` names the versions before it (None: all others). An order for a later one stays: this notification may arrive
        after a newer version has itself drifted.
        """
        checks.text("model", model)
        checks.text("version", version)
        if over is not None and not isinstance(over, list):
            raise ValueError(f"over must be a list of versions, got {shown(over)}")

        async def act() -> Overtaken:
            expired = await self._in_store(lambda state, now: state.overtaken(model, version, now, over))
            if expired is not None:
                logger.info("order %s of %s expired: version %s came first", expired.id, model, version)
            return {"status": "recorded", "expired": None if expired is None else expired.id}

        return await self._or_unavailable(act())

    async def deployed(self, *, model: str, version: str, at: float) -> Recorded | Unavailable:
        """Learn the live version of a model, and since when: its age counts from then on."""
        named, new, since = checks.text("model", model), checks.text("version", version), arguments.number("at", at)
        return await self._recorded(lambda state, now: state.deployed(named, new, since, now))

    async def forget(self, *, model: str, purge: bool = False, only_ask: bool = False) -> ModelForgotten | Unavailable:
        """Forget a model that is being removed; its orders and decisions go too where it is purged. Safe to repeat.

        "refused": `order` is not finished. With `only_ask` nothing is forgotten. Its silences stay: they are for patterns.
        """
        named = checks.text("model", model)

        async def act() -> ModelForgotten:
            def forgotten(state: RetrainingState, _now: Instant) -> str | None:
                if only_ask:
                    return state.forget(named, purge=purge, only_ask=True)
                failpoints.reach("dispatcher.before_forget")
                order = state.forget(named, purge=purge)
                failpoints.reach("dispatcher.after_forget")
                return order

            order = await self._in_store(forgotten)
            return {"status": "forgotten" if order is None else "refused", "order": order}

        return await self._or_unavailable(act())

    async def verdict(
        self, *, order: str, verdict: str, saved: float, standard_error: float, at: float
    ) -> Recorded | Unavailable:
        """Record whether a retrain paid ("paid", "did not pay"), in errors saved; the first verdict counts."""
        judged = arguments.verdict_of(verdict=verdict, saved=saved, standard_error=standard_error, at=at)
        return await self._recorded(lambda state, now: state.verdict(order, judged, now))

    async def promoted(
        self,
        *,
        key: str,
        model: str,
        version: str,
        over: str | None,
        kind: str,
        evidence: Json | None = None,
        by: str | None = None,
        comment: str | None = None,
    ) -> Recorded | Unavailable:
        """Carry out a decision about versions by `promotion.handler`, effectively once for its `key`.

        `kind`: "promoted", where `version` goes live in place of `over`, or "rolled_back", where it comes back in place of it.
        """
        at = self._clock.now().wall_s
        asked = arguments.promotion_of(model=model, version=version, over=over, kind=kind, evidence=evidence, at=at)
        once = checks.text("key", key)
        signed = people.signature(by, comment)

        def act(state: RetrainingState, now: Instant) -> None:
            failpoints.reach("dispatcher.before_promotion")
            state.promoted(once, asked, now, signed)
            failpoints.reach("dispatcher.after_promotion")

        return await self._recorded(act)
