"""What a job holds to react to retrains: `system.retrains`.

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
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from actors.cluster.peers import NotConnectedError, PeerUnavailableError
from actors.config import parse_duration
from actors.errors import NoSystemError
from actors.events import RetrainEvent

logger = logging.getLogger(__name__)

_DISPATCHER: Final = "dispatcher"
# One waiting call; short enough that a call that outlives its caller does not hold an order for long.
_POLL_S: Final = 10.0
# What a call may take beyond the time it was asked to wait.
_PATIENCE_S: Final = 10.0
_FIRST_PAUSE_S: Final = 0.2
_LONGEST_PAUSE_S: Final = 2.0
# Of a lease, how much may pass before it is renewed: two renewals may fail.
_RENEW_AFTER: Final = 1 / 3


class Ask(Protocol):
    """Calls an actor of the system by name and waits: `peers.BlockingPeers`, or a fake in a test."""

    def call(self, name: str, method: str, arguments: dict[str, Any], *, timeout_s: float) -> Any:
        """Give the reply; PeerUnavailableError where none came, and what the method raised."""


@dataclass(slots=True)
class RetrainOrder:
    """An order in this consumer's hands. `attempt` is 1 the first time it is handed to anybody."""

    id: str
    event: RetrainEvent
    attempt: int
    _token: int = field(repr=False)
    _leases: _Leases = field(repr=False)

    @property
    def lost(self) -> bool:
        """Tell whether the order has been handed to somebody else, or ended by somebody else."""
        return self._leases.is_lost(self.id, self._token)

    def done(self, new_version: str | None = None, *, timeout_s: float | None = None) -> bool:
        """Say that the retrain is through; `new_version` closes the episode. Waits until that is recorded.

        False where the order is somebody else's by now (nothing was recorded). PeerUnavailableError after `timeout_s`.
        """
        return self._finish("done", None, new_version, timeout_s)

    def failed(self, reason: str, *, timeout_s: float | None = None) -> bool:
        """Say that the retrain failed; the order stays failed until a person puts it back. Otherwise like `done`."""
        return self._finish("failed", str(reason), None, timeout_s)

    def _finish(self, outcome: str, reason: str | None, new_version: str | None, timeout_s: float | None) -> bool:
        arguments = {
            "order": self.id,
            "token": self._token,
            "outcome": outcome,
            "reason": reason,
            "new_version": new_version,
        }
        self._leases.finishing(self.id, self._token)
        reply = _until_answered(self._leases.ask, "finish", arguments, timeout_s, outlasts_the_system=True)
        self._leases.drop(self.id, self._token)
        if reply["status"] == "recorded":
            return True
        logger.warning("order %s: %r was not recorded: %s", self.id, outcome, reply["reason"])
        return False


