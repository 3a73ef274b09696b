"""The picture of a what-if: each model's watched metric, and below it what each configuration made of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from actors.rehearsal import Outcome

VALUE: Final = "#9a9a9a"
LEVEL: Final = "#444444"
ALARM: Final = "#d1495b"
ORDER: Final = "#0b6e99"
_MOST_MODELS: Final = 6
_SMOOTH: Final = 50  # values behind one point of the line


def draw(
    outcomes: Mapping[str, Mapping[str, Outcome]], values: Mapping[str, Sequence[tuple[str, float, float]]], path: Path
) -> None:
    """Draw the first models to `path` (PNG, SVG, ... by its ending); `values` are (metric, time, value) by model."""
    models = list(outcomes)[:_MOST_MODELS]
    style = {"font.size": 9.5, "axes.spines.top": False, "axes.spines.right": False, "svg.fonttype": "none"}
    with mpl.rc_context(style):
        figure = Figure(figsize=(11.0, 3.6 * len(models)), layout="constrained")
        axes = np.atleast_1d(figure.subplots(2 * len(models), 1, gridspec_kw={"height_ratios": [3.0, 1.0] * len(models)}))
        for number, model in enumerate(models):
            above, below = axes[2 * number], axes[2 * number + 1]
            _metric(above, model, values[model])
            _decisions(below, outcomes[model])
            below.sharex(above)
            above.tick_params(labelbottom=False)
        handles, labels = axes[1].get_legend_handles_labels()
        if handles:
            figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
        figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)


def _metric(axes: Axes, model: str, rows: Sequence[tuple[str, float, float]]) -> None:
    axes.set_title(model, loc="left")
    if not rows:
        return
    times = [_moment(at_s) for _, at_s, _ in rows]
    found = np.array([value for _, _, value in rows])
    axes.plot(times, found, linestyle="none", marker=".", markersize=2, color=VALUE, alpha=0.5)
    if len(found) >= _SMOOTH:
        level = np.convolve(found, np.full(_SMOOTH, 1.0 / _SMOOTH), mode="valid")
        axes.plot(times[_SMOOTH - 1 :], level, color=LEVEL, linewidth=1.3)
    axes.set_ylabel(rows[0][0])


def _decisions(axes: Axes, pair: Mapping[str, Outcome]) -> None:
    """Draw a row for each configuration: alarms, orders, and what had to wait."""
    rows = {name: float(len(pair) - number) for number, name in enumerate(pair)}
    for name, row in rows.items():
        axes.axhline(row, color="#dddddd", linewidth=0.8, zorder=0)
        seen = pair[name].episodes
        ordered = [each for each in seen if each.ordered_at is not None]
        marks: dict[str, tuple[list[float | None], str, str, int]] = {
            "alarm": ([each.opened_at for each in seen], "v", ALARM, 8),
            "retrain": ([each.started_at for each in ordered if each.started_at is not None], "D", ORDER, 5),
            "never got an order": ([each.opened_at for each in seen if each.ordered_at is None], "x", "#000000", 7),
        }
        for label, (at, marker, color, size) in marks.items():
            first = row == max(rows.values())
            shift = 0.18 if marker == "v" else -0.18
            axes.plot(
                [_moment(float(each or 0.0)) for each in at],
                [row + shift] * len(at),
                linestyle="none",
                marker=marker,
                color=color,
                markersize=size,
                label=label if first else None,
            )
    axes.set_yticks(list(rows.values()), [_named(name, pair[name]) for name in rows])
    axes.set_ylim(0.4, len(rows) + 0.6)


def _named(name: str, outcome: Outcome) -> str:
    """Return a configuration's name, with the errors that were lost under it where that is known."""
    return name if outcome.errors_lost is None else f"{name}\n{outcome.errors_lost:,.0f} errors lost"


def _moment(at_s: float) -> Any:
    return np.datetime64(datetime.fromtimestamp(at_s, tz=UTC).replace(tzinfo=None))
