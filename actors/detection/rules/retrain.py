"""Decides whether a retrain of a model pays: what its live version loses against its promise, and what a retrain has saved.

Pure: promises, events and people's decisions in, decisions out; all it knows is a few plain values, written with every commit.
It knows which version is live (`versions.py`) and keeps one `Shortfall` for it, under its own promise or the one that it
inherits from the version before. Which orders there are is the episodes' business (`episodes.py`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, NotRequired, TypedDict

import numpy as np

from actors.config import ModelSettings
from actors.detection.rules.judging import AwaitedRecord, Judged, Judging
from actors.detection.rules.promises import USED, Promise, PromiseRecord, Standing, held_to, turned_round
from actors.detection.rules.verdict import PaybackRecord
from actors.detection.rules.versions import Decision, Versions, VersionsRecord
from actors.drift import BudgetPrice, Shortfall, Stretch, usual_direction
from actors.drift.windows import Windows, windows_of
from actors.people import NOBODY, Signature
from actors.replies import RetrainShown, ShortfallNumbers
from actors.wire import Batch, Bools, Floats, Indices

Z: Final = 2.0  # standard errors that are put down to chance
MAX_PROMISES: Final = 64  # of one model, the newest; that of a version that is live or compared stays
_NO_PRICE: Final = 1e300  # if nothing is ordered by price, the errors lost are still shown


@dataclass(frozen=True, slots=True)
class Pays:
    """A retrain of the live version pays, as of event time `at`: order one."""

    version: str
    metric: str
    at: float
    numbers: ShortfallNumbers


Outcome = Pays | Judged | Decision
Rows = Indices | slice


class RetrainRecord(TypedDict):
    """What `RetrainWatch.memory` returns: plain values, as the store takes them."""

    versions: VersionsRecord
    promises: dict[str, PromiseRecord]
    standing: Standing | None
    standings: NotRequired[dict[str, Standing | None]]  # records of earlier builds have none
    rule: bytes | None
    weighed: bool
    unused: int
    since: float | None
    retrains: int
    payback: PaybackRecord | None
    awaited: AwaitedRecord | None
    shown: RetrainShown


class RetrainWatch:
    """The retrain decisions of one model. Two of these share nothing."""

    def __init__(
        self, settings: ModelSettings, memory: RetrainRecord | None = None, known: Iterable[tuple[str, float]] = ()
    ) -> None:
        """Begin afresh, or from `memory`; without one `known` are the versions that have logged, and since when."""
        self._rule, promotion = settings.retrain, settings.promotion
        self._errors = _counts_errors(settings)
        versions = None if memory is None else memory["versions"]
        if versions is None:
            before = Versions()
            for name, since in known:
                before.appeared(name, at=since)
            versions = before.memory()
        self.versions = Versions(gate=promotion.gate, on_worse=promotion.on_worse, memory=versions)
        self._promises: dict[str, PromiseRecord] = {}
        self._standing: Standing | None = None
        self._standings: dict[str, Standing | None] = {}  # of every version that was live: what it is held to when it returns
        self._shortfall: Shortfall | None = None
        self._weighed = False  # whether the live version has logged n
        self._unused = 0  # windows that no rule can judge: no share of n rows
        self._since: float | None = None  # when the budget began, in event time
        self._retrains = 0
        self._judging = Judging()
        if memory is not None:
            self._remember(memory)

    # --- questions

    @property
    def missing(self) -> list[str]:
        """Return what the rule lacks: a promise, or n with the events; nothing under another rule."""
        if self._rule.when != "shortfall":
            return []
        return [name for name, there in (("promise", self._standing is not None), ("n", self._weighed)) if not there]

    @property
    def pays(self) -> bool:
        """Whether a retrain of the live version pays, as of its last event."""
        return self._rule.when == "shortfall" and self._shortfall is not None and self._weighed and self._shortfall.due

    def informs(self, version: str) -> str | None:
        """Return why an alarm of this version asks for no order; None where it does."""
        if self.versions.state_of(version) == "candidate":
            return f"version {version} is a candidate: no orders before it is live"
        if self._rule.when == "never":
            return "retrain.when is never: an alarm only informs"
        if self._rule.when == "shortfall" and not self.missing:
            lost, price = (0.0, 0.0) if self._shortfall is None else (self._shortfall.lost, self._shortfall.price)
            return f"retrain.when is shortfall: {max(lost, 0.0):.0f} of {price:.0f} errors lost, an alarm only informs"
        return None

    def shown(self) -> RetrainShown:
        """Return what status shows."""
        standing, live = self._standing, self.versions.live
        rule = self._shortfall
        own = None if live is None else self._promises.get(live)
        return {
            "when": self._rule.when,
            "metric": self._rule.metric,
            "lost": None if rule is None or not self._weighed else max(rule.lost, 0.0),
            "price": None if rule is None or rule.price >= _NO_PRICE else rule.price,
            "promised": None if standing is None else standing["value"],
            "promised_n": None if standing is None else standing["n"],
            "promise_source": None if own is None and standing is None else (USED if own is None else own["source"]),
            "inherited_from": None if standing is None or standing["version"] == live else standing["version"],
            "missing": self.missing,
            "live_version": live,
            "unused": self._unused,
        }

    def promise_of(self, version: str) -> PromiseRecord | None:
        """Return what a version itself has promised."""
        return self._promises.get(version)

    # --- promises

    def promise(self, promise: Promise) -> bool:
        """Take a promise; False where the same was said before."""
        record = promise.record()
        if self._promises.get(promise.version) == record:
            return False
        self._promises.pop(promise.version, None)
        self._promises[promise.version] = record
        kept = {row["version"] for row in self.versions.rows()} | {promise.version}
        for name in [name for name in self._promises if name not in kept][: max(len(self._promises) - MAX_PROMISES, 0)]:
            del self._promises[name]
        if promise.version == self.versions.live:
            self._begin_rule(promise.version)
        return True

    def _begin_rule(self, live: str) -> None:
        """Hold the live version to its own promise, or to the one of the version before; it has lost nothing yet.

        A version that returns after a rollback is held to what it was held to before, never to the promise of its successor.
        """
        own = held_to(live, self._promises.get(live), self._rule.metric, errors=self._errors)
        self._standing = own or self._standings.get(live, self._standing)
        known = {row["version"] for row in self.versions.rows()}
        self._standings = {name: each for name, each in self._standings.items() if name in known} | {live: self._standing}
        self._shortfall = self._made()

    def _made(self) -> Shortfall | None:
        standing = self._standing
        price = self._price(self._since or 0.0)
        return None if standing is None else Shortfall(promised=standing["value"], promised_n=standing["n"], price=price, z=Z)

    def _price(self, at: float) -> float:
        standing, rule = self._standing, self._rule
        if standing is None or rule.when != "shortfall":
            return _NO_PRICE
        if rule.budget is not None:
            every = rule.budget.per_s / rule.budget.count
            elapsed = 0.0 if self._since is None else max(at - self._since, 0.0)
            return BudgetPrice(promised_n=standing["n"], every=every).price(elapsed=elapsed, retrains=self._retrains)
        price = None if rule.price is None else rule.price.in_errors(standing["n"])
        return _NO_PRICE if price is None else price

    # --- events

    def take(self, batch: Batch, ok: Bools | None, skip: int) -> list[Outcome]:
        """Take the rows of a batch from `skip` on that are `ok` (None: all); return what they decide, in order."""
        known = not any(self.versions.is_new(name) for name in batch.versions)
        if batch.weights is None and known:
            return self._overdue(batch, ok, skip)
        outcomes: list[Outcome] = []
        for version, rows in _runs(batch, ok, skip):
            at = float(batch.times[rows.start if isinstance(rows, slice) else rows[0]])
            if self.versions.is_new(version):
                outcomes += self._decided(self.versions.appeared(version, at=at), at)
            outcomes += self._take_run(version, batch, rows)
        return outcomes + self._overdue(batch, ok, skip)

    def _take_run(self, version: str, batch: Batch, rows: Rows) -> list[Outcome]:
        """Take consecutive rows of one version."""
        column, weights = batch.columns.get(self._rule.metric), batch.weights
        if column is None or weights is None:
            return []
        for each in (column, weights):
            if each.present is not None:
                rows = np.arange(batch.rows)[rows] if isinstance(rows, slice) else rows
                rows = rows[each.present[rows]]
        values, times = column.values[rows], batch.times[rows]
        windows, good = windows_of(1.0 - values if self._errors else values, weights.values[rows])
        if good is not None:
            self._unused += len(good) - len(windows)
            times = times[good]
        if not len(windows):
            return []
        outcomes: list[Outcome] = []
        # Where versions are compared a period ends with the first window at most: all that follows counts together.
        cuts = (0, 1) if self.versions.compares(version) else (0,)
        for start, stop in zip(cuts, (*cuts[1:], len(windows)), strict=True):
            if start < stop:
                outcomes += self._take_windows(version, windows.part(start, stop), times[start:stop])
        return outcomes

    def _take_windows(self, version: str, windows: Windows, times: Floats) -> list[Outcome]:
        at = float(times[-1])
        hits, n = windows.totals()
        outcomes: list[Outcome] = []
        if version == self.versions.live:
            self._weighed = True
            self._since = at if self._since is None else self._since
            if self._shortfall is not None:
                outcomes += self._lose(version, self._shortfall, windows, times)
            outcomes += self._judging.take(hits=hits, n=n, at=at)
        decisions = self.versions.window(version, hits=hits, n=n, at=at)
        return outcomes + self._decided(decisions, at)

    def _lose(self, version: str, rule: Shortfall, windows: Windows, times: Floats) -> list[Outcome]:
        rule.price = self._price(float(times[0]))
        found = rule.take(windows, times)
        if found is None or self._standing is None or self._rule.when != "shortfall":
            return []
        index, stretch = found
        numbers = _numbers(version, self._rule.metric, self._standing, stretch, rule.price)
        return [Pays(version, self._rule.metric, float(times[index]), numbers)]

    # --- versions

    def _decided(self, decisions: Iterable[Decision], at: float) -> list[Outcome]:
        found = list(decisions)
        for decision in found:
            if decision.kind in {"went live", "promoted", "rolled back"}:
                self._live(decision.version, at)
        return [*found]

    def _live(self, version: str, at: float) -> None:
        self._begin_rule(version)
        self._weighed = False
        self._judging.went_live(version, at)

    def promote(self, version: str, at: float, signed: Signature = NOBODY) -> list[Outcome]:
        """Make a version live because a person says so. KeyError, ValueError: see `Versions.promote`."""
        return self._decided([self.versions.promote(version, at=at, signed=signed)], at)

    def announce(self, version: str, at: float, signed: Signature = NOBODY, *, live: bool) -> list[Outcome]:
        """Take a version that a registry has, and make it live where its alias points there."""
        self.versions.announced(version, at=at)
        return self._decided(self.versions.follow(version, at=at, signed=signed), at) if live else []

    def rollback(self, at: float, signed: Signature = NOBODY) -> list[Outcome]:
        """Return to the version that was live before. ValueError: there is none."""
        return self._decided([self.versions.rollback(at=at, signed=signed)], at)

    # --- orders

    def ordered(self, at: float) -> list[Judged]:
        """Learn that the model has got an order: what has not paid by now did not pay."""
        self._retrains += 1
        return self._judging.ordered(at)

    def retrained(self, version: str, order: str, numbers: ShortfallNumbers | None, new_version: str | None, at: float) -> None:
        """Learn that an order for `version` is done: its retrain is judged from its new version's first event on.

        The rule begins again, whatever caused the order; a new version that is live already has begun it itself. `numbers`
        are those of the shortfall that asked; without them no verdict follows.
        """
        live = self.versions.live
        if live is None:
            return
        on_it = live != version
        if not on_it:
            self._shortfall = self._made()
        if numbers is None:
            return
        if on_it or new_version is None:
            self._judging.begin(order, numbers, at)
        else:
            self._judging.await_version(new_version, order, numbers)

    def _overdue(self, batch: Batch, ok: Bools | None, skip: int) -> list[Outcome]:
        """Judge a retrain whose version has not logged n for too long, by the time of any event."""
        if not self._judging.is_judging or skip >= batch.rows or (ok is not None and not ok[skip:].any()):
            return []
        return [*self._judging.due(float(batch.times[skip:].max()))]

    # --- memory

    def memory(self) -> RetrainRecord:
        """Return everything that a successor needs."""
        payback, awaited = self._judging.memory()
        return {
            "versions": self.versions.memory(),
            "promises": self._promises,
            "standing": self._standing,
            "standings": self._standings,
            "rule": None if self._shortfall is None else self._shortfall.state(),
            "weighed": self._weighed,
            "unused": self._unused,
            "since": self._since,
            "retrains": self._retrains,
            "payback": payback,
            "awaited": awaited,
            "shown": self.shown(),
        }

    def _remember(self, memory: RetrainRecord) -> None:
        self._promises = dict(memory["promises"])
        self._standing = memory["standing"]
        self._standings = dict(memory.get("standings", {}))
        self._weighed, self._unused = memory["weighed"], memory["unused"]
        self._since, self._retrains = memory["since"], memory["retrains"]
        live = self.versions.live
        if memory["shown"]["metric"] != self._rule.metric:  # another metric: its promise and its losses are new
            self._standing, self._standings = None, {}
            if live is not None:
                self._begin_rule(live)
            return
        turned = turned_round(self._standing, self._promises, self._rule.metric, errors=self._errors)
        if turned is None:
            self._judging = Judging(memory["payback"], memory["awaited"])
        else:
            self._standing, self._standings = turned, {}
        self._shortfall = self._made()
        if self._shortfall is not None and memory["rule"] is not None:
            with contextlib.suppress(ValueError):  # of another build: the rule begins again
                self._shortfall.restore(memory["rule"])
            if self._rule.budget is not None and memory["shown"]["price"] is not None:
                self._shortfall.price = memory["shown"]["price"]


def _counts_errors(settings: ModelSettings) -> bool:
    """Whether the metric of the rule is a share of errors; alarms in both directions do not say which one is worse."""
    metric = settings.retrain.metric
    watched = settings.watch.get(metric)
    known = watched is not None and watched.direction != "both"
    return (watched.direction if known and watched is not None else usual_direction(metric)) == "up"


def _numbers(version: str, metric: str, standing: Standing, stretch: Stretch, price: float) -> ShortfallNumbers:
    """Return why a retrain of a version pays, as an order and its verdict need it."""
    return {
        "cause": "shortfall",
        "metric": metric,
        "promised": stretch.promised,
        "promised_n": standing["n"],
        "inherited_from": None if standing["version"] == version else standing["version"],
        "price": price,
        "lost": stretch.lost,
        "z": Z,
        "stretch_rows": stretch.rows,
        "stretch_hits": stretch.hits,
        "stretch_rate": stretch.rate,
        "stretch_windows": stretch.windows,
        "stretch_since": stretch.since,
        "standard_error": stretch.standard_error,
        "drift": stretch.drift,
    }


def _runs(batch: Batch, ok: Bools | None, skip: int) -> Iterator[tuple[str, Rows]]:
    """Cut the rows that count into runs of one version each, in order."""
    if batch.which is None and ok is None:
        if skip < batch.rows:
            yield batch.versions[0], slice(skip, batch.rows)
        return
    counted = np.ones(batch.rows, dtype=np.bool_) if ok is None else ok.copy()
    counted[:skip] = False
    rows = np.flatnonzero(counted)
    if not len(rows):
        return
    if batch.which is None:
        yield batch.versions[0], rows
        return
    which = batch.which[rows]
    for run in np.split(rows, np.flatnonzero(np.diff(which)) + 1):
        yield batch.versions[int(batch.which[run[0]])], run