class Retrains:
    """Orders, history and silences of one system. Safe to use from several threads, and after a fork."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._leases = _Leases(ask)
        self._process = os.getpid()

    def stream(self, model: str | None = None, timeout_s: float | None = None) -> Iterator[RetrainOrder]:
        """Give orders of the channel as they come, of `model` or of any.

        Waits while there is none, and reconnects while the system is away; ends after `timeout_s` without an order. Leaving
        the loop gives no order back: what was taken stays leased to this process until it is finished or the process ends.
        """
        if timeout_s is not None and not timeout_s >= 0:
            raise ValueError(f"timeout_s must be >= 0 or None, got {timeout_s}")
        consumer = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        pause_s = _FIRST_PAUSE_S
        quiet_since = time.monotonic()
        while True:
            left_s = _POLL_S if timeout_s is None else timeout_s - (time.monotonic() - quiet_since)
            wait_s = max(min(left_s, _POLL_S), 0.0)
            try:
                reply = self._ask.call(
                    _DISPATCHER,
                    "take",
                    {"consumer": consumer, "model": model, "timeout_s": wait_s},
                    timeout_s=wait_s + _PATIENCE_S,
                )
            except NotConnectedError:
                raise
            except (PeerUnavailableError, NoSystemError) as error:  # a consumer may come before its system
                reply = {"status": "unavailable", "reason": str(error)}
            match reply["status"]:
                case "order":
                    pause_s = _FIRST_PAUSE_S
                    yield self._taken(reply)
                    quiet_since = time.monotonic()
                    continue
                case "unavailable":
                    logger.info("retrain orders: %s; trying again", reply["reason"])
                    time.sleep(pause_s if timeout_s is None else min(pause_s, max(left_s, 0.0)))
                    pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
                case _:
                    pause_s = _FIRST_PAUSE_S
            if timeout_s is not None and time.monotonic() - quiet_since >= timeout_s:
                return

    def trigger(self, model: str, reason: str, version: str | None = None) -> dict[str, Any]:
        """Ask for a retrain by hand. Passes a cooldown and a silence, and says so in the history.

        Gives `{"decision": "dispatched"|"pending"|"skipped", "order", "reason", ...}`: skipped where another order of the
        model is not finished, or under `dry_run`.
        """
        return self._asked("trigger", {"model": model, "reason": reason, "version": version, "key": uuid.uuid4().hex})

    def silence(self, model: str, duration: str, comment: str = "") -> str:
        """Give no orders of their own accord to `model` (or a pattern like `fraud-*`) for `duration` ("2h"); give its id."""
        try:
            duration_s = parse_duration(duration)
        except ValueError as error:
            raise ValueError(f"duration {error}") from None
        arguments = {"model": model, "duration_s": duration_s, "comment": comment, "key": uuid.uuid4().hex}
        return str(self._asked("silence", arguments)["silence"])

    def silences(self) -> list[dict[str, Any]]:
        """Give the silences in force: id, model, comment, created_at, remaining_s."""
        rows: list[dict[str, Any]] = self._asked("silences", {})["silences"]
        return rows

    def unsilence(self, silence: str) -> None:
        """End a silence by its id. KeyError: no such silence."""
        self._asked("unsilence", {"silence": silence})

    def history(self, model: str | None = None, *, limit: int = 1000, state: str | None = None) -> list[dict[str, Any]]:
        """Give the newest `limit` orders and decisions, oldest first; among them those that launched nothing.

        Rows carry id, model, state, reason, requested_at, dispatched_at, finished_at, attempts, and version, metric,
        episode, observed_drift, handler, new_version, consumer. Times are seconds since the epoch, or None.
        """
        rows: list[dict[str, Any]] = self._asked("history", {"model": model, "limit": limit, "state": state})["rows"]
        return rows

    def dead_letters(self) -> list[dict[str, Any]]:
        """Give the orders that could not be launched, as rows of the history."""
        return self.history(state="dead")

    def show(self, order: str) -> dict[str, Any]:
        """Give one order with its explanation and the log of its attempts. KeyError: no such order."""
        return self._asked("order", {"order": order})

    def retry(self, order: str) -> dict[str, Any]:
        """Put a failed, dead or expired order back; the reply is that of `trigger`. KeyError: no such order."""
        return self._asked("retry", {"order": order})

    def done(self, order: str, new_version: str | None = None, *, reason: str | None = None) -> dict[str, Any]:
        """Record by hand that an order is through, whoever has it: for retrains that no handler can follow."""
        arguments = {"order": order, "outcome": "done", "new_version": new_version, "reason": reason}
        return self._asked("finish", arguments)

    def failed(self, order: str, reason: str) -> dict[str, Any]:
        """Record by hand that a retrain failed, whoever has it."""
        return self._asked("finish", {"order": order, "outcome": "failed", "reason": reason})

    def cooldowns(self) -> dict[str, float]:
        """Give the seconds that are left of every cooldown in force, by model."""
        found: dict[str, float] = self._asked("cooldowns", {})["cooldowns"]
        return found

    def _taken(self, reply: dict[str, Any]) -> RetrainOrder:
        order = reply["order"]
        if self._process != os.getpid():  # a child of a fork has neither its parent's threads nor its orders
            self._process, self._leases = os.getpid(), _Leases(self._ask)
        self._leases.hold(order["id"], reply["token"])
        return RetrainOrder(order["id"], RetrainEvent(**order["event"]), order["attempt"], reply["token"], self._leases)

    def _asked(self, method: str, arguments: dict[str, Any]) -> dict[str, Any]:
        return _until_answered(self._ask, method, arguments, _PATIENCE_S)


class _Leases:
    """The orders that this process holds, and the one thread that renews them while there are any."""

    def __init__(self, ask: Ask) -> None:
        self.ask = ask
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._renew_at: dict[tuple[str, int], float] = {}
        self._lost: set[tuple[str, int]] = set()
        self._finishing: set[tuple[str, int]] = set()
        self._runs = False

    def hold(self, order: str, token: int) -> None:
        """Keep an order from now on. The first lease is short, so it is renewed at once."""
        with self._changed:
            if not self._runs:
                self._runs = True
                threading.Thread(target=self._renew_all, name="visutility-leases", daemon=True).start()
            self._renew_at[order, token] = time.monotonic()
            self._changed.notify()

    def finishing(self, order: str, token: int) -> None:
        """Go on renewing, but let the reply to the finishing word say how the order stands."""
        with self._lock:
            self._finishing.add((order, token))

    def drop(self, order: str, token: int) -> None:
        """Keep an order no longer."""
        with self._changed:
            self._renew_at.pop((order, token), None)
            self._finishing.discard((order, token))
            self._lost.discard((order, token))
            self._changed.notify()

    def is_lost(self, order: str, token: int) -> bool:
        """Tell whether a renewal was refused."""
        with self._lock:
            return (order, token) in self._lost

    def _renew_all(self) -> None:
        while True:
            with self._changed:
                if not self._renew_at:
                    self._runs = False
                    return
                (order, token), due = min(self._renew_at.items(), key=lambda item: item[1])
                wait_s = due - time.monotonic()
                if wait_s > 0:
                    self._changed.wait(wait_s)
                    continue
            next_in_s = self._renewed(order, token)
            with self._changed:
                if (order, token) not in self._renew_at:
                    continue
                if next_in_s is not None:
                    self._renew_at[order, token] = time.monotonic() + next_in_s
                    continue
                del self._renew_at[order, token]
                if (order, token) not in self._finishing:
                    self._lost.add((order, token))
                    logger.warning("order %s is lost to this process: handed on, or ended by somebody else", order)

    def _renewed(self, order: str, token: int) -> float | None:
        """Renew once; give the seconds until the next time, None where the order is lost."""
        try:
            reply = self.ask.call(_DISPATCHER, "renew", {"order": order, "token": token}, timeout_s=_PATIENCE_S)
        except (PeerUnavailableError, NoSystemError):
            return 1.0
        except Exception:
            logger.exception("the lease of order %s could not be renewed; trying again", order)
            return 1.0
        match reply["status"]:
            case "renewed":
                return float(reply["lease_s"]) * _RENEW_AFTER
            case "lost":
                return None
            case _:
                return 1.0


def _until_answered(
    ask: Ask, method: str, arguments: dict[str, Any], timeout_s: float | None, *, outlasts_the_system: bool = False
) -> dict[str, Any]:
    """Ask until there is an answer: every method here may be asked twice. PeerUnavailableError after `timeout_s`."""
    give_up_at = None if timeout_s is None else time.monotonic() + timeout_s
    pause_s = _FIRST_PAUSE_S
    while True:
        try:
            reply: dict[str, Any] = ask.call(_DISPATCHER, method, arguments, timeout_s=_PATIENCE_S)
        except (PeerUnavailableError, NoSystemError) as error:
            if isinstance(error, NotConnectedError) or (isinstance(error, NoSystemError) and not outlasts_the_system):
                raise
            reply = {"status": "unavailable", "reason": str(error)}
        if reply.get("status") != "unavailable":
            return reply
        if give_up_at is not None and time.monotonic() >= give_up_at:
            raise PeerUnavailableError(f"retrains.{method}: {reply['reason']}")
        logger.warning("retrains.%s: %s; trying again", method, reply["reason"])
        time.sleep(pause_s)
        pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
