"""The worker task: takes leases from the tuner, runs trials one after the other, reports what came of them.

It holds nothing that must be kept. While the tuner is unavailable it goes on with what it holds and sends its step again, with
the same number, until it is answered; where it dies, the tuner gives its trials to others.

Every cold worker imports this file before its first trial, so it reaches neither numpy nor a database.
"""

from __future__ import annotations

import functools
import logging
import math
import os
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final

import ray

from actors import failpoints
from actors.cluster.peers import Ask, BlockingPeers, PeerUnavailableError
from actors.replies import Lease, StepAnswered, WorkerTerms
from actors.tuning.executors.create import Executor, create
from actors.tuning.executors.trial import Assignment, LoadError, TrialTerms
from actors.tuning.rules.steps import MAX_REPORTS, Result

logger = logging.getLogger(__name__)

# A worker sends a step this often while a trial runs; the reply carries stop signs.
_HEARTBEAT_S: Final = 2.0
# Reports are collected this long before they are sent.
_REPORT_S: Final = 0.03
# Of one trial's reports between two steps, so many are kept, the latest: an objective may report in a tight loop.
_MAX_REPORTS: Final = 200
# A worker that gets nothing this long leaves its processor to others.
_MAX_IDLE_S: Final = 2.0
# How long a worker looks for a tuner that does not answer.
PATIENCE_S: Final = 900.0
# When a study has ended, a trial that cannot be interrupted gets so long to end by itself.
_GRACE_S: Final = 1.0
_CALL_TIMEOUT_S: Final = 15.0


def run_worker(*, namespace: str, tuner: str, study: str, key: str) -> None:
    """Be the worker `key` of a study until there is nothing left to do: what the Runner launches as a Ray task."""
    node = str(ray.get_runtime_context().get_node_id())
    Worker(BlockingPeers(namespace), tuner=tuner, study=study, key=key, node=node).run()


