"""Draws what the detection benchmark measured."""

from pathlib import Path
from typing import Any

from tests.bench.detection_families import FAMILIES
from tests.bench.drawing import drawn

_COLOURS = {
    "default": "#d1495b",
    "cusum": "#8d96a3",
    "page-hinkley": "#b8bec6",
    "ewma": "#66717e",
    "sliding-window": "#edae49",
    "river ADWIN": "#00798c",
    "river Page-Hinkley": "#52b2cf",
    "river KSWIN": "#a1c181",
    "FOCuS": "#30638e",
}

_BUDGETS = ("#30638e", "#d1495b", "#edae49", "#00798c", "#8d96a3")


def draw(results: dict[str, Any], folder: Path) -> list[Path]:
    """Draw every section there are results of; return the files written."""
    drawings = {"arl": _arl, "delay": _delay, "competitors": _competitors, "real": _real}
    return drawn({f"detection-{name}": (drawings[name], results[name]) for name in drawings if name in results}, folder)


def _arl(plt: Any, rows: list[dict[str, Any]]) -> Any:
    families = [name for name in FAMILIES if any(row["family"] == name for row in rows)]
    nominals = sorted({row["nominal"] for row in rows})
    figure, axis = plt.subplots(figsize=(9, 4.2))
    axis.axhspan(1.0, 2.5, color="#d9ead3", lw=0, label="nominal to 2.5 times")
    for k, nominal in enumerate(nominals):
        of = {row["family"]: row for row in rows if row["nominal"] == nominal}
        shown = [(i, of[family]) for i, family in enumerate(families) if family in of]
        x = [i + 0.7 / max(len(nominals), 3) * (k - (len(nominals) - 1) / 2) for i, _ in shown]
        axis.errorbar(
            x,
            [row["arl0"] / nominal for _, row in shown],
            yerr=[2 * row["error"] / nominal for _, row in shown],
            fmt="o",
            ms=5,
            color=_BUDGETS[k % len(_BUDGETS)],
            label=f"{nominal:,.0f}",
        )
        early = [(xi, row) for xi, (_, row) in zip(x, shown, strict=True) if row["early_arl0"]]
        axis.plot(
            [xi for xi, _ in early],
            [row["early_arl0"] / nominal for _, row in early],
            "x",
            color=_BUDGETS[k % len(_BUDGETS)],
            ms=5,
            alpha=0.7,
        )
    axis.set_yscale("log")
    axis.set_ylim(0.3, 25)
    axis.set_yticks([0.5, 1, 2, 5, 10, 20], ["0.5", "1", "2", "5", "10", "20"])
    axis.axhline(1.0, color="#66717e", lw=0.8)
    axis.set_xticks(range(len(families)), families, rotation=25)
    axis.set_ylabel("events per false alarm / budget")
    axis.set_title(
        "False alarms against the budget: dots with 2 standard errors; crosses: the first 2,000 events", loc="left", fontsize=10
    )
    axis.legend(ncols=6, fontsize=8, loc="lower left", title="false_alarm_every", title_fontsize=8)
    return figure


def _delay(plt: Any, rows: list[dict[str, Any]]) -> Any:
    rows = [row for row in rows if row["before"] == 5000 and row["ratio"] is not None]
    families = [name for name in FAMILIES if any(row["family"] == name for row in rows)]
    figure, axis = plt.subplots(figsize=(9, 4.2))
    shifts = sorted({row["shift"] for row in rows})
    for k, shift in enumerate(shifts):
        of = {row["family"]: row for row in rows if row["shift"] == shift}
        shown = [(i + 0.16 * (k - (len(shifts) - 1) / 2), of[family]) for i, family in enumerate(families) if family in of]
        axis.errorbar(
            [x for x, _ in shown],
            [row["ratio"] for _, row in shown],
            yerr=[2 * row["ratio_error"] for _, row in shown],
            fmt="o",
            ms=5,
            label=f"{shift:g} sd",
            color=plt.get_cmap("viridis")(k / max(len(shifts) - 0.5, 1)),
        )
    axis.axhline(1.0, color="#66717e", lw=0.8)
    axis.axhline(1.35, color="#66717e", lw=0.8, ls=":")
    axis.set_xticks(range(len(families)), families, rotation=25)
    axis.set_ylabel("mean delay / the oracle's")
    axis.set_title("How far from the limit, 5,000 events before the change (dotted: 1.35)", loc="left", fontsize=10)
    axis.set_ylim(0.9, axis.get_ylim()[1] + 0.2)
    axis.legend(fontsize=8, ncols=4, loc="upper left")
    return figure


def _competitors(plt: Any, rows: list[dict[str, Any]]) -> Any:
    rows = [row for row in rows if row["calibrated"]]
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.4))
    for row in rows:
        colour = _COLOURS.get(row["name"], "#000000")
        thick = 2.4 if row["name"] == "default" else 1.2
        shifts = [float(shift) for shift in row["delays"]]
        means = [row["delays"][shift]["mean"] for shift in row["delays"]]
        left.plot(shifts, means, "o-", color=colour, lw=thick, ms=4, label=row["name"])
        families = list(row["arl0"])
        right.plot(
            range(len(families)),
            [row["arl0"][f]["mean"] for f in families],
            "o-",
            color=colour,
            lw=thick,
            ms=4,
            label=row["name"],
        )
        right.set_xticks(range(len(families)), families, rotation=25)
    for axis in (left, right):
        axis.set_yscale("log")
    left.set_xscale("log", base=2)
    left.set_xticks([0.25, 0.5, 1, 2, 4], ["0.25", "0.5", "1", "2", "4"])
    left.set_xlabel("shift in sd")
    left.set_ylabel("mean delay in events")
    left.set_title("Gaussian noise, 500 events before; all calibrated to 10,000", loc="left", fontsize=10)
    right.axhline(10_000, color="#66717e", lw=0.8)
    right.set_ylabel("events per false alarm")
    right.set_title("The same detectors on other streams", loc="left", fontsize=10)
    right.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1.0))
    return figure


def _real(plt: Any, streams: list[dict[str, Any]]) -> Any:
    figure, axes = plt.subplots(len(streams), 1, figsize=(11, 2.6 * len(streams)), squeeze=False)
    for axis, stream in zip(axes[:, 0], streams, strict=True):
        axis.plot(stream["values"], lw=0.6, color="#66717e")
        top = axis.get_ylim()[1]
        for told in stream["annotations"]:
            axis.axvspan(told["start"], told["end"], color="#edae49", alpha=0.35, lw=0)
            axis.text(told["start"], top, told["label"], fontsize=7, va="top", color="#8a5a00")
        for alarm in stream["alarms"]:
            at = alarm["index"]
            axis.axvline(at, color="#d1495b", lw=1.2)
            start = at - alarm["estimated_start"] + 1
            axis.plot([start, at], [alarm["window_mean"]] * 2, color="#d1495b", lw=2)
        axis.set_ylabel(stream["unit"])
        axis.set_title(
            f"{stream['what']}: {len(stream['alarms'])} alarm{'' if len(stream['alarms']) == 1 else 's'}",
            loc="left",
            fontsize=10,
        )
    figure.tight_layout()
    return figure
