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
from numbers import Integral, Real
from typing import Any, Final

REFERENCE: Final = b"ref:"  # followed by module:function
PICKLED: Final = b"pkl:"  # followed by what cloudpickle wrote

_MAX_ERROR = 4000  # characters

# Takes (step, value) and says whether to go on.
Reported = Callable[[int, float], bool]


@dataclass(frozen=True, slots=True)
class Assignment:
    """One attempt at one trial, as a worker gets it; `params` is JSON."""

    trial: int
    attempt: int
    params: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of an attempt: `kind` is completed, stopped, failed or timed_out."""

    kind: str
    value: float | None
    error: str | None


@dataclass(frozen=True, slots=True)
class Study:
    """What is the same for all trials of a study."""

    context: dict[str, Any] | None
    timeout_s: float | None = None
    memory_bytes: int | None = None


class Trial:
    """A trial as its objective sees it: `id`, `attempt`, `params`, `context`, `seed`, and `report`."""

    def __init__(
        self, assignment: Assignment, *, seed: Callable[[], int], context: dict[str, Any] | None, reported: Reported
    ) -> None:
        """Made by an executor; `seed` is asked when the objective asks."""
        self.id = assignment.trial
        self.attempt = assignment.attempt
        self.params: dict[str, Any] = json.loads(assignment.params)
        self.context = context
        self.stopped = False
        self._seed = seed
        self._reported = reported
        self._reporting = threading.Lock()  # an objective may report from threads of its own
        self._ended = False

    @property
    def seed(self) -> int:
        """Give the trial's seed, in [0, 2**32): a function of the study's seed and the trial's id alone."""
        return self._seed()

    def report(self, step: int, value: float) -> bool:
        """Tell how it goes at `step` (1, 2, ...); False means: not worth going on, return what there is.

        Costs microseconds and waits for nobody: the verdict comes with a later report. A value that is no finite number
        counts as the worst there is. Raises ValueError for a step or value that is no number, RuntimeError where the trial has
        ended, in a thread that the objective left running.
        """
        if isinstance(step, bool) or not isinstance(step, Integral) or step < 0:
            raise ValueError(f"step must be a whole number of at least 0, got {step!r:.80}")
        number = _unboxed(value)
        if isinstance(number, bool) or not isinstance(number, Real):
            raise ValueError(f"value must be a number, got {value!r:.80}")  # noqa: TRY004  ValueError is the rule for bad input
        with self._reporting:
            if self._ended:
                raise RuntimeError(f"trial {self.id} has ended and reports nothing any more")
            if not self._reported(int(step), float(number)):
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
            if shipped.startswith(REFERENCE):
                module, _, name = shipped[len(REFERENCE) :].decode().partition(":")
                self._function: Callable[..., Any] = getattr(importlib.import_module(module), name)
            else:
                self._function = pickle.loads(shipped[len(PICKLED) :])  # noqa: S301  the caller's own code, in the caller's own worker
            self._wants_trial = wants_trial(self._function)
        except BaseException as error:
            raise LoadError(_described(error)) from error

    def __call__(self, trial: Trial) -> Outcome:
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
    """Tell whether the objective takes (params, trial) rather than (params); ValueError where it takes neither."""
    if not callable(objective):
        raise ValueError(f"objective must be callable, got {objective!r:.80}")  # noqa: TRY004  ValueError is the rule for bad input
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
    """Give an objective's value as a finite float; ValueError otherwise."""
    value = _unboxed(value)
    if isinstance(value, bool) or not isinstance(value, Real):
        raise ValueError(f"the objective must return a number, got {type(value).__name__}: {_short(value)}")  # noqa: TRY004  ValueError is the rule for bad input
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"the objective must return a finite number, got {_short(value)}")
    return number


def _unboxed(value: object) -> object:
    """Give the number in a numpy scalar or in a tensor of no dimension, and anything else as it is."""
    return value.item() if hasattr(value, "item") and getattr(value, "ndim", None) == 0 else value


def _short(value: object) -> str:
    if isinstance(value, str | bytes | list | tuple):
        value = value[:40]
    try:
        text = repr(value)
    except Exception as error:  # noqa: BLE001  the objective's own class; also a whole number of too many digits
        return f"a value without a text ({type(error).__name__})"
    return text if len(text) <= 80 else f"{text[:77]}..."


def _described(error: BaseException) -> str:
    """Write an exception with the end of its traceback, in bounded length."""
    try:
        lines = traceback.format_exception(error, limit=-6)
        text = "".join(lines).strip()
        last = traceback.format_exception_only(error)[-1].strip()
    except Exception:  # noqa: BLE001  an exception whose own text raises
        return type(error).__name__
    return f"{last[: _MAX_ERROR // 2]}\n{text[-_MAX_ERROR // 2 :]}"
