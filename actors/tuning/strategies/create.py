"""Makes a strategy by its name."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from actors import plugins
from actors.checks import shown
from actors.replies import Json
from actors.tuning.strategies.grid import GridTuner
from actors.tuning.strategies.interface import TuningStrategy
from actors.tuning.strategies.optuna_strategy import OptunaTuner
from actors.tuning.strategies.random_search import RandomSearchTuner
from actors.tuning.strategies.scipy_strategy import ScipyTuner

_EXPECTED = "expected random, grid, optuna:<Sampler>, scipy:<Sequence> or module:Class"


def create(strategy: str | Mapping[str, Any], space: object, *, seed: int) -> TuningStrategy:
    """Make the strategy `strategy`: a name, or `{"name": ..., **options}`.

    `module:Class`, or a name that an installed package has among its entry points `visutility.strategies`, is imported and
    called as `Class(space, seed=seed, **options)`, with the space as the user wrote it.
    Raises ValueError that names the strategy and the rule; where an extra is missing, the command that installs it.

    >>> create("grid", {"x": {"choices": ["a", "b"]}}, seed=1).next_params()
    {'x': 'a'}
    """
    name, options = _split(strategy)
    kind, _, rest = name.partition(":")
    try:
        if name == "random":
            return RandomSearchTuner(space, seed=seed, **options)
        if name == "grid":
            return GridTuner(space, seed=seed, **options)
        if kind == "optuna" and rest:
            return OptunaTuner(space, sampler=rest, seed=seed, **options)
        if kind == "scipy" and rest:
            return ScipyTuner(space, engine=rest, seed=seed, **options)
        if kind and rest:
            return _imported(kind, rest, space, seed, options)
        return _checked(name, plugins.load("strategies", name)(space, seed=seed, **options))
    except TypeError as error:
        raise ValueError(f"strategy {name!r}: {error}") from None
    except KeyError:
        added = plugins.names("strategies")
        raise ValueError(f"strategy {name!r} is unknown, {_EXPECTED}{', or ' if added else ''}{', '.join(added)}") from None


def _split(strategy: str | Mapping[str, Any]) -> tuple[str, Json]:
    if isinstance(strategy, str):
        return strategy, {}
    if not isinstance(strategy, Mapping) or not isinstance(strategy.get("name"), str):
        raise ValueError(f"strategy must be a name or {{'name': ..., options}}, got {shown(strategy)}; {_EXPECTED}")
    return strategy["name"], {key: value for key, value in strategy.items() if key != "name"}


def _imported(module: str, attribute: str, space: object, seed: int, options: Json) -> TuningStrategy:
    try:
        made = getattr(importlib.import_module(module), attribute)(space, seed=seed, **options)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"strategy '{module}:{attribute}' cannot be imported: {error}; {_EXPECTED}") from None
    return _checked(f"{module}:{attribute}", made)


def _checked(name: str, made: object) -> TuningStrategy:
    if not isinstance(made, TuningStrategy):
        raise ValueError(f"strategy {name!r} must have a method next_params()")
    return made
