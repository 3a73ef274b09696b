"""The fleet as one table in memory: a short row for each model, filtered, sorted and cut into pages without the store."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from actors.labels import Selector

PAGE_ROWS: Final = 50
# The worst first: a person must see it at the top.
STATES: Final = ("drifting", "error", "warning", "no_data", "learning", "stable")
_RANK: Final = {state: rank for rank, state in enumerate(STATES)}


class Row(NamedTuple):
    """One model in the fleet."""

    model: str
    state: str
    events: int
    late: int
    rejected: int
    last_at: float
    version: str
    lost: float | None
    price: float | None
    open_episodes: tuple[str, ...]
    metric: str
    recent: float | None
    baseline: float | None
    flagged: bool
    gave_up: int
    labels: tuple[tuple[str, str], ...]

    @property
    def share(self) -> float | None:
        """Return the errors lost as a share of the price, where both are known."""
        return None if self.lost is None or not self.price else self.lost / self.price


class Page(NamedTuple):
    """One page of the models that match, with the counts by state of all that match apart from their state."""

    rows: list[Row]
    total: int
    page: int
    pages: int
    counts: dict[str, int]
    sort: str
    descending: bool


@dataclass(frozen=True, slots=True)
class Wanted:
    """A query of the fleet table."""

    text: str = ""
    state: str = ""
    labels: Selector = field(default_factory=Selector)
    sort: str = "state"
    descending: bool = False
    page: int = 1


_ABSENT: Final = float("-inf")
SORTS: Final[Mapping[str, Callable[[Row], Any]]] = {
    "state": lambda row: (_RANK.get(row.state, len(_RANK)), -len(row.open_episodes), row.model),
    "model": lambda row: row.model,
    "events": lambda row: row.events,
    "last": lambda row: row.last_at,
    "lost": lambda row: _ABSENT if row.share is None else row.share,
    "episodes": lambda row: len(row.open_episodes),
    "version": lambda row: row.version,
}


class Table(list[Row]):
    """The rows in the order of names; caches each sort order and the counts that pages request.

    Its rows never change once it is made.
    """

    def __init__(self, rows: Iterable[Row] = ()) -> None:
        super().__init__(rows)
        self._ordered: dict[tuple[str, bool], list[Row]] = {}
        self._counts: Counter[str] | None = None

    def ordered(self, sort: str, *, descending: bool) -> list[Row]:
        """Return all rows in an order of SORTS."""
        key = sort, descending
        if key not in self._ordered:
            self._ordered[key] = sorted(self, key=SORTS[sort], reverse=descending)
        return self._ordered[key]

    def counts(self) -> Counter[str]:
        """Return the number of models in each state."""
        if self._counts is None:
            self._counts = Counter(row.state for row in self)
        return self._counts


def rows_of(models: Mapping[str, Mapping[str, Any]]) -> Table:
    """Return the rows of `status()["models"]`, in the order of names.

    >>> rows_of({"m": {"state": "stable", "events": 3, "late": 0, "rejected": 0, "last_at": 1.0, "versions": {}}})[0].state
    'stable'
    """
    return Table(_row(name, models[name]) for name in sorted(models))


def page_of(rows: Table, wanted: Wanted) -> Page:
    """Return the requested page; a page beyond the last is the last."""
    text = wanted.text.casefold()
    sort = wanted.sort if wanted.sort in SORTS else "state"
    everything = rows.ordered(sort, descending=wanted.descending)
    is_whole = not text and not wanted.labels
    matching = (
        everything
        if is_whole
        else [
            row
            for row in everything
            if (not text or text in row.model.casefold()) and (not wanted.labels or wanted.labels.matches(dict(row.labels)))
        ]
    )
    counts = rows.counts() if is_whole else Counter(row.state for row in matching)
    shown = [row for row in matching if row.state == wanted.state] if wanted.state else matching
    pages = max(1, -(-len(shown) // PAGE_ROWS))
    number = min(max(1, wanted.page), pages)
    cut = shown[(number - 1) * PAGE_ROWS : number * PAGE_ROWS]
    known = {state: counts[state] for state in (*STATES, *sorted(set(counts) - set(STATES))) if counts[state]}
    return Page(cut, len(shown), number, pages, known, sort, wanted.descending)


def _row(name: str, seen: Mapping[str, Any]) -> Row:
    versions = seen.get("versions") or {}
    version = next(reversed(versions), "")
    metrics = versions[version]["metrics"] if version else {}
    metric = next(iter(metrics), "")
    progress = metrics.get(metric) or {}
    rule = seen.get("retrain") or {}
    return Row(
        model=name,
        state=seen["state"],
        events=seen["events"],
        late=seen["late"],
        rejected=seen["rejected"],
        last_at=seen["last_at"],
        version=str(rule.get("live_version") or version),
        lost=rule.get("lost"),
        price=rule.get("price"),
        open_episodes=tuple(seen.get("open_episodes", ())),
        metric=metric,
        recent=progress.get("recent"),
        baseline=progress.get("baseline"),
        flagged=bool(seen.get("flagged")),
        gave_up=seen.get("gave_up") or 0,
        labels=tuple(sorted((seen.get("labels") or {}).items())),
    )
