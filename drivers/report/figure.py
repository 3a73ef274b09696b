"""Figures as SVG text: no script, no font, no colour of their own, so that the page's light or dark theme applies.

Each has a title and a description for those who cannot see it. Numbers come in, text comes out; names are escaped.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from html import escape
from typing import Final, Literal

WIDTH: Final = 960
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 16, 34, 30
_STEPS_S: Final = (60, 300, 900, 3600, 10_800, 21_600, 43_200, 86_400, 172_800, 604_800, 1_209_600)


@dataclass(frozen=True, slots=True)
class Curve:
    """One line: (time, value) by time, and the least and greatest value behind each point."""

    name: str
    points: Sequence[tuple[float, float]]
    band: Sequence[tuple[float, float, float]] = ()
    level: float | None = None  # what it is compared with, drawn over its own time


@dataclass(frozen=True, slots=True)
class Mark:
    """One moment: an alarm, a retrain, a new version."""

    at: float
    kind: Literal["alarm", "order", "version"]
    text: str


@dataclass(frozen=True, slots=True)
class Bar:
    """One row of a bar chart: a value with its standard error."""

    name: str
    value: float
    error: float = 0.0


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a timeline: stretches of trouble, and moments."""

    name: str
    spans: Sequence[tuple[float, float, str]]
    marks: Sequence[Mark] = field(default=())


def line_chart(id_: str, title: str, curves: Sequence[Curve], marks: Sequence[Mark], span: tuple[float, float]) -> str:
    """Return a metric over time, each version a line of its own, with what happened to it."""
    height = 250
    values = [v for curve in curves for _, v in curve.points] + [c.level for c in curves if c.level is not None]
    low, high = _room(values)
    x, y = _scale(span, _LEFT, WIDTH - _RIGHT), _scale((low, high), height - _BOTTOM, _TOP)
    parts = [*_grid_y(low, high, y, title), *_grid_x(span, x, height)]
    for number, curve in enumerate(curves):
        style = f"line-{number % 4}"
        if len(curve.band) > 1:
            upper = [(x(at), y(min(top, high))) for at, _, top in curve.band]
            lower = [(x(at), y(max(bottom, low))) for at, bottom, _ in reversed(curve.band)]
            parts.append(f'<polygon class="band {style}" points="{_path(upper + lower)}"/>')
        drawn = [(x(at), y(value)) for at, value in curve.points]
        if len(drawn) > 1:
            parts.append(f'<polyline class="curve {style}" points="{_path(drawn)}"/>')
        elif drawn:
            parts.append(f'<circle class="dot {style}" cx="{_n(drawn[0][0])}" cy="{_n(drawn[0][1])}" r="3"/>')
        if curve.level is not None and curve.points:
            a, b = x(curve.points[0][0]), x(curve.points[-1][0])
            parts.append(
                f'<line class="level" x1="{_n(a)}" x2="{_n(b)}" y1="{_n(y(curve.level))}" y2="{_n(y(curve.level))}">'
                f"<title>{escape(curve.name)}: compared with {curve.level:.4g}</title></line>"
            )
    taken = 10 + 6.4 * len(_short(title, 40))  # the right end of the last label, so that none covers another
    for mark in sorted(marks, key=lambda each: each.at):
        drawn_mark, taken = _mark(mark, x(mark.at), height, taken)
        parts += drawn_mark
    alarms = sum(mark.kind == "alarm" for mark in marks)
    described = f"{len(curves)} versions from {_day(span[0])} to {_day(span[1])}, {alarms} alarms."
    return _svg(id_, f"{title} over time", described, height, parts)


def timeline(id_: str, title: str, rows: Sequence[Row], span: tuple[float, float]) -> str:
    """Return a row for each model: when it drifted, and when it was retrained."""
    step, left = 26, 190
    height = _TOP + step * len(rows) + _BOTTOM
    x = _scale(span, left, WIDTH - _RIGHT)
    parts = _grid_x(span, x, height)
    for number, row in enumerate(rows):
        middle = _TOP + step * (number + 0.5)
        parts.append(f'<line class="grid" x1="{left}" x2="{WIDTH - _RIGHT}" y1="{_n(middle)}" y2="{_n(middle)}"/>')
        parts.append(
            f'<text class="label end" x="{left - 10}" y="{_n(middle + 4)}">{escape(_short(row.name, 26))}'
            f"<title>{escape(row.name)}</title></text>"
        )
        for begin, end, text in row.spans:
            a, b = x(max(begin, span[0])), x(min(end, span[1]))
            parts.append(
                f'<rect class="trouble" x="{_n(a)}" y="{_n(middle - 7)}" width="{_n(max(b - a, 3.0))}" height="14" rx="3">'
                f"<title>{escape(text)}</title></rect>"
            )
        for mark in row.marks:
            parts.append(_diamond(x(mark.at), middle, mark.text))
    described = f"{len(rows)} models from {_day(span[0])} to {_day(span[1])}."
    return _svg(id_, title, described, height, parts)


