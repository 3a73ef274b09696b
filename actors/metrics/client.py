"""Metrics: what a job logs through. Logging costs the job some microseconds and bounded memory, whatever the system does.

The caller's thread appends to a buffer. One background thread seals what lies there into a batch for each model, numbers it,
sends a bounded window of batches and sends again, with the same numbers, whatever was not acknowledged. What is dropped is
dropped before it gets a number. Events that no reply acknowledged are lost with the process: call `flush`.

The system is found by name whenever it is needed, so a job may start before it and outlives its restarts. A copy of this object
in another process (pickled, or after a fork) is another producer, with buffers and counts of its own.
"""

from __future__ import annotations

import atexit
import itertools
import logging
import os
import threading
import time
import uuid
import weakref
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol

import numpy as np
import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayError, RayTaskError

from actors import wire

logger = logging.getLogger(__name__)

UNVERSIONED: Final = wire.UNVERSIONED

# What one buffered event costs this process beside its metrics: a tuple, a dict, a time (measured with tracemalloc).
_EVENT_BYTES: Final = 400
_METRIC_BYTES: Final = 72
# A batch of rows: enough to share the costs of a call, few enough to be packed in some milliseconds.
_SEAL_ROWS: Final = 5_000
_KNOWN_NAMES: Final = 20_000  # names that were checked and are remembered: a set of them has some 2 MB
# In flight at once: of all streams together, and of one: one call is committed while the next is on its way.
_WINDOW_CALLS: Final = 16
_WINDOW_BYTES: Final = 24 * 2**20
_STREAM_CALLS: Final = 2
_CALL_BYTES: Final = 1024 * 1024
_CALL_BATCHES: Final = 1000
# How long the first event of a batch waits for company where nobody flushes.
_LINGER_S: Final = 0.02
# Longer than the broadcaster waits for a detector, so that its word comes first.
_REPLY_S: Final = 20.0
_FIND_S: Final = 0.25
_BACKOFF_S: Final = (0.02, 0.05, 0.1, 0.25, 0.5, 1.0)
_EXIT_S: Final = 5.0
_BASELINE_S: Final = 30.0


class WrongTypeError(TypeError, ValueError):
    """A mistake in the program: a metric that is no number, a name that is no text."""


class Link(Protocol):
    """How a client reaches the broadcaster; a unit test brings its own."""

    def send(self, batches: list[dict[str, Any]]) -> Any | None:
        """Begin `ingest_many`; give a ticket, or None where no broadcaster can be found now."""

    def wait(self, tickets: list[Any], timeout_s: float) -> list[Any]:
        """Give those of the tickets whose reply is there, after at most `timeout_s`."""

    def reply(self, ticket: Any) -> list[dict[str, Any]] | None:
        """Give the reply, None where the outcome is unknown."""

    def call(self, method: str, timeout_s: float, **arguments: Any) -> Any:
        """Call another method and wait; ConnectionError where no reply came, ValueError and KeyError as they were raised."""


