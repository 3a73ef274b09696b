"""Sender: numbers what a producer sends, keeps a bounded window in flight, and sends again what nobody has acknowledged.

Without I/O: no thread, no Ray, no clock and no randomness. Batches and replies go in, commands and outcomes come out, the time
is an argument. The owner of a Sender carries the commands out, by whatever means, and reports what came of each.

The protocol: events of one model are a stream, numbered without a gap. A reply acknowledges a batch by the stream's high-water
mark; unacknowledged events are resent with the same numbers, so that the system recognizes events that it already has. Calls
may overtake each other (Ray keeps no order between calls), so a gap alone means nothing: all begins again with the first batch.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from actors.metrics.sealing import Packed
from actors.replies import Ingested, Rejection

# In flight at once: of all streams together, and of one: one call is committed while the next is on its way.
WINDOW_CALLS: Final = 16
WINDOW_BYTES: Final = 24 * 2**20
STREAM_CALLS: Final = 2
CALL_BYTES: Final = 1024 * 1024
CALL_BATCHES: Final = 1000
# Longer than the broadcaster waits for a detector, so that the broadcaster's answer comes first.
REPLY_S: Final = 20.0
FIND_S: Final = 0.25  # between two looks for a broadcaster that cannot be found
BACKOFF_S: Final = (0.02, 0.05, 0.1, 0.25, 0.5, 1.0)
BATCH_BYTES: Final = 400  # what a batch costs besides its payload


@dataclass(frozen=True, slots=True)
class Part:
    """One batch of a call, with the number of its first event among those of its producer and model."""

    model: str
    producer: str
    sequence: int
    packed: Packed


@dataclass(frozen=True, slots=True)
class Send:
    """Send these batches in one call; answer with `replied`, or `not_sent` where nothing was sent."""

    call: int
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Ask:
    """Ask for the high-water mark of the stream; answer with `resumed`."""

    model: str
    producer: str


@dataclass(frozen=True, slots=True)
class Settled:
    """Events that are done with, by what became of them, and the bytes that they no longer take."""

    size: int
    accepted: int = 0
    duplicate: int = 0
    rejected: int = 0
    bad_values: int = 0


@dataclass(frozen=True, slots=True)
class Warn:
    """Something that a person should read, once for each `once`."""

    once: str
    text: str


Command = Send | Ask
Outcome = Settled | Warn


@dataclass(slots=True, eq=False)
class _Batch:
    sequence: int
    packed: Packed
    was_first: bool = False  # when it was sent: everything before it had been acknowledged
    sent: int = 0  # how often

    @property
    def end(self) -> int:
        return self.sequence + self.packed.rows

    @property
    def size(self) -> int:
        return len(self.packed.payload) + BATCH_BYTES


@dataclass(slots=True, eq=False)
class _Stream:
    """The numbered batches of one model that are not acknowledged."""

    model: str
    producer: str
    next_sequence: int | None  # None: it is queried first
    batches: deque[_Batch] = field(default_factory=deque)
    unsent: int = 0  # of `batches`, those at the end that are not in flight
    in_flight: int = 0  # calls that carry batches of this stream
    broken: bool = False  # something was not taken: nothing is sent before every reply is in, then all again in order
    asked: bool = False
    wait_until_s: float = 0.0
    failures: int = 0
    epoch: int = 0

    def renumber(self, first: int) -> None:
        """Renumber the batches, from `first` on without a gap."""
        for batch in self.batches:
            batch.sequence, first = first, first + batch.packed.rows
        self.next_sequence = first


@dataclass(slots=True, eq=False)
class _Call:
    parts: list[tuple[_Stream, _Batch]]
    size: int
    deadline_s: float

    @property
    def streams(self) -> list[_Stream]:
        return list({id(stream): stream for stream, _ in self.parts}.values())


class Sender:
    """The streams of one producer. Not thread-safe.

    >>> sender = Sender("p", new_producer=lambda: "q")
    >>> sender.add("fraud", Packed(3, b"..."))
    >>> (send,) = sender.commands(now_s=0.0)
    >>> [(part.model, part.sequence) for part in send.parts]
    [('fraud', 0)]
    >>> reply = {"status": "accepted", "accepted": 3, "duplicates": 0, "rejected": [], "high_water": 3, "epoch": 1}
    >>> sender.replied(send.call, [reply], now_s=0.1)[0].accepted
    3
    """

    def __init__(self, producer: str, *, resumes: bool = False, new_producer: Callable[[], str]) -> None:
        """`resumes`: the producer may have sent before, so each stream begins where the system says it was."""
        self.producer = producer  # of the streams that begin from now on
        self._successors: dict[str, str] = {}  # by producer: who goes on in the streams of which a store has forgotten it
        self._resumes = resumes
        self._new_producer = new_producer
        self._streams: dict[str, _Stream] = {}
        self._ready: dict[str, _Stream] = {}  # streams with something to send
        self._calls: dict[int, _Call] = {}
        self._numbers = itertools.count()
        self._in_flight_bytes = 0

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits and nothing is in flight."""
        return not self._calls and not self._ready

    def add(self, model: str, packed: Packed) -> None:
        """Take a batch of a model behind those that it has."""
        stream = self._streams.get(model)
        if stream is None:
            stream = self._streams[model] = _Stream(model, self.producer, None if self._resumes else 0)
        if stream.next_sequence is None:
            stream.batches.append(_Batch(-1, packed))
        else:
            stream.batches.append(_Batch(stream.next_sequence, packed))
            stream.next_sequence += packed.rows
        stream.unsent += 1
        self._ready[model] = stream

    def wait_s(self, now_s: float) -> float | None:
        """Return how long nothing has to be done unless a reply or a batch comes; None: for ever."""
        times = [stream.wait_until_s for stream in self._ready.values() if not stream.in_flight]
        times += [call.deadline_s for call in self._calls.values()]
        return max(min(times) - now_s, 0.0) if times else None

    # --- commands

    def commands(self, now_s: float) -> list[Command]:
        """Fill the window: consecutive batches of a stream, several streams in a call."""
        commands: list[Command] = []
        parts: list[tuple[_Stream, _Batch]] = []
        size = 0
        for model, stream in list(self._ready.items()):
            if not self._may_send(stream, now_s, commands):
                continue
            for batch in itertools.islice(stream.batches, len(stream.batches) - stream.unsent, None):
                if len(self._calls) >= WINDOW_CALLS or self._in_flight_bytes + size >= WINDOW_BYTES:
                    break
                batch.was_first = batch is stream.batches[0]
                batch.sent += 1
                parts.append((stream, batch))
                stream.unsent -= 1
                size += len(batch.packed.payload)
                if size >= CALL_BYTES or len(parts) >= CALL_BATCHES:
                    commands.append(self._begin(parts, size, now_s))
                    parts, size = [], 0
                    if stream.in_flight >= STREAM_CALLS:
                        break
            if not stream.unsent and not stream.broken:
                del self._ready[model]
        if parts:
            commands.append(self._begin(parts, size, now_s))
        return commands

    def _may_send(self, stream: _Stream, now_s: float, commands: list[Command]) -> bool:
        if stream.wait_until_s > now_s or stream.in_flight >= (1 if stream.broken else STREAM_CALLS):
            return False
        if stream.broken:
            stream.broken, stream.unsent = False, len(stream.batches)
        if stream.next_sequence is None and not stream.asked:
            stream.asked = True
            commands.append(Ask(stream.model, stream.producer))
        return stream.next_sequence is not None

    def _begin(self, parts: list[tuple[_Stream, _Batch]], size: int, now_s: float) -> Send:
        number = next(self._numbers)
        call = self._calls[number] = _Call(parts, size, now_s + REPLY_S)
        self._in_flight_bytes += size
        for stream in call.streams:
            stream.in_flight += 1
        sent = tuple(Part(stream.model, stream.producer, batch.sequence, batch.packed) for stream, batch in parts)
        return Send(number, sent)

    # --- what came of them

    def not_sent(self, call: int, now_s: float) -> None:
        """Learn that a call could not be made: no broadcaster can be found now."""
        for stream in self._ended(call).streams:
            self._break(stream, now_s, FIND_S)

    def expired(self, now_s: float) -> list[int]:
        """Give up the calls whose reply is late, and return their numbers: their outcome is unknown."""
        late = [number for number, call in self._calls.items() if now_s >= call.deadline_s]
        for number in late:
            self.replied(number, None, now_s)
        return late

    def replied(self, call: int, replies: Sequence[Ingested] | None, now_s: float) -> list[Outcome]:
        """Take a call's replies, one for each part; None where its outcome is unknown."""
        ended = self._ended(call)
        if replies is None:
            for stream in ended.streams:
                self._break(stream, now_s)
            return []
        outcomes: list[Outcome] = []
        for (stream, batch), reply in zip(ended.parts, replies, strict=True):
            if batch in stream.batches:  # else an old call's reply: the batch was acknowledged by a later one
                outcomes += self._take(stream, batch, reply, now_s)
        return outcomes

    def resumed(self, model: str, high_water: int | None, now_s: float) -> None:
        """Learn where the producer was in a stream; None where nobody answered."""
        stream = self._streams[model]
        stream.asked = False
        if high_water is None:
            self._break(stream, now_s)
        elif stream.next_sequence is None:
            stream.renumber(high_water)

    def _ended(self, number: int) -> _Call:
        call = self._calls.pop(number)
        self._in_flight_bytes -= call.size
        for stream in call.streams:
            stream.in_flight -= 1
        return call

    def _take(self, stream: _Stream, batch: _Batch, reply: Ingested, now_s: float) -> list[Outcome]:
        match reply["status"]:
            case "accepted" if reply["epoch"] >= stream.epoch and (reply["high_water"] or 0) >= batch.end:
                stream.epoch, stream.failures = reply["epoch"], 0
                return self._accepted(stream, batch, reply, now_s)
            case "gap":
                return self._gap(stream, batch, reply, now_s)
            case "refused":
                # It will never be accepted. Later events get its numbers, because none of them can have been accepted.
                settled = self._gone(stream, batch, rejected=batch.packed.rows)
                self._break(stream, now_s)
                stream.renumber(min([batch.sequence, *(held.sequence for held in stream.batches)]))
                return [Warn(f"refused {stream.model}", f"{stream.model} was refused: {reply.get('reason')}"), settled]
            case _:  # also what a process says that has been replaced: it is sent again
                self._break(stream, now_s, reply.get("retry_in_s"))
                return []

    def _accepted(self, stream: _Stream, batch: _Batch, reply: Ingested, now_s: float) -> list[Outcome]:
        high = reply["high_water"] or 0
        accepted, duplicate = int(reply["accepted"]), int(reply["duplicates"])
        if stream.next_sequence is not None and high > stream.next_sequence and batch.sent == 1 and duplicate:
            # We never numbered so many events, and sent these for the first time: somebody else sends under our name, and
            # what the system takes for duplicates is not counted. As somebody new we lose nothing.
            text = (
                f"{stream.model}: another sender uses this producer id (event {high} is known, this client is at {batch.end})"
            )
            self._become_new(now_s)
            return [Warn("producer", f"{text}: continuing as a new producer")]
        rejected = batch.packed.rows - accepted - duplicate
        bad_values = int(reply.get("bad_values", 0))
        outcomes: list[Outcome] = []  # warnings first: they are written before `flush` returns
        if rejected and reply["rejected"] and batch.packed.emptied is None:
            outcomes.append(rejection_warning(stream.model, "events are rejected and counted", reply["rejected"][0]))
        if reply.get("bad_value"):
            outcomes.append(rejection_warning(stream.model, "bad values are dropped and counted", reply["bad_value"]))
        settled = self._gone(stream, batch, accepted=accepted, duplicate=duplicate, rejected=rejected, bad_values=bad_values)
        return [*outcomes, settled]

    def _gap(self, stream: _Stream, batch: _Batch, reply: Ingested, now_s: float) -> list[Outcome]:
        """Begin again with the first: what came before was lost, or is late."""
        self._break(stream, now_s)
        high = reply["high_water"] or 0
        if not (batch.was_first and high < batch.sequence and reply["epoch"] >= stream.epoch):
            return []
        # The store knows less than it has acknowledged to us: another store, or one that has forgotten this producer.
        # As somebody new we lose nothing and count nothing twice: none of what waits in this stream can have been taken. What
        # other streams wait for perhaps was, under the producer that the store may well know there: they keep it.
        text = f"{stream.model}: the store expects event {high}, this client is at {batch.sequence}"
        before = stream.producer
        if before not in self._successors:
            self._successors[before] = self._new_producer()
        stream.producer = self._successors[before]
        if before == self.producer:
            self.producer, self._resumes = stream.producer, False
        stream.epoch = 0
        stream.renumber(0)
        return [Warn(f"gap {before}", f"{text}: continuing as a new producer")]

    def _become_new(self, now_s: float) -> None:
        self.producer = self._new_producer()
        self._resumes = False
        for stream in self._streams.values():
            stream.producer = self.producer
            stream.renumber(0)
            stream.epoch = 0
            if stream.batches:
                self._break(stream, now_s)

    def _break(self, stream: _Stream, now_s: float, after_s: float | None = None) -> None:
        """Send nothing of this stream until every reply is in, then all of it again."""
        if not stream.broken:
            stream.failures += 1
        pause_s = BACKOFF_S[min(stream.failures, len(BACKOFF_S)) - 1]
        stream.broken = True
        stream.wait_until_s = now_s + max(pause_s, after_s or 0.0)
        if stream.batches:
            self._ready[stream.model] = stream

    def _gone(self, stream: _Stream, batch: _Batch, **counts: int) -> Settled:
        stream.batches.remove(batch)
        stream.unsent = min(stream.unsent, len(stream.batches))
        if not stream.batches:
            self._ready.pop(stream.model, None)
        return Settled(batch.size, **counts)


def rejection_warning(model: str, what: str, rejection: Rejection) -> Warn:
    """Return the warning for values that break a rule: once for each field and rule."""
    rule = f"{rejection['field']} {rejection['rule']}"
    return Warn(rule, f"{model}: {what}: {rule}, got {rejection['value']!r}")
