"""When a retrain pays: the errors that a version makes beyond its promise, against the price of a retrain.

An alarm says that something has changed; this rule says whether a retrain is worth its price. It compares the live
version with its own promise, the cross-validated accuracy on its training rows, and not with its first live events,
so a version that was bad from the start is found too. The statistic is a scan of all stretches that end now, as in
Page 1954 (continuous inspection schemes), with a penalty for the noise of the stretch and of the promise.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from actors.drift.interface import Floats, check_number, pack_state, unpack_state

ROWS_MAX = 1e12  # of a window and of a promise: far beyond any batch, and sums of them stay whole numbers
_VARIANCE_MIN = 0.01  # of one row: a promise of 0 or 1 is not free of noise
_WHOLE = 0.01  # hits: an accuracy that was rounded to four digits is taken for a window of 200 rows
_WHOLE_SHARE = 1e-6  # of n: more than float32 leaves of a proportion
_CHUNK = 4096  # windows looked at together: their rows add up to less than 2 ** 63
_ONE_BY_ONE = 16  # windows judged singly before a whole chunk is tried again
_NAME = "shortfall"
_SHARE_AT_START = 0.03  # of promised_n: what a budget takes for the price of a retrain before it knows better
_EXPONENT_MAX = 50.0  # of a budget's price: between it and its inverse every price is never or always

Whole = npt.NDArray[np.int64]


class _Start(NamedTuple):
    """A point between two windows at which a stretch may begin: what had been seen before it."""

    windows: int
    rows: int
    hits: int
    at: float | None  # when the first window of such a stretch was logged


@dataclass(frozen=True, slots=True)
class Stretch:
    """The stretch of windows, ending now, in which the version lost most: the evidence behind a retrain.

    `standard_error` is that of `rate - promised`: the noise of the stretch's rows and that of the promise's. `drift` is
    the distance of the rate from the promise in standard errors, negative where the rate is lower. `since` is the time
    that came with its first window.
    """

    windows: int
    rows: int
    hits: int
    rate: float
    promised: float
    standard_error: float
    drift: float
    lost: float
    since: float | None

    def as_dict(self) -> dict[str, float | None]:
        """Return the fields as plain numbers, as the wire and the store take them.

        >>> rule = Shortfall(promised=0.9, promised_n=1000, price=20)
        >>> rule.update(80, 100)
        False
        >>> rule.stretch.as_dict()["rows"]
        100
        """
        return {name: getattr(self, name) for name in self.__slots__}


class Shortfall:
    """Say "retrain" once the version has certainly lost as many errors against its promise as a retrain is worth.

        lost = max over stretches [ sum(promised * n - hits) - z * sqrt(v * n * (1 + n / promised_n)) ]

    over all stretches of one or more windows that end now, with v = max(promised * (1 - promised), 0.01); in errors.
    It is negative while the version keeps its promise. `update` returns True where lost >= price, again at each window
    until a new rule is made for a new version: a retrain that did not help goes on losing.

    Args:
        promised: accuracy in cross-validation on the version's training rows, in blocks in the order of time.
        promised_n: how many rows that were.
        price: the errors that a retrain is worth, > 0; may be changed at any time.
        z: standard errors that are put down to chance.

    For an error share e, the promise is 1 - e and the hits are the rows without an error.

    Examples:
        >>> rule = Shortfall(promised=0.87, promised_n=2500, price=25)
        >>> [rule.update(hits, 200) for hits in (175, 160, 158, 150)]
        [False, False, False, True]
        >>> round(rule.lost, 1), rule.stretch.windows
        (35.7, 3)
    """

    def __init__(self, *, promised: float, promised_n: float, price: float, z: float = 2.0) -> None:
        self._promised = check_number("promised", _plain(promised), low=0.0, high=1.0)
        self._promised_n = check_number("promised_n", _plain(promised_n), low=1.0, high=ROWS_MAX)
        self._z = check_number("z", _plain(z), low=0.0, high=1e6)
        self.price = price
        self._variance = max(self._promised * (1.0 - self._promised), _VARIANCE_MIN)
        # What the penalty rises by, at least, for one row more.
        self._least_penalty = self._z * math.sqrt(self._variance / self._promised_n)
        self._learned_under = {"promised": self._promised, "promised_n": self._promised_n, "z": self._z}
        self.reset()

    def reset(self) -> None:
        """Forget all windows, as if newly made."""
        self._windows = self._rows = self._hits = 0
        self._starts: list[_Start] = []
        self._lost = 0.0

    @property
    def price(self) -> float:
        """Return the errors that a retrain is worth."""
        return self._price

    @price.setter
    def price(self, price: float) -> None:
        self._price = check_number("price", _plain(price), above=0.0)

    @property
    def lost(self) -> float:
        """Return the errors lost against the promise, beyond chance; 0 before the first window."""
        return self._lost

    @property
    def due(self) -> bool:
        """Return whether a retrain pays: what the last `update` said, under the price of now."""
        return self._windows > 0 and self._lost >= self._price

    @property
    def windows(self) -> int:
        """Return how many windows have been seen."""
        return self._windows

    @property
    def rows(self) -> int:
        """Return how many rows have been seen."""
        return self._rows

    @property
    def hits(self) -> int:
        """Return how many of the rows the version got right."""
        return self._hits

    @property
    def starts(self) -> int:
        """Return how many points the worst stretch of now or later can begin at."""
        return len(self._starts)

    @property
    def stretch(self) -> Stretch | None:
        """Return the stretch behind `lost`; None before the first window."""
        if not self._starts:
            return None
        start = self._starts[-1]
        rows, hits = self._rows - start.rows, self._hits - start.hits
        error = math.sqrt(self._variance / rows * (1.0 + rows / self._promised_n))
        rate = hits / rows
        return Stretch(
            windows=self._windows - start.windows,
            rows=rows,
            hits=hits,
            rate=rate,
            promised=self._promised,
            standard_error=error,
            drift=(rate - self._promised) / error,
            lost=self._lost,
            since=start.at,
        )

    def update(self, hits: float, n: float, *, at: float | None = None) -> bool:
        """Take the next window: `hits` of `n` rows were right; return whether a retrain pays.

        `at` is the window's time, in any unit; it decides nothing and comes back as `Stretch.since`.

        Raises:
            ValueError: n is no whole number from 1 to 1e12, or hits none from 0 to n, or `at` is not finite. Nothing has
                changed.
        """
        if at is not None:
            at = check_number("at", _plain(at))
        hits, n = checked_window(hits, n)
        self._add_start(_Start(self._windows, self._rows, self._hits, at))
        self._windows += 1
        self._rows += n
        self._hits += hits
        self._judge()
        return self._lost >= self._price

    def update_many(
        self, hits: npt.ArrayLike, n: npt.ArrayLike, *, at: npt.ArrayLike | None = None
    ) -> tuple[int, Stretch] | None:
        """Take windows `hits, n, at: float64[m]`, oldest first: what `update` does with each of them, in far less time.

        Return:
            The index of the first window at which a retrain pays, and the stretch behind it; None if there is none.

        Raises:
            ValueError: as `update` does, with the index of the first bad window. Nothing has changed.

        >>> rule = Shortfall(promised=0.87, promised_n=2500, price=25)
        >>> index, stretch = rule.update_many([175, 160, 158, 150], [200, 200, 200, 200])
        >>> index, stretch.hits, stretch.rows
        (3, 468, 600)
        """
        right, rows = _checked_columns(hits, n)
        times = None if at is None else _checked_times(at, len(rows))
        found: tuple[int, Stretch] | None = None
        done, m = 0, len(rows)
        while done < m:
            part = slice(done, done + _CHUNK)
            calm = m if found else self._surely_calm(right[part], rows[part])
            if calm:
                part = slice(done, min(done + calm, done + _CHUNK))
                self._absorb(right[part], rows[part], None if times is None else times[part])
                done = min(part.stop, m)
                continue
            for index in range(done, min(done + _ONE_BY_ONE, m)):
                done = index + 1
                time = None if times is None else float(times[index])
                if self.update(int(right[index]), int(rows[index]), at=time):
                    stretch = self.stretch
                    found = (index, stretch) if stretch else None
                    break
        return found

    def state(self) -> bytes:
        """Return everything that `restore` needs, as msgpack; below 1 KB on any stream of real hits."""
        body = {"seen": [self._windows, self._rows, self._hits], "starts": [list(start) for start in self._starts]}
        return pack_state(_NAME, self._learned_under, body)

    def restore(self, state: bytes) -> None:
        """Continue exactly where `state` was taken, under this rule's own price.

        Raises:
            ValueError: the state is broken, or that of a rule with another promise, promised_n or z.
        """
        body = unpack_state(_NAME, self._learned_under, state)
        self._windows, self._rows, self._hits = body["seen"]
        self._starts = [_Start(*start) for start in body["starts"]]
        self._judge()

    # --- which starts matter --------------------------------------------------------------------------------------
    #
    # The penalty is a concave function of the stretch's rows that rises by _least_penalty a row at least. So
    # (1) an older start that has caught up with a newer one stays ahead of it: the newer one goes;
    # (2) an older start that leads a newer one by at most _least_penalty a row between them never gets ahead: it goes;
    # (3) a start that lies between two others, and no lower than the line through them, never beats both: it goes.
    # Noise leaves a handful by (1) and (2) alone; (3) keeps them few where all windows are alike.

    def _add_start(self, new: _Start) -> None:
        starts, promised, least = self._starts, self._promised, self._least_penalty
        while starts:
            last = starts[-1]
            between = new.rows - last.rows
            if promised * between - (new.hits - last.hits) <= least * between:  # (2)
                starts.pop()
                continue
            if len(starts) == 1:
                break
            first = starts[-2]
            if (last.hits - first.hits) * (new.rows - first.rows) > (new.hits - first.hits) * (last.rows - first.rows):
                break
            starts.pop()  # (3), in whole numbers: the promise is the same line for all three
        starts.append(new)

    def _judge(self) -> None:
        """Compute `lost`, and drop the starts that an older one has caught up with, so that the last is the worst."""
        promised, promised_n, variance, z = self._promised, self._promised_n, self._variance, self._z
        all_rows, all_hits = self._rows, self._hits
        best = -math.inf
        kept = []
        for start in self._starts:
            rows = all_rows - start.rows
            value = promised * rows - (all_hits - start.hits) - z * math.sqrt(variance * rows * (1.0 + rows / promised_n))
            if value > best:  # (1)
                best = value
                kept.append(start)
        self._starts = kept
        self._lost = best if kept else 0.0

    # --- many windows at once -------------------------------------------------------------------------------------

    def _lines(self, hits: Whole, rows: Whole) -> Floats:
        """Return, before and after each window, the errors since the chunk began less the least penalty."""
        lines = np.zeros(len(rows) + 1)
        lines[1:] = (self._promised - self._least_penalty) * np.cumsum(rows) - np.cumsum(hits)
        return lines

    def _surely_calm(self, hits: Whole, rows: Whole) -> int:
        """Return how many windows of the chunk surely do not reach the price: by (2), a stretch's line is above its value."""
        lines = self._lines(hits, rows)
        lowest = np.minimum.accumulate(lines[:-1])
        if self._starts:
            first = self._starts[0]  # by (2), the lowest of them
            line = (self._least_penalty - self._promised) * (self._rows - first.rows) + (self._hits - first.hits)
            np.minimum(lowest, line, out=lowest)
        over = lines[1:] - lowest >= self._price * (1.0 - 1e-9) - 1e-9 * (1.0 + np.abs(lines[1:]))
        at = int(over.argmax())
        return at if over[at] else len(rows)

    def _absorb(self, hits: Whole, rows: Whole, times: Floats | None) -> None:
        """Take a chunk of windows of which only the end matters."""
        lines = self._lines(hits, rows)[:-1]
        # By (2) only a start below all later ones stays; nearly so, for `_add_start` has the last say.
        later = np.append(np.minimum.accumulate(lines[:0:-1])[::-1], np.inf)
        before_rows, before_hits = np.cumsum(rows) - rows, np.cumsum(hits) - hits
        for i in np.flatnonzero(lines < later + 1e-9 * (1.0 + np.abs(lines))).tolist():
            seen = self._windows + i, self._rows + int(before_rows[i]), self._hits + int(before_hits[i])
            self._add_start(_Start(*seen, None if times is None else float(times[i])))
        self._windows += len(rows)
        self._rows += int(rows.sum())
        self._hits += int(hits.sum())
        self._judge()


