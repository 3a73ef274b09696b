"""Decides which version of a model is live: at once, after it has won against the one before, or by a person's word.

Without a gate a version is live from its first event. Under the gate `challenger` the first version is live, and each later
one is a candidate until it has proved better; its events close and expire nothing before that. Under the gate `registry` it is
a candidate until somebody promotes it, as the registry's alias does; the comparison is evidence and decides nothing. A version
that a registry has announced and that has logged nothing is `registered`. Two versions are compared only
by what they did side by side: the pair is the live version and its newest candidate or, without a gate, the version that was
live before and the one that is now, for as long as both log.

A period of the comparison ends as soon as both have logged at least one window since the last one ended. So it depends on the
order of the events alone: not on their cut into batches, and not on what the versions got right.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final, Literal, NotRequired, TypedDict

from actors.drift.challenger import ChallengerTest
from actors.people import NOBODY, Signature

Gate = Literal["challenger", "registry"] | None
OnWorse = Literal["flag", "rollback"]
State = Literal["live", "candidate", "former", "registered"]
Kind = Literal["went live", "promoted", "rolled back", "rejected", "flagged"]

# Of one model. The oldest that is neither live, nor compared, nor what a rollback would return to, is forgotten first.
MAX_VERSIONS: Final = 64


class Evidence(TypedDict):
    """How two versions compared, side by side: `b` against `a`."""

    a: str
    b: str
    verdict: str
    for_better: float
    for_worse: float
    decides_at: float
    hits_a: int
    n_a: int
    hits_b: int
    n_b: int


class VersionRow(TypedDict):
    """One version as `versions` lists it; `since` is the event time at which it got its state."""

    version: str
    state: State
    since: float
    evidence: Evidence | None
    by: NotRequired[str | None]  # the person who gave it its state, where one did
    comment: NotRequired[str | None]


class VersionsRecord(TypedDict):
    """What `Versions.memory` returns: plain values, as the store takes them."""

    rows: list[VersionRow]
    before: list[str]
    pair: list[str] | None
    test: bytes | None
    pending: list[list[int]]


@dataclass(frozen=True, slots=True)
class Decision:
    """What became of `version`: `over` is the version that it replaced, or lost against; `evidence` is why, if measured."""

    kind: Kind
    version: str
    over: str | None
    evidence: Evidence | None
    signed: Signature = NOBODY


@dataclass(slots=True)
class _Window:
    """The counts of a version since the last period ended."""

    hits: int = 0
    rows: int = 0


@dataclass(slots=True)
class _Pair:
    """Two versions that are compared; `a` is the one that has proved itself."""

    a: str
    b: str
    test: ChallengerTest = field(default_factory=ChallengerTest)
    done: dict[str, _Window] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.done = {self.a: _Window(), self.b: _Window()}

    def evidence(self) -> Evidence:
        found = self.test.comparison()
        return {
            "a": self.a,
            "b": self.b,
            "verdict": found.verdict,
            "for_better": found.for_better,
            "for_worse": found.for_worse,
            "decides_at": found.decides_at,
            "hits_a": found.hits_a,
            "n_a": found.n_a,
            "hits_b": found.hits_b,
            "n_b": found.n_b,
        }


class Versions:
    """The versions of one model. Pure: events and people's words in, decisions out.

    >>> versions = Versions(gate="challenger")
    >>> [decision.kind for decision in versions.appeared("1", at=0.0) + versions.appeared("2", at=60.0)]
    ['went live']
    >>> while versions.live == "1":
    ...     decisions = versions.window("1", hits=170, n=200, at=90.0) + versions.window("2", hits=184, n=200, at=90.0)
    >>> decisions[0].kind, versions.live
    ('promoted', '2')
    """

    def __init__(self, *, gate: Gate = None, on_worse: OnWorse = "flag", memory: VersionsRecord | None = None) -> None:
        self._gate = gate
        self._on_worse = on_worse
        self._rows: dict[str, VersionRow] = {}
        self._before: list[str] = []  # versions that were live, the newest last: what a rollback returns to
        self._pair: _Pair | None = None
        if memory is not None:
            self._remember(memory)

    @property
    def live(self) -> str | None:
        """Return the live version; None before the first event."""
        return self._first("live")

    @property
    def candidate(self) -> str | None:
        """Return the version that waits for its promotion; None if there is none."""
        return self._first("candidate")

    def _first(self, state: State) -> str | None:
        return next((name for name, row in self._rows.items() if row["state"] == state), None)

    def state_of(self, version: str) -> State | None:
        """Return the state of a version; None for one that has never logged, nor been announced."""
        row = self._rows.get(version)
        return None if row is None else row["state"]

    def is_new(self, version: str) -> bool:
        """Return whether the next event of a version would be its first."""
        return self.state_of(version) in {None, "registered"}

    def compares(self, version: str) -> bool:
        """Return whether a version is one of the two that are compared now."""
        return self._pair is not None and version in self._pair.done

    def rows(self) -> list[VersionRow]:
        """Return all versions, in the order in which they appeared; a running comparison shows at its newer version."""
        shown = [row.copy() for row in self._rows.values()]
        for row in shown:
            if self._pair is not None and row["version"] == self._pair.b:
                row["evidence"] = self._pair.evidence()
        return shown

    # --- events

    def appeared(self, version: str, *, at: float) -> list[Decision]:
        """Take the first event of a version, at event time `at`; nothing for one that is known."""
        if not self.is_new(version):
            return []
        live, candidate = self.live, self.candidate
        self._rows.pop(version, None)  # in the order of the first events
        self._rows[version] = {"version": version, "state": "candidate", "since": at, "evidence": None}
        self._forget_old()
        if live is not None and self._gate is not None:
            if candidate is not None:
                self._set(candidate, "former", at, None if self._pair is None else self._pair.evidence())
            self._compare(None)
            return []
        return [self._go_live("went live", version, at)]

    def announced(self, version: str, *, at: float) -> bool:
        """Take a version that a registry has; return False for one that is known. Its first event decides as ever."""
        if version in self._rows:
            return False
        self._rows[version] = {"version": version, "state": "registered", "since": at, "evidence": None}
        self._forget_old()
        return True

    def follow(self, version: str, *, at: float, signed: Signature = NOBODY) -> list[Decision]:
        """Make the version live to which the registry's alias points; nothing where it is live already.

        Raises:
            KeyError: the version was neither logged nor announced.
        """
        if self.live is None and version in self._rows:
            return [self._signed(self._go_live("went live", version, at), signed)]
        return [] if self.live == version else [self.promote(version, at=at, signed=signed)]

    def window(self, version: str, *, hits: int, n: int, at: float) -> list[Decision]:
        """Take one window of a version: `hits` of its `n` rows were right."""
        pair = self._pair
        if pair is None or version not in pair.done:
            return []
        done = pair.done[version]
        done.hits += hits
        done.rows += n
        a, b = pair.done[pair.a], pair.done[pair.b]
        if not (a.rows and b.rows):
            return []
        verdict = pair.test.update(hits_a=a.hits, n_a=a.rows, hits_b=b.hits, n_b=b.rows)
        pair.done = {pair.a: _Window(), pair.b: _Window()}
        return [] if verdict == "undecided" else self._decided(pair, at)

    def _decided(self, pair: _Pair, at: float) -> list[Decision]:
        evidence = pair.evidence()
        self._pair = None
        better = evidence["verdict"] == "better"
        if self.state_of(pair.b) == "candidate" and self._gate == "registry":
            self._rows[pair.b]["evidence"] = evidence
            return []
        if self.state_of(pair.b) == "candidate":
            if better:
                return [self._go_live("promoted", pair.b, at, evidence)]
            self._set(pair.b, "former", at, evidence)
            return [Decision("rejected", pair.b, pair.a, evidence)]
        self._rows[pair.b]["evidence"] = evidence
        if better:
            return []
        if self._on_worse == "rollback":
            return [self._roll_back(at, evidence)]
        return [Decision("flagged", pair.b, pair.a, evidence)]

    # --- people

    def promote(self, version: str, *, at: float, signed: Signature = NOBODY) -> Decision:
        """Make a version live because a person says so.

        Raises:
            KeyError: the version has never logged, nor been announced by a registry.
            ValueError: it is live already.
        """
        if version not in self._rows:
            raise KeyError(f"version must be one that has logged something, got {version!r}")
        if self.live == version:
            raise ValueError(f"version must not be live already, got {version!r}")
        evidence = self._pair.evidence() if self._pair is not None and self._pair.b == version else None
        return self._signed(self._go_live("promoted", version, at, evidence), signed)

    def rollback(self, *, at: float, signed: Signature = NOBODY) -> Decision:
        """Return to the version that was live before, because a person says so.

        Raises:
            ValueError: no version was live before.
        """
        if not self._before:
            raise ValueError(f"rollback needs a version that was live before, got only {self.live!r}")
        return self._signed(self._roll_back(at, None), signed)

    # --- changes

    def _signed(self, decision: Decision, signed: Signature) -> Decision:
        """Note who decided, with the version and with the decision."""
        if signed == NOBODY:
            return decision
        row = self._rows[decision.version]
        row["by"], row["comment"] = signed
        return replace(decision, signed=signed)

    def _roll_back(self, at: float, evidence: Evidence | None) -> Decision:
        left = self.live
        back = self._before.pop()
        if left is not None:
            self._set(left, "former", at, evidence)
        self._set(back, "live", at, evidence)
        self._compare(None)
        return Decision("rolled back", back, left, evidence)

    def _go_live(self, kind: Kind, version: str, at: float, evidence: Evidence | None = None) -> Decision:
        over = self.live
        if over is not None:
            self._set(over, "former", at, self._rows[over]["evidence"])
            self._before = [name for name in self._before if name not in {over, version}] + [over]
        self._set(version, "live", at, evidence)
        proved = evidence is not None and evidence["verdict"] == "better"
        self._compare(None if proved else over)
        return Decision(kind, version, over, evidence)

    def _compare(self, before: str | None) -> None:
        """Compare the live version with the candidate; without one, with `before`, which may go on logging alongside."""
        live, candidate = self.live, self.candidate
        if live is not None and candidate is not None:
            self._pair = _Pair(live, candidate)
        elif live is not None and before is not None:
            self._pair = _Pair(before, live)
        else:
            self._pair = None

    def _set(self, version: str, state: State, at: float, evidence: Evidence | None) -> None:
        self._rows[version] = {"version": version, "state": state, "since": at, "evidence": evidence}

    def _forget_old(self) -> None:
        kept = {self.live, *self._before[-1:], *(self._pair.done if self._pair is not None else ())}
        for name in [name for name in self._rows if name not in kept][: max(len(self._rows) - MAX_VERSIONS, 0)]:
            del self._rows[name]
            self._before = [each for each in self._before if each != name]

    # --- memory

    def memory(self) -> VersionsRecord:
        """Return everything that a successor needs."""
        pair = self._pair
        return {
            "rows": list(self._rows.values()),
            "before": list(self._before),
            "pair": None if pair is None else [pair.a, pair.b],
            "test": None if pair is None else pair.test.state(),
            "pending": [] if pair is None else [[done.hits, done.rows] for done in pair.done.values()],
        }

    def _remember(self, memory: VersionsRecord) -> None:
        self._rows = {row["version"]: row for row in memory["rows"]}
        self._before = list(memory["before"])
        if memory["pair"] is not None and memory["test"] is not None:
            a, b = memory["pair"]
            pair = self._pair = _Pair(a, b)
            pair.test.restore(memory["test"])
            pair.done = {name: _Window(*done) for name, done in zip((a, b), memory["pending"], strict=True)}
