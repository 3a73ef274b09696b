"""Shows the progress of a study while somebody waits for it: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bar

from actors.replies import StudySummary

_BAR_S: Final = 0.25
_LINE_S: Final = 10.0
_QUIET_S: Final = 25.0
# The rate is that of the last so many seconds, so that it follows what happens now.
_RATE_WINDOW_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a study has got; `trials_per_s` and `left_s` are None until there is something to judge by."""

    name: str
    state: str
    done: int
    trials: int
    running: int
    failed: int
    workers: int
    best_value: float | None
    trials_per_s: float | None
    left_s: float | None

    def line(self) -> str:
        """Return it as one line."""
        best = "no value yet" if self.best_value is None else f"best {self.best_value:.6g}"
        rate = "" if self.trials_per_s is None else f", {self.trials_per_s:.3g} trials/s"
        left = "" if self.left_s is None or self.state != "RUNNING" else f", {_duration(self.left_s)} left"
        failed = f", {self.failed} failed" if self.failed else ""
        return f"{self.name}: {self.done}/{self.trials} trials, {best}{rate}{failed}{left}"


class Watch:
    """Takes summaries of a study as they come and shows them by `show`; `clock` gives seconds that never go back."""

    def __init__(
        self, show: Callable[[Progress], None] | None, patience_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.patience_s = patience_s  # how long to wait for the next summary
        self._show = show
        self._clock = clock
        self._marks: list[tuple[float, int]] = []

    def take(self, summary: StudySummary) -> None:
        """Show one summary."""
        if self._show is not None:
            self._show(self._progress(summary, self._clock()))

    def _progress(self, summary: StudySummary, now_s: float) -> Progress:
        counts, done = summary["counts"], summary["done"]
        self._marks.append((now_s, done))
        while len(self._marks) > 2 and now_s - self._marks[0][0] > _RATE_WINDOW_S:
            del self._marks[0]
        (since_s, before), rate = self._marks[0], None
        if done > before and now_s > since_s:
            rate = (done - before) / (now_s - since_s)
        return Progress(
            name=summary["name"],
            state=summary["state"],
            done=done,
            trials=summary["trials"],
            running=counts["RUNNING"],
            failed=counts["FAILED"] + counts["TIMED_OUT"],
            workers=summary["workers"],
            best_value=summary["best_value"],
            trials_per_s=rate,
            left_s=None if rate is None else (summary["trials"] - done) / rate,
        )


@contextmanager
def watching(name: str, progress: bool | Callable[[Progress], None] | None) -> Iterator[Watch]:  # noqa: FBT001  as users pass it on
    """Show a study for a while.

    `progress`: None draws a bar on a terminal and nothing elsewhere, True writes plain lines elsewhere, False shows nothing,
    a function gets a Progress about four times a second.
    """
    if callable(progress):
        yield Watch(progress, _BAR_S)
    elif progress is not False and sys.stderr.isatty():
        with _bar(name) as show:
            yield Watch(show, _BAR_S)
    elif progress:
        yield Watch(lambda now: print(now.line(), file=sys.stderr, flush=True), _LINE_S)  # noqa: T201  asked for
    else:
        yield Watch(None, _QUIET_S)


@contextmanager
def _bar(name: str) -> Iterator[Callable[[Progress], None]]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[line]}"))
    with Bar(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(name, total=None, line="")

        def show(now: Progress) -> None:
            bar.update(task, total=now.trials, completed=now.done, line=now.line().partition("trials, ")[2])

        yield show


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
