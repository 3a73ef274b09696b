"""Who did something by hand, and what that person said about it."""

from __future__ import annotations

import getpass
from typing import Final, Literal, NamedTuple

from actors.checks import shown, text

_LONGEST_NAME: Final = 200
_LONGEST_COMMENT: Final = 1000


class Signature(NamedTuple):
    """The person who did it, as far as that is known, and the comment."""

    by: str | None = None
    comment: str | None = None


NOBODY: Final = Signature()


def signature(by: object = None, comment: object = None) -> Signature:
    """Return who says what, checked. ValueError names the field, the value and the rule.

    >>> signature("ada", "holiday sale")
    Signature(by='ada', comment='holiday sale')
    """
    return Signature(
        None if by is None else text("by", by, _LONGEST_NAME),
        None if comment is None else text("comment", comment, _LONGEST_COMMENT),
    )


def local_user() -> str | None:
    """Return the name of the user that this process runs as, which stands for who acts from this machine."""
    try:
        return getpass.getuser() or None
    except (KeyError, OSError):  # a user without a name, as in a container
        return None


def verdict(value: object) -> Literal["true", "false"]:
    """Return what a person calls an alarm. ValueError for anything but "true" and "false".

    >>> verdict("false")
    'false'
    """
    if value == "true":
        return "true"
    if value == "false":
        return "false"
    raise ValueError(f"verdict must be 'true' or 'false', got {shown(value)}")


def told(what: str, signed: Signature) -> str | None:
    """Return what was done as a sentence of the record; None where nobody says anything.

    >>> told("stopped", signature("ada", "too slow"))
    'stopped by ada: too slow'
    """
    if signed == NOBODY:
        return None
    by = f" by {signed.by}" if signed.by else ""
    return f"{what}{by}" + (f": {signed.comment}" if signed.comment else "")


def given(**arguments: str | None) -> dict[str, str]:
    """Return the arguments that say something: a system of an older build knows no others.

    >>> given(by="ada", comment=None)
    {'by': 'ada'}
    """
    return {name: value for name, value in arguments.items() if value is not None}
