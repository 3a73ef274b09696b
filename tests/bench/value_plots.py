"""Draws what the value benchmark measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.bench.drawing import Drawing, drawn

_COLOURS = {"shortfall": "#d1495b", "budget": "#edae49", "river ADWIN": "#00798c", "river DDM": "#52b2cf"}
_OURS_OLD = "#30638e"
_GREY = "#8d96a3"


def draw(results: dict[str, Any], folder: Path) -> list[Path]:
    """Draw every section there are results of; return the files written."""
    drawings: dict[str, tuple[Drawing, Any]] = {
        "value-rules": (_rules, results.get("summary")),
        "value-streams": (_streams, results.get("scores")),
        "value-stories": (_stories, results.get("stories")),
    }
    return drawn({name: (function, found) for name, (function, found) in drawings.items() if found}, folder)


def _colour(rule: str) -> str:
    return _COLOURS.get(rule, _OURS_OLD if rule.startswith("alarm") else _GREY)


def _rules(plt: Any, summaries: dict[str, list[dict[str, Any]]]) -> Any:
    """Draw gain and regret of each rule on the real streams."""
    rows = summaries.get("real streams") or next(iter(summaries.values()))
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), sharey=True)
    names = [row["rule"] for row in rows]
    compared = [row for row in rows if row["rule"] not in {"never", "optimum in hindsight"} and "calendar" not in row["rule"]]
    left.barh(
        [names.index(row["rule"]) for row in compared],
        [row["gain"] for row in compared],
        xerr=[row["gain_error"] for row in compared],
        color=[_colour(row["rule"]) for row in compared],
        ecolor="#444444",
    )
    left.axvline(0, color="#444444", lw=0.8)
    left.set_xlabel("gain over calendars with as many retrains, points")
    right.barh(
        range(len(rows)),
        [row["regret"] for row in rows],
        xerr=[row["regret_error"] for row in rows],
        color=[_colour(row["rule"]) for row in rows],
        ecolor="#444444",
    )
    right.set_xlabel("regret over the best plan in hindsight, points")
    left.set_yticks(range(len(names)), names)
    return figure


def _streams(plt: Any, scores: list[dict[str, Any]]) -> Any:
    """Draw the gain of the rule on each stream, one mark for each model and price."""
    own = [score for score in scores if score["rule"] == "shortfall"]
    means: dict[str, list[float]] = {}
    for score in own:
        means.setdefault(score["stream"], []).append(score["gain"])
    names = sorted(means, key=lambda name: sum(means[name]) / len(means[name]))
    figure, axis = plt.subplots(figsize=(9, 0.28 * len(names) + 1.2))
    for i, name in enumerate(names):
        axis.plot(means[name], [i] * len(means[name]), "o", ms=4, color="#d1495b", alpha=0.45, mec="none")
        axis.plot([sum(means[name]) / len(means[name])], [i], "|", ms=16, mew=2.5, color="#222222")
    axis.axvline(0, color="#444444", lw=0.8)
    axis.set_yticks(range(len(names)), names)
    axis.set_xlabel("gain over calendars with as many retrains, points (a mark for each model and price; the bar is the mean)")
    return figure


def _stories(plt: Any, stories: list[dict[str, Any]]) -> Any:
    """Draw some streams: the accuracy of the first model and under the rule, with its retrains."""
    shown = sorted(stories, key=lambda story: sum(story["static"]) - sum(story["rule"]))[:6]
    figure, axes = plt.subplots(len(shown), 1, figsize=(9, 1.7 * len(shown)), squeeze=False)
    for axis, story in zip(axes[:, 0], shown, strict=True):
        axis.plot(story["static"], color=_GREY, lw=1, label="never retrained")
        axis.plot(story["rule"], color="#d1495b", lw=1.2, label="retrained when it pays (price 1%)")
        for point in story["retrains"]:
            axis.axvline(point, color="#d1495b", lw=0.6, ls=":")
        axis.set_title(f"{story['stream']}, {story['model']} model", loc="left", fontsize=9)
        axis.set_ylabel("accuracy")
    axes[0, 0].legend(frameon=False, ncols=2, fontsize=8, loc="lower left")
    axes[-1, 0].set_xlabel("sixths of a training set since deployment")
    figure.tight_layout()
    return figure
