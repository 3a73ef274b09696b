"""What a user holds of a study: its trials, the best of them, exports and pictures. Needs no running system."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from actors.tuning.rules.book import COMPLETED, PRUNED


@dataclass(frozen=True, slots=True)
class TrialRecord:
    """One trial. `seconds` is the duration of its last attempt, `finished_at` seconds since the epoch, `node` Ray's node id."""

    id: int
    params: dict[str, Any]
    value: float | None
    state: str
    attempts: int
    error: str | None
    seconds: float | None
    node: str | None
    finished_at: float | None


class Study:
    """A study as it was when it was last read; `refresh` reads it again. Its trials are read when they are first asked for."""

    def __init__(self, read_summary: Callable[[], dict[str, Any]], read_trials: Callable[[], list[dict[str, Any]]]) -> None:
        """Read the study: its summary, later its trials, as plain values."""
        self._read_summary = read_summary
        self._read_trials = read_trials
        self._trials: list[TrialRecord] | None = None
        self._summary = read_summary()

    def refresh(self) -> Study:
        """Read the study again."""
        self._summary, self._trials = self._read_summary(), None
        return self

    @property
    def trials(self) -> list[TrialRecord]:
        """Every trial that was ever handed out, in their order."""
        if self._trials is None:
            self._trials = [TrialRecord(**trial) for trial in self._read_trials()]
        return self._trials

    @property
    def id(self) -> str:
        """The study's id in its store."""
        return str(self._summary["study"])

    @property
    def name(self) -> str:
        """The name by which it is found and resumed."""
        return str(self._summary["name"])

    @property
    def state(self) -> str:
        """RUNNING, DONE, STOPPED or FAILED."""
        return str(self._summary["state"])

    @property
    def error(self) -> str | None:
        """Why it FAILED."""
        return None if self._summary["error"] is None else str(self._summary["error"])

    @property
    def mode(self) -> str:
        """`min` or `max`."""
        return str(self._summary["mode"])

    @property
    def seed(self) -> int:
        """The seed that decided the parameters; given or drawn."""
        return int(self._summary["seed"])

    @property
    def space(self) -> dict[str, Any]:
        """The space that was searched."""
        return dict(self._summary["space"])

    @property
    def best(self) -> TrialRecord:
        """Give the completed trial with the best value, the earliest of equals; LookupError where none has completed."""
        found = self._best_of(trial for trial in self.trials if trial.state == COMPLETED)
        if found is None:
            errors = [trial.error for trial in self.trials if trial.error]
            why = f"; the last error: {errors[-1].splitlines()[0]}" if errors else ""
            raise LookupError(f"study {self.name!r} ({self.state}) has no completed trial among {len(self.trials)}{why}")
        return found

    def __repr__(self) -> str:
        done, trials, best = self._summary["done"], self._summary["trials"], self._summary["best_value"]
        found = "no value yet" if best is None else f"best {best:.6g}"
        return f"Study({self.name!r}, {self.state}, {done} of {trials} trials, {found})"

    def counts(self) -> dict[str, int]:
        """Count the trials by state."""
        counts: dict[str, int] = {}
        for trial in self.trials:
            counts[trial.state] = counts.get(trial.state, 0) + 1
        return counts

    def best_so_far(self) -> list[tuple[int, float]]:
        """Give (trial, best value up to it) in the order of trials, completed ones only."""
        curve: list[tuple[int, float]] = []
        for trial in self.trials:
            if trial.state == COMPLETED and trial.value is not None:
                better = max if self.mode == "max" else min
                curve.append((trial.id, better(trial.value, curve[-1][1]) if curve else trial.value))
        return curve

    def document(self) -> dict[str, Any]:
        """Give all of it as plain values."""
        summary = {key: value for key, value in self._summary.items() if key != "workers"}
        return summary | {"trials": [asdict(trial) for trial in self.trials]}

    def to_json(self, path: str | Path) -> Path:
        """Write `document()` to `path`."""
        target = Path(path)
        target.write_text(json.dumps(self.document(), indent=2) + "\n", encoding="utf-8")
        return target

    def to_csv(self, path: str | Path) -> Path:
        """Write a line per trial to `path`: the parameters in columns `params.NAME`, what is no number or text as JSON."""
        target = Path(path)
        names = list(self.space)
        fixed = ["id", "state", "value", "attempts", "seconds", "node", "finished_at", "error"]
        with target.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow([*fixed[:3], *(f"params.{name}" for name in names), *fixed[3:]])
            for trial in self.trials:
                cells = asdict(trial)
                first, rest = [cells[name] for name in fixed[:3]], [cells[name] for name in fixed[3:]]
                writer.writerow([*first, *(_cell(trial.params[name]) for name in names), *rest])
        return target

    def plot(self, path: str | Path) -> Path:
        """Draw best-so-far, and the value by each parameter, to `path` (PNG, SVG, PDF by its ending)."""
        from actors.tuning.plot import draw  # noqa: PLC0415  matplotlib is an extra

        return draw(self, Path(path))

    def _best_of(self, trials: Iterable[TrialRecord]) -> TrialRecord | None:
        sign = -1.0 if self.mode == "max" else 1.0
        valued = [trial for trial in trials if trial.value is not None and trial.state != PRUNED]
        return min(valued, key=lambda trial: (sign * (trial.value or 0.0), trial.id), default=None)


def _cell(value: Any) -> str | float:
    return value if isinstance(value, str | int | float) and not isinstance(value, bool) else json.dumps(value)
