"""Checks of values that come from outside, written once: numbers of any library, bounded sizes, values shown in messages.

A check raises ValueError with the field, the value and the rule, and costs no more than what it lets pass.
"""

from __future__ import annotations

import math
import re
import reprlib
import sys
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any, Final

_MOST_SHOWN: Final = 80
_DEEPEST: Final = 100  # levels; JSON's encoder recurses
_MEMBER_BYTES: Final = 8

# Control characters, and halves of characters that no encoding can carry.
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_PASSWORD: Final = re.compile(r"(?<=://)([^:/@]*):.*@")
_SECRET_OPTION: Final = re.compile(r"(?<=[?&])(password|sslpassword)=[^&]*", re.IGNORECASE)

_SHORT: Final = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother, _SHORT.maxlong = 3, _MOST_SHOWN, _MOST_SHOWN, _MOST_SHOWN


def shown(value: object) -> str:
    """Return `value` as a message shows it: 80 characters at most, whatever its size and whatever its `repr` raises.

    >>> shown([1, 2, 3])
    '[1, 2, 3]'
    """
    try:
        text = _SHORT.repr(value)
    except Exception as error:  # noqa: BLE001  the value's own class; also a whole number of too many digits
        return f"a value without a text ({type(error).__name__})"
    return text if len(text) <= _MOST_SHOWN else f"{text[: _MOST_SHOWN - 3]}..."


def stand_in(value: object) -> Any:
    """Return a plain and short value that represents `value` in a reply: itself if it is small, else its description.

    >>> stand_in(0.5), stand_in("x" * 100) == "x" * 80, stand_in([1, 2, 3]), stand_in(10**400), stand_in(float("nan"))
    (0.5, True, 'list of 3', 'huge int', 'nan')
    """
    value = unboxed(value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)  # JSON has neither NaN nor infinity
    if isinstance(value, int):
        return value if abs(value) < 2**63 else str(value)[:_MOST_SHOWN] if abs(value) < 10**99 else "huge int"
    if isinstance(value, str):
        return value[:_MOST_SHOWN].encode("utf-8", "backslashreplace").decode()
    if isinstance(value, bytes | bytearray | list | tuple | dict | set):
        return f"{type(value).__name__} of {len(value)}"
    return type(value).__name__


def brief(error: Exception) -> str:
    """Return a database's error without its statement and parameters."""
    return str(getattr(error, "orig", None) or error)[:500]


def redacted(url: str) -> str:
    """Return a URL without its password, for messages and logs. Rather more is hidden than a password that was ill written.

    >>> redacted("postgresql://visutility:secret@db:5432/metrics")
    'postgresql://visutility:***@db:5432/metrics'
    """
    if "://" not in url:
        return "(not a URL)"
    return _SECRET_OPTION.sub(r"\1=***", _PASSWORD.sub(r"\1:***@", url))


def whole(field: str, value: object, least: int, most: int) -> int:
    """Return `value` as an int: a whole number of any library (numpy's too), no bool, within its bounds.

    >>> whole("trials", 3, 1, 10)
    3
    """
    number = unboxed(value)
    integer = int(number) if isinstance(number, Integral) and not isinstance(number, bool) else None
    if integer is None or not least <= integer <= most:
        raise ValueError(f"{field} must be a whole number from {least} to {most}, got {shown(value)}")
    return integer


def text(field: str, value: object, longest: int = 200) -> str:
    """Return a text of 1 to `longest` characters that any store holds and any terminal shows.

    >>> text("by", "ada")
    'ada'
    """
    if not isinstance(value, str) or not 1 <= len(value) <= longest or _CONTROL.search(value):
        raise ValueError(f"{field} must be a string of 1 to {longest} characters, none a control character, got {shown(value)}")
    return value


def finite(value: object) -> float | None:
    """Return a finite real number of any library as a float; None for anything else, bools too.

    >>> finite(1), finite(float("nan")), finite(True), finite("1")
    (1.0, None, None, None)
    """
    number = unboxed(value)
    if isinstance(number, bool) or not isinstance(number, Real):
        return None
    try:
        plain = float(number)
    except OverflowError:
        return None
    return plain if math.isfinite(plain) else None


def unboxed(value: object) -> object:
    """Return the Python number in a scalar of numpy or in a tensor of no dimension, and anything else as it is.

    A masked element of numpy stays what it is: the number in it is not meant (in `np.ma.masked`, 0.0).
    """
    if getattr(value, "ndim", None) != 0 or is_masked(value):
        return value
    item = getattr(value, "item", None)
    return value if item is None else item()


def is_masked(value: object) -> bool:
    """Return whether the value is a masked element of numpy; `numpy.ma` is not imported for it, which takes 1.3 MB."""
    masked = sys.modules.get("numpy.ma")
    return masked is not None and isinstance(value, masked.MaskedArray) and value.ndim == 0 and bool(value.mask)


def plain(value: Any) -> Any:
    """Return `value` with numpy's scalars and arrays in it, at any depth, as the Python values that JSON knows.

    A tuple stays a tuple, and what JSON does not know stays what it is: who encodes it says so. Bound the size before.
    """
    if type(value).__module__ == "numpy" and hasattr(value, "tolist"):
        return value.tolist()  # a scalar's is its number
    if isinstance(value, Mapping):
        return {plain(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(plain, value)) if type(value) in {list, tuple} else value
    return value


def bounded(field: str, value: object, most: int) -> None:
    """Refuse a value of more than about `most` bytes as JSON, without encoding it: the walk ends at the bound.

    A member of a list or mapping counts for 8 bytes at least, which is what it costs to look at. ValueError for a value that
    is too large, or nested deeper than JSON's encoder goes.

    >>> bounded("context", {"a": [1, 2]}, 1000)
    """
    size, waiting = 0, [(value, 0)]
    while waiting:
        each, depth = waiting.pop()
        if isinstance(each, str | bytes):
            size += len(each)
        elif isinstance(each, Mapping):
            size += _MEMBER_BYTES * 2 * len(each)
        elif isinstance(each, list | tuple):
            size += _MEMBER_BYTES * len(each)
        else:
            size += int(getattr(each, "nbytes", 0))
        if size > most:
            raise ValueError(f"{field} must be at most {most} bytes as JSON, got more: {shown(value)}")
        if depth > _DEEPEST:
            raise ValueError(f"{field} must be nested at most {_DEEPEST} levels deep, got more: {shown(value)}")
        if isinstance(each, Mapping):
            waiting += [(part, depth + 1) for pair in each.items() for part in pair]
        elif isinstance(each, list | tuple):
            waiting += [(part, depth + 1) for part in each]
