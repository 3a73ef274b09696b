"""The background thread of a client: seals logged events, carries out the sender's commands, and processes replies."""

from __future__ import annotations

import logging
import threading
import time
import uuid
import weakref
from collections.abc import Sequence
from typing import Any, Final

from actors import wire
from actors.metrics import sealing
from actors.metrics.buffer import Buffer, OnFull
from actors.metrics.link import Link
from actors.metrics.sender import Ask, Outcome, Part, Send, Sender, Settled, Warn, rejection_warning
from actors.wire.messages import Message

logger = logging.getLogger(__name__)

LINGER_S: Final = 0.02  # how long the first event of a batch waits for company where nobody flushes
_ASK_S: Final = 5.0
_IDLE_S: Final = 60.0
_LEAST_PAUSE_S, _MOST_PAUSE_S = 0.005, 0.25  # between two rounds while something waits


class Pump:
    """Owns a client's buffer, sender and link, and the thread that works with them.

    It lives for as long as something is to be acknowledged, also where nobody holds the client any more.
    """

    def __init__(self, link: Link, producer: str | None, limit: int, on_full: OnFull) -> None:
        """Nothing is connected yet, and no thread runs before the first `rouse`."""
        self.buffer = Buffer(limit, on_full, self.rouse)
        self.link = link
        self._sender = Sender(producer or _new_producer(), resumes=producer is not None, new_producer=_new_producer)
        self._tickets: dict[int, Any] = {}
        self._starting = threading.Lock()
        self._wake = threading.Event()
        self._hurry = threading.Event()  # set while somebody waits in `flush`: nothing waits for company then
        self._flushing = 0
        self._ends = False  # once nothing is owed: the client was closed, or nobody holds it
        self._warned: set[str] = set()
        self.thread: threading.Thread | None = None
        _pumps.add(self)

    @property
    def producer(self) -> str:
        """The name that the system knows this client's streams by."""
        return self._sender.producer

    def rouse(self) -> None:
        """Ensure the worker thread is running, and wake it."""
        thread = self.thread
        if thread is None or not thread.is_alive():
            with self._starting:
                if self.thread is None or not self.thread.is_alive():
                    self._ends = False
                    self.thread = threading.Thread(target=self._run, name="metrics", daemon=True)
                    self.thread.start()
        self._wake.set()

    def flush(self, timeout_s: float) -> None:
        """Wait until every event logged before is settled, at most `timeout_s`."""
        deadline_s = time.monotonic() + timeout_s
        target = self.buffer.logged
        with self._starting:
            self._flushing += 1
            self._hurry.set()
        self.rouse()
        try:
            while not self.buffer.wait(target, min(max(deadline_s - time.monotonic(), 0.0), 1.0)):
                if time.monotonic() >= deadline_s or self.thread is None or not self.thread.is_alive():
                    break
        finally:
            with self._starting:
                self._flushing -= 1
                if not self._flushing:
                    self._hurry.clear()

    def close(self, wait_s: float = 0.0) -> None:
        """End the thread once everything is acknowledged, and wait for it; a later event starts another."""
        self._ends = True
        self._wake.set()
        thread = self.thread
        if wait_s and thread is not None and thread is not threading.current_thread():
            thread.join(wait_s)

    # --- the thread

    def _run(self) -> None:
        while True:
            self._wake.clear()
            try:
                pause_s = self._step()
            except Exception:
                logger.exception("logging continues in a moment")
                pause_s = 0.5
            if self._ends and not self.buffer.owes:
                with self._starting:  # an event that is logged from now on starts another thread
                    if not self.buffer.owes:
                        self.thread = None
                        return
            if pause_s > 0.0 and self._wake.wait(pause_s) and pause_s >= _IDLE_S:
                self._hurry.wait(LINGER_S)

    def _step(self) -> float:
        """Do one round of work; return the seconds that may pass before the next."""
        for model, packed in self.buffer.take():
            if packed.emptied is not None:
                self._settle([rejection_warning(model, "events are rejected and counted", packed.emptied)])
            self._sender.add(model, packed)
        self._take_replies(0.0)
        for command in self._sender.commands(time.monotonic()):
            if isinstance(command, Send):
                self._send(command)
            else:
                self._ask(command)
        if self._tickets:
            self._take_replies(LINGER_S)
            return 0.0
        wait_s = self._sender.wait_s(time.monotonic())
        return _IDLE_S if wait_s is None else min(max(wait_s, _LEAST_PAUSE_S), _MOST_PAUSE_S)

    def _send(self, send: Send) -> None:
        counts = self.buffer.counts()
        client = {
            "logged": self.buffer.logged,
            "accepted": counts["accepted"],
            "rejected": counts["rejected"],
            "dropped": counts["dropped"],
            "bad_values": counts["bad_values"],
        }
        schema = self.link.schema() if any(part.packed.has_weights for part in send.parts) else wire.SCHEMA
        ticket = None
        if schema is not None:
            ticket = self.link.send([self._message(part, client, schema) for part in send.parts])
        if ticket is None:
            self._sender.not_sent(send.call, time.monotonic())
        else:
            self._tickets[send.call] = ticket

    def _message(self, part: Part, client: dict[str, int], schema: int) -> Message:
        payload = part.packed.payload
        if part.packed.has_weights and schema < 2:
            self._settle([Warn("weights", "the system runs a build without n: leaving n out until it is upgraded")])
            payload = sealing.without_weights(payload)
        message: Message = {
            "model": part.model,
            "producer": part.producer,
            "sequence": part.sequence,
            "payload": wire.for_travel(payload),
            "client": client,
        }
        if part.packed.emptied is not None:
            message["rejection"] = part.packed.emptied
        if part.packed.is_stamped:
            message["stamped"] = True
        return message

    def _ask(self, ask: Ask) -> None:
        try:
            reply = self.link.call("high_water", _ASK_S, model=ask.model, producer=ask.producer)
            known = int(reply["high_water"]) if reply.get("status") == "ok" else None
        except (ConnectionError, ValueError, KeyError):
            known = None
        self._sender.resumed(ask.model, known, time.monotonic())

    def _take_replies(self, timeout_s: float) -> None:
        if not self._tickets:
            return
        ready = self.link.wait(list(self._tickets.values()), timeout_s)
        now_s = time.monotonic()
        for call, ticket in list(self._tickets.items()):
            if ticket in ready:
                del self._tickets[call]
                self._settle(self._sender.replied(call, self.link.reply(ticket), now_s))
        for call in self._sender.expired(now_s):
            del self._tickets[call]

    def _settle(self, outcomes: Sequence[Outcome]) -> None:
        for outcome in outcomes:
            if isinstance(outcome, Settled):
                self.buffer.settle(outcome)
            elif outcome.once not in self._warned:
                self._warned.add(outcome.once)
                logger.warning("%s", outcome.text)


_pumps: weakref.WeakSet[Pump] = weakref.WeakSet()


def running() -> list[Pump]:
    """Return the pumps of this process that have events which nobody has acknowledged."""
    return [pump for pump in list(_pumps) if pump.buffer.owes]


def forked() -> None:
    """Learn that this process is a fork: the pumps, their locks and their threads are the parent's."""
    _pumps.clear()


def _new_producer() -> str:
    return uuid.uuid4().hex