@dataclass(frozen=True, slots=True)
class BudgetPrice:
    """The price of a retrain under a budget of one retrain in `every`, where nobody knows what a retrain is worth.

    It rises e-fold with each retrain ahead of plan and falls e-fold with each behind, so in the long run there are as
    many retrains as planned, each where it pays most. `every` is in any unit of time, or in rows.

    >>> plan = BudgetPrice(promised_n=2500, every=30)  # days
    >>> plan.price(elapsed=0, retrains=0)
    75.0
    >>> round(plan.price(elapsed=30, retrains=2), 1), round(plan.price(elapsed=90, retrains=2), 1)
    (203.9, 27.6)
    """

    promised_n: float
    every: float

    def __post_init__(self) -> None:
        check_number("promised_n", _plain(self.promised_n), low=1.0, high=ROWS_MAX)
        check_number("every", _plain(self.every), above=0.0)

    def price(self, *, elapsed: float, retrains: int) -> float:
        """Return the price in errors, `elapsed` since the budget began and after so many retrains since then."""
        check_number("elapsed", _plain(elapsed), low=0.0)
        check_number("retrains", _plain(retrains), low=0.0)
        ahead = retrains - elapsed / self.every
        return _SHARE_AT_START * self.promised_n * math.exp(min(max(ahead, -_EXPONENT_MAX), _EXPONENT_MAX))