class RayLink:
    """The broadcaster of a namespace, by name."""

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace
        self._handle: Any = None
        self._look_at_s = 0.0
        # Ray's connection does not survive a fork: a child has none until it has made its own.
        self._forked_worker: object = None

    def forked(self) -> None:
        """Learn that this process is a fork: the parent's connection is not ours."""
        self._handle = None
        self._forked_worker = _worker()

    def _is_connected(self) -> bool:
        """Tell whether this process is on a cluster; where it is not, Ray's functions would start one by themselves."""
        if not ray.is_initialized():
            self._handle = None
        return ray.is_initialized()

    def _found(self) -> Any:
        if self._is_connected() and self._handle is None and time.monotonic() >= self._look_at_s:
            self._look_at_s = time.monotonic() + _FIND_S
            if _worker() is not self._forked_worker:
                try:
                    self._handle = ray.get_actor("broadcaster", namespace=self._namespace)
                except (ValueError, RayError):
                    return None
        return self._handle

    def send(self, batches: list[dict[str, Any]]) -> Any | None:
        """Begin the call."""
        handle = self._found()
        if handle is None:
            return None
        try:
            return handle.ingest_many.remote(batches=batches)
        except Exception:  # noqa: BLE001  a Ray that was shut down raises what it likes; we look for it again
            self._handle = None
            return None

    def wait(self, tickets: list[Any], timeout_s: float) -> list[Any]:
        """Wait for the first of them."""
        if not self._is_connected():
            return list(tickets)
        try:
            ready, _ = ray.wait(tickets, num_returns=1, timeout=timeout_s)
            if ready and len(tickets) > 1:
                ready, _ = ray.wait(tickets, num_returns=len(tickets), timeout=0)
        except Exception:  # noqa: BLE001  the connection is gone: every reply is
            self._handle = None
            return list(tickets)
        return list(ready)

    def reply(self, ticket: Any) -> list[dict[str, Any]] | None:
        """Take a reply."""
        if not self._is_connected():
            return None
        try:
            found: list[dict[str, Any]] = ray.get(ticket, timeout=0)
        except (RayActorError, RayTaskError, GetTimeoutError) as error:
            logger.debug("no reply from the broadcaster: %s", error)
            self._handle = None
            return None
        except Exception:  # noqa: BLE001  the connection is gone
            self._handle = None
            return None
        return found

    def call(self, method: str, timeout_s: float, **arguments: Any) -> Any:
        """Call and wait."""
        self._look_at_s = 0.0
        handle = self._found()
        if not ray.is_initialized():
            raise ConnectionError("this process is connected to no Ray cluster: ray.init() or actors.connect() comes first")
        if handle is None:
            raise ConnectionError(f"no broadcaster is running in namespace {self._namespace!r}")
        try:
            return ray.get(getattr(handle, method).remote(**arguments), timeout=timeout_s)
        except RayTaskError as error:
            raise error.cause from None
        except (RayActorError, GetTimeoutError) as error:
            self._handle = None
            raise ConnectionError(f"broadcaster.{method}: no reply within {timeout_s:g} s") from error


@dataclass(slots=True)
class _Batch:
    sequence: int
    rows: int
    payload: bytes
    emptied: wire.Rejection | None = None
    was_first: bool = False  # when it was sent: everything before it had been acknowledged


@dataclass(slots=True)
class _Stream:
    """The numbered batches of one model that are not acknowledged."""

    model: str
    next_sequence: int | None  # None: it is asked for first
    batches: deque[_Batch] = field(default_factory=deque)
    unsent: int = 0  # of `batches`, those at the end that are not in flight
    in_flight: int = 0  # calls that carry batches of this stream
    broken: bool = False  # something was not taken: nothing is sent before every reply is in, then all again in order
    wait_until_s: float = 0.0
    failures: int = 0
    epoch: int = 0


@dataclass(slots=True)
class _Call:
    ticket: Any
    parts: list[tuple[_Stream, _Batch]]
    size: int
    deadline_s: float


