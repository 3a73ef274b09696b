"""The patches of the negative controls: each removes one protection, so that a run shows whether the checker can fail.

They are applied in every worker process by Ray's `worker_process_setup_hook` (and in the process that drives the run), never
code in the actors. The environment variable names them, with commas between; without it `apply` does nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Final

VARIABLE: Final = "VISUTILITY_CHAOS_CONTROL"
HOOK: Final = "tests.chaos.controls.apply"


def apply() -> None:
    """Apply the controls that the environment names."""
    for name in filter(None, os.environ.get(VARIABLE, "").split(",")):
        _PATCHES[name]()


def _no_trim() -> None:
    """Count an overlapping resend again."""
    from actors.detection.intake import Intake

    honest: Any = Intake.take

    def take(self: Any, work: Any, changes: Any, now: Any) -> Any:
        high = 0 if work.producer is None else self._models.marks[work.key]
        if work.producer is None or work.sequence >= high:
            return honest(self, work, changes, now)
        reply = honest(self, replace(work, producer=None, sequence=0), changes, now)
        return reply | {"high_water": high}

    Intake.take = take  # type: ignore[method-assign]


def _no_fence() -> None:
    """Commit without looking at the epoch."""
    from actors.storage.fence import Fence

    @contextlib.contextmanager
    def write(self: Fence) -> Iterator[Any]:
        with self.part.write() as connection:
            yield connection

    Fence.write = write  # type: ignore[method-assign]


def _early_reply() -> None:
    """Acknowledge before the commit."""
    from actors import wire
    from actors.detection.model import Ingest
    from actors.detection.queue import CommitQueue

    honest: Any = CommitQueue.replied
    begun: set[Any] = set()

    async def replied(self: Any, work: Any) -> Any:
        if not isinstance(work, Ingest):
            return await honest(self, work)
        task = asyncio.get_running_loop().create_task(honest(self, work))
        begun.add(task)
        task.add_done_callback(begun.discard)
        rows = wire.unpack(work.payload).rows
        counts = {"status": "accepted", "accepted": rows, "duplicates": 0, "rejected": []}
        return {**counts, "high_water": work.sequence + rows, "epoch": 0}

    CommitQueue.replied = replied  # type: ignore[method-assign]


def _new_id() -> None:
    """Send every attempt under an id of its own, so that no receiver can recognize a resend."""
    from actors.retraining.handlers import webhook

    honest = webhook.cloud_event

    def cloud_event(order: Any, namespace: str) -> dict[str, Any]:
        event = honest(order, namespace)
        return event | {"id": f"{order.id}.{order.attempts}"}

    webhook.cloud_event = cloud_event


def _no_rearm() -> None:
    """Let the cooldown count from the claim, not from the effect."""
    from actors.retraining.commits import Commits

    honest: Any = Commits.settle

    def settle(self: Any, connection: Any, order: Any, outcome: Any, now: Any) -> Any:
        self.arm = lambda *_: None
        try:
            return honest(self, connection, order, outcome, now)
        finally:
            del self.arm

    Commits.settle = settle  # type: ignore[method-assign]


def _no_take_bound() -> None:
    """Let any number of consumers wait."""
    from actors.retraining import channel

    channel._MAX_WAITING = 10**9  # type: ignore[misc]


def _no_call_bound() -> None:
    """Let any number of calls wait for the tuner's store."""
    from actors.tuning import tuner

    tuner.MAX_IN_FLIGHT = 10**9  # type: ignore[misc]


def _no_circuit() -> None:
    """Retry a receiver that hangs without end, in all places."""
    from actors.retraining.rules.circuit import Circuits

    Circuits.allows = lambda *_: True  # type: ignore[method-assign]


def _no_file_check() -> None:
    """Commit into whatever file is open, whether anybody finds it again or not."""
    from actors.storage.store import Part

    def look(self: Any, *, writes: bool = False) -> None:
        """See nothing."""

    Part._look = look  # type: ignore[method-assign]


def _no_damage_check() -> None:
    """Pass on what SQLite says of a damaged file: it names no file, and no caller treats it as trouble of the store."""
    from actors.storage.store import Part

    @contextlib.contextmanager
    def whole(self: Any) -> Iterator[None]:
        yield

    Part._whole = whole  # type: ignore[method-assign]


def _no_row_skip() -> None:
    """Treat an unreadable row of the log as a failure of the whole commit."""
    from actors import wire

    honest = wire.recheck

    def recheck(payload: wire.Payload, received_at: float, skip: int) -> wire.Verdict:
        try:
            return honest(payload, received_at, skip)
        except ValueError as error:
            raise RuntimeError(str(error)) from error

    wire.recheck = recheck


def _leak() -> None:
    """Keep every payload that was ever unpacked."""
    from actors import wire

    honest = wire.unpack
    kept: list[bytes] = []

    def unpack(payload: object, *, stored: bool = False) -> wire.Batch:
        kept.append(bytes(wire.arrived(payload)) * 4)
        return honest(payload, stored=stored)

    wire.unpack = unpack


_PATCHES: Final[dict[str, Callable[[], None]]] = {
    "no-trim": _no_trim,
    "no-fence": _no_fence,
    "early-reply": _early_reply,
    "no-put-if-absent": _new_id,
    "no-rearm": _no_rearm,
    "no-take-bound": _no_take_bound,
    "no-call-bound": _no_call_bound,
    "no-circuit": _no_circuit,
    "no-file-check": _no_file_check,
    "no-damage-check": _no_damage_check,
    "no-row-skip": _no_row_skip,
    "leak": _leak,
}