def whole_hits(value: float, n: float) -> int:
    """Return how many of `n` rows are behind the proportion `value`.

    Raises:
        ValueError: n is no whole number from 1 to 1e12; value does not lie in [0, 1], or is no share of n rows.

    >>> whole_hits(0.835, 200)
    167
    """
    check_number("value", _plain(value), low=0.0, high=1.0)
    return checked_window(float(value) * n, n)[0]


def usable(values: npt.ArrayLike, n: npt.ArrayLike) -> tuple[Whole, Whole, npt.NDArray[np.bool_]]:
    """Return the hits and rows behind the proportions `values: float64[m]` of `n: float64[m]` rows, and which can be judged.

    Those are what `whole_hits` takes; hits and rows of the others mean nothing.

    >>> hits, rows, good = usable([0.835, 0.5, 1.2], [200, 3, 10])
    >>> hits[good], rows[good]
    (array([167]), array([200]))
    """
    given, of = np.asarray(values, dtype=np.float64), np.asarray(n, dtype=np.float64)
    hits = given * of
    whole = np.rint(hits)
    good = _judgeable(hits, whole, of)
    return np.where(good, whole, 0.0).astype(np.int64), np.where(good, of, 1.0).astype(np.int64), good


def _judgeable(hits: Floats, whole: Floats, of: Floats) -> npt.NDArray[np.bool_]:
    """Return which windows are whole hits of whole rows; `whole` is the nearest whole number of the hits."""
    slack = np.maximum(_WHOLE, _WHOLE_SHARE * of)
    with np.errstate(invalid="ignore"):
        good = (of >= 1.0) & (of <= ROWS_MAX) & (of == np.floor(of)) & (np.abs(hits - whole) <= slack)
        good &= (whole >= 0.0) & (whole <= of)
    return np.asarray(good, dtype=np.bool_)


