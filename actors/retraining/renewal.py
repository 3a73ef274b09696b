"""Keeps a consumer's lease: renews it while the process lives, and repeats calls until they are answered."""

from __future__ import annotations

import logging
import threading
import time
from typing import Any, Final

from actors.cluster.peers import Ask, NotConnectedError, PeerUnavailableError
from actors.errors import NoSystemError
from actors.plain import Arguments

logger = logging.getLogger(__name__)

DISPATCHER: Final = "dispatcher"
# The time that a call may take beyond its waiting time.
PATIENCE_S: Final = 10.0
FIRST_PAUSE_S: Final = 0.2
LONGEST_PAUSE_S: Final = 2.0
# Of a lease, how much may pass before it is renewed: two renewals may fail.
_RENEW_AFTER: Final = 1 / 3


class Leases:
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
        """Go on renewing, but let the reply to the final call decide whether the order is lost."""
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
        """Return whether a renewal was refused."""
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
                    logger.warning(
                        "order %s is lost to this process: another consumer has it, or somebody else has ended it", order
                    )

    def _renewed(self, order: str, token: int) -> float | None:
        """Renew once; return the seconds until the next time, None where the order is lost."""
        try:
            reply = self.ask.call(DISPATCHER, "renew", {"order": order, "token": token}, timeout_s=PATIENCE_S)
        except (PeerUnavailableError, NoSystemError):
            return 1.0
        except Exception:
            logger.exception("the lease of order %s could not be renewed; retrying", order)
            return 1.0
        match reply["status"]:
            case "renewed":
                return float(reply["lease_s"]) * _RENEW_AFTER
            case "lost":
                return None
            case _:
                return 1.0


def until_answered(
    ask: Ask, method: str, arguments: Arguments, timeout_s: float | None, *, outlasts_the_system: bool = False
) -> Any:
    """Call until there is an answer: every method here may be called twice. PeerUnavailableError after `timeout_s`."""
    give_up_at = None if timeout_s is None else time.monotonic() + timeout_s
    pause_s = FIRST_PAUSE_S
    while True:
        try:
            reply: Arguments = ask.call(DISPATCHER, method, arguments, timeout_s=PATIENCE_S)
        except NotConnectedError:
            raise
        except (PeerUnavailableError, NoSystemError) as error:
            if isinstance(error, NoSystemError) and not outlasts_the_system:
                raise
            reply = {"status": "unavailable", "reason": str(error)}
        if reply.get("status") != "unavailable":
            return reply
        if give_up_at is not None and time.monotonic() >= give_up_at:
            raise PeerUnavailableError(f"retrains.{method}: {reply['reason']}")
        logger.warning("retrains.%s: %s; retrying", method, reply["reason"])
        time.sleep(pause_s)
        pause_s = min(pause_s * 2, LONGEST_PAUSE_S)