class Worker:
    """One worker of one study: trials run in the main thread, and a second thread sends steps meanwhile."""

    def __init__(
        self, peers: Ask, *, study: str, key: str, node: str | None, tuner: str = "tuner", patience_s: float = PATIENCE_S
    ) -> None:
        self._peers = peers
        self._tuner = tuner
        self._study = study
        self._key = key
        self._node = node
        self._patience_s = patience_s
        self._incarnation = uuid.uuid4().hex
        self._sequence = 0
        self._stepping = threading.Lock()
        self._last_step_s = time.monotonic()
        self._reports: dict[tuple[int, int], list[tuple[int, float | None]]] = {}
        self._reporting = threading.Lock()
        self._reported = threading.Event()
        self._stop: set[int] = set()
        self._over = threading.Event()  # not wanted any more
        self._left = threading.Event()  # the main thread is out of the objective for good
        self._executor: Executor | None = None

    def run(self) -> None:
        """Work until the study has ended or has nothing left."""
        settings: WorkerTerms | None = self._ask("objective", study=self._study)
        if settings is None:
            return
        try:
            self._executor = create(
                settings["executor"],
                settings["objective"],
                _terms(settings),
                reported=self._take_report,
                seed_of=functools.partial(_seed, settings["seed"]),
            )
        except LoadError as error:
            self._step(load_error=str(error))
            return
        beat = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        beat.start()
        with ThreadPoolExecutor(1, "ahead") as background:
            try:
                self._work(self._executor, background)
            finally:
                self._left.set()
                self._not_wanted()
                beat.join()
                self._executor.close()

    def _work(self, executor: Executor, background: ThreadPoolExecutor) -> None:
        results: list[Result] = []
        idle_since_s = time.monotonic()
        reply = self._step(wanted=True)
        while reply is not None:
            leases, ahead = reply["leases"], reply["ahead"]
            if not leases:
                if time.monotonic() - idle_since_s > _MAX_IDLE_S:
                    self._step(leaving=True)
                    return
                time.sleep(reply["retry_in_s"])
                reply = self._step(wanted=True)
                continue
            step: Future[StepAnswered | None] | None = None
            if ahead or results:
                # While these run, the worker reports the last ones and asks for the next.
                step = background.submit(self._step, results=results, wanted=ahead, holding=len(leases))
            results = self._run_all(executor, leases)
            reply = None if step is None else step.result()
            if step is None or (reply is not None and not reply["leases"]):
                reply, results = self._step(results=results, wanted=True), []
            idle_since_s = time.monotonic()

    def _run_all(self, executor: Executor, leases: list[Lease]) -> list[Result]:
        """Run the leased trials in order, to the end of the lease or of the study."""
        results: list[Result] = []
        for trial, attempt, params in leases:
            began_s = time.perf_counter()
            outcome = executor.run(Assignment(trial, attempt, params))
            if self._over.is_set():
                break
            self._stop.discard(trial)
            seconds = time.perf_counter() - began_s
            results.append(Result(trial, attempt, outcome.kind, outcome.value, seconds, outcome.error))
        return results

    def _step(self, results: Sequence[Result] = (), **said: Any) -> StepAnswered | None:
        """Send one step until it is answered; None where this worker is not wanted any more."""
        if results:
            failpoints.reach("worker.before_step")
        with self._stepping:
            if self._over.is_set():
                return None
            self._sequence += 1
            reply = self._ask(
                "step",
                study=self._study,
                key=self._key,
                incarnation=self._incarnation,
                sequence=self._sequence,
                node=self._node,
                reports=self._take_reports(),
                results=[list(result) for result in results],
                **said,
            )
            self._last_step_s = time.monotonic()
            if reply is None or reply["status"] == "gone":
                self._not_wanted()
                return None
            self._stop.update(reply["stop"])
            answered: StepAnswered = reply
            return answered

    def _not_wanted(self) -> None:
        self._over.set()
        self._reported.set()  # the heartbeat looks up, and ends what runs

    def _ask(self, method: str, **arguments: Any) -> Any:
        deadline_s = time.monotonic() + self._patience_s
        pause_s = 0.05
        while time.monotonic() < deadline_s and not self._over.is_set():
            try:
                reply = self._peers.call(self._tuner, method, arguments, timeout_s=_CALL_TIMEOUT_S)
                if reply.get("status") != "unavailable":
                    return reply
            except PeerUnavailableError as error:
                logger.info("worker %s: the tuner does not answer (%s)", self._key, error)
            except (KeyError, ValueError) as error:  # the study has been forgotten
                logger.warning("worker %s: %s", self._key, error)
                return None
            time.sleep(pause_s)
            pause_s = min(pause_s * 1.5, 1.0)
        if not self._over.is_set():
            logger.warning("worker %s: no tuner for %g s; it ends", self._key, self._patience_s)
        return None

    def _take_report(self, assignment: Assignment, step: int, value: float) -> bool:
        with self._reporting:
            latest = self._reports.setdefault((assignment.trial, assignment.attempt), [])
            latest.append((step, value if math.isfinite(value) else None))
            if len(latest) > _MAX_REPORTS:
                del latest[:-_MAX_REPORTS]
        self._reported.set()
        return assignment.trial not in self._stop and not self._over.is_set()

    def _take_reports(self) -> list[list[Any]]:
        with self._reporting:
            reports, self._reports = self._reports, {}
        return [[*attempt, step, value] for attempt, latest in reports.items() for step, value in latest][-MAX_REPORTS:]

    def _beat(self) -> None:
        """Send steps while a trial runs, carry reports, and end what runs when the study has ended."""
        while not self._over.is_set():
            if self._reported.wait(_HEARTBEAT_S):
                self._reported.clear()
                self._over.wait(_REPORT_S)
            if not self._over.is_set() and (self._reports or time.monotonic() - self._last_step_s >= _HEARTBEAT_S):
                self._step()
        if self._left.is_set() or self._executor is None or self._executor.cancel():
            return
        if not self._left.wait(_GRACE_S):
            os._exit(1)  # inside an objective that nothing can interrupt but the end of this process


def _terms(settings: WorkerTerms) -> TrialTerms:
    resources: Mapping[str, float] = settings["resources"] or {}
    memory_bytes = resources.get("memory_bytes")
    return TrialTerms(
        context=settings["context"],
        timeout_s=settings["timeout_s"],
        memory_bytes=None if memory_bytes is None else int(memory_bytes),
    )


def _seed(seed: int, trial: int) -> int:
    from actors.tuning.strategies.seeds import trial_seed  # noqa: PLC0415  numpy, 0.13 s, for trials that ask for a seed

    return trial_seed(seed, trial)