def bars(id_: str, title: str, unit: str, rows: Sequence[Bar], *, line: float | None = None, line_name: str = "") -> str:
    """Return a bar for each row with its standard error, and a line that they are held against."""
    step, left, right = 30, 250, 110
    height = _TOP + step * len(rows) + _BOTTOM
    reach = [bound for row in rows for bound in (row.value - row.error, row.value + row.error)] + [0.0]
    reach += [] if line is None else [line]
    low, high = min(reach), max(reach)
    x = _scale((low, high if high > low else low + 1.0), left, WIDTH - right)
    parts: list[str] = []
    for tick in _ticks(low, high, 6):
        parts.append(f'<line class="grid" x1="{_n(x(tick))}" x2="{_n(x(tick))}" y1="{_TOP}" y2="{height - _BOTTOM}"/>')
        parts.append(f'<text class="tick middle" x="{_n(x(tick))}" y="{height - 10}">{_number(tick)}</text>')
    parts.append(f'<text class="tick end" x="{WIDTH - 4}" y="{height - 10}">{escape(unit)}</text>')
    for number, row in enumerate(rows):
        middle = _TOP + step * (number + 0.5)
        a, b = sorted((x(0.0), x(row.value)))
        parts.append(f'<text class="label end" x="{left - 10}" y="{_n(middle + 4)}">{escape(_short(row.name, 34))}</text>')
        kind = "gain" if row.value >= 0 else "loss"
        parts.append(
            f'<rect class="{kind}" x="{_n(a)}" y="{_n(middle - 8)}" width="{_n(max(b - a, 1.0))}" height="16" rx="2">'
            f"<title>{escape(row.name)}: {_number(row.value)} ± {_number(row.error)} {escape(unit)}</title></rect>"
        )
        if row.error > 0:
            low_x, high_x = x(row.value - row.error), x(row.value + row.error)
            parts.append(f'<path class="error" d="M{_n(low_x)} {_n(middle)}H{_n(high_x)}"/>')
        said = f"{_number(row.value)} ± {_number(row.error)}"
        parts.append(f'<text class="label" x="{_n(x(max(row.value + row.error, 0.0)) + 8)}" y="{_n(middle + 4)}">{said}</text>')
    parts.append(f'<line class="axis" x1="{_n(x(0.0))}" x2="{_n(x(0.0))}" y1="{_TOP}" y2="{height - _BOTTOM}"/>')
    if line is not None:
        parts.append(f'<line class="level" x1="{_n(x(line))}" x2="{_n(x(line))}" y1="{_TOP - 6}" y2="{height - _BOTTOM}"/>')
        parts.append(f'<text class="tick middle" x="{_n(x(line))}" y="{_TOP - 12}">{escape(line_name)}</text>')
    described = f"{len(rows)} bars, in {unit}."
    return _svg(id_, title, described, height, parts)


