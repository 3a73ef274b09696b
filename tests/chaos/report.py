"""The table of a run: what must hold, what was found, and whether it holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import numpy as np

from tests.chaos.checker import Findings
from tests.chaos.faults import ACTOR, FREEZE, NODE_KILL, Fault, counts

_LIMITS_S: Final = {ACTOR: 5.0, NODE_KILL: 10.0, FREEZE: 30.0}
COLUMNS: Final = ("figure", "found", "must hold", "holds")


@dataclass(slots=True)
class Report:
    """One run."""

    store: str
    seed: int
    seconds: float
    findings: Findings
    faults: list[Fault]
    missed: list[str]
    zombies_tried: int
    zombies_accepted: int
    problems: list[str] = field(default_factory=list)

    def rows(self) -> list[tuple[str, str, str, bool]]:
        """Return the table's rows: figure, what was found, what must hold, whether it does."""
        found = self.findings
        stale = found.stale + self.zombies_accepted + (found.foreign if not self.zombies_accepted else 0)
        rows: list[tuple[str, str, str, bool]] = [
            (
                "acknowledged events lost / counted twice",
                f"{found.lost} / {found.twice} of {found.acknowledged:,}",
                "0 / 0",
                found.lost == found.twice == found.miscounted == 0,
            ),
            (
                "retrain orders lost / launched twice / launched within a cooldown",
                f"{found.orders_lost} / {found.launched_twice} / {found.within_cooldown} of {found.orders}",
                "0 / 0 / 0",
                found.orders_lost == found.launched_twice == found.within_cooldown == 0,
            ),
            (
                "commits accepted from a stale epoch",
                f"{stale}, zombies tried {self.zombies_tried}",
                "0",
                stale == 0,
            ),
        ]
        for kind, what in ((ACTOR, "actor killed"), (NODE_KILL, "node killed"), (FREEZE, "actor or node frozen")):
            taken = latencies(self.faults, kind)
            if taken:
                limit = _LIMITS_S[kind]
                p99 = float(np.quantile(taken, 0.99))
                told = f"p50 {np.median(taken):.1f} s, p99 {p99:.1f} s, longest {max(taken):.1f} s ({len(taken)})"
                crossed = [f.latency_s for f in self.faults if f.kind == kind and f.crossed and f.latency_s is not None]
                if crossed:
                    told += f"; alongside another fault ({len(crossed)}): longest {max(crossed):.1f} s"
                rows.append((f"{what} -> next acknowledgement of every model", told, f"p99 {limit:g} s", p99 <= limit))
        rows += [("what went wrong besides", problem, "nothing", False) for problem in self.problems]
        return rows

    @property
    def breached(self) -> bool:
        """Return whether a promise was broken: events, orders, epochs; not whether it took too long."""
        return not all(holds for _, _, _, holds in self.rows()[:3]) or bool(self.problems)

    @property
    def holds(self) -> bool:
        """Return whether everything holds."""
        return all(holds for _, _, _, holds in self.rows())

    def title(self) -> str:
        """Say what was done."""
        done = ", ".join(f"{count} {kind}s" for kind, count in counts(self.faults).items())
        return f"{self.store}, seed {self.seed}, {self.seconds:.0f} s: {done or 'no faults'}"

    def plain(self) -> dict[str, Any]:
        """Return everything as JSON can hold it."""
        return {
            "store": self.store,
            "seed": self.seed,
            "seconds": self.seconds,
            "holds": self.holds,
            "breached": self.breached,
            "rows": [dict(zip(COLUMNS, row, strict=True)) for row in self.rows()],
            "faults": counts(self.faults),
            "timeline": [asdict(fault) for fault in self.faults],
            "boundaries_not_reached": sorted(set(self.missed)),
            **asdict(self.findings),
        }


def latencies(faults: Sequence[Fault], kind: str) -> list[float]:
    """Return the seconds of every fault of a kind that ended before the next one struck."""
    return [fault.latency_s for fault in faults if fault.kind == kind and fault.latency_s is not None and not fault.crossed]
