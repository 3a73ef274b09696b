"""The metrics client of a job. Logging costs the job some microseconds and bounded memory, whatever the system does.

The caller's thread checks types and puts events into a buffer. A background thread sends them, and resends unacknowledged
events with the same numbers. A full buffer drops events before they get a number. Unacknowledged events are lost with the
process: call `flush`.

The client finds the system by name at each call, so a job may start before the system and survives its restarts. A copy of a
client in another process (pickled, or after a fork) is another producer, with its own buffers and counts.
"""

from __future__ import annotations

import atexit
import logging
import os
import time
import weakref
from collections.abc import Mapping
from typing import Any, Final, NoReturn

from actors import columns as reading
from actors import wire
from actors.checks import shown
from actors.cluster.connection import NoOwnConnectionError
from actors.errors import NotConnectedError, WrongTypeError, WrongValueError
from actors.metrics import sealing
from actors.metrics.buffer import EVENT_BYTES, METRIC_BYTES, Counts, OnFull
from actors.metrics.link import Link, RayLink
from actors.metrics.pump import Pump, forked, running
from actors.replies import Json
from actors.wire import messages

logger = logging.getLogger(__name__)

UNVERSIONED: Final = wire.UNVERSIONED

_KNOWN_NAMES: Final = 20_000  # names that were checked and are remembered: a set of them has some 2 MB
_EXIT_S: Final = 5.0
_ANSWER_S: Final = 30.0
_RETRY_S: Final = 0.1