class Metrics:
    """Logs metrics of models; safe to use from several threads.

    `on_full="drop"` drops and counts what does not fit into `buffer_bytes` (unacknowledged batches included), "wait" waits.
    `producer` names this client for ever: whoever takes the name up again goes on where the store says it was; no two at once.
    """

    def __init__(
        self,
        namespace: str = "visutility",
        *,
        on_full: Literal["drop", "wait"] = "drop",
        buffer_bytes: int = 64 * 2**20,
        producer: str | None = None,
        link: Link | None = None,
    ) -> None:
        """Nothing is connected yet, and no thread runs before the first event."""
        if on_full not in {"drop", "wait"}:
            raise ValueError(f"on_full must be 'drop' or 'wait', got {on_full!r}")
        if isinstance(buffer_bytes, bool) or not isinstance(buffer_bytes, int) or buffer_bytes < 1:
            raise ValueError(f"buffer_bytes must be a number of bytes, 1 or more, got {buffer_bytes!r}")
        if producer is not None:
            wire.check_sequence(producer, 0)
        self.namespace = namespace
        self._on_full = on_full
        self._buffer_bytes = buffer_bytes
        # An eighth is left for what Python keeps of rows that were packed and freed (measured: 2 MB of 16).
        self._limit = buffer_bytes - buffer_bytes // 8
        self._given_producer = producer
        self._given_link = link
        self._begin()
        _living.add(self)

    def _begin(self) -> None:
        """Be a new producer with empty buffers: at the start, in a copy, and after a fork."""
        self._resumes = self._given_producer is not None
        self.producer = self._given_producer or uuid.uuid4().hex
        self._link: Link = self._given_link or RayLink(self.namespace)
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._room = threading.Condition(self._lock)
        self._wake = threading.Event()
        self._hurry = threading.Event()  # set while somebody waits in `flush`: nothing waits for company then
        self._thread: threading.Thread | None = None
        self._rows: list[tuple[str, str, float, dict[str, Any]]] = []
        self._row_bytes = 0  # what `_rows` count for in `_bytes`
        self._packed: list[tuple[str, wire.Packed]] = []  # by log_batch, and the rows that were logged before it
        self._bytes = 0
        self._versions: set[tuple[str, str]] = set()  # (model, version) whose names are fine
        self._names: set[str] = set()  # metrics whose names are fine
        self._counts = {"logged": 0, "accepted": 0, "duplicate": 0, "rejected": 0, "dropped": 0}
        self._flushing = 0
        self._closed = False
        self._warned: set[str] = set()
        self._streams: dict[str, _Stream] = {}
        self._ready: dict[str, _Stream] = {}  # streams with something to send
        self._calls: list[_Call] = []
        self._in_flight_bytes = 0

    def __reduce__(self) -> tuple[Any, ...]:
        return _revived, (self.namespace, self._on_full, self._buffer_bytes)

    def __repr__(self) -> str:
        return f"Metrics(namespace={self.namespace!r}, producer={self.producer!r})"

    # --- the caller's thread

    def log(
        self, metrics: Mapping[str, Any], *, model: str, version: str = UNVERSIONED, timestamp: float | None = None
    ) -> None:
        """Log one event: numbers by name (accuracy, precision and recall in [0, 1]), texts as extras.

        `timestamp`: seconds since the epoch, now where it is left out. Raises WrongTypeError (a TypeError and ValueError) for
        what is no number or text. A value that is out of range is counted as rejected, and warned about once.
        """
        held = (
            dict(metrics)
            if isinstance(metrics, Mapping)
            else _wrong("metrics", metrics, "must be a mapping of names to numbers")
        )
        text_size = 0
        for name, value in held.items():
            kind = type(value)
            if kind is float or kind is int:
                continue
            text_size += _check_cell(name, value)
        if not held.keys() <= self._names or len(held) > wire.MAX_COLUMNS:
            self._check_names(held)
        if (model, version) not in self._versions:
            self._check_version(model, version)
        if text_size > wire.MAX_EXTRAS_BYTES:
            held, text_size = _shortened(held)
        if timestamp is None:
            timestamp = time.time()
        elif type(timestamp) is not float:
            timestamp = _timestamp(timestamp)
        size = _EVENT_BYTES + _METRIC_BYTES * len(held) + text_size
        with self._lock:
            self._counts["logged"] += 1
            if self._bytes + size > self._limit and not self._has_room(size, 1):
                return
            self._bytes += size
            self._row_bytes += size
            self._rows.append((model, version, timestamp, held))
        if self._thread is None or len(self._rows) == 1:
            self._rouse()

    def log_batch(self, metrics: Mapping[str, Any], *, model: str, version: str = UNVERSIONED, timestamps: Any = None) -> None:
        """Log many events of one version at once: equally long columns, float64[n] by name; ValueError names the wrong one.

        `timestamps` is float64[n] seconds since the epoch, one number for all, or None for now.
        """
        model = wire.check_model(model)
        batch = wire.batch_of_columns(metrics, version=version, timestamps=timestamps, now_s=time.time())
        self._drain_rows_of(model)
        for packed in wire.packed_columns(batch):
            with self._lock:
                self._counts["logged"] += packed.rows
                size = len(packed.payload) + _EVENT_BYTES
                if self._bytes + size > self._limit and not self._has_room(size, packed.rows):
                    continue
                self._bytes += size
                self._packed.append((model, packed))
        self._rouse()

    def baseline(
        self, metrics: Mapping[str, Any], *, model: str, version: str, timeout_s: float = _BASELINE_S
    ) -> dict[str, Any]:
        """Let a version's metrics learn from these values (float64[n] by name), say validation scores, instead of from events.

        Waits for the system: ConnectionError where it does not answer within `timeout_s`; ValueError for bad values.
        """
        columns = wire.batch_of_columns(metrics, version=version, timestamps=0.0, now_s=0.0).columns
        values = {name: column.values for name, column in columns.items()}
        return self._insist("baseline", timeout_s, model=wire.check_model(model), version=version, values=values)

    def flush(self, timeout_s: float = 10.0) -> dict[str, int]:
        """Wait until every event logged before is acknowledged, at most `timeout_s`.

        Gives counts of events since this client was made: accepted, duplicate (the system had them already), rejected,
        dropped, and pending (neither acknowledged nor given up).
        """
        deadline = time.monotonic() + timeout_s
        with self._lock:
            self._flushing += 1
            self._hurry.set()
        self._rouse()
        try:
            with self._room:
                target = self._counts["logged"]
                while self._settled() < target and self._thread is not None and self._thread.is_alive():
                    left = deadline - time.monotonic()
                    if left <= 0:
                        break
                    self._room.wait(min(left, 1.0))
        finally:
            with self._lock:
                self._flushing -= 1
                if not self._flushing:
                    self._hurry.clear()
        return self.counts()

    def counts(self) -> dict[str, int]:
        """Give what `flush` gives, without waiting."""
        with self._lock:
            told = {name: self._counts[name] for name in ("accepted", "duplicate", "rejected", "dropped")}
            return {**told, "pending": self._counts["logged"] - self._settled()}

    def close(self, timeout_s: float = _EXIT_S) -> None:
        """Flush and end the thread; what comes afterwards starts another."""
        if self._thread is not None:
            self.flush(timeout_s)
        self._closed = True
        self._wake.set()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(1.0)

    def _settled(self) -> int:
        counts = self._counts
        return counts["accepted"] + counts["duplicate"] + counts["rejected"] + counts["dropped"]

    def _has_room(self, size: int, events: int) -> bool:
        """Make room or not, the lock being held; False: the events were dropped, and counted."""
        if self._on_full == "wait" and size <= self._limit:
            self._rouse()
            while self._bytes + size > self._limit:
                self._room.wait(0.5)
                self._rouse()
            return True
        self._counts["dropped"] += events
        self._warn("full", "the buffer of %d bytes is full: events are dropped and counted", self._buffer_bytes)
        return False

    def _drain_rows_of(self, model: str) -> None:
        """Let the rows that were logged before a batch of the same model go before it."""
        with self._lock:
            if any(row[0] == model for row in self._rows):
                rows, row_bytes = self._take_rows()
                packed = _packed(rows)
                self._bytes += _size(packed) - row_bytes
                self._packed += packed

    def _check_names(self, metrics: Mapping[str, Any]) -> None:
        for name in metrics:
            rule = wire.metric_rule(name)
            if rule is not None:
                raise WrongTypeError(f"metric name {rule}, got {wire.shown(name)!r}")
        if len(metrics) > wire.MAX_COLUMNS:
            raise WrongTypeError(f"metrics must hold at most {wire.MAX_COLUMNS} names, got {len(metrics)}")
        if len(self._names) >= _KNOWN_NAMES:
            self._names.clear()
        self._names.update(metrics)

    def _check_version(self, model: str, version: str) -> None:
        try:
            key = wire.check_model(model), wire.check_version(version)
        except ValueError as error:
            raise WrongTypeError(str(error)) from None
        if len(self._versions) >= _KNOWN_NAMES:
            self._versions.clear()
        self._versions.add(key)

    def _rouse(self) -> None:
        """See to it that the thread runs and looks at what is new, whatever the caller does with his reference meanwhile."""
        _owing.add(self)
        thread = self._thread
        if thread is None or not thread.is_alive():
            with _starting:
                if self._thread is None or not self._thread.is_alive():
                    self._closed = False
                    wake = self._wake
                    reference = weakref.ref(self, lambda _: wake.set())  # the thread need not sleep on for nobody
                    self._thread = threading.Thread(target=_run, args=(reference,), name="metrics", daemon=True)
                    self._thread.start()
        self._wake.set()

    def _rest(self) -> None:
        """Hold on to itself no longer than something is to be acknowledged."""
        with self._lock:  # who logs now comes after, and makes it hold on again
            if self._counts["logged"] == self._settled():
                _owing.discard(self)

    def _warn(self, once: str, text: str, *arguments: object) -> None:
        if once not in self._warned:
            self._warned.add(once)
            logger.warning(text, *arguments)

    def _warn_rejected(self, model: str, first: wire.Rejection) -> None:
        rule = f"{first['field']} {first['rule']}"
        self._warn(rule, "%s: events are rejected and counted: %s, got %r", model, rule, first["value"])

    def _insist(self, method: str, timeout_s: float, **arguments: Any) -> dict[str, Any]:
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                reply = self._link.call(method, max(deadline - time.monotonic(), 0.1), **arguments)
                if reply["status"] not in {"unavailable", "busy"}:
                    return dict(reply)
                problem: object = reply.get("reason")
            except ConnectionError as error:
                problem = error
            if time.monotonic() >= deadline:
                raise ConnectionError(f"broadcaster.{method}: nothing within {timeout_s:g} s: {problem}")
            time.sleep(0.1)

    # --- the background thread

    def _step(self) -> float:
        """Do one round of work; give the seconds that may pass before the next."""
        self._seal()
        self._harvest(0.0)
        self._send()
        if self._calls:
            self._harvest(_LINGER_S)
            return 0.0
        if self._ready:
            now = time.monotonic()
            return min(max(min(s.wait_until_s for s in self._ready.values()) - now, 0.005), 0.25)
        return 60.0

    def _seal(self) -> None:
        """Turn what was logged into numbered batches."""
        with self._lock:
            sealed, self._packed = self._packed, []
            rows, row_bytes = self._take_rows()
        if rows:  # packed without the lock: nobody who logs waits for it
            packed_rows = _packed(rows)
            with self._lock:
                self._bytes += _size(packed_rows) - row_bytes
            sealed += packed_rows  # whatever log_batch packed before has taken the earlier rows of its model along
        for model, packed in sealed:
            if packed.emptied is not None:
                self._warn_rejected(model, packed.emptied)
            self._number(model, packed)

    def _take_rows(self) -> tuple[list[tuple[str, str, float, dict[str, Any]]], int]:
        """Take what was logged event by event, the lock being held, and what it counts for in `_bytes`."""
        taken = self._rows, self._row_bytes
        self._rows, self._row_bytes = [], 0
        return taken

    def _number(self, model: str, packed: wire.Packed) -> None:
        stream = self._streams.get(model)
        if stream is None:
            stream = self._streams[model] = _Stream(model, None if self._resumes else 0)
        sequence = -1 if stream.next_sequence is None else stream.next_sequence
        stream.batches.append(_Batch(sequence, packed.rows, packed.payload, packed.emptied))
        if stream.next_sequence is not None:
            stream.next_sequence += packed.rows
        stream.unsent += 1
        self._ready[model] = stream

    def _send(self) -> None:
        """Fill the window: consecutive batches of a stream, several streams in a call."""
        now = time.monotonic()
        parts: list[tuple[_Stream, _Batch]] = []
        size = 0
        for model, stream in list(self._ready.items()):
            if not self._may_send(stream, now):
                continue
            for batch in itertools.islice(stream.batches, len(stream.batches) - stream.unsent, None):
                batch.was_first = batch is stream.batches[0]
                if len(self._calls) >= _WINDOW_CALLS or self._in_flight_bytes + size >= _WINDOW_BYTES:
                    break
                parts.append((stream, batch))
                stream.unsent -= 1
                size += len(batch.payload)
                if size >= _CALL_BYTES or len(parts) >= _CALL_BATCHES:
                    self._call(parts, size)
                    parts, size = [], 0
                    if stream.in_flight >= _STREAM_CALLS:
                        break
            if not stream.unsent and not stream.broken:
                del self._ready[model]
        if parts:
            self._call(parts, size)

    def _may_send(self, stream: _Stream, now: float) -> bool:
        if stream.wait_until_s > now or stream.in_flight >= (1 if stream.broken else _STREAM_CALLS):
            return False
        if stream.broken:
            stream.broken, stream.unsent = False, len(stream.batches)
        return stream.next_sequence is not None or self._resumed(stream)

    def _call(self, parts: list[tuple[_Stream, _Batch]], size: int) -> None:
        client = {name: self._counts[name] for name in ("logged", "accepted", "rejected", "dropped")}
        batches = [
            {
                "model": stream.model,
                "producer": self.producer,
                "sequence": batch.sequence,
                "payload": wire.for_travel(batch.payload),
                "client": client,
                "rejection": batch.emptied,
            }
            for stream, batch in parts
        ]
        ticket = self._link.send(batches)
        if ticket is None:
            for stream, _ in parts:
                self._break(stream, _FIND_S)
            return
        self._calls.append(_Call(ticket, parts, size, time.monotonic() + _REPLY_S))
        self._in_flight_bytes += size
        for stream in {id(s): s for s, _ in parts}.values():
            stream.in_flight += 1

    def _harvest(self, timeout_s: float) -> None:
        """Take the replies that are there."""
        if not self._calls:
            return
        ready = self._link.wait([call.ticket for call in self._calls], timeout_s)
        now = time.monotonic()
        left = []
        for call in self._calls:
            if call.ticket in ready:
                self._finish(call, self._link.reply(call.ticket))
            elif now >= call.deadline_s:
                self._finish(call, None)
            else:
                left.append(call)
        self._calls = left

    def _finish(self, call: _Call, replies: list[dict[str, Any]] | None) -> None:
        self._in_flight_bytes -= call.size
        for stream in {id(s): s for s, _ in call.parts}.values():
            stream.in_flight -= 1
        if replies is None:
            for stream, _ in call.parts:
                self._break(stream)
            return
        for (stream, batch), reply in zip(call.parts, replies, strict=True):
            self._take(stream, batch, reply)

    def _take(self, stream: _Stream, batch: _Batch, reply: Mapping[str, Any]) -> None:
        if not stream.batches or all(batch is not held for held in _front(stream)):
            return  # an old call's reply: the batch was acknowledged by a later one
        match reply["status"]:
            case "accepted" if int(reply["epoch"]) >= stream.epoch:
                stream.epoch, stream.failures = int(reply["epoch"]), 0
                if reply["high_water"] >= batch.sequence + batch.rows:
                    self._acknowledged(stream, batch, reply)
            case "gap":
                self._gap(stream, batch, reply)
            case "refused":
                self._warn(f"refused {stream.model}", "%s was refused: %s", stream.model, reply.get("reason"))
                self._refused(stream, batch)
            case _:
                self._break(stream, reply.get("retry_in_s"))

    def _acknowledged(self, stream: _Stream, batch: _Batch, reply: Mapping[str, Any]) -> None:
        accepted, duplicate = int(reply["accepted"]), int(reply["duplicates"])
        rejected = batch.rows - accepted - duplicate
        if rejected and reply["rejected"]:
            self._warn_rejected(stream.model, reply["rejected"][0])
        self._gone(stream, batch, accepted=accepted, duplicate=duplicate, rejected=rejected)

    def _refused(self, stream: _Stream, batch: _Batch) -> None:
        """Give up a batch that will never be taken; what comes after it gets other numbers, since none of it can have been."""
        self._gone(stream, batch, rejected=batch.rows)
        self._break(stream)
        if stream.next_sequence is not None:
            sequence = batch.sequence
            for later in stream.batches:
                later.sequence = sequence
                sequence += later.rows
            stream.next_sequence = sequence

    def _gap(self, stream: _Stream, batch: _Batch, reply: Mapping[str, Any]) -> None:
        """Begin again with the first: what came before was lost, or is late (Ray keeps no order between calls)."""
        self._break(stream)
        if batch.was_first and int(reply["high_water"]) < batch.sequence and int(reply["epoch"]) >= stream.epoch:
            # The store knows less than it has acknowledged to us: another store, or one that has forgotten this producer.
            # As somebody new we lose nothing and count nothing twice: none of what waits here can have been taken.
            at = reply["high_water"], batch.sequence
            logger.warning("%s: the store expects event %d, we are at %d: going on as a new producer", stream.model, *at)
            self._become_new()

    def _become_new(self) -> None:
        self.producer = uuid.uuid4().hex
        self._resumes = False
        for stream in self._streams.values():
            sequence = 0
            for batch in stream.batches:
                batch.sequence = sequence
                sequence += batch.rows
            stream.next_sequence = sequence
            stream.epoch = 0
            if stream.batches:
                self._break(stream)

    def _resumed(self, stream: _Stream) -> bool:
        """Ask where a producer of this name was, before its first batch is sent."""
        try:
            reply = self._link.call("high_water", _FIND_S * 20, model=stream.model, producer=self.producer)
        except (ConnectionError, ValueError, KeyError):
            reply = {"status": "unavailable"}
        if reply.get("status") != "ok":
            self._break(stream)
            return False
        sequence = int(reply["high_water"])
        for batch in stream.batches:
            batch.sequence = sequence
            sequence += batch.rows
        stream.next_sequence = sequence
        return True

    def _break(self, stream: _Stream, after_s: float | None = None) -> None:
        """Send nothing of this stream until every reply is in, then all of it again."""
        if not stream.broken:
            stream.failures += 1
        pause = _BACKOFF_S[min(stream.failures, len(_BACKOFF_S)) - 1]
        stream.broken = True
        stream.wait_until_s = time.monotonic() + max(pause, after_s or 0.0)
        if stream.batches:
            self._ready[stream.model] = stream

    def _gone(self, stream: _Stream, batch: _Batch, *, accepted: int = 0, duplicate: int = 0, rejected: int = 0) -> None:
        stream.batches.remove(batch)
        stream.unsent = min(stream.unsent, len(stream.batches))
        if not stream.batches:
            self._ready.pop(stream.model, None)
        with self._room:
            self._counts["accepted"] += accepted
            self._counts["duplicate"] += duplicate
            self._counts["rejected"] += rejected
            self._bytes -= len(batch.payload) + _EVENT_BYTES
            self._room.notify_all()


