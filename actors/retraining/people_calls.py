"""What people say to the dispatcher about orders and silences; each may sign it, by name and with a comment."""

from __future__ import annotations

import uuid
from abc import abstractmethod
from collections.abc import Awaitable
from typing import Final

from actors import checks, labels, people
from actors.clock import Instant
from actors.labels import ALL, Selector
from actors.replies import Admitted, Recorded, SilenceMade, Unavailable
from actors.retraining import arguments
from actors.retraining.admissions import Admission
from actors.retraining.calls import Calls
from actors.retraining.rules import orders
from actors.retraining.rules.orders import Request
from actors.retraining.state import RetrainingState

_LONGEST_SILENCE_S: Final = 10 * 365 * 86_400.0


class PeopleCalls(Calls):
    """The calls of people."""

    @abstractmethod
    def _is_known(self, pattern: str, selector: Selector = ALL) -> Awaitable[bool]:
        """Return whether a model that has ever logged matches."""

    async def trigger(
        self,
        *,
        model: str,
        reason: str,
        version: str | None = None,
        key: str | None = None,
        by: str | None = None,
        comment: str | None = None,
    ) -> Admitted | Unavailable:
        """Ask for an order by hand: it passes a cooldown, a silence and `give_up`, never another order of the model.

        `key` makes it safe to send again. A model that has never logged gets its order with a warning.
        """
        asked = Request(
            model=arguments.model_of(arguments.pattern_of(model)),
            version="" if version is None else checks.text("version", version),
            metric="manual",
            observed_drift=None,
            triggered_at=self._clock.now().wall_s,
            episode="",
            explanation={},
            cause=orders.MANUAL,
        )
        why = f"manual: {checks.text('reason', reason, 1000)}"
        once = uuid.uuid4().hex if key is None else checks.text("key", key)
        signed = people.signature(by, comment)

        async def act() -> Admitted:
            def triggered(state: RetrainingState, now: Instant) -> Admission:
                return state.admissions.trigger(asked, once, now, reason=why, signed=signed)

            reply = await self._admitted(lambda: self._then_wake(triggered), model)
            if not await self._is_known(model):
                reply["warning"] = f"model {model!r} has never logged"
            return reply

        return await self._or_unavailable(act())

    async def retry(self, *, order: str, by: str | None = None, comment: str | None = None) -> Admitted | Unavailable:
        """Queue a failed, dead or expired order again. KeyError: no such order; ValueError: it is in another state."""
        signed = people.signature(by, comment)

        def put_back(state: RetrainingState, now: Instant) -> Admission:
            return state.retry(order, now, signed)

        return await self._or_unavailable(self._admitted(lambda: self._then_wake(put_back), order))

    async def dismiss(
        self, *, order: str, reason: str, by: str | None = None, comment: str | None = None
    ) -> Recorded | Unavailable:
        """Close a failed or dead order that a person has dealt with. KeyError; ValueError: it is in another state."""
        why = checks.text("reason", reason, 1000)
        signed = people.signature(by, comment)
        return await self._recorded(lambda state, now: state.dismiss(order, why, now, signed))

    async def front(self, *, order: str, by: str | None = None, comment: str | None = None) -> Recorded | Unavailable:
        """Move a waiting order to the front of the queue. KeyError; ValueError: it does not wait."""
        signed = people.signature(by, comment)
        return await self._recorded(lambda state, now: state.front(order, now, signed))

    async def silence(
        self,
        *,
        model: str,
        duration_s: float,
        comment: str = "",
        key: str | None = None,
        label: str | None = None,
        by: str | None = None,
    ) -> SilenceMade | Unavailable:
        """Hold back the orders of `model` (a name, or a pattern like `fraud-*`) for `duration_s` seconds.

        `label` is a selector of labels: of the models that the pattern matches, only those that it matches too.
        """
        pattern = arguments.pattern_of(model)
        selector = labels.parse(label)
        signed = people.signature(by, comment or None)
        if not 0 < arguments.number("duration_s", duration_s) <= _LONGEST_SILENCE_S:
            raise ValueError(f"duration_s must be above 0 and at most ten years, got {duration_s}")
        once = uuid.uuid4().hex if key is None else checks.text("key", key)

        def put(state: RetrainingState, now: Instant) -> str:
            said = signed.comment or ""
            return state.silence(pattern, float(duration_s), said, once, now, selector=selector, by=signed.by)

        async def act() -> SilenceMade:
            id_ = await self._in_store(put)
            made: SilenceMade = {"status": "recorded", "silence": id_}
            if not await self._is_known(pattern, selector):
                named = f"{pattern!r} with {selector}" if selector else repr(pattern)
                made["warning"] = f"no model that has ever logged matches {named}"
            return made

        return await self._or_unavailable(act())

    async def unsilence(self, *, silence: str) -> Recorded | Unavailable:
        """End a silence. KeyError: no such silence."""
        return await self._recorded(lambda state, now: state.unsilence(silence, now))
