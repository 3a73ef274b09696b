"""The book of one study: every trial's state, who holds it, and how many a worker gets at a time.

    PENDING -> RUNNING(attempt) -> COMPLETED | PRUNED | FAILED | TIMED_OUT | CANCELLED
       ^___________|  the worker died, or the objective raised and has retries left

The book decides; the tuner writes `take_changes()` in one transaction before anybody hears of them.
"""

from __future__ import annotations

import json
import math
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from actors.checks import plain
from actors.replies import TrialRow
from actors.tuning.rules.plan import Plan
from actors.tuning.rules.steps import MAX_ERROR, Result
from actors.tuning.strategies.interface import ExhaustedError, Learner, PastTrial, resume

PENDING: Final = "PENDING"
RUNNING: Final = "RUNNING"
COMPLETED: Final = "COMPLETED"
PRUNED: Final = "PRUNED"
FAILED: Final = "FAILED"
TIMED_OUT: Final = "TIMED_OUT"
CANCELLED: Final = "CANCELLED"
STATES: Final = (PENDING, RUNNING, COMPLETED, PRUNED, FAILED, TIMED_OUT, CANCELLED)
FINAL: Final = frozenset({COMPLETED, PRUNED, FAILED, TIMED_OUT})

# A reply hands out this much work, judged by the slowest of the last trials: long against a round trip (1 to 2 ms), short
# against anybody's patience. Slow trials therefore go one by one, so that no worker hoards them.
_LEASE_S = 0.025
_MAX_LEASE = 256
_MAX_LEASE_BYTES: Final = 2**20  # of parameters in one reply
_RECENT = 8
# Where the slowest of the last trials took no longer, a worker gets its next lease while it runs this one, so that it never
# waits for an answer. A lease ahead waits behind the running one: if that may take long, nothing is leased ahead.
_AHEAD_S = 0.1
# The batch grows by this factor at most from reply to reply: eight quick trials say little about the next 256.
_GROWTH = 4
# A trial whose workers died this often is taken for the reason.
MAX_LOSSES = 3
# The parameters of one trial, as JSON: they are in a row of the store, in a lease and in a page of trials.
_MAX_PARAMS_BYTES: Final = 64 * 1024


def _plain(value: object) -> object:
    found = plain(value)
    if found is value:
        raise TypeError(f"a {type(value).__name__} does not encode as JSON")
    return found


# Made once: `json.dumps` with an option of its own makes an encoder a call. A strategy may give numpy's numbers.
_ENCODER = json.JSONEncoder(allow_nan=False, default=_plain)


class StrategyError(RuntimeError):
    """The strategy raised: the study cannot go on."""


@dataclass(slots=True)
class Entry:
    """One trial in the book: `params` as JSON, exactly as the strategy gave them and the objective gets them."""

    id: int
    params: str
    state: str = PENDING
    value: float | None = None
    attempts: int = 0  # times that it was handed to a worker
    failures: int = 0  # attempts that the objective failed
    losses: int = 0  # attempts that died with their worker
    error: str | None = None
    seconds: float | None = None  # of the last attempt
    node: str | None = None
    finished_at: float | None = None  # seconds since the epoch