def _svg(id_: str, title: str, described: str, height: int, parts: Sequence[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" viewBox="0 0 {WIDTH} {height}" '
        f'aria-labelledby="{id_}-title {id_}-desc">'
    )
    named = f'<title id="{id_}-title">{escape(title)}</title><desc id="{id_}-desc">{escape(described)}</desc>'
    return head + named + "".join(parts) + "</svg>"


def _mark(mark: Mark, at: float, height: int, taken: float) -> tuple[list[str], float]:
    title = f"<title>{escape(mark.text)}</title>"
    if mark.kind == "order":
        return [_diamond(at, height - _BOTTOM - 9, mark.text)], taken
    parts = [f'<line class="{mark.kind}" x1="{_n(at)}" x2="{_n(at)}" y1="{_TOP - 8}" y2="{height - _BOTTOM}">{title}</line>']
    if mark.kind == "alarm":
        points = [(at - 5, _TOP - 16), (at + 5, _TOP - 16), (at, _TOP - 7)]
        return [*parts, f'<polygon class="alarm-head" points="{_path(points)}">{title}</polygon>'], taken
    shown = _short(mark.text, 18)
    right = at + 4 + 6.4 * len(shown)
    if at < taken or right > WIDTH:
        return parts, taken
    return [*parts, f'<text class="tick" x="{_n(at + 4)}" y="{_TOP - 21}">{escape(shown)}</text>'], right + 6


def _diamond(at: float, middle: float, text: str) -> str:
    points = [(at, middle - 6), (at + 6, middle), (at, middle + 6), (at - 6, middle)]
    return f'<polygon class="order" points="{_path(points)}"><title>{escape(text)}</title></polygon>'


def _grid_y(low: float, high: float, y: _Scale, unit: str) -> list[str]:
    parts = [f'<text class="tick" x="4" y="12">{escape(_short(unit, 40))}</text>']
    for tick in _ticks(low, high, 5):
        at = _n(y(tick))
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{at}" y2="{at}"/>')
        parts.append(f'<text class="tick end" x="{_LEFT - 8}" y="{_n(y(tick) + 4)}">{_number(tick)}</text>')
    return parts


def _grid_x(span: tuple[float, float], x: _Scale, height: int) -> list[str]:
    parts: list[str] = []
    for at, text in moments(span):
        where = x(at)
        parts.append(f'<line class="grid" x1="{_n(where)}" x2="{_n(where)}" y1="{_TOP}" y2="{height - _BOTTOM}"/>')
        anchor = "end" if where > WIDTH - 40 else "middle"
        parts.append(f'<text class="tick {anchor}" x="{_n(where)}" y="{height - 10}">{text}</text>')
    return parts


def moments(span: tuple[float, float], most: int = 9) -> list[tuple[float, str]]:
    """Return round moments of a span with their labels: hours, days or months, `most` at the most.

    >>> [text for _, text in moments((0.0, 86_400.0))][:3]
    ['00:00', '03:00', '06:00']
    """
    length = max(span[1] - span[0], 1.0)
    if length > most * _STEPS_S[-1]:
        return _months(span, most)
    step = next((each for each in _STEPS_S if length / each <= most), _STEPS_S[-1])
    first = math.ceil(span[0] / step) * step
    form = "%H:%M" if step < 86_400 else "%d %b"
    count = int((span[1] - first) // step) + 1
    return [(first + n * step, _moment(first + n * step).strftime(form)) for n in range(max(count, 0))]


def _months(span: tuple[float, float], most: int) -> list[tuple[float, str]]:
    begin, end = _moment(span[0]), _moment(span[1])
    months = (end.year - begin.year) * 12 + end.month - begin.month
    every = next((each for each in (1, 2, 3, 6, 12, 24, 60, 120) if months / each <= most), 240)
    found: list[tuple[float, str]] = []
    for number in range(begin.month, begin.month + months + 1):
        if (begin.year * 12 + number - 1) % every:
            continue
        at = datetime(begin.year + (number - 1) // 12, (number - 1) % 12 + 1, 1, tzinfo=UTC)
        if span[0] <= at.timestamp() <= span[1]:
            found.append((at.timestamp(), at.strftime("%b %Y" if every >= 12 or at.month == 1 or not found else "%b")))
    return found


@dataclass(frozen=True, slots=True)
class _Scale:
    low: float
    high: float
    begin: float
    end: float

    def __call__(self, value: float) -> float:
        return self.begin + (value - self.low) / (self.high - self.low) * (self.end - self.begin)


def _scale(values: tuple[float, float], begin: float, end: float) -> _Scale:
    low, high = values
    return _Scale(low, high if high > low else low + 1.0, begin, end)


def _room(values: Sequence[float]) -> tuple[float, float]:
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    margin = (high - low) * 0.08 or abs(high) * 0.05 or 1.0
    return low - margin, high + margin


def _ticks(low: float, high: float, about: int) -> list[float]:
    length = (high - low) or 1.0
    raw = length / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * each for each in (1, 2, 2.5, 5, 10) if power * each >= raw)
    first = math.ceil(low / step)
    return [number * step for number in range(first, math.floor(high / step + 1e-9) + 1)]


def _path(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{_n(x)},{_n(y)}" for x, y in points)


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}" if value else "0"


def _short(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def _moment(at_s: float) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=at_s)


def _day(at_s: float) -> str:
    return _moment(at_s).strftime("%Y-%m-%d %H:%M")
