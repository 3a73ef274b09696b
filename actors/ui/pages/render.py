"""Fills templates: every text is escaped, times and numbers are written one way on all pages."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Final, cast

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from actors.config.values import format_duration
from actors.retraining.rules.orders import DISMISSABLE, RETRYABLE
from actors.ui.access import Visitor
from actors.ui.backend import Backend

_ENVIRONMENT: Final = Environment(
    loader=FileSystemLoader(Path(__file__).parent.parent / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_LONG_S: Final = 60 * 86400.0
_SPARK_WIDTH: Final = 96.0
_SPARK_HEIGHT: Final = 22.0


def page(request: Request, template: str, *, status: int = 200, **values: Any) -> Response:
    """Return a page, or the fragment of it that htmx asks for by `X-Part`."""
    visitor: Visitor | None = getattr(request.state, "visitor", None)
    found = backend(request)
    text = _ENVIRONMENT.get_template(template).render(
        path=request.url.path,
        visitor=visitor,
        may_act=bool(visitor and visitor.may_act and found.system is not None),
        read_only=found.system is None,
        store=found.storage(),
        signs_in=bool(request.app.state.access.tokens),
        now=time.time(),
        status=status,
        **values,
    )
    return HTMLResponse(text, status, headers={"cache-control": "no-store"})


def backend(request: Request) -> Backend:
    """Return what the page reads from."""
    return cast("Backend", request.app.state.backend)


def ago(at: float | None, now: float) -> str:
    """Say how long ago, in one unit; the day, where that is longer than two months.

    >>> ago(0.0, 125.0), ago(None, 1.0), ago(1382228940.0, 1795000000.0)
    ('2 min ago', 'never', '2013-10-20')
    """
    if not at:
        return "never" if at is None else _span(now) + " ago"
    passed = now - at
    if passed >= _LONG_S:
        return time.strftime("%Y-%m-%d", time.gmtime(at))
    return "now" if abs(passed) < 1 else f"{_span(passed)} ago" if passed > 0 else f"in {_span(-passed)}"


def _span(seconds: float) -> str:
    for size, unit in ((86400.0, "d"), (3600.0, "h"), (60.0, "min")):
        if seconds >= size:
            return f"{int(seconds / size)} {unit}"
    return f"{int(seconds)} s"


def moment(at: float | None) -> str:
    """Return a time in UTC, to the second."""
    return "" if at is None else time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(at))


def number(value: float | None, digits: int = 4) -> str:
    """Return a number as short as `digits` allow; a dash for none.

    >>> number(1234567), number(0.912345), number(-0.0), number(None) == chr(0x2013)
    ('1,234,567', '0.9123', '0', True)
    """
    if value is None:
        return "\N{EN DASH}"
    value = value or 0  # -0.0 reads as a fall
    if isinstance(value, int) or (abs(value) >= 1000 and float(value).is_integer()):
        return f"{int(value):,}"
    return f"{value:.{digits}g}"


def spark(values: list[float]) -> str:
    """Return the points of a line over `values` for an SVG of 96 by 22; empty for less than two."""
    if len(values) < 2:
        return ""
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    step = _SPARK_WIDTH / (len(values) - 1)
    lift = _SPARK_HEIGHT - 4
    return " ".join(f"{i * step:.1f},{2 + lift * (1 - (value - low) / span):.1f}" for i, value in enumerate(values))


_MARKS: Final = {
    "drifting": "\N{BLACK UP-POINTING TRIANGLE}",
    "warning": "\N{WHITE UP-POINTING TRIANGLE}",
    "error": "\N{MULTIPLICATION X}",
    "no_data": "\N{WHITE CIRCLE}",
    "learning": "\N{CIRCLE WITH LEFT HALF BLACK}",
    "stable": "\N{BLACK CIRCLE}",
    "dead": "\N{MULTIPLICATION X}",
    "failed": "\N{MULTIPLICATION X}",
    "done": "\N{CHECK MARK}",
    "completed": "\N{CHECK MARK}",
    "running": "\N{BLACK RIGHT-POINTING TRIANGLE}",
    "pending": "\N{WHITE CIRCLE}",
}


def mark(state: str) -> str:
    """Return the sign of a state, so that it is told apart without colour."""
    return _MARKS.get(state, "\N{BULLET}")


_ENVIRONMENT.globals.update(retryable=RETRYABLE, dismissable=DISMISSABLE)
_ENVIRONMENT.filters.update(ago=ago, moment=moment, number=number, spark=spark, mark=mark, duration=format_duration)