_starting = threading.Lock()
_living: weakref.WeakSet[Metrics] = weakref.WeakSet()
_owing: set[Metrics] = set()  # with events that nobody has acknowledged: those live on where the caller holds them no more


def _run(reference: weakref.ref[Metrics]) -> None:
    """Work for a client for as long as it lives; one that nobody holds and that owes nothing takes its thread with it."""
    while (metrics := reference()) is not None:
        wake, hurry = metrics._wake, metrics._hurry  # noqa: SLF001  the thread of this very class
        wake.clear()
        try:
            pause_s = metrics._step()  # noqa: SLF001
        except Exception:
            logger.exception("logging goes on in a moment")
            pause_s = 0.5
        metrics._rest()  # noqa: SLF001
        if metrics._closed and not metrics._calls and not metrics._ready:  # noqa: SLF001
            return
        del metrics
        if pause_s > 0.0 and wake.wait(pause_s) and pause_s >= 1.0:
            hurry.wait(_LINGER_S)


def _front(stream: _Stream) -> list[_Batch]:
    return list(stream.batches)


def _packed(rows: Sequence[tuple[str, str, float, dict[str, Any]]]) -> list[tuple[str, wire.Packed]]:
    """Pack rows by model, in their order."""
    by_model: dict[str, list[wire.Row]] = {}
    for model, version, timestamp, metrics in rows:
        by_model.setdefault(model, []).append((version, timestamp, metrics))
    return [
        (model, packed)
        for model, found in by_model.items()
        for start in range(0, len(found), _SEAL_ROWS)
        for packed in wire.packed_rows(found[start : start + _SEAL_ROWS])
    ]


