"""The producers of a chaos run, each a process of its own: `python -m tests.chaos.producers KIND NUMBER SCENARIO`.

`packed` speaks the packed wire by itself (producer id, sequence, a window, resends with the same numbers), `plain` calls
`broadcast` with raw events as a job without the package does, `client` logs through `system.metrics`, `crowd` is thousands of
producers of one model that send, and after a fault resend, all at once. Each puts on record what was
acknowledged to it, when it was, by which epoch. SIGTERM: no new events, what is unacknowledged is brought home.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import ray
from ray.exceptions import RayActorError, RayTaskError

import actors
from actors import wire
from tests.chaos import ledger
from tests.chaos.ledger import Ack, Acks
from tests.chaos.scenario import MODELS, Scenario, accuracy_at, identities, version_at
from tests.speed import slow

# Shares of the run's rate, and events of one call. Most go the packed way; raw events cost the broadcaster's loop.
KINDS: Final = {"packed": (0.65, 200), "client": (0.25, 200), "plain": (0.1, 50)}
# Sources of the client's incarnations: a killed one is another producer afterwards.
CLIENT_SOURCES: Final = 1000
_WINDOW: Final = 8
_CALL_S: Final = 20.0
_HOME_S: Final = slow(60.0)
_FLUSH_EVERY_S: Final = 0.3
_CROWD_PAUSE_S: Final = 0.5
_CROWD_CALL: Final = 1000  # batches of one call of the crowd


def ack_path(folder: Path, source: int) -> Path:
    """Return the file of a source's acknowledgements."""
    return folder / f"acks-{source}.bin"


def main() -> int:
    """Run until SIGTERM, then send until nothing is pending."""
    kind, number, text = sys.argv[1:4]
    scenario = Scenario(**json.loads(text))
    stopping: list[bool] = []
    ray.init(address=scenario.address, logging_level=logging.ERROR, log_to_driver=False, namespace=f"producer-{os.getpid()}")
    signal.signal(signal.SIGTERM, lambda *_: stopping.append(True))  # after Ray, which puts its own there
    if kind == "client":
        return _client(scenario, int(number), stopping)
    if kind == "crowd":
        return asyncio.run(_Crowd(scenario, int(number), stopping).run())
    return asyncio.run(_Producer(scenario, kind, int(number), stopping).run())


@dataclass(slots=True)
class _Batch:
    sequence: int
    rows: int
    body: Any


class _Producer:
    """One producer id, one stream a model."""

    def __init__(self, scenario: Scenario, kind: str, number: int, stopping: list[bool]) -> None:
        self._scenario, self._kind, self._number, self._stopping = scenario, kind, number, stopping
        share, self._rows = KINDS.get(kind, (0.0, 1))
        self._rate = scenario.events_per_s * share / len(MODELS)
        self._name = f"chaos-{number}"
        self._acks = Acks(ack_path(Path(scenario.folder), number))
        self._began_s = time.monotonic()
        self._handle: Any = None

    async def run(self) -> int:
        """Feed every model; 0 where everything was acknowledged."""
        home = await asyncio.gather(*(self._stream(index, model) for index, model in enumerate(MODELS)))
        return 0 if all(home) else 1

    async def _stream(self, index: int, model: str) -> bool:
        random = np.random.default_rng([self._scenario.seed, self._number, index])
        first = sequence = await self._high_water(model)
        window: deque[_Batch] = deque()
        epoch = 0
        give_up_s = 0.0
        while True:
            while not self._stopping and len(window) < _WINDOW and sequence - first < self._due():
                window.append(self._sealed(model, sequence, random))
                sequence += self._rows
            if self._stopping:
                give_up_s = give_up_s or time.monotonic() + _HOME_S
                if not window or time.monotonic() > give_up_s:
                    return not window
            if not window:
                await asyncio.sleep(0.02)
                continue
            replies = await asyncio.gather(*(self._call(model, batch) for batch in window))
            acks = []
            for sent_s, acked_s, reply in replies:
                # A reply of a lower epoch is a zombie's: as good as none.
                if reply.get("status", "accepted") != "accepted" or reply.get("epoch", 0) < epoch:
                    break
                batch = window.popleft()
                epoch = max(epoch, reply.get("epoch", 0))
                acks.append(
                    Ack(index, batch.sequence, batch.rows, reply["accepted"], reply["duplicates"], epoch, sent_s, acked_s)
                )
            self._acks.note(acks)
            if window:
                await asyncio.sleep(0.1)

    def _due(self) -> float:
        return (time.monotonic() - self._began_s) * self._rate

    def _sealed(self, model: str, sequence: int, random: np.random.Generator) -> _Batch:
        now_s = time.time()
        version = version_at(self._scenario, now_s)
        accuracy = accuracy_at(self._scenario, now_s, self._rows, random)
        ids = identities(self._number, sequence, self._rows)
        if self._kind == "packed":
            batch = wire.batch_of_columns({"accuracy": accuracy, "id": ids}, version=version, timestamps=None, now_s=now_s)
            return _Batch(sequence, self._rows, wire.pack(batch))
        events = [
            {"model_name": model, "model_version": version, "accuracy": value, "extras": {"id": each}}
            for value, each in zip(accuracy.tolist(), ids.tolist(), strict=True)
        ]
        return _Batch(sequence, self._rows, events)

    async def _call(self, model: str, batch: _Batch) -> tuple[float, float, dict[str, Any]]:
        sent_s = time.monotonic()
        numbered = {"producer": self._name, "sequence": batch.sequence}
        if self._kind == "packed":
            reply = await self._asked("ingest", model=model, payload=batch.body, **numbered)
        else:
            reply = await self._asked("broadcast", events=batch.body, **numbered)
        return sent_s, time.monotonic(), reply

    async def _high_water(self, model: str) -> int:
        while True:
            reply = await self._asked("high_water", model=model, producer=self._name)
            if reply.get("status") == "ok":
                return int(reply["high_water"])
            await asyncio.sleep(0.2)

    async def _asked(self, method: str, **arguments: Any) -> Any:
        """Call the broadcaster; whatever goes wrong means: outcome unknown, send again."""
        try:
            if self._handle is None:
                self._handle = await asyncio.to_thread(ray.get_actor, "broadcaster", namespace=self._scenario.namespace)
            reply = await asyncio.wait_for(getattr(self._handle, method).remote(**arguments), _CALL_S)
        except (TimeoutError, RayActorError):
            self._handle = None
            return {"status": "unavailable"}
        except RayTaskError as error:  # a gap, said by raising: what came before was not taken
            return {"status": "gap", "reason": str(error.cause)}
        except ValueError:  # no such actor now
            self._handle = None
            return {"status": "unavailable"}
        return reply


