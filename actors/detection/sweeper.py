"""Keeps the retention of a detector's process in steps between its commits, so that ingest waits for none of it for long."""

from __future__ import annotations

import functools
from typing import Final

from actors.clock import Clock
from actors.cluster.store_thread import StoreThread
from actors.detection.state import DetectionState
from actors.detection.weighing import Weighing

_LOOKED_AT: Final = 500  # models whose logs are looked at between two commits
_WEIGHED_ROWS: Final = 5000  # of one model's log that are added up between two commits
_TRIM_ROWS: Final = 200  # of one model's log that go at once


class Sweeper:
    """Trims logs, and removes rows that are too old."""

    def __init__(self, thread: StoreThread[DetectionState], clock: Clock) -> None:
        self._thread = thread
        self._clock = clock

    async def sweep(self, *, everything: bool = True) -> None:
        """Keep the retention, a part at a time, so that ingest waits for none of it for long.

        Trimmed are the models that have logged since the last time; all of them, whose rows only grow old, with `everything`.
        """
        grown = await self._thread.do(lambda state: state.keeping.grown())
        names = await self._thread.do(lambda state: [model.name for model in state.models]) if everything else grown
        overlong: list[str] = []
        for start in range(0, len(names), _LOOKED_AT):
            part = names[start : start + _LOOKED_AT]
            overlong += await self._thread.do(functools.partial(self._overlong, part))
        for name in overlong:
            while await self._thread.do(functools.partial(self._trimmed, name)) >= _TRIM_ROWS:
                pass  # until the log is within its limits: a busy model may have grown by more than goes at once
        if names:
            await self._keep_bytes(names)
        if everything:
            await self._thread.do(lambda state: state.keeping.forget_old(self._clock.now()))
        while await self._thread.do(lambda state: state.keeping.give_back()):
            pass

    async def _keep_bytes(self, names: list[str]) -> None:
        """Keep the limits in bytes; for the one of all models together, the logs of all of them are read."""
        weighing = await self._thread.do(lambda state: state.keeping.weighing())
        if weighing is None:
            return
        if weighing.is_of_all:
            names = await self._thread.do(lambda state: [model.name for model in state.models])
        for name in names:
            below = await self._thread.do(functools.partial(self._weighed, weighing, name, None))
            while below is not None:
                below = await self._thread.do(functools.partial(self._weighed, weighing, name, below))
        for name, upto in weighing.upto().items():
            while await self._thread.do(functools.partial(self._trimmed, name, upto=upto)) >= _TRIM_ROWS:
                pass

    def _overlong(self, names: list[str], state: DetectionState) -> list[str]:
        return state.keeping.overlong(names, self._clock.now())

    def _weighed(self, weighing: Weighing, name: str, below: int | None, state: DetectionState) -> int | None:
        return state.keeping.weigh(weighing, name, below, _WEIGHED_ROWS)

    def _trimmed(self, name: str, state: DetectionState, upto: int = 0) -> int:
        return state.keeping.trim(name, self._clock.now(), _TRIM_ROWS, upto)
