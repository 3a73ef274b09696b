"""Tuning: what a user holds of the tuner, `system.tuner`."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from actors.cluster.peers import BlockingPeers, PeerUnavailableError
from actors.tuning import shipping
from actors.tuning.progress import Progress, watching
from actors.tuning.rules import plan as plans
from actors.tuning.rules.book import TRIALS_PER_PAGE
from actors.tuning.rules.ledger import STUDY_FAILED, STUDY_RUNNING
from actors.tuning.strategies.seeds import fresh_seed
from actors.tuning.study import Study

logger = logging.getLogger(__name__)

_CALL_S: Final = 30.0
# A tuner that is being restarted is back within seconds; nobody is told of less.
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
        **settings: Any,
    ) -> Study:
        """Search `space` for the best value of `objective` and wait for it.

        `objective(params)` or `objective(params, trial)` gives a finite number; `module:function` is imported by the workers.
        `settings` are those of `submit`. A study of that `name` is taken up where it stands; an interrupted `run` (Ctrl-C)
        stops the study, which may be taken up again. `progress` None draws a bar on a terminal. Raises ValueError for what
        cannot be searched, StudyError where the study fails.
        """
        submitted = self.submit(objective, space, trials=trials, name=name, **settings)
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
        strategy: str | Mapping[str, Any] = "random",
        mode: str = "min",
        seed: int | None = None,
        max_concurrent: int | None = None,
        timeout_s: float | None = None,
        retries: int = 0,
        executor: str = "auto",
        resources: Mapping[str, float] | None = None,
        early_stopping: str | Mapping[str, Any] | None = None,
        context: Mapping[str, Any] | None = None,
        first: Sequence[Mapping[str, Any]] = (),
    ) -> Study:
        """Begin a study and do not wait for it.

        `strategy`: `random`, `grid`, `optuna:<Sampler>`, `scipy:<Sequence>`, `module:Class`, or `{"name": ..., **options}`.
        `timeout_s` is a hard limit for one trial; `retries` how often a trial that raises is tried again; `resources` what one
        trial needs (`{"cpu": 0.5, "gpu": 1, "memory_bytes": 2e9, "custom": 1}`); `early_stopping` `asha`, `median` or
        `{"name": ..., **options}`; `context` reaches the objective as `trial.context`; `first` are
        parameters to try before the strategy is asked. Raises ValueError before anything runs.
        """
        study_name = name if name is not None else f"study-{uuid.uuid4().hex[:8]}"
        settings: dict[str, Any] = {
            "name": study_name, "space": dict(space) if isinstance(space, Mapping) else space, "trials": trials,
            "strategy": dict(strategy) if isinstance(strategy, Mapping) else strategy, "mode": mode, "seed": seed,
            "max_concurrent": max_concurrent, "timeout_s": timeout_s, "retries": retries, "executor": executor,
            "resources": dict(resources) if isinstance(resources, Mapping) else resources,
            "early_stopping": dict(early_stopping) if isinstance(early_stopping, Mapping) else early_stopping,
            "context": dict(context) if isinstance(context, Mapping) else context,
            "first": list(first) if isinstance(first, Sequence) else first,
        }  # fmt: skip
        if name is None and seed is None:
            settings["seed"] = fresh_seed()  # so that a resent call asks for the same study
        plans.check(**settings | {"seed": 0 if settings["seed"] is None else settings["seed"]})
        shipped = objective if isinstance(objective, str) else shipping.pack(objective)
        reply = self._call("submit", objective=shipped, plan=settings)
        for warning in reply["warnings"]:
            logger.warning("%s", warning)
        return self.study(study_name)

    def wait(
        self, name: str, *, timeout_s: float | None = None, progress: bool | Callable[[Progress], None] | None = None
    ) -> Study:
        """Wait until the study is over; TimeoutError after `timeout_s`, StudyError where it fails. KeyError: no such study."""
        began_s = time.monotonic()
        with watching(name, progress) as watch:
            while True:
                left_s = None if timeout_s is None else timeout_s - (time.monotonic() - began_s)
                if left_s is not None and left_s <= 0:
                    raise TimeoutError(f"study {name!r} is not over after {timeout_s:g} s")
                patience_s = watch.patience_s if left_s is None else min(watch.patience_s, left_s)
                summary = self._call("study", name=name, wait_s=patience_s)
                watch.take(summary)
                if summary["state"] != STUDY_RUNNING:
                    break
        if summary["state"] == STUDY_FAILED:
            raise StudyError(f"study {name!r}: {summary['error']}")
        return self.study(name)

    def study(self, name: str) -> Study:
        """Give the study as it stands now; KeyError where there is none of that name."""
        return Study(lambda: self._call("study", name=name), lambda: self._trials(name))

    def studies(self) -> list[dict[str, Any]]:
        """Give name, state and times of every study, the newest first."""
        listed: list[dict[str, Any]] = self._call("studies")
        return listed

    def stop(self, name: str) -> None:
        """End the study before its time: running trials are cancelled. `run` or `submit` with its name takes it up again."""
        self._call("stop_study", name=name)

    def _trials(self, name: str) -> list[dict[str, Any]]:
        trials: list[dict[str, Any]] = []
        while page := self._call("trials", name=name, since=len(trials)):
            trials.extend(page)
            if len(page) < TRIALS_PER_PAGE:
                break
        return trials

    def _call(self, method: str, **arguments: Any) -> Any:
        """Ask the tuner; a restart of it costs a pause, not an error. Every method may safely be asked twice."""
        deadline_s = time.monotonic() + _PATIENCE_S
        patience_s = _CALL_S + arguments.get("wait_s", 0.0)
        while True:
            try:
                reply = self._peers.call("tuner", method, arguments, timeout_s=patience_s)
                if not isinstance(reply, dict) or reply.get("status") != "unavailable":
                    return reply
                problem = PeerUnavailableError(f"tuner.{method}: {reply['reason']}")
            except PeerUnavailableError as error:
                problem = error
            if time.monotonic() > deadline_s:
                raise problem
            time.sleep(_PAUSE_S)
