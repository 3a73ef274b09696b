"""The demo's picture: the year week by week, the static model and the closed loop, with versions, alarms and retrains."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from drivers.demo import flights as fl
from drivers.demo.flight_year import Year

WEEK_S: Final = 7 * fl.DAY_S
_LABEL_S: Final = 10 * fl.DAY_S  # of the year, the width of a version's name and its mark
STATIC: Final = "#9a9a9a"
CLOSED: Final = "#0b6e99"
ALARM: Final = "#d1495b"
BANDS: Final = ("#e8f1f5", "#ffffff")
_METRICS: Final = ("auc", "calibration")


def draw(year: Year, figures: Mapping[str, Any], paths: Iterable[Path]) -> None:
    """Draw the year to each path (PNG, SVG, ... by its ending)."""
    style = {
        "font.size": 9.5,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "svg.fonttype": "none",
        "axes.titlesize": 10,
    }
    with mpl.rc_context(style):
        figure = Figure(figsize=(11.0, 8.2), layout="constrained")
        heights = {"height_ratios": [3.0, 3.0, 2.2, 1.25]}
        axes: Sequence[Axes] = figure.subplots(4, 1, sharex=True, gridspec_kw=heights)
        _weekly(axes[0], year, fl.auc, "AUC\n(higher is better)")
        _weekly(axes[1], year, fl.log_loss, "log loss\n(lower is better)")
        _weekly(axes[2], year, _calibration, "calibration\n(0 is right)")
        axes[2].axhline(0.0, color="#444444", linewidth=0.7)
        _events(axes[3], figures, year)
        for each in axes:
            _bands(each, figures, year)
            each.grid(axis="y", color="#dddddd", linewidth=0.6)
            each.set_axisbelow(True)
        axes[3].grid(visible=False)
        _calendar(axes[3], year)
        axes[1].legend(loc="upper left", frameon=False, handlelength=1.3, borderaxespad=0.2)
        count = figures["retrains"]
        retrains = f"{count} retrain{'' if count == 1 else 's'}"
        auc, loss = ((figures[f"{metric}_static"], figures[f"{metric}_closed_loop"]) for metric in ("auc", "log_loss"))
        figure.suptitle(
            f"Will a flight from New York be late? {figures['flights']:,} flights of 2013, week by week\n"
            f"the model of January: AUC {auc[0]:.3f}, log loss {loss[0]:.3f}; "
            f"the closed loop, {retrains}: AUC {auc[1]:.3f}, log loss {loss[1]:.3f}",
            fontsize=12,
        )
        for path in paths:
            figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)


def _calibration(late: fl.Mask, probability: fl.Floats) -> float:
    return float(late.mean() - probability.mean())


def _weekly(axes: Axes, year: Year, of: Any, label: str) -> None:
    start_s = fl.day(31)
    middles, values = [], []
    while start_s < year.until_s:
        week = year.flights.between(start_s, min(start_s + WEEK_S, year.until_s))
        if week.stop - week.start >= 1000:  # a rest of a day would only be noise
            late = year.flights.late[week]
            middles.append(_moment(start_s + WEEK_S / 2))
            values.append((of(late, year.static[week]), of(late, year.closed[week])))
        start_s += WEEK_S
    static, closed = np.array(values, dtype=float).T
    axes.plot(middles, static, color=STATIC, linewidth=1.8, label="static: the model of January")
    axes.plot(middles, closed, color=CLOSED, linewidth=2.2, label="closed loop")
    axes.set_ylabel(label)


def _events(axes: Axes, figures: Mapping[str, Any], year: Year) -> None:
    """Draw one row a watched metric with its alarms; at the top, which version was live."""
    rows = {metric: 1.0 - number for number, metric in enumerate(_METRICS)}
    seen: set[str] = set()
    for episode in figures["episodes"]:
        for number, alarm in enumerate(episode["alarms"]):
            first = number == 0
            label = "alarm that opened an episode" if first else "further alarm of it"
            axes.plot(
                [_moment(alarm["time"])],
                [rows.get(alarm["metric"], 0.0)],
                linestyle="none",
                marker="v" if first else "|",
                color=ALARM,
                markersize=9 if first else 7,
                label=None if label in seen else label,
                zorder=3,
            )
            seen.add(label)
    for version in figures["versions"][1:]:
        label = "retrained, new version live"
        axes.plot(
            [_moment(version["live"])],
            [2.0],
            linestyle="none",
            marker="D",
            color=CLOSED,
            markersize=6,
            label=None if label in seen else label,
            zorder=3,
        )
        seen.add(label)
    ends = [version["live"] for version in figures["versions"][1:]] + [year.until_s]
    for version, end_s in zip(figures["versions"], ends, strict=True):
        narrow = end_s - version["live"] < _LABEL_S  # no space between two marks: next to the second
        at_s = end_s + 2 * fl.DAY_S if narrow else (version["live"] + end_s) / 2
        axes.text(_moment(at_s), 2.0, version["version"], ha="left" if narrow else "center", va="center", color="#333333")
    axes.set_yticks([2.0, *rows.values()], ["version", *rows])
    axes.set_ylim(-0.6, 2.6)
    if seen:
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.28), ncols=3, frameon=False)


def _bands(axes: Axes, figures: Mapping[str, Any], year: Year) -> None:
    ends = [version["live"] for version in figures["versions"][1:]] + [year.until_s]
    for number, (version, end_s) in enumerate(zip(figures["versions"], ends, strict=True)):
        axes.axvspan(_moment(version["live"]), _moment(end_s), color=BANDS[number % 2], linewidth=0, zorder=0)
        if number:
            axes.axvline(_moment(version["live"]), color=CLOSED, linewidth=0.8, linestyle=(0, (3, 3)), zorder=1)


def _calendar(axes: Axes, year: Year) -> None:
    from matplotlib.dates import DateFormatter, MonthLocator  # only where it is drawn

    axes.xaxis.set_major_locator(MonthLocator())
    axes.xaxis.set_major_formatter(DateFormatter("%b"))
    axes.set_xlim(_moment(fl.day(31)), _moment(year.until_s))


def _moment(at_s: float) -> Any:
    return np.datetime64(datetime.fromtimestamp(at_s - 5 * 3600, tz=UTC).replace(tzinfo=None))
