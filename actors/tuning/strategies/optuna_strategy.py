"""Optuna's samplers as strategies, by name: `optuna:TPESampler`, `optuna:CmaEsSampler`, ...

One adapter over Optuna's ask and tell, on a study in memory. Our own store keeps the trials: after a restart they
are put into a new Optuna study, and the sampler goes on from them, seeded by (seed, number of trials).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from actors.replies import Json
from actors.tuning.strategies.interface import PastTrial
from actors.tuning.strategies.seeds import fresh_seed, trial_seed
from actors.tuning.strategies.space import Choices, FloatRange, Parameter, parse

# The base class; what needs another sampler or study; and a grid, which is ours.
_NOT_BY_NAME = {"BaseSampler", "PartialFixedSampler", "GridSampler"}


class OptunaTuner:
    """Asks one Optuna sampler and tells it every result; learns across parallel trials."""

    def __init__(self, space: object, *, sampler: str, seed: int | None = None, **options: Any) -> None:
        """Search `space` by `optuna.samplers.<sampler>(**options)`; ValueError names the unknown or missing part."""
        try:
            import optuna  # noqa: PLC0415  an extra, and half a second to import
        except ImportError:
            raise ValueError(f"strategy 'optuna:{sampler}' needs Optuna: pip install 'visutility[optuna]'") from None
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._optuna = optuna
        known = sorted(name for name in optuna.samplers.__all__ if name.endswith("Sampler") and name not in _NOT_BY_NAME)
        if sampler not in known:
            raise ValueError(f"strategy 'optuna:{sampler}' is unknown, expected one of {', '.join(known)}")
        self.space = parse(space)
        self.seed = fresh_seed() if seed is None else seed
        self._sampler, self._options = sampler, options
        self._distributions = {parameter.name: self._distribution(parameter) for parameter in self.space.parameters}
        self._study = self._new_study(self.seed)
        self._asked: dict[int, Any] = {}
        self._next = 0

    def next_params(self) -> Json:
        """Ask for the next trial; with TPE 1 to 3 ms."""
        trial = self._study.ask(self._distributions)
        self._asked[self._next] = trial
        self._next += 1
        return {p.name: _decoded(p, trial.params[p.name]) for p in self.space.parameters}

    def tell(self, trial: int, loss: float | None) -> None:
        """Hand a result to the sampler; a failed trial counts as failed."""
        asked = self._asked.pop(trial, None)
        if asked is None:
            return
        if loss is None:
            self._study.tell(asked, state=self._optuna.trial.TrialState.FAIL)
        else:
            self._study.tell(asked, loss)

    def resume(self, past: Sequence[PastTrial]) -> None:
        """Put past trials into the study; the results of unfinished ones come later, like any other."""
        self._study = self._new_study(trial_seed(self.seed, len(past)) if past else self.seed)
        states = self._optuna.trial.TrialState
        for number, trial in enumerate(past):
            params = {p.name: _encoded(p, trial.params[p.name]) for p in self.space.parameters}
            if not trial.finished:
                self._study.enqueue_trial(params)
                self._asked[number] = self._study.ask(self._distributions)
                continue
            self._study.add_trial(
                self._optuna.trial.create_trial(
                    state=states.FAIL if trial.loss is None else states.COMPLETE,
                    value=trial.loss,
                    params=params,
                    distributions=self._distributions,
                )
            )
        self._next = len(past)

    def _new_study(self, seed: int) -> Any:
        try:
            sampler = getattr(self._optuna.samplers, self._sampler)(seed=seed, **self._options)
        except (TypeError, ValueError) as error:
            raise ValueError(f"strategy 'optuna:{self._sampler}': {error}") from None
        return self._optuna.create_study(direction="minimize", sampler=sampler)

    def _distribution(self, parameter: Parameter) -> Any:
        kinds = self._optuna.distributions
        if isinstance(parameter, Choices):
            return kinds.CategoricalDistribution(range(len(parameter.choices)))  # by place: Optuna takes scalars only
        if isinstance(parameter, FloatRange):
            return kinds.FloatDistribution(parameter.low, parameter.high, log=parameter.log)
        return kinds.IntDistribution(parameter.low, parameter.high, log=parameter.log)


def _decoded(parameter: Parameter, value: Any) -> Any:
    return parameter.choices[value] if isinstance(parameter, Choices) else value


def _encoded(parameter: Parameter, value: Any) -> Any:
    return parameter.place_of(parameter.name, value) if isinstance(parameter, Choices) else value