def _size(batches: Sequence[tuple[str, wire.Packed]]) -> int:
    return sum(len(packed.payload) + _EVENT_BYTES for _, packed in batches)


def _check_cell(name: object, value: Any) -> int:
    """Raise WrongTypeError for what is neither a number nor a text; return the length of a text, else 0."""
    if not isinstance(name, str):
        _wrong("metric name", name, "must be a text")
    if isinstance(value, str) and name not in wire.NAMED:
        return len(value)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float | np.floating | np.integer)):
        _wrong(str(name), value, "must be a number" + ("" if name in wire.NAMED else " or a text"))
    return 0


def _shortened(metrics: dict[str, Any]) -> tuple[dict[str, Any], int]:
    """Keep of texts that are too long only so much that they are too long still: the system rejects and counts the event."""
    texts = [name for name, value in metrics.items() if isinstance(value, str)]
    joined = "".join(metrics[name][: wire.MAX_EXTRAS_BYTES + 1] for name in texts)[: wire.MAX_EXTRAS_BYTES + 1]
    numbers = {name: value for name, value in metrics.items() if not isinstance(value, str)}
    return {**numbers, texts[0]: joined}, len(joined)


def _timestamp(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | np.floating | np.integer) or not wire.is_number(value):
        _wrong("timestamp", value, "must be seconds since the epoch")
    return float(value)


