"""Ray Serve: what a deployment does to its requests is logged, in windows with their n, besides what it answers.

@serve.deployment
@monitored(model="fraud", version="v8", score=lambda answer: answer["score"])
class Fraud: ...
"""

from __future__ import annotations

import functools
import inspect
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from actors import wire
from actors.checks import brief
from actors.integrations.feedback import HORIZON_S, Link, feedback
from actors.integrations.windows import Seen, traffic

if TYPE_CHECKING:
    from actors.system import System

__all__ = ["feedback", "monitored"]

logger = logging.getLogger(__name__)

T = TypeVar("T")
# More requests than one replica answers in a window; beyond it the oldest are left out.
_MOST_SEEN: Final = 200_000
_FAILED: Final = 500


def monitored(
    *,
    model: str,
    version: str,
    score: Callable[[Any], float] | None = None,
    predicted: Callable[[Any, Any], tuple[str, Any]] | None = None,
    window_s: float = 10.0,
    horizon_s: float = HORIZON_S,
    system: System | None = None,
) -> Callable[[T], T]:
    """Return a decorator of a deployment's class or function, placed under `@serve.deployment`.

    Each replica logs `latency_ms`, `latency_p95_ms`, `error_rate` and `request_rate` of each window that has requests. No
    request waits for it or fails by it. An error is an exception or an answer with a status of 500 and above.

    Args:
        model: the model that the deployment serves.
        version: the version that it serves.
        score: takes the answer and returns a number: logged as `score_mean` and `score_std`.
        predicted: takes request and answer and returns the prediction's id and its label, which `feedback(id, truth)` is
            joined with: logged as `accuracy`.
        window_s: how long a window is.
        horizon_s: for how long a prediction waits for its truth.
        system: what `actors.connect()` returns; by default each replica connects once it has something to log.

    Raises:
        ValueError: for a model, version or window that cannot be.
        TypeError: for what is not a class or a function.

    Example:
        @serve.deployment
        @monitored(model="fraud", version="v8", predicted=lambda request, answer: (answer["id"], answer["label"]))
        class Fraud: ...
    """
    for name, seconds in (("window_s", window_s), ("horizon_s", horizon_s)):
        if not seconds > 0:
            raise ValueError(f"{name} must be > 0, got {seconds}")
    recorder = Recorder(wire.check_model(model), wire.check_version(version), score, predicted, window_s, horizon_s, system)

    def decorate(target: Any) -> Any:
        if inspect.isclass(target) and callable(getattr(target, "__call__", None)):  # noqa: B004  on a class: has it the method?
            called = {"__call__": _measuring(target.__call__, recorder, skip=1)}
            kept = {name: getattr(target, name) for name in ("__module__", "__qualname__", "__doc__")}
            metaclass: Any = type(target)
            return metaclass(target.__name__, (target,), kept | called)
        if inspect.isfunction(target):
            return _measuring(target, recorder, skip=0)
        raise TypeError(f"monitored must stand under @serve.deployment, on a class with __call__ or a function, got {target!r}")

    return decorate


def _measuring(method: Any, recorder: Recorder, skip: int) -> Any:
    """Return `method` with its requests measured; it stays what it is: plain, a coroutine, or a generator of either kind."""
    call: Any
    if inspect.isasyncgenfunction(method):

        async def call(*args: Any, **kwargs: Any) -> Any:
            with Request(recorder, args[skip : skip + 1]):
                async for part in method(*args, **kwargs):
                    yield part

    elif inspect.isgeneratorfunction(method):

        def call(*args: Any, **kwargs: Any) -> Any:
            with Request(recorder, args[skip : skip + 1]):
                return (yield from method(*args, **kwargs))

    elif inspect.iscoroutinefunction(method):

        async def call(*args: Any, **kwargs: Any) -> Any:
            with Request(recorder, args[skip : skip + 1]) as request:
                request.answer = await method(*args, **kwargs)
                return request.answer

    else:

        def call(*args: Any, **kwargs: Any) -> Any:
            with Request(recorder, args[skip : skip + 1]) as request:
                request.answer = method(*args, **kwargs)
                return request.answer

    return functools.wraps(method)(call)


class Request:
    """One request under way; the answer of a generator has no score."""

    __slots__ = ("answer", "asked", "began_s", "recorder")

    def __init__(self, recorder: Recorder, asked: tuple[Any, ...]) -> None:
        self.recorder = recorder
        self.asked = asked
        self.answer: Any = None

    def __enter__(self) -> Self:
        self.began_s = time.perf_counter()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.recorder.saw(time.perf_counter() - self.began_s, self.asked, self.answer, error)


class Recorder:
    """Keeps what a replica's requests were like until its thread logs the window; a pickled copy begins anew."""

    def __init__(self, *told: Any) -> None:
        self._told = told
        self.model, self.version, self._score, self._predicted, self.window_s, horizon_s, self._system = told
        self._seen: deque[Seen] = deque(maxlen=_MOST_SEEN)
        self._link = Link(self.model, horizon_s=horizon_s, window_s=self.window_s)
        self._began_s = time.monotonic()
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._warned = False

    def __reduce__(self) -> tuple[Any, ...]:
        return Recorder, self._told

    def saw(self, latency_s: float, asked: tuple[Any, ...], answer: Any, error: BaseException | None) -> None:
        """Note a request that has ended. Raises nothing, and waits for nobody."""
        score = None
        failed = (
            getattr(answer, "status_code", 200) >= _FAILED if error is None else getattr(error, "status_code", 500) >= _FAILED
        )
        if error is None and answer is not None and not failed:
            try:
                if self._score is not None:
                    score = float(self._score(answer))
                if self._predicted is not None:
                    id_, label = self._predicted(asked[0] if asked else None, answer)
                    self._link.put((id_, self.version, label))
            except Exception as problem:  # noqa: BLE001  the user's function must not fail a request
                self._warn("score or predicted failed", problem)
        self._seen.append(Seen(latency_s, failed, score))
        if self._thread is None:
            self._start()

    def log(self) -> None:
        """Log what has been seen since the last time."""
        now_s = time.monotonic()
        window = [self._seen.popleft() for _ in range(len(self._seen))]
        seconds, self._began_s = now_s - self._began_s, now_s
        if not window:
            return
        if self._system is None:
            from actors.system import connect  # noqa: PLC0415  a deployment is defined where no Ray may be, and pickled to a replica

            self._system = connect()
        for values, n in traffic(window, seconds):
            self._system.metrics.log(values, model=self.model, version=self.version, n=n)

    def _start(self) -> None:
        with self._starting:
            if self._thread is None:
                self._began_s = time.monotonic()
                self._thread = threading.Thread(target=self._run, name="visutility-serve", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        pause = threading.Event()
        while True:
            pause.wait(self.window_s)
            try:
                self.log()
            except Exception as problem:  # noqa: BLE001  the thread must go on, and the window is lost
                self._warn("a window was not logged", problem)

    def _warn(self, what: str, problem: Exception) -> None:
        if not self._warned:
            self._warned = True
            logger.warning("%s %s: %s, and further ones are not shown: %s", self.model, self.version, what, brief(problem))
