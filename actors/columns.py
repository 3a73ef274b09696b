"""What people hand over as numbers, columns and times, read as float64: arrays, tensors, scalars and columns of any library.

Nothing is imported for it: numpy, pandas, polars, pyarrow, torch and jax are known by what their values can do. Nor is
`numpy.ma`, which takes 1.3 MB of a process: where there is a masked value, it has been imported.
"""

from __future__ import annotations

import math
import sys
from datetime import datetime
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from actors.checks import is_masked

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

_KINDS: Final = {"m": "timedelta", "M": "datetime", "O": "object", "c": "complex", "U": "text", "S": "text", "b": "bool"}


def number(value: object) -> float | int | None:
    """Return the number in a scalar of any library; None for what is none: a text, a bool of Python, an array of several.

    A 0-d array, a tensor of one element and a numpy bool are numbers; a one-dimensional numpy array is a column.

    >>> number(np.array(0.5)), number(np.bool_(True)), number(True), number([0.5])
    (0.5, 1, None, None)
    """
    if isinstance(value, bool):
        return None
    if isinstance(value, np.generic) or hasattr(value, "dtype"):
        found = _item(value)
        return int(found) if isinstance(found, bool) else found if isinstance(found, int | float) else None
    return value if isinstance(value, int | float) else None


def is_absent(value: object) -> bool:
    """Return whether the value stands for "not there": None, numpy's masked element, pandas' NA."""
    return value is None or is_masked(value) or type(value).__name__ == "NAType"


def seconds(value: object) -> float | None:
    """Return seconds since the epoch of a number, an aware datetime or a datetime64 (UTC); None for anything else.

    A naive `datetime` is refused: its zone would be a guess. A naive pandas Timestamp is UTC, as its own `timestamp()` has it.

    >>> from datetime import UTC
    >>> seconds(datetime(1970, 1, 2, tzinfo=UTC)), seconds(np.datetime64("1970-01-02")), seconds(True)
    (86400.0, 86400.0, None)
    """
    if isinstance(value, datetime):
        return _of_datetime(value)
    if getattr(getattr(value, "dtype", None), "kind", "f") == "M" and not getattr(value, "ndim", 0):
        return float(_of_datetimes(np.asarray([value]))[0])
    found = None if getattr(getattr(value, "dtype", None), "kind", "f") in "bm" else number(value)
    try:
        return None if found is None else float(found)
    except OverflowError:
        return None


def column(name: str, values: Any) -> tuple[Floats, Bools | None]:
    """Return a column of numbers as float64[n], a copy, and which rows are there (None: all). ValueError names column and rule.

    What a library masks is absent: numpy's masked arrays, pandas' NA, nulls of polars and arrow. A NaN is a value, a bad one.
    """
    array, present = _array(name, values)
    if array.dtype.kind == "b" and not hasattr(values, "dtype"):
        raise ValueError(f"{name} must be a column of numbers, got dtype bool")
    if array.dtype.kind not in "fiub":
        raise ValueError(f"{name} must be a column of numbers, got dtype {array.dtype}")
    return np.array(array, dtype=np.float64), _bools(present)


def times(name: str, values: Any) -> Floats:
    """Return a column of times as seconds since the epoch: numbers, datetime64 (UTC), aware datetimes.

    ValueError names the column and the rule.
    """
    if getattr(getattr(values, "dtype", None), "tz", None) is not None:
        values = np.asarray(values, dtype="datetime64[ns]")  # pandas gives UTC
    array, present = _array(name, values)
    if present is not None and not present.all():
        raise ValueError(f"{name} must have a time in every row, got {int((~present).sum())} without")
    if array.dtype.kind == "M":
        return _of_datetimes(array)
    if array.dtype.kind == "O":
        found = [seconds(each) for each in array.tolist()]
        if None not in found:
            return np.array(found, dtype=np.float64)
    if array.dtype.kind not in "fiu":
        rule = "must be seconds since the epoch or datetimes with a time zone"
        raise ValueError(f"{name} {rule}, got dtype {_KINDS.get(array.dtype.kind, array.dtype)}")
    return np.array(array, dtype=np.float64)


def _array(name: str, values: Any) -> tuple[npt.NDArray[Any], Bools | None]:
    """Return a one-dimensional array of whatever type, and which rows are there."""
    if isinstance(values, str | bytes):
        raise ValueError(f"{name} must be a column of numbers, got a text")
    try:
        array, present = _unmasked(values)
    except (ValueError, TypeError, RuntimeError) as error:
        raise ValueError(f"{name} must be a column of numbers: {error}") from None
    if array.ndim != 1:
        raise ValueError(f"{name} must have one dimension, got {array.ndim}")
    return array, present


def _unmasked(values: Any) -> tuple[npt.NDArray[Any], Any]:
    if "numpy.ma" in sys.modules and isinstance(values, np.ma.MaskedArray):
        return np.asarray(values.filled(0)), ~np.ma.getmaskarray(values)
    if isinstance(values, np.ndarray):
        return values, None
    if hasattr(values, "detach"):  # torch: maybe on a device, maybe with a gradient
        values = values.detach().cpu()
        return np.asarray(values.float() if str(values.dtype) == "torch.bfloat16" else values), None
    if hasattr(values, "null_count") and hasattr(values, "to_numpy"):  # polars and arrow
        return _of_nullable(values)
    is_nullable = hasattr(values, "isna") and hasattr(values, "to_numpy") and not isinstance(values.dtype, np.dtype)
    if is_nullable and getattr(values.dtype, "kind", "O") in "fiub":  # pandas
        array = values.to_numpy(dtype=values.dtype.numpy_dtype, na_value=0)
        return np.asarray(array), ~np.asarray(values.isna(), dtype=np.bool_)
    return np.asarray(values), None


def _of_nullable(values: Any) -> tuple[npt.NDArray[Any], Any]:
    """Return a polars or arrow column and which of its rows are not null."""
    nulls = values.null_count() if callable(values.null_count) else values.null_count
    if not nulls:
        return np.asarray(values.to_numpy()), None
    there = values.is_not_null() if hasattr(values, "is_not_null") else values.is_valid()
    filled = values.fill_null(0) if hasattr(values, "fill_null") else values
    return np.asarray(filled.to_numpy()), np.asarray(there.to_numpy(), dtype=np.bool_)


def _bools(present: Any) -> Bools | None:
    return None if present is None or present.all() else np.asarray(present, dtype=np.bool_)


def _item(value: Any) -> object:
    """Return the one element of a scalar, a 0-d array or a tensor; None for a column, for several, and for a masked one."""
    if isinstance(value, np.ndarray) and (value.ndim or is_masked(value)):
        return None
    try:
        return value.item()
    except (AttributeError, ValueError, RuntimeError, TypeError):
        return None


def _of_datetime(value: datetime) -> float | None:
    if value.tzinfo is None and not hasattr(value, "nanosecond"):  # pandas' Timestamp has nanoseconds, and takes naive for UTC
        return None
    try:
        return float(value.timestamp())
    except ValueError:  # pandas' NaT
        return math.nan


def _of_datetimes(array: npt.NDArray[Any]) -> Floats:
    whole = array.astype("datetime64[s]")
    found: Floats = whole.astype(np.int64) + (array - whole) / np.timedelta64(1, "s")
    found[np.isnat(array)] = np.nan
    return found
