"""Prints the output of drivers: tables and progress bars on a terminal, plain lines elsewhere, JSON with `-o json`."""

from __future__ import annotations

import functools
import io
import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from drivers.names import plain

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

Format = Literal["text", "json"]


def ready_streams() -> None:
    """Let a command print whatever its terminal or pipe is: one that is closed swallows, ASCII shows escapes.

    A closed descriptor is occupied first: a database that is opened later would get its number, and what is printed.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: this one
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115  for as long as the process lives
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper) and "utf" not in (stream.encoding or "").lower():
            stream.reconfigure(errors="backslashreplace")


class Output:
    """Prints what a driver found. On `-o json` only `result` prints to standard output, so that a program can read it."""

    def __init__(self, form: Format = "text") -> None:
        self.form: Format = form
        self._results = sys.stdout  # held: `arguments.run` gives standard output to nobody else while a program reads
        self.is_terminal = sys.stdout.isatty()
        # Whether the cursor can be moved: for bars, and for a table in the place of the last.
        self.moves = self.is_terminal and os.environ.get("TERM", "dumb") not in {"dumb", "unknown"}

    @functools.cached_property
    def _console(self) -> Console:
        from rich.console import Console  # 0.05 s, which a pipe is spared

        return Console(highlight=False)

    @property
    def is_json(self) -> bool:
        """Return whether a program reads."""
        return self.form == "json"

    def line(self, text: str = "") -> None:
        """Print one line for a person."""
        if self.is_json:
            return
        if not self.is_terminal:
            print(plain(text))
            return
        from rich.text import Text  # 0.02 s, which a pipe is spared

        self._console.print(Text(plain(text)))

    def raw(self, text: str) -> None:
        """Print a text for another program, such as a shell, exactly as it is."""
        if not self.is_json:
            print(text)

    def note(self, text: str) -> None:
        """Print one line besides the result, to standard error."""
        print(plain(text), file=sys.stderr, flush=True)

    def error(self, text: str) -> None:
        """Say what went wrong: to standard error, and to a program as `{"error": text}`."""
        print(f"error: {plain(text)}", file=sys.stderr, flush=True)
        if self.is_json:
            print(json.dumps({"error": text}), file=self._results)

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Print rows: a table on a terminal, tab-separated lines with a header elsewhere."""
        if self.is_json:
            return
        if not self.is_terminal:
            print("\t".join(columns))
            for row in rows:
                print("\t".join(shown(value) for value in row))
            return
        self._console.print(drawn(title, columns, rows))

    def result(self, value: Any) -> None:
        """Print the result for a program; nothing for a person, who has been told by then."""
        if self.is_json:
            print(
                json.dumps(_strict(value), indent=2 if self.is_terminal else None, default=str), file=self._results, flush=True
            )

    def flush(self) -> None:
        """Flush the output; OSError if it cannot be written, such as on a full disk."""
        self._results.flush()

    @contextmanager
    def progress(self, what: str, total: float | None) -> Iterator[Callable[[float], None]]:
        """Return a function that takes how far it has got; a bar on a terminal, nothing elsewhere."""
        if self.is_json or not self.moves:
            yield lambda _done: None
            return
        # 0.04 s, which a pipe is spared.
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        bar = Progress(TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=self._console)
        with bar:
            task = bar.add_task(what, total=total)
            yield lambda done: bar.update(task, completed=done)

    @contextmanager
    def live(self) -> Iterator[Callable[[Table], None]]:
        """Return a function that puts a new table in the place of the last; for a terminal only."""
        from rich.live import Live  # 0.02 s, which a pipe is spared

        with Live(console=self._console, auto_refresh=False) as screen:
            yield lambda table: screen.update(table, refresh=True)


def _strict(value: Any) -> Any:
    """Return null for values that JSON cannot express: an infinite threshold, a statistic that does not exist yet."""
    if isinstance(value, Mapping):
        return {str(key): _strict(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_strict(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def drawn(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Table:
    """Return the table that a terminal shows."""
    from rich.table import Table  # 0.05 s with the next line, which a pipe is spared
    from rich.text import Text

    table = Table(title=plain(title) or None, title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")  # an id that is cut off cannot be pasted
    for row in rows:
        table.add_row(*(Text(shown(value)) for value in row))
    return table


def shown(value: object) -> str:
    """Return a value as a person reads it in a table, on one line."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 9999.5 or not math.isfinite(value) else f"{value:,.0f}"
    if isinstance(value, Mapping):
        return ", ".join(f"{plain(str(key))}={_within(item)}" for key, item in value.items()) or "-"
    if isinstance(value, (list, tuple)):
        return ", ".join(shown(item) for item in value) or "-"
    return plain(" ".join(str(value).split()))


def _within(value: object) -> str:
    return f"({shown(value)})" if isinstance(value, Mapping) else shown(value)