def _plain(value: object) -> object:
    """Return numpy's scalars as Python's numbers, all else as it is."""
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
    plain = _plain(n)
    number = check_number(name, plain, low=least, high=ROWS_MAX)
    if number != math.floor(number):
        raise ValueError(f"{name} must be a whole number of rows, got {plain!r}")
    return int(number)


def _whole_hits(hits: object, n: int, name: str) -> int:
    plain = _plain(hits)
    number = check_number(name, plain)
    whole = round(number)
    if abs(number - whole) > max(_WHOLE, _WHOLE_SHARE * n) or not 0 <= whole <= n:
        raise ValueError(f"{name} must be a whole number from 0 to the {n} rows, got {plain!r}")
    return whole


def _checked_times(at: npt.ArrayLike, n: int) -> Floats:
    times = np.asarray(at)
    if times.shape != (n,) or times.dtype.kind not in "iuf" or not np.isfinite(times).all():
        raise ValueError(f"at must be a column of {n} finite numbers, got {at!r:.80}")
    return times.astype(np.float64)


def _checked_columns(hits: npt.ArrayLike, n: npt.ArrayLike) -> tuple[Whole, Whole]:
    """Return both columns as whole numbers."""
    columns = np.asarray(hits), np.asarray(n)
    if any(column.dtype.kind not in "iuf" for column in columns):
        raise ValueError(f"hits and n must be numbers, got {hits!r:.80} and {n!r:.80}")
    given, of = (column.astype(np.float64) for column in columns)
    if given.ndim != 1 or given.shape != of.shape:
        raise ValueError(f"hits and n must be columns of one length, got shapes {given.shape} and {of.shape}")
    whole = np.rint(given)
    good = _judgeable(given, whole, of)
    if not good.all():
        first = int(good.argmin())
        try:
            checked_window(float(given[first]), float(of[first]))
        except ValueError as error:
            raise ValueError(f"{error} (window {first})") from None
    return whole.astype(np.int64), of.astype(np.int64)
