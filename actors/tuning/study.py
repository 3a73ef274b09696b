"""A study as its user sees it: its trials, the best of them, exports and pictures. Needs no running system."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

from actors.plain import Json
from actors.replies import StudySummary, TrialRow
from actors.tuning.optuna_export import export
from actors.tuning.plot import draw
from actors.tuning.trial import Trial, best_of, best_so_far


class Study:
    """A study as it was when it was last read; `refresh` reads it again. Its trials are read when they are first asked for.

    Example:
        study = system.tuner.study("churn-lr")
        study.best.params, study.best.value
        study.to_csv("churn.csv")
        study.plot("churn.png")
    """

    def __init__(self, read_summary: Callable[[], StudySummary], read_trials: Callable[[], Sequence[TrialRow]]) -> None:
        """Read the study's summary; its trials are read at their first use."""
        self._read_summary = read_summary
        self._read_trials = read_trials
        self._trials: list[Trial] | None = None
        self._summary = read_summary()

    def refresh(self) -> Self:
        """Read the study again."""
        self._summary, self._trials = self._read_summary(), None
        return self

    @property
    def trials(self) -> list[Trial]:
        """Every trial that was ever handed out, in their order."""
        if self._trials is None:
            self._trials = [Trial(**trial) for trial in self._read_trials()]
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
    def space(self) -> Json:
        """The space that was searched."""
        return dict(self._summary["space"])

    @property
    def best(self) -> Trial:
        """The completed trial with the best value, the earliest of equals; LookupError where none has completed."""
        found = best_of(self.trials, self.mode)
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
        """Return (trial, best value up to it) in the order of trials, completed ones only."""
        return best_so_far(self.trials, self.mode)

    def document(self) -> Json:
        """Return all of it as plain values."""
        summary = {key: value for key, value in self._summary.items() if key not in {"workers", "retry_in_s"}}
        return summary | {"trials": [asdict(trial) for trial in self.trials]}

    def to_json(self, path: str | Path) -> Path:
        """Write `document()` to `path`."""
        target = Path(path)
        target.write_text(json.dumps(self.document(), indent=2) + "\n", encoding="utf-8")
        return target

    def to_csv(self, path: str | Path) -> Path:
        """Write a line for each trial to `path`: parameters in columns `params.NAME`, as JSON what is no number or text."""
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

    def to_optuna(self, storage: str, *, live: bool = False) -> int:
        """Write the trials that have ended to a storage of Optuna's, under the study's name; return how many were new.

        Optuna's dashboard and importances work on it. `live` goes on while the study runs. Takes the extra `optuna`; ValueError
        where it is missing or its storage has another study of that name.

        Example:
            study.to_optuna("sqlite:///optuna.db")   # then: optuna-dashboard sqlite:///optuna.db
        """
        return export(self, storage, live=live)

    def plot(self, path: str | Path) -> Path:
        """Draw best so far, and the value by each parameter, to `path` (PNG, SVG, PDF by its ending; extra `plot`)."""
        return draw(Path(path), name=self.name, space=self.space, trials=self.trials, mode=self.mode)


def _cell(value: Any) -> str | float:
    return value if isinstance(value, str | int | float) and not isinstance(value, bool) else json.dumps(value)
