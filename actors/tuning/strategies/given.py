"""Spaces that were written for other libraries: Optuna's distributions, a ConfigSpace, or its hyper-parameters.

Reads their attributes, without importing either library. A distribution without an equivalent here is refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from actors.checks import shown


def plain_space(space: object) -> object:
    """Return `space` with every foreign distribution as the range or choices that it is; anything else stays as it is.

    Example:
        plain_space({"lr": optuna.distributions.FloatDistribution(1e-5, 1e-2, log=True)})   # {"lr": [1e-5, 1e-2, "log"]}
    """
    if _library(space) == "ConfigSpace" and isinstance(space, Mapping):
        for what in ("conditions", "forbidden_clauses"):
            if getattr(space, what, None):
                raise ValueError(f"space must be flat: a ConfigurationSpace with {what} cannot be searched")
    if not isinstance(space, Mapping):
        return space
    return {name: _plain(name, value) for name, value in space.items()}


def _plain(name: object, value: Any) -> Any:  # noqa: PLR0911  one for each kind
    match _library(value), type(value).__name__:
        case "optuna", "FloatDistribution" | "IntDistribution" as kind:
            if value.step not in {None, 1} or (kind == "FloatDistribution" and value.step is not None):
                raise ValueError(f"space[{name!r}]: a distribution with a step has no equivalent here, got step {value.step}")
            return _range(value.low, value.high, whole=kind == "IntDistribution", log=value.log)
        case "optuna", "CategoricalDistribution":
            return {"choices": list(value.choices)}
        case "ConfigSpace", "UniformFloatHyperparameter":
            return _range(value.lower, value.upper, whole=False, log=value.log)
        case "ConfigSpace", "UniformIntegerHyperparameter":
            return _range(value.lower, value.upper, whole=True, log=value.log)
        case "ConfigSpace", "CategoricalHyperparameter":
            return {"choices": list(value.choices)}
        case "ConfigSpace", "OrdinalHyperparameter":
            return {"choices": list(value.sequence)}
        case "ConfigSpace", "Constant":
            return {"choices": [value.value]}
        case (("optuna" | "ConfigSpace"), kind):
            raise ValueError(f"space[{name!r}]: {kind} has no equivalent here, got {shown(value)}")
        case _:
            return value


def _range(low: Any, high: Any, *, whole: bool, log: bool) -> list[Any] | dict[str, list[Any]]:
    if low == high:
        return {"choices": [low]}
    return [low, high, *(["int"] if whole else []), *(["log"] if log else [])]


def _library(value: object) -> str:
    return type(value).__module__.partition(".")[0]
