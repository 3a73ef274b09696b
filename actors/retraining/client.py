"""The client for retrain orders: `system.retrains`.

    for order in system.retrains.stream():
        train(order.event)
        order.done(new_version="v1.3.0")

An order is leased to the process that took it. A thread of this module renews the lease while the process lives, however long
the training takes; a process that is gone stops renewing, and the order goes to the next consumer with a raised `attempt`.
"""

from __future__ import annotations

import logging
import os
import socket
import time
import uuid
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any, Final, cast

from actors import people
from actors.cluster.peers import Ask, NotConnectedError, PeerUnavailableError
from actors.config import parse_duration
from actors.errors import NoSystemError
from actors.events import RetrainEvent
from actors.plain import Arguments
from actors.replies import (
    Admitted,
    CooldownListing,
    EndingRecorded,
    OrderHistory,
    OrderQueue,
    OrderRow,
    OrderShown,
    QueueRow,
    SilenceListing,
    SilenceMade,
    SilenceRow,
    Taken,
)
from actors.retraining.renewal import (
    DISPATCHER,
    FIRST_PAUSE_S,
    LONGEST_PAUSE_S,
    PATIENCE_S,
    Leases,
    until_answered,
)

logger = logging.getLogger(__name__)

# One waiting call; short enough that a call that outlives its caller does not hold an order for long.
_POLL_S: Final = 10.0


@dataclass(slots=True)
class RetrainOrder:
    """An order in this consumer's hands. `attempt` is 1 the first time it is handed to anybody."""

    id: str
    event: RetrainEvent
    attempt: int
    _token: int = field(repr=False)
    _leases: Leases = field(repr=False)

    @property
    def lost(self) -> bool:
        """Return whether the order has been handed to somebody else, or ended by somebody else."""
        return self._leases.is_lost(self.id, self._token)

    def done(
        self,
        new_version: str | None = None,
        *,
        promise: float | None = None,
        promise_n: float | None = None,
        promise_source: str = "cross_validation",
        timeout_s: float | None = None,
    ) -> bool:
        """Report that the retrain is through; `new_version` closes the episode. Waits until that is recorded.

        Args:
            new_version: The version that the retrain produced.
            promise: The new version's promise: the cross-validated value of the model's metric on its training rows.
            promise_n: The number of those rows.
            promise_source: "hold_out" where the value comes from a single hold-out; it is shown, and not used by the rule.
            timeout_s: How long to wait for the record; None: as long as it takes.

        Returns:
            False where the order is somebody else's by now, or another ending is on record: nothing was recorded.

        Raises:
            PeerUnavailableError: There was no answer within `timeout_s`.
            ValueError: A promise outside [0, 1], without its rows, or without the version that makes it.

        Example:
            order.done(new_version="v1.3.0", promise=0.91, promise_n=2500)
        """
        ending: Arguments = {"outcome": "done", "new_version": new_version}
        if promise is not None or promise_n is not None:
            ending |= {"promise": promise, "promise_n": promise_n, "promise_source": promise_source}
        return self._finish(ending, timeout_s)

    def failed(self, reason: str, *, timeout_s: float | None = None) -> bool:
        """Report that the retrain failed; the order stays failed until a person puts it back. Otherwise like `done`.

        Example:
            order.failed("no labels for March")
        """
        return self._finish({"outcome": "failed", "reason": str(reason)}, timeout_s)

    def release(self, reason: str, *, timeout_s: float | None = None) -> bool:
        """Hand the order back, where this process cannot carry it out; after a pause it goes to the next consumer.

        Returns False where the order is somebody else's by now. An order that is given back again and again becomes a dead
        letter.

        Example:
            order.release("no GPU here")
        """
        return self._told("release", {"reason": str(reason)}, timeout_s)

    def _finish(self, ending: Arguments, timeout_s: float | None) -> bool:
        return self._told("finish", {"reason": None, "new_version": None} | ending, timeout_s)

    def _told(self, method: str, arguments: Arguments, timeout_s: float | None) -> bool:
        arguments = {"order": self.id, "token": self._token} | arguments
        self._leases.finishing(self.id, self._token)
        reply: EndingRecorded = until_answered(self._leases.ask, method, arguments, timeout_s, outlasts_the_system=True)
        self._leases.drop(self.id, self._token)
        if reply["status"] == "recorded":
            return True
        logger.warning("order %s: %r was not recorded: %s", self.id, arguments.get("outcome", method), reply["reason"])
        return False


