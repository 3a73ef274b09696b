"""Windows of predictions, so many right of so many: which can be judged, and the sums of many of them at once."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from actors.drift.interface import Floats, check_number

ROWS_MAX = 1e12  # of a window and of a promise: far beyond any batch, and sums of them stay whole numbers
CHUNK = 8192  # windows looked at together: their rows add up to less than 2 ** 53, which float64 holds exactly
_BLOCK = 64  # windows whose highest and lowest line are looked at first
_WHOLE = 0.01  # hits: an accuracy that was rounded to four digits is taken for a window of 200 rows
_WHOLE_SHARE = 1e-6  # of n: more than float32 leaves of a proportion
# Of the rows that were summed: ten times what rounding makes of a line, here and where windows are taken singly.
_ROUNDING = 1e-14


@dataclass(frozen=True, slots=True)
class Windows:
    """Windows that a rule can judge: `hits: float64[m]` of `n: float64[m]` rows, whole numbers, oldest first."""

    hits: Floats
    n: Floats
    each: float | None = None  # the rows of each, if all have as many

    def __len__(self) -> int:
        """Return how many windows there are."""
        return len(self.hits)

    def part(self, start: int, stop: int | None = None) -> Windows:
        """Return the windows from `start` on, before `stop`.

        >>> windows_of(np.array([0.5, 0.7]), np.array([10.0, 10.0]))[0].part(1).hits
        array([7.])
        """
        return Windows(self.hits[start:stop], self.n[start:stop], self.each)

    def totals(self) -> tuple[int, int]:
        """Return how many hits there are, and of how many rows."""
        parts = range(0, len(self), CHUNK)
        hits = sum(int(self.hits[at : at + CHUNK].sum()) for at in parts)
        if self.each is not None:
            return hits, int(self.each) * len(self)
        return hits, sum(int(self.n[at : at + CHUNK].sum()) for at in parts)


class Chunk:
    """At most CHUNK windows that are looked at together, as sums up to each of them.

    The line of a stretch is its hits' distance from `gain` times its rows; lines add up. `_lines` are those from the first
    window on, before it and after each.
    """

    def __init__(self, windows: Windows, gain: float) -> None:
        self.windows = m = len(windows)
        self._hits = _sums(windows.hits)
        if windows.each is None:
            self._rows = _sums(windows.n)
            self._lines = self._rows * gain
        else:
            self._rows = np.arange(m + 1) * int(windows.each)
            self._lines = self._rows * gain
        self._lines -= self._hits

    def before(self, index: int) -> tuple[int, int]:
        """Return the rows and the hits of the first `index` windows."""
        return int(self._rows[index]), int(self._hits[index])

    def below(self, price: float, line: float, rows: int) -> int:
        """Return after how many windows a line may first reach the price; all of them if none does.

        `line` is minus the line of a stretch of so many `rows` that ends where the chunk begins: the longest of any.
        """
        lines = self._lines
        enough = price - self._slack(rows)
        # Which block could hold such a window: its highest line, less the lowest up to its end.
        blocks = np.arange(0, len(lines), _BLOCK)
        lowest = np.minimum.accumulate(np.minimum.reduceat(lines, blocks))
        if bool((np.maximum.reduceat(lines, blocks) - np.minimum(lowest, line) < enough).all()):
            return self.windows
        lowest = np.minimum.accumulate(lines[:-1])
        over = lines[1:] - np.minimum(lowest, line) >= enough
        at = int(over.argmax())
        return at if over[at] else self.windows

    def lowest(self, windows: int) -> list[int]:
        """Return the places before the first so many windows whose line lies below all later ones there, or nearly so."""
        lines = self._lines[:windows]
        slack = self._slack(0)
        first = int((lines <= float(lines.min()) + slack).argmax())
        tail = lines[first:]
        later = np.append(np.minimum.accumulate(tail[:0:-1])[::-1], np.inf)
        return (np.flatnonzero(tail < later + slack) + first).tolist()

    def _slack(self, rows: int) -> float:
        return 1e-9 + _ROUNDING * (rows + float(self._rows[-1]))


def _sums(column: Floats) -> npt.NDArray[np.int64]:
    """Return 0 and the sums up to each: of whole numbers as such, which takes a fifth of the time."""
    sums = np.zeros(len(column) + 1, dtype=np.int64)
    np.cumsum(column.astype(np.int64), out=sums[1:])
    return sums


def windows_of(values: Floats, n: Floats) -> tuple[Windows, npt.NDArray[np.bool_] | None]:
    """Return the windows behind the proportions `values: float64[m]` of `n: float64[m]` rows, as far as they can be judged.

    Those are what `whole_hits` takes; also, which of them that are, None for all.

    >>> windows, good = windows_of(np.array([0.835, 0.5, 1.2]), np.array([200.0, 3.0, 10.0]))
    >>> windows.hits, windows.n, good
    (array([167.]), array([200.]), array([ True, False, False]))
    """
    return _judged(values * n, n)


def checked_windows(hits: npt.ArrayLike, n: npt.ArrayLike) -> Windows:
    """Return two columns of any numbers as windows; ValueError names the first that cannot be judged.

    >>> checked_windows([174], [200]).hits
    array([174.])
    """
    columns = np.asarray(hits), np.asarray(n)
    if any(column.dtype.kind not in "iuf" for column in columns):
        raise ValueError(f"hits and n must be numbers, got {hits!r:.80} and {n!r:.80}")
    given, of = (column.astype(np.float64) for column in columns)
    if given.ndim != 1 or given.shape != of.shape:
        raise ValueError(f"hits and n must be columns of one length, got shapes {given.shape} and {of.shape}")
    windows, good = _judged(given, of)
    if good is not None:
        first = int(good.argmin())
        try:
            checked_window(float(given[first]), float(of[first]))
        except ValueError as error:
            raise ValueError(f"{error} (window {first})") from None
    return windows


def _judged(hits: Floats, n: Floats) -> tuple[Windows, npt.NDArray[np.bool_] | None]:
    """Return the windows of whole hits of whole rows, and which those are; None for all."""
    whole = np.rint(hits)
    if len(n):  # first whether all are good, in as few passes as can be; a NaN fails each comparison
        low, high, most = float(n.min()), float(n.max()), float(whole.max())
        if (
            (low >= 1.0 and high <= ROWS_MAX)
            and (low == math.floor(low) if low == high else bool((n == np.floor(n)).all()))
            and float(whole.min()) >= 0.0
            and (most <= low or bool((whole <= n).all()))
            and float(np.abs(hits - whole).max()) <= _WHOLE
        ):
            return Windows(whole, n, low if low == high else None), None
    with np.errstate(invalid="ignore"):
        good = (n >= 1.0) & (n <= ROWS_MAX) & (n == np.floor(n)) & (whole >= 0.0) & (whole <= n)
        good &= np.abs(hits - whole) <= np.maximum(_WHOLE, _WHOLE_SHARE * n)
    return Windows(whole[good], n[good]), None if good.all() else good


def whole_hits(value: float, n: float) -> int:
    """Return how many of `n` rows are behind the proportion `value`.

    Raises:
        ValueError: n is no whole number from 1 to 1e12; value does not lie in [0, 1], or is no share of n rows.

    >>> whole_hits(0.835, 200)
    167
    """
    check_number("value", plain(value), low=0.0, high=1.0)
    return checked_window(float(value) * n, n)[0]


def plain(value: object) -> object:
    """Return numpy's scalars as Python's numbers, all else as it is.

    >>> plain(np.float32(0.5))
    0.5
    """
    return value.item() if isinstance(value, np.generic) else value


def checked_window(hits: object, n: object, *, suffix: str = "", least: int = 1) -> tuple[int, int]:
    """Return `hits` and `n` as whole numbers, or raise ValueError naming the field, `suffix` appended.

    >>> checked_window(174.0, 200)
    (174, 200)
    """
    if type(n) is not int or not least <= n <= ROWS_MAX:
        n = _whole_rows(n, f"n{suffix}", least)
    if type(hits) is not int or not 0 <= hits <= n:
        hits = _whole_hits(hits, n, f"hits{suffix}")
    return hits, n


def _whole_rows(n: object, name: str, least: int) -> int:
    given = plain(n)
    number = check_number(name, given, low=least, high=ROWS_MAX)
    if number != math.floor(number):
        raise ValueError(f"{name} must be a whole number of rows, got {given!r}")
    return int(number)


def _whole_hits(hits: object, n: int, name: str) -> int:
    given = plain(hits)
    number = check_number(name, given)
    whole = round(number)
    if abs(number - whole) > max(_WHOLE, _WHOLE_SHARE * n) or not 0 <= whole <= n:
        raise ValueError(f"{name} must be a whole number from 0 to the {n} rows, got {given!r}")
    return whole


def checked_times(at: npt.ArrayLike, n: int) -> Floats:
    """Return a column of `n` finite numbers as float64, or raise ValueError."""
    times = np.asarray(at)
    if times.shape != (n,) or times.dtype.kind not in "iuf" or not np.isfinite(times).all():
        raise ValueError(f"at must be a column of {n} finite numbers, got {at!r:.80}")
    return times.astype(np.float64)
