"""Tuning: what a user holds of the tuner, `system.tuner`."""

from __future__ import annotations

import contextlib
import logging
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Unpack

from actors import people
from actors.cluster.peers import BlockingPeers, NotConnectedError, PeerUnavailableError
from actors.plain import Arguments
from actors.replies import StudyListing, StudySummary, Submitted, TrialRow
from actors.tuning import shipping
from actors.tuning.progress import Progress, watching
from actors.tuning.rules import plan as plans
from actors.tuning.rules.ledger import STUDY_FAILED, STUDY_RUNNING
from actors.tuning.rules.plan import StudyOptions
from actors.tuning.strategies.seeds import fresh_seed
from actors.tuning.study import Study

logger = logging.getLogger(__name__)

_CALL_S: Final = 30.0
# A tuner that is being restarted is back within seconds; the caller does not hear of a shorter pause.
_PATIENCE_S: Final = 60.0
_PAUSE_S: Final = 0.2

Objective = Callable[..., float]


class StudyError(RuntimeError):
    """The study has failed as a whole: its objective cannot be opened by workers, or its strategy raised."""


class Tuning:
    """Studies of the system in one namespace. Picklable."""

    def __init__(self, namespace: str) -> None:
        """Made by System."""
        self._namespace = namespace
        self._peers = BlockingPeers(namespace)

    def __reduce__(self) -> tuple[Any, ...]:
        return Tuning, (self._namespace,)

    def run(
        self,
        objective: Objective | str,
        space: Mapping[str, Any],
        *,
        trials: int,
        name: str | None = None,
        progress: bool | Callable[[Progress], None] | None = None,
        **options: Unpack[StudyOptions],
    ) -> Study:
        """Search `space` for the best value of `objective` and wait for it.

        An interrupted `run` (Ctrl-C) stops the study, which may be taken up again by its name.

        Args:
            objective: `objective(params)` or `objective(params, trial)` returns a finite number; or `module:function`, which
                the workers import.
            space: Names to `[min, max]`, optionally with `"log"` or `"int"`, or to `{"choices": [...]}`.
            trials: How many to run; a study of that `name` is taken up where it stands.
            name: Of the study; one is made up where it is left out.
            progress: None draws a bar on a terminal; True writes lines elsewhere, False shows nothing, a function gets each
                Progress.
            options: See StudyOptions: strategy, mode, seed, max_concurrent, timeout_s, retries, executor, resources,
                early_stopping, context, first.

        Raises:
            ValueError: What cannot be searched, before anything runs.
            StudyError: The study fails.

        Example:
            study = system.tuner.run(lambda params: (params["x"] - 0.3) ** 2, {"x": [0.0, 1.0]}, trials=50, seed=1)
            study.best.params
        """
        submitted = self.submit(objective, space, trials=trials, name=name, **options)
        study_name = submitted.name
        try:
            self.wait(study_name, progress=progress)
        except KeyboardInterrupt:
            self.stop(study_name)
            raise
        return self.study(study_name)

    def submit(
        self,
        objective: Objective | str,
        space: Mapping[str, Any],
        *,
        trials: int,
        name: str | None = None,
        **options: Unpack[StudyOptions],
    ) -> Study:
        """Begin a study and do not wait for it; arguments, errors and names as in `run`.

        Example:
            system.tuner.submit("my_module:objective", {"lr": [1e-5, 1e-2, "log"]}, trials=100, name="churn-lr", retries=1)
        """
        study_name = f"study-{uuid.uuid4().hex[:8]}" if name is None else name
        asked: Arguments = {"name": study_name, "space": space, "trials": trials, **options}
        if name is None and asked.get("seed") is None:
            asked["seed"] = fresh_seed()  # so that a call that is sent again asks for the same study
        # Without a seed the study goes on by the one it has, or draws one.
        is_seeded = asked.get("seed") is not None
        plan = plans.check(asked if is_seeded else asked | {"seed": 0}).wire()
        if not is_seeded:
            plan["seed"] = None
        shipped = objective if isinstance(objective, str) else shipping.pack(objective)
        reply: Submitted = self._call("submit", objective=shipped, plan=plan)
        for warning in reply["warnings"]:
            logger.warning("%s", warning)
        return self.study(reply["name"])

    def wait(
        self, name: str, *, timeout_s: float | None = None, progress: bool | Callable[[Progress], None] | None = None
    ) -> Study:
        """Wait until the study has ended and return it; `progress` as in `run`.

        Raises:
            TimeoutError: The study has not ended after `timeout_s`.
            StudyError: It fails.
            KeyError: There is none of that name.
        """
        began_s = time.monotonic()
        with watching(name, progress) as watch:
            while True:
                left_s = None if timeout_s is None else timeout_s - (time.monotonic() - began_s)
                if left_s is not None and left_s <= 0:
                    raise TimeoutError(f"study {name!r} has not ended after {timeout_s:g} s")
                patience_s = watch.patience_s if left_s is None else min(watch.patience_s, left_s)
                summary: StudySummary = self._call("study", name=name, wait_s=patience_s)
                watch.take(summary)
                if summary["state"] != STUDY_RUNNING:
                    break
                if "retry_in_s" in summary:  # too many wait already
                    time.sleep(min(summary["retry_in_s"], patience_s))
        if summary["state"] == STUDY_FAILED:
            raise StudyError(f"study {name!r}: {summary['error']}")
        return self.study(name)

    def study(self, name: str) -> Study:
        """Return the study as it stands now; KeyError where there is none of that name."""
        return Study(lambda: self._call("study", name=name), lambda: self._trials(name))

    def studies(self) -> list[StudyListing]:
        """Return name, state and times of every study, the newest first."""
        listed: list[StudyListing] = self._call("studies")
        return listed

    def stop(self, name: str, *, by: str | None = None, comment: str | None = None) -> None:
        """End the study before its time: running trials are cancelled. `run` or `submit` with its name takes it up again."""
        self._call("stop_study", name=name, **people.given(by=by, comment=comment))

    def resume(self, name: str, *, trials: int | None = None) -> Study:
        """Take up a study that was stopped, with what it was submitted with, and do not wait for it; `trials` may ask for more.

        KeyError where there is none of that name.

        Example:
            system.tuner.resume("churn-lr", trials=200)
        """
        self._call("resume_study", name=name, trials=trials)
        return self.study(name)

    def delete(self, name: str) -> None:
        """Delete a study that has ended, with its trials. ValueError while it runs, KeyError where there is none of that name.

        Example:
            system.tuner.stop("churn-lr")
            system.tuner.delete("churn-lr")
        """
        self.study(name)
        with contextlib.suppress(KeyError):  # the reply to an earlier call was lost
            self._call("delete_study", name=name)

    def _trials(self, name: str) -> Sequence[TrialRow]:
        trials: list[TrialRow] = []
        while page := self._call("trials", name=name, since=trials[-1]["id"] + 1 if trials else 0):
            trials.extend(page)
        return trials

    def _call(self, method: str, **arguments: Any) -> Any:
        """Call the tuner; a restart of it costs a pause, not an error. Every method may safely be called twice.

        NotConnectedError at once where this process is connected to no cluster.
        """
        deadline_s = time.monotonic() + _PATIENCE_S
        patience_s = _CALL_S + arguments.get("wait_s", 0.0)
        while True:
            try:
                reply = self._peers.call("tuner", method, arguments, timeout_s=patience_s)
                if not isinstance(reply, dict) or reply.get("status") != "unavailable":
                    return reply
                problem = PeerUnavailableError(f"tuner.{method}: {reply['reason']}")
            except NotConnectedError:
                raise
            except PeerUnavailableError as error:
                problem = error
            if time.monotonic() > deadline_s:
                raise problem
            time.sleep(_PAUSE_S)
