"""A report as one HTML page, without scripts or external resources."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import jinja2
from markupsafe import Markup

from actors.replies import Episode
from drivers.explain import in_words
from drivers.report.facts import Facts, ModelFacts
from drivers.report.figure import Bar, Curve, Mark, Row, bars, line_chart, timeline
from drivers.report.series import Series
from drivers.status import judged_in_words, rule_in_words

_HERE: Final = Path(__file__).parent
_MOST_BARS: Final = 30
_LAUNCHED: Final = ("running", "done", "failed", "dead", "expired")


@dataclass(frozen=True, slots=True)
class Tile:
    """One number of the summary, and what it means."""

    value: str
    name: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Section:
    """One model in the report."""

    facts: ModelFacts
    lines: list[str]
    charts: list[tuple[str, Markup]]
    stories: list[list[str]]


def render(facts: Facts) -> str:
    """Return the page.

    Example:
        Path("report.html").write_text(render(read(store, "fraud")))
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["at"] = _at
    return environment.get_template("page.html").render(
        facts=facts,
        tiles=_tiles(facts),
        timeline=Markup(_timeline(facts)),  # noqa: S704  made by figure, which escapes
        earned=_earned(facts),
        sections=[_section(number, each, facts) for number, each in enumerate(facts.models)],
        style=Markup((_HERE / "page.css").read_text(encoding="utf-8")),  # noqa: S704  a file of ours
    )


def _tiles(facts: Facts) -> Iterator[Tile]:
    orders = [order for model in facts.models for order in model.orders]
    launched = [order for order in orders if order["state"] in _LAUNCHED]
    judged = [order for order in orders if order["saved"] is not None]
    firing = [model.name for model in facts.models if model.seen["state"] in {"drifting", "no_data"}]
    count = len(facts.models) + facts.others
    yield Tile(str(count), "model" if count == 1 else "models", f"{len(firing)} drifting or silent now")
    yield Tile(
        str(sum(model.episodes for model in facts.models)),
        "episodes",
        "in which a model drifted, went silent or lost its price",
    )
    failed = sum(order["state"] in {"failed", "dead"} for order in launched)
    yield Tile(str(len(launched)), "retrains", f"{failed} failed; {len(orders) - len(launched)} were skipped or wait")
    if judged:
        saved = sum(order["saved"] or 0.0 for order in judged)
        error = sum((order["saved_error"] or 0.0) ** 2 for order in judged) ** 0.5
        paid = sum(order["verdict"] == "paid" for order in judged)
        yield Tile(f"{saved:,.0f} ± {error:,.0f}", "errors saved", f"{paid} of {len(judged)} retrains with a verdict paid")


def _timeline(facts: Facts) -> str:
    span = facts.since_s, max(facts.until_s, facts.since_s + 1.0)
    rows = [
        Row(
            model.name,
            [(each["time"], _end_of(each, model, span[1]), f"{each['metric']}: {each['id']}") for each in model.records],
            _retrains(model),
        )
        for model in facts.models
    ]
    return timeline("timeline", "When each model drifted, and when it was retrained", rows, span)


def _end_of(record: Episode, model: ModelFacts, until_s: float) -> float:
    """Return when an episode ended by the time of the events, which a replay runs through faster than the clock."""
    if record["closed_at"] is None:
        return until_s
    begins = [held.first_at for versions in model.series.values() for held in versions.values()]
    later = [at for at in begins if at > record["time"]]
    if record["closed_by"] == "new version" and later:
        return min(later)
    return record["time"] + max(record["closed_at"] - record["opened_at"], 0.0)


def _retrains(model: ModelFacts) -> list[Mark]:
    """Return a mark for each order that was launched, at the time of the event that asked for it."""
    asked = {record["id"]: record["time"] for record in model.records}
    return [
        Mark(
            asked.get(order["episode"], order["requested_at"]),
            "order",
            f"{order['cause']}: {order['state']}" + (f", new version {order['new_version']}" if order["new_version"] else ""),
        )
        for order in model.orders
        if order["state"] in _LAUNCHED
    ]


def _earned(facts: Facts) -> Markup | None:
    judged = [
        Bar(f"{model.name} {order['version']} → {order['new_version'] or '?'}", order["saved"], order["saved_error"] or 0.0)
        for model in facts.models
        for order in model.orders
        if order["saved"] is not None
    ]
    if not judged:
        return None
    return Markup(bars("earned", "Errors saved by each retrain", "errors", judged[-_MOST_BARS:]))  # noqa: S704  SVG of ours, texts escaped


def _section(number: int, model: ModelFacts, facts: Facts) -> Section:
    lines = [rule_in_words(model.seen.get("retrain") or {})]
    if model.seen.get("judged"):
        lines.append(judged_in_words(model.seen["judged"]))
    lines += [f"For a person: {why}" for why in model.seen.get("flagged") or ()]
    charts = [
        (metric, Markup(_chart(f"m{number}-{place}", metric, versions, model, facts)))  # noqa: S704  as above
        for place, (metric, versions) in enumerate(model.series.items())
    ]
    stories = [list(in_words(told)) for told in reversed(model.stories)]
    return Section(model, [line for line in lines if line], charts, stories)


def _chart(id_: str, metric: str, versions: dict[str, Series], model: ModelFacts, facts: Facts) -> str:
    curves = [
        Curve(version, [(point.at, point.mean) for point in held.points()], [(p.at, p.low, p.high) for p in held.points()])
        for version, held in versions.items()
    ]
    marks = [Mark(held.first_at, "version", version) for version, held in versions.items()]
    for record in model.records:
        marks += [Mark(seen["time"], "alarm", f"alarm: {metric}") for seen in record["evidence"] if seen["metric"] == metric]
    marks += _retrains(model)
    span = facts.since_s, max(facts.until_s, facts.since_s + 1.0)
    return line_chart(id_, metric, curves, [mark for mark in marks if span[0] <= mark.at <= span[1]], span)


def _at(seconds: float | None) -> str:
    return "" if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")
