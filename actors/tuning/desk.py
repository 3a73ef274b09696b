"""The tuner's store thread: jobs that wait together are done together and committed in one transaction before any is answered.

Where a commit fails because the store cannot be reached, memory is ahead of the store: it is dropped and read again, and
no caller has heard of anything that is not kept. Where it fails because one job's values cannot be stored, the jobs are done
again one by one: that job alone fails, and its study ends with the cause instead of running for ever.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar

from actors.checks import brief
from actors.cluster.store_thread import STORE_ERRORS
from actors.storage import StaleEpochError

logger = logging.getLogger(__name__)
T = TypeVar("T")

_MAX_GROUP: Final = 256
# What only reads does not wait for the store thread, and makes nobody else wait.
_READERS: Final = 2


class DeskUnavailableError(RuntimeError):
    """The store cannot be reached now; nothing has changed."""


class UnstorableError(ValueError):
    """The values of this job cannot be stored, now or ever."""


class State(Protocol):
    """The state of the desk: jobs change it in memory, then it is committed."""

    def open(self) -> None:
        """Prepare for jobs: open the store and read the state, unless that has been done."""

    def commit(self) -> None:
        """Write what the jobs have changed, in one fenced transaction."""

    def drop(self) -> None:
        """Forget what is in memory: `open` reads it again."""

    def fail(self, study: str, error: str) -> None:
        """End a study whose values cannot be stored, and commit that."""

    def close(self) -> None:
        """Close the store."""


@dataclass(frozen=True, slots=True)
class _Job:
    run: Callable[[], Any]
    study: str | None
    future: asyncio.Future[Any]
    loop: asyncio.AbstractEventLoop


# A job's future, and its answer or its error.
_Answer = tuple[_Job, Any, BaseException | None]


class Desk:
    """Runs jobs on one state, in one thread, for callers on an event loop."""

    def __init__(self, state: State, on_stale: Callable[[StaleEpochError], None]) -> None:
        self._state = state
        self._on_stale = on_stale
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._readers = ThreadPoolExecutor(_READERS, "tuner-reader")
        self._thread = threading.Thread(target=self._work, name="tuner-store", daemon=True)
        self._thread.start()

    async def do(self, job: Callable[[], T], *, study: str | None = None) -> T:
        """Run `job` and return its answer once it is committed.

        `study` ends if the changes of the job cannot be stored. Raises DeskUnavailableError where the store cannot be
        reached, UnstorableError, and the job's own ValueError and KeyError.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._jobs.put(_Job(job, study, future, loop))
        return await future

    async def read(self, job: Callable[[], T]) -> T:
        """Run a job that only reads the store, in a thread of its own; DeskUnavailableError where it cannot be reached."""
        await self.do(_nothing)  # the store is open
        try:
            return await asyncio.get_running_loop().run_in_executor(self._readers, job)
        except STORE_ERRORS as error:
            raise DeskUnavailableError(f"{type(error).__name__}: {brief(error)}") from error

    def close(self) -> None:
        """End the threads and close the store."""
        self._jobs.put(None)
        self._thread.join()
        self._readers.shutdown()
        self._state.close()

    def _work(self) -> None:
        while True:
            group = [self._jobs.get()]
            while len(group) < _MAX_GROUP and None not in group:
                try:
                    group.append(self._jobs.get_nowait())
                except queue.Empty:
                    break
            jobs = [job for job in group if job is not None]
            if jobs:
                jobs[0].loop.call_soon_threadsafe(_deliver, self._served(jobs))
            if None in group:
                return

    def _served(self, jobs: list[_Job]) -> list[_Answer]:
        try:
            self._state.open()
            answers = [_ran(job) for job in jobs]
            self._state.commit()
        except StaleEpochError as error:
            self._on_stale(error)
            return [(job, None, error) for job in jobs]
        except Exception as error:
            self._state.drop()
            if isinstance(error, STORE_ERRORS):
                unavailable = DeskUnavailableError(f"{type(error).__name__}: {brief(error)}")
                return [(job, None, unavailable) for job in jobs]
            if len(jobs) > 1:
                return [answer for job in jobs for answer in self._served([job])]
            logger.exception("the tuner cannot store the changes of a call")
            return [(jobs[0], None, self._failed(jobs[0], error))]
        else:
            return answers

    def _failed(self, job: _Job, cause: Exception) -> Exception:
        reason = f"{type(cause).__name__}: {brief(cause)}"
        if job.study is None:
            return UnstorableError(f"the request cannot be stored: {reason}")
        try:
            self._state.open()
            self._state.fail(job.study, f"the message of a worker cannot be stored: {reason}")
        except Exception as error:  # noqa: BLE001  it is tried again with the job, which is sent again
            self._state.drop()
            return DeskUnavailableError(f"{type(error).__name__}: {brief(error)}")
        return UnstorableError(reason)


def _ran(job: _Job) -> _Answer:
    try:
        return job, job.run(), None
    except (ValueError, KeyError) as error:  # the caller's mistake; the job has changed nothing
        return job, None, error


def _nothing() -> None:
    """Wait for the store."""


def _deliver(answers: list[_Answer]) -> None:
    for job, answer, error in answers:
        if job.future.done():  # the caller has gone
            continue
        if error is None:
            job.future.set_result(answer)
        else:
            job.future.set_exception(error)
