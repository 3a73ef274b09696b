"""The public errors: one tree, whose leaves are also the built-ins that callers catch.

What runs in the caller's process raises them. Actors raise exact built-ins alone: an exception of ours does not survive the
way to a caller that lacks this package.

    try:
        system.metrics.log({"accuracy": "high"}, model="fraud")
    except actors.errors.VisuTilityError:     # or TypeError, or ValueError
        ...
"""

from __future__ import annotations

from typing import Final


class VisuTilityError(Exception):
    """Any error that this package raises on purpose."""


class WrongValueError(VisuTilityError, ValueError):
    """A value breaks a rule; the message names the field, the value and the rule, and nothing has changed."""


class WrongTypeError(VisuTilityError, TypeError, ValueError):
    """A mistake in the program: a metric that is no number, a name that is no text."""


class UnknownNameError(VisuTilityError, KeyError):
    """There is nothing of this name: a model, an episode, an order, a study."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class NotConnectedError(VisuTilityError, ConnectionError):
    """No Ray cluster, or no answer from the system in time; trying again later may help."""


class NoSystemError(VisuTilityError, RuntimeError):
    """No system runs in the namespace."""


class ConflictError(VisuTilityError, RuntimeError):
    """Something else is already there: another build, another configuration, foreign actors under our names."""


_OURS: Final[dict[type[BaseException], type[VisuTilityError]]] = {
    ValueError: WrongValueError,
    TypeError: WrongTypeError,
    KeyError: UnknownNameError,
    ConnectionError: NotConnectedError,
}


def ours(error: BaseException) -> BaseException:
    """Return an actor's exact built-in as the public error that it means, anything else as it is.

    >>> type(ours(ValueError("n must be above 0, got 0"))).__name__
    'WrongValueError'
    """
    kind = _OURS.get(type(error))
    return error if kind is None else kind(*error.args)
