"""What an objective holds, and how it is called: the same in every executor."""

from __future__ import annotations

import importlib
import inspect
import json
import math
import os
import pickle
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from typing import Any, Final

from actors.checks import shown, unboxed, whole
from actors.replies import Json
from actors.tuning.executors import modules
from actors.tuning.rules.steps import MAX_ERROR, MAX_STEP, Outcome

REFERENCE: Final = b"ref:"  # followed by module:function
PICKLED: Final = b"pkl:"  # followed by what cloudpickle wrote

# Takes (step, value) and says whether to go on.
Reported = Callable[[int, float], bool]


@dataclass(frozen=True, slots=True)
class Assignment:
    """One attempt at one trial, as a worker gets it; `params` is JSON."""

    trial: int
    attempt: int
    params: str


@dataclass(frozen=True, slots=True)
class TrialTerms:
    """The settings that all trials of a study share."""

    context: Json | None
    timeout_s: float | None = None
    memory_bytes: int | None = None


class RunningTrial:
    """A trial as its objective sees it: `id`, `attempt`, `params`, `context`, `seed`, and `report`.

    An objective that takes (params, trial) reports as it goes and stops where that is not worth going on:

        def objective(params, trial):
            model = make(params, seed=trial.seed)
            for epoch in range(1, 31):
                loss = model.train_an_epoch()
                if not trial.report(epoch, loss):
                    break
            return loss
    """

    def __init__(self, assignment: Assignment, *, seed: Callable[[], int], context: Json | None, reported: Reported) -> None:
        """Start as an executor's trial; `seed` is called when the objective reads it."""
        self.id = assignment.trial
        self.attempt = assignment.attempt
        self.params: Json = json.loads(assignment.params)
        self.context = context
        self.stopped = False
        self._seed = seed
        self._reported = reported
        self._reporting = threading.Lock()  # an objective may report from threads of its own
        self._ended = False

    @property
    def seed(self) -> int:
        """Return the trial's seed, in [0, 2**32): a function of the study's seed and the trial's id alone."""
        return self._seed()

    def report(self, step: int, value: float) -> bool:
        """Tell how it goes at `step` (1, 2, ...); False means: not worth going on, return what there is.

        Costs microseconds and waits for nobody: the verdict comes with a later report. A value that is no finite number
        counts as the worst there is. Raises ValueError for a step or value that is no number, RuntimeError where the trial has
        ended, in a thread that the objective left running.
        """
        at = whole("step", step, 0, MAX_STEP)
        number = unboxed(value)
        if isinstance(number, bool) or not isinstance(number, Real):
            raise ValueError(f"value must be a number, got {shown(value)}")
        with self._reporting:
            if self._ended:
                raise RuntimeError(f"trial {self.id} has ended and can no longer report")
            if not self._reported(at, _as_float(number)):
                self.stopped = True
        return not self.stopped

    def end(self) -> None:
        """Take no more reports: the objective has returned."""
        with self._reporting:
            self._ended = True


class LoadError(RuntimeError):
    """The objective cannot be opened in this process."""


class Objective:
    """An objective that has been opened: a function of (params) or (params, trial)."""

    def __init__(self, shipped: bytes) -> None:
        """Open what the client shipped; LoadError names what went wrong."""
        try:
            modules.forget()
            if shipped.startswith(REFERENCE):
                module, _, name = shipped[len(REFERENCE) :].decode().partition(":")
                self._function: Callable[..., Any] = getattr(importlib.import_module(module), name)
            else:
                self._function = pickle.loads(shipped[len(PICKLED) :])  # noqa: S301  the caller's own code, in the caller's own worker
            self._wants_trial = wants_trial(self._function)
        except BaseException as error:
            raise LoadError(_described(error)) from error

    def __call__(self, trial: RunningTrial) -> Outcome:
        """Run one attempt; whatever the objective raises or returns becomes an outcome."""
        pid = os.getpid()
        try:
            arguments = (trial.params, trial) if self._wants_trial else (trial.params,)
            returned = self._function(*arguments)
            outcome = Outcome("stopped" if trial.stopped else "completed", checked(returned), None)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt) or hasattr(error, "ray_terminate_msg"):
                raise  # Ray ends this worker: the trial has not failed, it is lost
            outcome = Outcome("failed", None, _described(error))
        if os.getpid() != pid:
            os._exit(0)  # the objective forked and its child came back here: only the parent answers
        trial.end()
        return outcome


def wants_trial(objective: Callable[..., Any]) -> bool:
    """Return whether the objective takes (params, trial) rather than (params); ValueError where it takes neither."""
    if not callable(objective):
        raise ValueError(f"objective must be callable, got {shown(objective)}")
    try:
        signature = inspect.signature(objective)
    except (TypeError, ValueError):
        return False  # a builtin that does not say; most take one argument
    for arguments, answer in ((2, True), (1, False)):
        try:
            bound = signature.bind(*range(arguments))
        except TypeError:
            continue
        second = list(signature.parameters.values())[1:2]
        # An optional second argument that is not meant for us, as in `def f(params, verbose=False)`, is left alone.
        if answer and second and second[0].default is not inspect.Parameter.empty and second[0].name != "trial":
            continue
        if answer and len(bound.arguments) < 2 and second == []:
            continue  # *args
        return answer
    raise ValueError(f"objective must take (params) or (params, trial), got the signature {signature}")


def checked(value: object) -> float:
    """Return an objective's value as a finite float; ValueError otherwise."""
    number = unboxed(value)
    if isinstance(number, bool) or not isinstance(number, Real):
        raise ValueError(f"the objective must return a number, got {type(number).__name__}: {shown(number)}")
    plain = _as_float(number)
    if not math.isfinite(plain):
        raise ValueError(f"the objective must return a finite number, got {shown(number)}")
    return plain


def _as_float(number: Any) -> float:
    try:
        return float(number)
    except OverflowError:
        return math.inf


def _described(error: BaseException) -> str:
    """Write an exception with the end of its traceback, in bounded length."""
    try:
        lines = traceback.format_exception(error, limit=-6)
        text = "".join(lines).strip()
        last = traceback.format_exception_only(error)[-1].strip()
    except Exception:  # noqa: BLE001  an exception whose own text raises
        return type(error).__name__
    return f"{last[: MAX_ERROR // 2]}\n{text[-MAX_ERROR // 2 :]}"