class Metrics:
    """Logs metrics of models; safe to use from several threads.

    With `on_full="drop"`, `log` drops and counts events that do not fit into `buffer_bytes` (including unacknowledged batches);
    with "wait" it waits. `producer` is a permanent name: a later client of the same name continues at the position in the
    store. Never run two clients of one name at once.

        metrics = system.metrics
        metrics.log({"accuracy": 0.93, "latency_ms": 12.5}, model="fraud", version="v7", n=200)
        metrics.flush()
    """

    def __init__(
        self,
        namespace: str = "visutility",
        *,
        on_full: OnFull = "drop",
        buffer_bytes: int = 64 * 2**20,
        producer: str | None = None,
        link: Link | None = None,
    ) -> None:
        """Create the client; it connects and starts its thread with the first event."""
        if on_full not in {"drop", "wait"}:
            raise WrongValueError(f"on_full must be 'drop' or 'wait', got {on_full!r}")
        if isinstance(buffer_bytes, bool) or not isinstance(buffer_bytes, int) or buffer_bytes < 1:
            raise WrongValueError(f"buffer_bytes must be a number of bytes, 1 or more, got {buffer_bytes!r}")
        if producer is not None:
            messages.check_sequence(producer, 0)
        self.namespace = namespace
        self._on_full: OnFull = on_full
        self._buffer_bytes = buffer_bytes
        self._given_producer = producer
        self._given_link = link
        self._begin()
        _living.add(self)

    def _begin(self) -> None:
        """Become a new producer with empty buffers: at the start, in a copy, and after a fork."""
        # An eighth remains for memory that Python keeps of packed and freed rows (measured: 2 MB of 16).
        limit = self._buffer_bytes - self._buffer_bytes // 8
        self._ending: weakref.finalize[..., Any] | None
        if getattr(self, "_ending", None) is not None:
            self._ending.detach()  # of the parent: its locks are not ours
        self._pump = Pump(self._given_link or RayLink(self.namespace), self._given_producer, limit, self._on_full)
        self._buffer = self._pump.buffer
        self._versions: set[tuple[str, str]] = set()  # (model, version) whose names are fine
        self._names: set[str] = set()  # metrics whose names are fine
        # The thread runs until everything is acknowledged, and then ends with the client.
        self._ending = weakref.finalize(self, self._pump.close)
        self._ending.atexit = False

    def __reduce__(self) -> tuple[Any, ...]:
        return _revived, (self.namespace, self._on_full, self._buffer_bytes)

    def __repr__(self) -> str:
        return f"Metrics(namespace={self.namespace!r})"

    @property
    def producer(self) -> str:
        """The producer id of this client. It is a secret: another sender could use it to impersonate this client."""
        return self._pump.producer

    # --- events

    def log(  # noqa: C901  one check each, inline: a call costs more than the check
        self,
        metrics: Mapping[str, Any],
        *,
        model: str,
        version: str = UNVERSIONED,
        timestamp: Any = None,
        n: float | None = None,
    ) -> None:
        """Log one event: numbers by name (accuracy, precision and recall in [0, 1]), strings as extras.

        A value that is out of range or not finite never raises: the client counts it, and warns once.

        Args:
            metrics: Numbers of any library, including 0-d arrays and tensors of one element; None is absent.
            model: 1 to 200 characters.
            version: The version that was measured.
            timestamp: Seconds since the epoch, or a datetime with a time zone (default: now).
            n: The number of predictions behind the event, if known.

        Raises:
            WrongTypeError: A value is neither a number nor a string, a name is bad, or there are more than 256 names. Nothing
                is logged.
        """
        held = metrics.copy() if type(metrics) is dict else _as_dict(metrics)
        text_size = 0
        for name, value in held.items():
            kind = type(value)
            if kind is float or kind is int:
                continue
            text_size += _check_cell(held, name, value)
        count = len(held)
        if count > wire.MAX_COLUMNS or not held.keys() <= self._names:
            self._check_names(held)
        if (model, version) not in self._versions:
            self._check_version(model, version)
        if text_size > wire.MAX_EXTRAS_BYTES:
            held, text_size = _shortened(held)
        if n is not None and type(n) is not int and type(n) is not float:
            n = None if reading.is_absent(n) else _number("n", n)
        is_stamped = timestamp is None
        if is_stamped:
            timestamp = time.time()
        elif type(timestamp) is not float:
            timestamp = _seconds(timestamp)
        size = EVENT_BYTES + METRIC_BYTES * count + text_size
        buffer = self._buffer
        with buffer.lock:
            buffer.logged += 1
            if buffer.bytes + size > buffer.limit and not buffer.has_room(size, 1):
                return
            buffer.bytes += size
            rows = buffer.rows
            rows.append((model, version, timestamp, held, n, is_stamped, size))
            is_first = len(rows) == 1  # else the thread knows that something waits
        if is_first:
            self._pump.rouse()

    def log_batch(
        self, metrics: Mapping[str, Any], *, model: str, version: str = UNVERSIONED, timestamps: Any = None, n: Any = None
    ) -> None:
        """Log many events of one version at once: equally long columns by name. Columns without rows log nothing.

        Args:
            metrics: Columns of any library; masked values are absent.
            model: 1 to 200 characters.
            version: The version that was measured.
            timestamps: A column of times, one time for all rows, or None for now.
            n: The number of predictions behind each event: a column, one number for all rows, or None for unknown.

        Raises:
            WrongValueError: A column is wrong; the message names it. Nothing is logged.
        """
        try:
            model = wire.check_model(model)
            batch = wire.batch_of_columns(metrics, version=version, timestamps=timestamps, now_s=time.time(), n=n, least=0)
        except ValueError as error:
            raise WrongValueError(*error.args) from None
        for packed in sealing.packed_columns(batch):
            self._buffer.add_packed(model, packed._replace(is_stamped=timestamps is None))
            self._pump.rouse()

    def flush(self, timeout_s: float = 10.0) -> Counts:
        """Wait until all events logged so far are acknowledged, at most `timeout_s`, and return the result of `counts`."""
        self._pump.flush(timeout_s)
        return self.counts()

    def counts(self) -> Counts:
        """Return the number of events since this client was created, by outcome.

        The outcomes are accepted, duplicate (the system had them already), rejected, dropped, and pending (neither acknowledged
        nor dropped). `bad_values` counts the values of accepted events that were not finite and were dropped.
        """
        return self._buffer.counts()

    def close(self, timeout_s: float = _EXIT_S) -> None:
        """Flush and end the thread; a later event starts another."""
        if self._pump.thread is not None:
            self._pump.flush(timeout_s)
        self._pump.close(1.0)

    # --- what a model is compared with

    def baseline(self, metrics: Mapping[str, Any], *, model: str, version: str, timeout_s: float = _ANSWER_S) -> Json:
        """Let a version's detectors learn from these values (columns by name), such as validation scores, instead of events.

        Raises:
            NotConnectedError: The system does not answer within `timeout_s`.
            WrongValueError: A value breaks a rule.
        """
        try:
            columns = wire.batch_of_columns(metrics, version=version, timestamps=0.0, now_s=0.0).columns
            wire.check_model(model)
        except ValueError as error:
            raise WrongValueError(*error.args) from None
        values = {
            name: column.values if column.present is None else column.values[column.present] for name, column in columns.items()
        }
        return self._insist("baseline", timeout_s, model=model, version=version, values=values)

    def promise(
        self,
        metrics: Mapping[str, float],
        *,
        n: float,
        model: str,
        version: str,
        source: str = "cross_validation",
        timeout_s: float = _ANSWER_S,
    ) -> Json:
        """Record what a version promises: the cross-validated value of each metric on its `n` training rows.

        The retrain rule `shortfall` compares what the version does with this. A value from a single hold-out
        (`source="hold_out"`) is recorded and shown, and the rule does not use it.

            metrics.promise({"accuracy": 0.87}, n=2500, model="fraud", version="v7")

        Raises:
            NotConnectedError: The system does not answer within `timeout_s`.
            WrongValueError: A value outside [0, 1], an n that is no number above 0, an unknown source.
        """
        try:
            values, weight = messages.check_promise(metrics, n, source)
            wire.check_model(model)
            wire.check_version(version)
        except ValueError as error:
            raise WrongValueError(*error.args) from None
        return self._insist("promise", timeout_s, model=model, version=version, values=values, n=weight, source=source)

    def _insist(self, method: str, timeout_s: float, **arguments: Any) -> Json:
        deadline_s = time.monotonic() + timeout_s
        while True:
            try:
                reply = self._pump.link.call(method, max(deadline_s - time.monotonic(), 0.1), **arguments)
                if reply["status"] not in {"unavailable", "busy"}:
                    return dict(reply)
                problem: object = reply.get("reason")
            except NoOwnConnectionError:
                raise
            except ConnectionError as error:
                problem = error
            if time.monotonic() >= deadline_s:
                raise NotConnectedError(f"broadcaster.{method}: nothing within {timeout_s:g} s: {problem}")
            time.sleep(_RETRY_S)

    # --- checks

    def _check_names(self, metrics: Mapping[str, Any]) -> None:
        if len(metrics) > wire.MAX_COLUMNS:
            raise WrongTypeError(f"metrics must hold at most {wire.MAX_COLUMNS} names, got {len(metrics)}")
        for name in metrics:
            rule = wire.metric_rule(name)
            if rule is not None:
                raise WrongTypeError(f"metric name {rule}, got {shown(name)}")
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


