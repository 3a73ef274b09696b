"""Feed: one source from its position to the system, step by step; it sends committed rows before it reads more."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from actors import failpoints, wire
from actors.checks import brief
from actors.config.sources import SourceSettings
from actors.metrics.link import Link
from actors.plain import Json
from actors.sources.interface import Answer, Row, Source
from actors.sources.rules import pause_s
from actors.sources.state import VERSION, Known, Pending, SourcesState
from actors.storage import UNAVAILABLE
from actors.wire.messages import Message

logger = logging.getLogger(__name__)

REPLY_S: Final = 20.0
AGAIN_S: Final = 0.5


class Feed:
    """Owns one source. `step` does one thing, and returns the pause before the next; whatever it fails at is tried again.

    Args:
        name: of the source in the configuration.
        settings: what the configuration says of it.
        make: makes the source; called again after each failure, since a file or a variable may be there then.
    """

    def __init__(
        self, name: str, settings: SourceSettings, state: SourcesState, link: Link, make: Callable[[SourceSettings], Source]
    ) -> None:
        self.name = name
        self._settings = settings
        self._state = state
        self._link = link
        self._make = make
        self._source: Source | None = None

    def step(self, now_s: float) -> float:
        """Send what waits, else read on; return after how many seconds to go on."""
        try:
            waiting = self._state.pending(self.name)
            return self._send(waiting) if waiting else self._read(now_s)
        except UNAVAILABLE as error:
            logger.warning("source %s waits for the store: %s", self.name, brief(error))
            return AGAIN_S

    def _read(self, now_s: float) -> float:
        known = self._state.known(self.name, self._settings.kind)
        try:
            if self._source is None:
                self._source = self._make(self._settings)
            answer = _bounded(self._source.read(known.place, now_s), known, self._settings.max_models)
            json.dumps(answer.place)
        except Exception as error:  # noqa: BLE001  whatever a source or its library raises: the others go on
            self._source = None
            failures = self._state.failed(self.name, f"{type(error).__name__}: {error}")
            if failures == 1:
                logger.warning("source %s cannot be read: %s", self.name, brief(error))
            return pause_s(failures, self._settings.every_s)
        failpoints.reach("sources.read")
        self._state.took(self.name, answer, now_s)
        failpoints.reach("sources.committed")
        return 0.0 if answer.has_more or answer.rows or answer.promises or answer.announced else self._settings.every_s

    def _send(self, waiting: list[Pending]) -> float:
        events = [each for each in waiting if each.kind == "events"]
        if events:
            return self._send_events(events)
        for each in waiting:
            method, arguments = _call_of(each)
            try:
                reply = self._link.call(method, REPLY_S, model=each.model, **arguments)
            except ConnectionError:
                return AGAIN_S
            except (ValueError, KeyError) as error:
                self._state.refuse(self.name, each.number, f"{each.model} {arguments['version']}: {brief(error)}")
                continue
            if reply["status"] in {"unavailable", "busy"}:
                return AGAIN_S
            failpoints.reach("sources.sent")
            self._state.told(each.number)
            failpoints.reach("sources.settled")
        return 0.0

    def _send_events(self, events: list[Pending]) -> float:
        ticket = self._link.send([_message(each) for each in events])
        if ticket is None or ticket not in self._link.wait([ticket], REPLY_S):
            return AGAIN_S
        replies = self._link.reply(ticket)
        if replies is None:
            return AGAIN_S
        failpoints.reach("sources.sent")
        return 0.0 if self._state.settle(self.name, events, replies) is None else AGAIN_S


def _bounded(answer: Answer, known: Known, most: int) -> Answer:
    """Refuse the rows of models beyond `most`: a wrong column or label would make a model of each row."""
    models = set(known.models)
    rows: list[Row] = []
    for row in answer.rows:
        if row.model in models or len(models) < most:
            models.add(row.model)
            rows.append(row)
    beyond = len(answer.rows) - len(rows)
    if not beyond:
        return answer
    problem = answer.problem or f"rows of more than {most} models (max_models) are refused"
    return replace(answer, rows=rows, refused=answer.refused + beyond, problem=problem)


def _call_of(each: Pending) -> tuple[str, Json]:
    """Return the method and the arguments of what is no batch of events; the model comes besides."""
    if each.kind == VERSION:
        version, live, by = json.loads(each.payload)
        return "announce", {"version": version, "live": live, "by": by}
    version, value, n = json.loads(each.payload)
    return "promise", {"version": version, "values": {"accuracy": value}, "n": n, "source": "hold_out"}


def _message(each: Pending) -> Message:
    return {
        "model": each.model,
        "producer": each.producer,
        "sequence": each.sequence,
        "payload": wire.for_travel(each.payload),
    }