class _Crowd(_Producer):
    """`scenario.crowd` producer ids, one event of each a round; a round that is not wholly acknowledged is sent again, whole.

    The identity of an event follows from its round and its producer, so the crowd is one source without a hole for the checker.
    """

    MODEL: Final = 0

    def __init__(self, scenario: Scenario, number: int, stopping: list[bool]) -> None:
        super().__init__(scenario, "crowd", number, stopping)
        self._names = [f"crowd-{number}-{each}" for each in range(scenario.crowd)]

    async def run(self) -> int:
        """Send rounds until the end; 0 where the last one was acknowledged."""
        random = np.random.default_rng([self._scenario.seed, self._number])
        begun = [await asyncio.gather(*map(self._begun, self._names[at : at + 200])) for at in range(0, len(self._names), 200)]
        number = min(mark for part in begun for mark in part)  # a round that its predecessor left half sent is sent again
        while not self._stopping:
            sent_s = time.monotonic()
            if not await self._sent(number, random):
                return 1
            ack = Ack(self.MODEL, number * len(self._names), len(self._names), 0, 0, 0, sent_s, time.monotonic())
            self._acks.note([ack])
            number += 1
            await asyncio.sleep(_CROWD_PAUSE_S)
        return 0

    async def _begun(self, name: str) -> int:
        while True:
            reply = await self._asked("high_water", model=MODELS[self.MODEL], producer=name)
            if reply.get("status") == "ok":
                return int(reply["high_water"])
            await asyncio.sleep(0.2)

    async def _sent(self, number: int, random: np.random.Generator) -> bool:
        now_s = time.time()
        version = version_at(self._scenario, now_s)
        accuracy = accuracy_at(self._scenario, now_s, len(self._names), random)
        ids = identities(self._number, number * len(self._names), len(self._names))
        batches = [
            {
                "model": MODELS[self.MODEL],
                "producer": name,
                "sequence": number,
                "payload": wire.pack(
                    wire.batch_of_columns({"accuracy": [value], "id": [each]}, version=version, timestamps=None, now_s=now_s)
                ),
            }
            for name, value, each in zip(self._names, accuracy, ids, strict=True)
        ]
        give_up_s = 0.0
        while True:
            parts = [batches[at : at + _CROWD_CALL] for at in range(0, len(batches), _CROWD_CALL)]
            answers = await asyncio.gather(*(self._asked("ingest_many", batches=part) for part in parts))
            if all(isinstance(answer, list) and all(each["status"] == "accepted" for each in answer) for answer in answers):
                return True
            if self._stopping:
                give_up_s = give_up_s or time.monotonic() + _HOME_S
                if time.monotonic() > give_up_s:
                    return False
            await asyncio.sleep(0.1)


def _client(scenario: Scenario, number: int, stopping: list[bool]) -> int:
    """Log as a job does; an incarnation's events are acknowledged when a flush says that none is pending."""
    share, rows = KINDS["client"]
    source = CLIENT_SOURCES + number
    acks = Acks(ack_path(Path(scenario.folder), source))
    random = np.random.default_rng([scenario.seed, source])
    metrics = actors.connect(address=scenario.address, namespace=scenario.namespace).metrics
    rate = scenario.events_per_s * share / len(MODELS)
    began_s = time.monotonic()
    logged = acked = 0
    while True:
        stop = bool(stopping)
        begun_s = time.monotonic()
        while not stop and logged < (begun_s - began_s) * rate:
            now_s = time.time()
            for model in MODELS:
                columns = {
                    "accuracy": accuracy_at(scenario, now_s, rows, random),
                    "id": identities(source, logged, rows),
                }
                metrics.log_batch(columns, model=model, version=version_at(scenario, now_s))
            logged += rows
        told = metrics.flush(timeout_s=_HOME_S if stop else 5.0)
        if told["pending"] == 0:
            if told["dropped"] or told["rejected"]:
                ledger.note(scenario.path("problems.jsonl"), problem="the client dropped or was refused", **told)
            if logged > acked:
                count = logged - acked
                flushed_s = time.monotonic()
                acks.note([Ack(index, acked, count, count, 0, 0, begun_s, flushed_s) for index in range(len(MODELS))])
            acked = logged
        if stop:
            return 0 if told["pending"] == 0 else 1
        time.sleep(_FLUSH_EVERY_S)


if __name__ == "__main__":
    sys.exit(main())
