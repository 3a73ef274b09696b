"""A study as Optuna's, in a storage of Optuna's: its dashboard and its importances work on it.

Only trials that have ended are written, each once: another export adds what has ended since. Where a study is exported after
its end, Optuna's numbers are those of our trials.
"""

from __future__ import annotations

import importlib
import json
import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final, Protocol, Self

from actors.checks import brief, redacted, shown
from actors.replies import Json
from actors.tuning.rules.book import COMPLETED, FINAL, PRUNED
from actors.tuning.rules.ledger import STUDY_RUNNING
from actors.tuning.strategies.space import Choices, FloatRange, Parameter, parse
from actors.tuning.trial import Trial

# By these user attributes a study and its trials are known again.
STUDY: Final = "visutility:study"
TRIAL: Final = "visutility:trial"
_LIVE_S: Final = 1.0


class Exported(Protocol):
    """The study to export: the parts of a `Study` that an export reads."""

    @property
    def id(self) -> str:
        """The study's id in its store."""

    @property
    def name(self) -> str:
        """The name that it has in Optuna's storage too."""

    @property
    def state(self) -> str:
        """RUNNING, DONE, STOPPED or FAILED."""

    @property
    def mode(self) -> str:
        """`min` or `max`."""

    @property
    def seed(self) -> int:
        """The seed that decided the parameters."""

    @property
    def space(self) -> Json:
        """The space that was searched."""

    @property
    def trials(self) -> Sequence[Trial]:
        """Every trial that was ever handed out."""

    def refresh(self) -> Self:
        """Read it again."""


def export(study: Exported, storage: str, *, live: bool = False) -> int:
    """Write the trials of `study` that have ended to Optuna's `storage` and return how many were new.

    Args:
        study: The study to export; Optuna's study gets its name.
        storage: Optuna's URL, such as `sqlite:///optuna.db`, or a storage object.
        live: Go on while the study runs, and return when it has ended.

    Raises:
        ValueError: Optuna is not installed, or its storage has another study of that name.

    Example:
        export(system.tuner.study("churn-lr"), "sqlite:///optuna.db")
    """
    exporter = _Exporter(study, storage)
    written = exporter.write(study.trials)
    while live and study.state == STUDY_RUNNING:
        time.sleep(_LIVE_S)
        written += exporter.write(study.refresh().trials)
    return written


class _Exporter:
    """One study on its way into one storage."""

    def __init__(self, study: Exported, storage: Any) -> None:
        try:
            self._optuna: Any = importlib.import_module("optuna")
        except ImportError:
            raise ValueError("an export to Optuna needs it: pip install 'visutility[optuna]'") from None
        self._space = parse(study.space).parameters
        self._distributions = {parameter.name: self._distribution(parameter) for parameter in self._space}
        where = redacted(storage) if isinstance(storage, str) else shown(storage)
        direction = "maximize" if study.mode == "max" else "minimize"
        try:
            self._target = self._optuna.create_study(
                storage=storage, study_name=study.name, direction=direction, load_if_exists=True
            )
        except Exception as error:  # noqa: BLE001  whatever its storage raises: a bad URL, a missing driver, no such folder
            raise ValueError(f"storage {where} cannot be opened by Optuna: {type(error).__name__}: {brief(error)}") from None
        known = self._target.user_attrs.get(STUDY)
        trials = self._target.get_trials(deepcopy=False)
        if known not in {None, study.id} or (known is None and trials):
            raise ValueError(f"storage {where} has another study named {study.name!r}: export to another one")
        self._target.set_user_attr(STUDY, study.id)
        self._target.set_user_attr("visutility:seed", study.seed)
        self._written = {trial.user_attrs.get(TRIAL) for trial in trials}

    def write(self, trials: Sequence[Trial]) -> int:
        """Write those that have ended and are not there yet; return how many."""
        new = [trial for trial in trials if trial.state in FINAL and trial.id not in self._written]
        for trial in new:
            self._target.add_trial(self._frozen(trial))
            self._written.add(trial.id)
        return len(new)

    def _frozen(self, trial: Trial) -> Any:
        states = self._optuna.trial.TrialState
        state = {COMPLETED: states.COMPLETE, PRUNED: states.PRUNED}.get(trial.state, states.FAIL)
        ended = None if trial.finished_at is None else datetime.fromtimestamp(trial.finished_at)  # noqa: DTZ006  Optuna's are naive
        began = None if ended is None else ended - timedelta(seconds=trial.seconds or 0.0)
        notes = {"state": trial.state, "attempts": trial.attempts, "node": trial.node, "error": trial.error}
        return self._optuna.trial.FrozenTrial(
            number=-1,
            trial_id=-1,
            state=state,
            value=trial.value if trial.state in {COMPLETED, PRUNED} else None,
            datetime_start=began or datetime.now(),  # noqa: DTZ005  Optuna's are naive
            datetime_complete=ended or datetime.now(),  # noqa: DTZ005  Optuna's are naive
            params=self._params(trial.params),
            distributions=self._distributions,
            user_attrs={TRIAL: trial.id} | {f"visutility:{name}": each for name, each in notes.items() if each is not None},
            system_attrs={},
            intermediate_values={},
        )

    def _params(self, params: Json) -> Json:
        return {parameter.name: _scalar(parameter, params[parameter.name]) for parameter in self._space}

    def _distribution(self, parameter: Parameter) -> Any:
        kinds = self._optuna.distributions
        if isinstance(parameter, Choices):
            return kinds.CategoricalDistribution([_scalar(parameter, choice) for choice in parameter.choices])
        if isinstance(parameter, FloatRange):
            return kinds.FloatDistribution(parameter.low, parameter.high, log=parameter.log)
        return kinds.IntDistribution(parameter.low, parameter.high, log=parameter.log)


def _scalar(parameter: Parameter, value: Any) -> Any:
    """Return a value as Optuna holds it: choices that are no scalars, or equal to Python (1, 1.0, True), as JSON."""
    if not isinstance(parameter, Choices) or not _as_text(parameter):
        return value
    return json.dumps(value, sort_keys=True)


def _as_text(choices: Choices) -> bool:
    scalars = all(choice is None or isinstance(choice, str | int | float) for choice in choices.choices)
    return not scalars or len(set(choices.choices)) < len(choices.choices)
