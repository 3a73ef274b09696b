"""Feedback: truths that come later are joined with a model's predictions, whichever replica and version made them.

One named actor of a model joins them, so `feedback` may be called in any process of the cluster. It keeps predictions in
memory: those that wait for their truth when its process dies are not counted, neither as hits nor as misses. It ends by
itself when it has heard nothing for the horizon.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import ray

from actors import wire
from actors.checks import brief
from actors.cluster import connection
from actors.errors import NotConnectedError
from actors.integrations.windows import Join

if TYPE_CHECKING:
    from actors.system import System

logger = logging.getLogger(__name__)

HORIZON_S: Final = 86_400.0
_NAMESPACE: Final = "visutility-serve"
# What a process keeps while the actor cannot be reached; beyond it the oldest are dropped.
_MOST_WAITING: Final = 200_000
_SEND_S: Final = 0.5
_BATCH: Final = 5_000
_TAKEN_S: Final = 300.0  # the first batch waits until the actor has been made

# (id, version, label) of a prediction; (id, None, truth) of a truth.
Row = tuple[str, str | None, Any]


def feedback(id_: str, truth: Any, *, model: str) -> None:
    """Tell what was right for a prediction: joined with it, by its id, to `accuracy` of the version that made it.

    It returns at once. A truth may come before its prediction is known; an id counts once.

    Args:
        id_: what `predicted` of `monitored` returned as the id.
        truth: right where it equals the label.
        model: the model that predicted.

    Example:
        feedback("request-81", "spam", model="mail")
    """
    with _starting:
        link = _links.get(model)
        if link is None:
            link = _links[wire.check_model(model)] = Link(model)
    link.put((id_, None, truth))


class Link:
    """Takes rows to a model's joining actor from a thread of its own, in batches; `put` never waits."""

    def __init__(self, model: str, *, horizon_s: float | None = None, window_s: float | None = None) -> None:
        self._model = model
        self._terms = {"horizon_s": horizon_s, "window_s": window_s}
        self._rows: deque[Row] = deque(maxlen=_MOST_WAITING)
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._warned = False

    def put(self, row: Row) -> None:
        """Keep a row until the thread has sent it."""
        self._rows.append(row)
        if self._thread is None:
            with self._starting:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name="visutility-feedback", daemon=True)
                    self._thread.start()

    def _run(self) -> None:
        pause = threading.Event()
        while True:
            pause.wait(_SEND_S)
            try:
                while self._rows:
                    with connection.kept() as is_own:
                        if not is_own:  # the rows wait: Ray would start a cluster of its own for this thread
                            raise NotConnectedError(connection.lacking())
                        rows = [self._rows.popleft() for _ in range(min(_BATCH, len(self._rows)))]
                        reply = connection.reply_to(joiner(self._model).take.remote(rows=rows, **self._terms))
                    reply(_TAKEN_S)
            except Exception as problem:  # noqa: BLE001  the thread must go on, and the batch is not counted
                if not self._warned:
                    self._warned = True
                    logger.warning("%s: predictions or truths were not sent: %s", self._model, brief(problem))


def joiner(model: str) -> Any:
    """Return the joining actor of a model, begun where there is none."""
    options: Any = {"name": f"feedback-{model}", "namespace": _NAMESPACE, "get_if_exists": True, "lifetime": "detached"}
    return ray.remote(Joiner).options(num_cpus=0, max_restarts=-1, **options).remote(model=model)


class Joiner:
    """The actor that joins, and logs hits in windows. On restart: what waits for its other half is forgotten."""

    def __init__(self, *, model: str, system: System | None = None) -> None:
        self._model = model
        self._system = system
        self._join = Join(HORIZON_S)
        self._lock = threading.Lock()
        self._heard_s = time.monotonic()
        self._window_s = 10.0
        threading.Thread(target=self._run, name="visutility-joiner", daemon=True).start()

    def take(self, *, rows: Sequence[Row], horizon_s: float | None, window_s: float | None) -> int:
        """Take predictions and truths, and return how many ids are remembered; a replica's horizon and window are taken too."""
        now_s = time.monotonic()
        with self._lock:
            self._heard_s = now_s
            self._window_s = window_s or self._window_s
            self._join.horizon_s = horizon_s or self._join.horizon_s
            for id_, version, value in rows:
                if version is None:
                    self._join.truth(id_, value, now_s)
                else:
                    self._join.predicted(id_, version, value, now_s)
            return len(self._join)

    def log(self) -> None:
        """Log the hits since the last time."""
        with self._lock:
            found = self._join.take()
        if not found:
            return
        if self._system is None:
            from actors.system import connect  # noqa: PLC0415  as in `serve`

            self._system = connect()
        for version, (hits, n) in found.items():
            self._system.metrics.log({"accuracy": hits / n}, model=self._model, version=version, n=n)

    def _run(self) -> None:
        pause = threading.Event()
        while True:
            pause.wait(self._window_s)
            try:
                self.log()
            except Exception as problem:  # noqa: BLE001  the thread must go on, and the window is lost
                logger.warning("%s: hits were not logged: %s", self._model, brief(problem))
            if time.monotonic() - self._heard_s > self._join.horizon_s:
                ray.kill(ray.get_runtime_context().current_actor)


_starting: Final = threading.Lock()
_links: Final[dict[str, Link]] = {}