class TrialBook:
    """The trials of one study. Not thread safe: one caller at a time."""

    def __init__(self, plan: Plan, trials: Iterable[Entry] = (), holders: Mapping[int, str] | None = None) -> None:
        """Open the book with what the store has kept: every trial that was ever handed out, and who holds it.

        Trials that are neither final nor held wait for a worker again.
        """
        self.plan = plan
        self.trials: dict[int, Entry] = {trial.id: trial for trial in sorted(trials, key=lambda trial: trial.id)}
        self._strategy = plan.strategy_made()
        self.goal = self._goal(plan)
        self._learner = self._strategy if isinstance(self._strategy, Learner) else None
        self._next = max(self.trials, default=-1) + 1
        self._holder: dict[int, str] = dict(holders or {})
        for trial in self.trials.values():
            if trial.state not in FINAL:
                trial.state = RUNNING if trial.id in self._holder else PENDING
        self._waiting = deque(trial.id for trial in self.trials.values() if trial.state == PENDING)
        self._recent: deque[float] = deque(maxlen=_RECENT)
        self._last_size = 1
        self._changed: dict[int, Entry] = {}
        self._counts = Counter(trial.state for trial in self.trials.values())
        self.best: Entry | None = None
        for trial in self.trials.values():
            self._consider(trial)
        if self._next:
            self._resume()

    def continue_by(self, plan: Plan) -> None:
        """Go on with changed settings: more trials, other limits."""
        self.plan = plan
        self.goal = self._goal(plan)

    @property
    def finished(self) -> bool:
        """Whether every trial has its outcome."""
        return self.done >= self.goal

    @property
    def done(self) -> int:
        """Trials with an outcome."""
        return sum(self._counts[state] for state in FINAL)

    @property
    def running(self) -> int:
        """Trials that a worker holds."""
        return len(self._holder)

    @property
    def unleased(self) -> int:
        """Trials that no worker holds and that still need one."""
        return len(self._waiting) + max(self.goal - self._next, 0)

    def counts(self) -> dict[str, int]:
        """Count the trials by state; those never handed out are PENDING."""
        counts = {state: self._counts[state] for state in (COMPLETED, PRUNED, FAILED, TIMED_OUT, CANCELLED)}
        return {PENDING: max(self.goal - self.done - self.running - counts[CANCELLED], 0), RUNNING: self.running, **counts}

    @property
    def ahead(self) -> bool:
        """Whether a worker may be given its next trials while it runs some."""
        return self._learner is None and len(self._recent) == _RECENT and max(self._recent) <= _AHEAD_S

    def lease(self, worker: str, *, workers: int, held: Sequence[int] = ()) -> list[Entry]:
        """Hand trials to `worker`, one of `workers`, which runs `held` meanwhile; StrategyError where the strategy fails."""
        leased: list[Entry] = []
        if held and (not self.ahead or any(self.trials[trial].losses for trial in held)):
            return leased
        size, size_bytes = self._size(max(workers, 1)), 0
        while len(leased) < size and (trial := self._take(alone=not leased and not held)) is not None:
            trial.attempts += 1
            self._set_state(trial, RUNNING)
            self._holder[trial.id] = worker
            leased.append(trial)
            size_bytes += len(trial.params)
            if trial.losses or size_bytes > _MAX_LEASE_BYTES:
                break  # its last worker died: alone it costs no other trial, and shows whether it was the reason
        self._last_size = max(len(leased), 1)
        return leased

    def settle(self, worker: str, result: Result, *, node: str | None, now_s: float) -> Entry | None:
        """Take a result; None where it does not count: `worker` does not hold that attempt (any more)."""
        trial = self.trials.get(result.trial)
        if trial is None or self._holder.get(result.trial) != worker or trial.attempts != result.attempt:
            return None
        del self._holder[trial.id]
        trial.seconds, trial.node = result.seconds, node
        self._recent.append(result.seconds)
        if result.kind in {"completed", "stopped"} and result.value is not None and math.isfinite(result.value):
            trial.value, trial.error = result.value, None
            self._finish(trial, COMPLETED if result.kind == "completed" else PRUNED, now_s)
            return trial
        trial.error = (result.error or f"outcome {result.kind!r} with the value {result.value!r}")[:MAX_ERROR]
        if result.kind == "timed_out":
            self._finish(trial, TIMED_OUT, now_s)
            return trial
        trial.failures += 1
        if trial.failures > self.plan.retries:
            self._finish(trial, FAILED, now_s)
        else:
            self._requeue(trial)
        return trial

    def lose(self, worker: str, trials: Iterable[int], *, now_s: float) -> None:
        """Take back what a dead worker held."""
        for trial_id in trials:
            if self._holder.get(trial_id) != worker:
                continue
            del self._holder[trial_id]
            trial = self.trials[trial_id]
            trial.losses += 1
            if trial.losses < MAX_LOSSES:
                self._requeue(trial)
                continue
            trial.error = (
                f"the worker process died {trial.losses} times while it ran this trial (executor {self.plan.executor!r})"
            )
            self._finish(trial, FAILED, now_s)

    def give_back(self, worker: str, trials: Iterable[int], *, cancelled: bool = False) -> None:
        """Take back trials that a worker has not run, or that are cancelled with the study."""
        for trial_id in trials:
            if self._holder.get(trial_id) == worker:
                del self._holder[trial_id]
                self._requeue(self.trials[trial_id])
                if cancelled:
                    self._set_state(self.trials[trial_id], CANCELLED)

    def take_changes(self) -> list[Entry]:
        """Return the trials that must be written: final, or waiting for another attempt. A lease is written by its holder."""
        changed, self._changed = list(self._changed.values()), {}
        return changed

    def _goal(self, plan: Plan) -> int:
        size = getattr(self._strategy, "size", None)
        return plan.trials if size is None else min(plan.trials, len(plan.first) + size)

    def _size(self, workers: int) -> int:
        if self._learner is not None or not self._recent:
            return 1  # a learner should know all there is before it says what to try next
        by_time = int(_LEASE_S / max(*self._recent, 1e-9))
        by_share = math.ceil(self.unleased / (2 * workers))  # so that the last batches end together
        return max(min(by_time, by_share, _GROWTH * self._last_size, _MAX_LEASE), 1)

    def _take(self, *, alone: bool) -> Entry | None:
        if self._waiting:
            trial = self.trials[self._waiting[0]]
            if trial.losses and not alone:
                return None
            self._waiting.popleft()
            return trial
        if self._next >= self.goal:
            return None
        try:
            given = self._next < len(self.plan.first)
            params = _encoded(self.plan.first[self._next] if given else self._strategy.next_params())
        except ExhaustedError:
            self.goal = self._next
            return None
        except Exception as error:
            raise StrategyError(f"strategy {self.plan.strategy!r}: {type(error).__name__}: {error}") from error
        trial = Entry(self._next, params)
        self.trials[trial.id] = trial
        self._counts[PENDING] += 1
        self._next += 1
        return trial

    def _requeue(self, trial: Entry) -> None:
        self._set_state(trial, PENDING)
        self._waiting.appendleft(trial.id)
        self._changed[trial.id] = trial

    def _finish(self, trial: Entry, state: str, now_s: float) -> None:
        self._set_state(trial, state)
        trial.finished_at = now_s
        self._changed[trial.id] = trial
        self._consider(trial)
        given = len(self.plan.first)
        if self._learner is not None and trial.id >= given:
            try:
                self._learner.tell(trial.id - given, self._loss(trial))
            except Exception as error:
                raise StrategyError(f"strategy {self.plan.strategy!r}: {type(error).__name__}: {error}") from error

    def _set_state(self, trial: Entry, state: str) -> None:
        self._counts[trial.state] -= 1
        self._counts[state] += 1
        trial.state = state

    def _consider(self, trial: Entry) -> None:
        if trial.state == COMPLETED and trial.value is not None:
            # Of equal values the earliest trial is the best, in whatever order they came.
            key = (self.plan.loss(trial.value), trial.id)
            if self.best is None or self.best.value is None or key < (self.plan.loss(self.best.value), self.best.id):
                self.best = trial

    def _loss(self, trial: Entry) -> float | None:
        return None if trial.value is None or trial.state not in {COMPLETED, PRUNED} else self.plan.loss(trial.value)

    def _resume(self) -> None:
        past: list[PastTrial] = []
        for number in range(len(self.plan.first), self._next):
            trial = self.trials[number]
            past.append(PastTrial(json.loads(trial.params), trial.state in FINAL, self._loss(trial)))
        try:
            resume(self._strategy, past)
        except Exception as error:
            raise StrategyError(f"strategy {self.plan.strategy!r}: {type(error).__name__}: {error}") from error


def _encoded(params: object) -> str:
    if not isinstance(params, Mapping):
        raise ValueError(f"next_params() must give a mapping, got {type(params).__name__}")
    encoded = _ENCODER.encode(params)
    if len(encoded) > _MAX_PARAMS_BYTES:
        raise ValueError(f"next_params() must give at most {_MAX_PARAMS_BYTES} bytes as JSON, got {len(encoded)}")
    return encoded


def as_row(trial: Entry) -> TrialRow:
    """Return a trial as plain values, parameters decoded: what a caller gets."""
    return {
        "id": trial.id,
        "params": json.loads(trial.params),
        "value": trial.value,
        "state": trial.state,
        "attempts": trial.attempts,
        "error": trial.error,
        "seconds": trial.seconds,
        "node": trial.node,
        "finished_at": trial.finished_at,
    }