class Retrains:
    """Orders, history and silences of one system. Safe to use from several threads, and after a fork."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._leases = Leases(ask)
        self._process = os.getpid()

    def __reduce__(self) -> tuple[Any, ...]:
        # Orders stay with the process that took them.
        return Retrains, (self._ask,)

    def stream(self, model: str | None = None, timeout_s: float | None = None) -> Generator[RetrainOrder, None, None]:
        """Yield orders of the channel as they come, of `model` or of any.

        Waits while there is none, and reconnects while the system is unavailable; ends after `timeout_s` without an order.
        Leaving the loop releases no order: taken orders stay leased to this process until they are finished or the process
        ends. One stream without a model serves all models of a process, at the cost of one waiting call.

        Example:
            for order in system.retrains.stream():
                order.done(new_version=train(order.event))
        """
        if timeout_s is not None and not timeout_s >= 0:
            raise ValueError(f"timeout_s must be >= 0 or None, got {timeout_s}")
        consumer = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        pause_s = FIRST_PAUSE_S
        quiet_since = time.monotonic()
        heard_in: int | None = None  # the process that had a reply
        while True:
            left_s = _POLL_S if timeout_s is None else timeout_s - (time.monotonic() - quiet_since)
            wait_s = max(min(left_s, _POLL_S), 0.0)
            try:
                reply = self._ask.call(
                    DISPATCHER,
                    "take",
                    {"consumer": consumer, "model": model, "timeout_s": wait_s},
                    timeout_s=wait_s + PATIENCE_S,
                )
            except (PeerUnavailableError, NoSystemError) as error:  # a consumer may come before its system
                # A process that never was connected is told at once; one that has left its cluster may come back to it.
                if isinstance(error, NotConnectedError) and heard_in != os.getpid():
                    raise
                reply = {"status": "unavailable", "reason": str(error)}
            else:
                heard_in = os.getpid()
            match reply["status"]:
                case "order":
                    pause_s = FIRST_PAUSE_S
                    yield self._taken(reply)
                    quiet_since = time.monotonic()
                    continue
                case "unavailable":
                    logger.info("retrain orders: %s; retrying", reply["reason"])
                    rest_s = max(pause_s, reply.get("retry_in_s", 0.0))
                    time.sleep(rest_s if timeout_s is None else min(rest_s, max(left_s, 0.0)))
                    pause_s = min(pause_s * 2, LONGEST_PAUSE_S)
                case _:
                    pause_s = FIRST_PAUSE_S
            if timeout_s is not None and time.monotonic() - quiet_since >= timeout_s:
                return

    def trigger(
        self,
        model: str,
        reason: str,
        version: str | None = None,
        *,
        by: str | None = None,
        comment: str | None = None,
    ) -> Admitted:
        """Ask for a retrain by hand. Passes a cooldown and a silence, and says so in the history.

        Its `decision` is "skipped" where another order of the model is not finished, or under `dry_run`. A model that has
        never logged gets its order with a `warning`. ValueError: a pattern, or no name.

        Example:
            system.retrains.trigger("fraud", reason="new labels")
        """
        arguments = {"model": model, "reason": reason, "version": version, "key": uuid.uuid4().hex}
        arguments |= people.given(by=by, comment=comment)
        admitted = cast("Admitted", self._asked("trigger", arguments))
        if "warning" in admitted:
            logger.warning("%s", admitted["warning"])
        return admitted

    def silence(self, model: str, duration: str, comment: str = "", *, label: str | None = None, by: str | None = None) -> str:
        """Hold back the orders of `model` (or of a pattern like `fraud-*`) for `duration`; return the silence's id.

        Args:
            model: A name or a pattern.
            duration: How long, from now: 30m, 2h, 7d.
            comment: Why, for those who see it.
            label: A selector like `team=risk,tier!=2`: of the models that the pattern matches, only those that it matches.
            by: Who asks for it.

        Raises:
            ValueError: no duration, no selector, or a pattern that the name of no model can match.

        Example:
            system.retrains.silence("*", "2h", comment="migration", label="team=risk", by="ada")
        """
        try:
            duration_s = parse_duration(duration)
        except ValueError as error:
            raise ValueError(f"duration {error}") from None
        arguments = {"model": model, "duration_s": duration_s, "comment": comment, "key": uuid.uuid4().hex}
        arguments |= people.given(label=label, by=by)
        made = cast("SilenceMade", self._asked("silence", arguments))
        if "warning" in made:
            logger.warning("%s", made["warning"])
        return made["silence"]

    def silences(self, model: str | None = None) -> list[SilenceRow]:
        """Return the silences in force: all, or those that cover `model`, by its name or by a pattern.

        Example:
            system.retrains.silences("fraud-eu")    # shows a silence of fraud-*
        """
        arguments = {} if model is None else {"model": model}
        return cast("SilenceListing", self._asked("silences", arguments))["silences"]

    def unsilence(self, silence: str) -> None:
        """End a silence by its id. KeyError: no such silence.

        Example:
            system.retrains.unsilence(silence)
        """
        self._asked("unsilence", {"silence": silence})

    def history(
        self,
        model: str | None = None,
        *,
        limit: int = 1000,
        state: str | None = None,
        judged: bool = False,
        label: str | None = None,
    ) -> list[OrderRow]:
        """Return the newest `limit` orders and decisions, oldest first; among them those that launched nothing.

        `judged` leaves only the retrains of which it is known whether they paid; `label`, a selector like `team=risk`, those of
        the models that it matches. Times are seconds since the epoch, or None.

        Example:
            [(row["model"], row["verdict"], row["saved"]) for row in system.retrains.history(judged=True)]
        """
        arguments: Arguments = {"model": model, "limit": limit, "state": state}
        if judged:
            arguments["judged"] = True
        arguments |= people.given(label=label)
        return cast("OrderHistory", self._asked("history", arguments))["rows"]

    def queue(self) -> list[QueueRow]:
        """Return the orders that wait, the next one first, each with its `place` and `why` it waits.

        Example:
            [(row["place"], row["model"], row["why"]) for row in system.retrains.queue()]
        """
        return cast("OrderQueue", self._asked("queue", {}))["rows"]

    def front(self, order: str, *, by: str | None = None, comment: str | None = None) -> None:
        """Move a waiting order to the front of the queue. KeyError: no such order; ValueError: it does not wait.

        Example:
            system.retrains.front(system.retrains.queue()[-1]["id"])
        """
        self._asked("front", {"order": order, **people.given(by=by, comment=comment)})

    def dead_letters(self) -> list[OrderRow]:
        """Return the orders that could not be launched, as rows of the history.

        Example:
            [row["reason"] for row in system.retrains.dead_letters()]
        """
        return self.history(state="dead")

    def dismiss(self, order: str, reason: str, *, by: str | None = None, comment: str | None = None) -> None:
        """Close a dead letter or a failed order that a person has dealt with. KeyError; ValueError: another state.

        Example:
            system.retrains.dismiss(order, reason="retrained by hand")
        """
        self._asked("dismiss", {"order": order, "reason": reason, **people.given(by=by, comment=comment)})

    def show(self, order: str) -> OrderShown:
        """Return one order with its explanation and the log of its attempts. KeyError: no such order.

        Example:
            system.retrains.show(order)["attempt_log"]
        """
        return cast("OrderShown", self._asked("order", {"order": order}))

    def retry(self, order: str, *, by: str | None = None, comment: str | None = None) -> Admitted:
        """Queue a failed, dead or expired order again. KeyError: no such order; ValueError: it runs, or ended otherwise.

        Example:
            system.retrains.retry(order)
        """
        return cast("Admitted", self._asked("retry", {"order": order, **people.given(by=by, comment=comment)}))

    def done(
        self,
        order: str,
        new_version: str | None = None,
        *,
        reason: str | None = None,
        promise: float | None = None,
        promise_n: float | None = None,
        promise_source: str = "cross_validation",
    ) -> EndingRecorded:
        """Record by hand that an order is through, no matter who has it: for retrains that no handler can follow.

        Example:
            system.retrains.done(order, new_version="8", promise=0.91, promise_n=2500)
        """
        arguments: Arguments = {"order": order, "outcome": "done", "new_version": new_version, "reason": reason}
        if promise is not None or promise_n is not None:
            arguments |= {"promise": promise, "promise_n": promise_n, "promise_source": promise_source}
        return cast("EndingRecorded", self._asked("finish", arguments))

    def failed(self, order: str, reason: str) -> EndingRecorded:
        """Record by hand that a retrain failed, no matter who has the order.

        Example:
            system.retrains.failed(order, reason="out of memory")
        """
        return cast("EndingRecorded", self._asked("finish", {"order": order, "outcome": "failed", "reason": reason}))

    def cooldowns(self) -> dict[str, float]:
        """Return the seconds that are left of every cooldown in force, by model.

        Example:
            system.retrains.cooldowns().get("fraud", 0.0)
        """
        return cast("CooldownListing", self._asked("cooldowns", {}))["cooldowns"]

    def gave_up(self) -> dict[str, int]:
        """Return the models that ask for no retrain any more, with the number of retrains in a row that came to nothing.

        Example:
            for model in system.retrains.gave_up():
                system.retrains.trigger(model, reason="looked at it")
        """
        return cast("CooldownListing", self._asked("cooldowns", {})).get("gave_up", {})

    def _taken(self, reply: Taken) -> RetrainOrder:
        order = reply["order"]
        if self._process != os.getpid():  # a child of a fork has neither its parent's threads nor its orders
            self._process, self._leases = os.getpid(), Leases(self._ask)
        self._leases.hold(order["id"], reply["token"])
        return RetrainOrder(order["id"], RetrainEvent(**order["event"]), order["attempt"], reply["token"], self._leases)

    def _asked(self, method: str, arguments: Arguments) -> Any:
        return until_answered(self._ask, method, arguments, PATIENCE_S)