def _wrong(field_name: str, value: object, rule: str) -> Any:
    raise WrongTypeError(f"{field_name} {rule}, got {wire.shown(value)!r} ({type(value).__name__})")


def _worker() -> object:
    from ray._private import worker  # noqa: PLC0415

    return getattr(worker.global_worker, "core_worker", None)


def _revived(namespace: str, on_full: Literal["drop", "wait"], buffer_bytes: int) -> Metrics:
    return Metrics(namespace, on_full=on_full, buffer_bytes=buffer_bytes)


def _after_fork() -> None:
    global _starting  # noqa: PLW0603  a lock that another thread held in the parent stays held for ever here
    _starting = threading.Lock()
    _owing.clear()
    for metrics in list(_living):
        metrics._begin()  # noqa: SLF001
        if isinstance(metrics._link, RayLink):  # noqa: SLF001
            metrics._link.forked()  # noqa: SLF001


def _at_exit() -> None:
    deadline = time.monotonic() + _EXIT_S
    for metrics in list(_living):
        if metrics.counts()["pending"]:
            left = metrics.flush(max(deadline - time.monotonic(), 0.1))["pending"]
            if left:
                logger.warning("%d events were not acknowledged before the exit and may be lost", left)


_Hook = Callable[[], None]
os.register_at_fork(after_in_child=_after_fork)
atexit.register(_at_exit)
