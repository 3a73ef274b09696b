"""The public errors: one tree, whose leaves are also the built-ins that callers catch.

Code in the caller's process raises them. Actors raise only exact built-ins: our own exceptions do not survive the trip to a
caller without this package.

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
    """A mistake in the program, such as a metric that is not a number or a name that is not a string."""


class UnknownNameError(VisuTilityError, KeyError):
    """No model, episode, order or study has this name."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class NotConnectedError(VisuTilityError, ConnectionError):
    """No Ray cluster, or no answer from the system in time; a later retry may succeed."""


class NoSystemError(VisuTilityError, RuntimeError):
    """No system runs in the namespace."""


class ConflictError(VisuTilityError, RuntimeError):
    """A conflict with something that exists: another build, another configuration, foreign actors with our names."""


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
