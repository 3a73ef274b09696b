"""When a retrain pays: the errors that a version makes beyond its promise, against the price of a retrain.

An alarm says that something has changed; this rule says whether a retrain is worth its price. It compares the live
version with its own promise, the cross-validated accuracy on its training rows, and not with its first live events,
so a version that was bad from the start is found too. The statistic is a scan of all stretches that end now, as in
Page 1954 (continuous inspection schemes), with a penalty for the noise of the stretch and of the promise.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy.typing as npt

from actors.drift.interface import Floats, check_number, pack_state, unpack_state
from actors.drift.windows import CHUNK, ROWS_MAX, Chunk, Windows, checked_times, checked_window, checked_windows, plain

_VARIANCE_MIN = 0.01  # of one row: a promise of 0 or 1 is not free of noise
_ONE_BY_ONE = 16  # windows judged singly before a whole chunk is tried again
_NAME = "shortfall"
_SHARE_AT_START = 0.03  # of promised_n: what a budget takes for the price of a retrain before it knows better
_EXPONENT_MAX = 50.0  # of a budget's price: between it and its inverse every price is never or always


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
        self._promised = check_number("promised", plain(promised), low=0.0, high=1.0)
        self._promised_n = check_number("promised_n", plain(promised_n), low=1.0, high=ROWS_MAX)
        self._z = check_number("z", plain(z), low=0.0, high=1e6)
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
        self._price = check_number("price", plain(price), above=0.0)

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
            at = check_number("at", plain(at))
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
        windows = checked_windows(hits, n)
        return self.take(windows, None if at is None else checked_times(at, len(windows)))

    def take(self, windows: Windows, at: Floats | None = None) -> tuple[int, Stretch] | None:
        """Take windows that are checked, and their times, finite numbers; return what `update_many` does."""
        found: tuple[int, Stretch] | None = None
        done, m = 0, len(windows)
        while done < m:
            chunk = Chunk(windows.part(done, done + CHUNK), self._promised - self._least_penalty)
            calm = chunk.windows if found else self._surely_calm(chunk)
            if calm:
                self._absorb(chunk, calm, None if at is None else at[done : done + calm])
                done += calm
                continue
            for index in range(done, min(done + _ONE_BY_ONE, m)):
                done = index + 1
                time = None if at is None else float(at[index])
                if self.update(int(windows.hits[index]), int(windows.n[index]), at=time):
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

    def _surely_calm(self, chunk: Chunk) -> int:
        """Return how many windows of the chunk surely do not reach the price: by (2), a stretch's line is above its value."""
        line, rows = math.inf, 0
        if self._starts:
            first = self._starts[0]  # by (2), the lowest of them
            rows = self._rows - first.rows
            line = (self._least_penalty - self._promised) * rows + (self._hits - first.hits)
        return chunk.below(self._price * (1.0 - 1e-9), line, rows)

    def _absorb(self, chunk: Chunk, windows: int, times: Floats | None) -> None:
        """Take the first windows of a chunk, of which only the end matters."""
        for i in chunk.lowest(windows):  # by (2); nearly so, for `_add_start` has the last say
            rows, hits = chunk.before(i)
            at = None if times is None else float(times[i])
            self._add_start(_Start(self._windows + i, self._rows + rows, self._hits + hits, at))
        rows, hits = chunk.before(windows)
        self._windows += windows
        self._rows += rows
        self._hits += hits
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
        check_number("promised_n", plain(self.promised_n), low=1.0, high=ROWS_MAX)
        check_number("every", plain(self.every), above=0.0)

    def price(self, *, elapsed: float, retrains: int) -> float:
        """Return the price in errors, `elapsed` since the budget began and after so many retrains since then."""
        check_number("elapsed", plain(elapsed), low=0.0)
        check_number("retrains", plain(retrains), low=0.0)
        ahead = retrains - elapsed / self.every
        return _SHARE_AT_START * self.promised_n * math.exp(min(max(ahead, -_EXPONENT_MAX), _EXPONENT_MAX))