_living: weakref.WeakSet[Metrics] = weakref.WeakSet()


def _as_dict(metrics: object) -> Json:
    if not isinstance(metrics, Mapping):
        _refuse("metrics", metrics, "must be a mapping of names to numbers")
    return dict(metrics)


def _check_cell(metrics: Json, name: object, value: Any) -> int:
    """Read a value that is no plain number, in its place; return the length of a text, else 0. WrongTypeError for the rest."""
    if not isinstance(name, str):
        _refuse("metric name", name, "must be a string")
    if isinstance(value, str) and name not in wire.NAMED:
        return len(value)
    if reading.is_absent(value):
        metrics[name] = None
        return 0
    number = reading.number(value)
    if number is None:
        _refuse(name, value, "must be a number" + ("" if name in wire.NAMED else " or a text"))
    metrics[name] = number
    return 0


def _shortened(metrics: Json) -> tuple[Json, int]:
    """Keep of texts that are too long only so much that they are too long still: the system rejects and counts the event."""
    texts = [name for name, value in metrics.items() if isinstance(value, str)]
    joined = "".join(metrics[name][: wire.MAX_EXTRAS_BYTES + 1] for name in texts)[: wire.MAX_EXTRAS_BYTES + 1]
    numbers = {name: value for name, value in metrics.items() if not isinstance(value, str)}
    return {**numbers, texts[0]: joined}, len(joined)


def _seconds(value: object) -> float:
    seconds = reading.seconds(value)
    if seconds is None:
        _refuse("timestamp", value, "must be seconds since the epoch, or a datetime with a time zone")
    return seconds


def _number(name: str, value: object) -> float:
    number = reading.number(value)
    if number is None:
        _refuse(name, value, "must be a number")
    return number


def _refuse(field: str, value: object, rule: str) -> NoReturn:
    raise WrongTypeError(f"{field} {rule}, got {shown(value)} ({type(value).__name__})")


def _revived(namespace: str, on_full: OnFull, buffer_bytes: int) -> Metrics:
    return Metrics(namespace, on_full=on_full, buffer_bytes=buffer_bytes)


def _after_fork() -> None:
    forked()
    for metrics in list(_living):
        metrics._begin()  # noqa: SLF001  the locks and the thread of the parent are not ours
        link = metrics._pump.link  # noqa: SLF001  as above
        if isinstance(link, RayLink):
            link.forked()


def _at_exit() -> None:
    deadline_s = time.monotonic() + _EXIT_S
    for pump in running():
        pump.flush(max(deadline_s - time.monotonic(), 0.1))
        left = pump.buffer.counts()["pending"]
        if left:
            logger.warning("%d events were not acknowledged before the exit and may be lost", left)


os.register_at_fork(after_in_child=_after_fork)
atexit.register(_at_exit)
