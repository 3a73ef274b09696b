"""The picture of a study: best so far, and the value by each parameter."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from actors.replies import Json
from actors.tuning.rules.book import COMPLETED
from actors.tuning.strategies.space import Choices, IntRange, Parameter, parse
from actors.tuning.trial import Trial, best_of, best_so_far

_MAX_PANELS = 12
_COLUMNS = 4
_LOG_RATIO = 10.0
_GOLDEN = 0.6180339887  # multiples of it, modulo 1, spread evenly: dots of one choice stand next to each other
_SPREAD = 0.5
_DOT = "#3b6ea5"
_BEST = "#d1495b"


def draw(path: Path, *, name: str, space: Json, trials: Sequence[Trial], mode: str) -> Path:
    """Draw a study to `path`; ValueError where matplotlib is missing or nothing has completed."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415  an extra
        from matplotlib.figure import Figure  # noqa: PLC0415
    except ImportError:
        raise ValueError("a plot needs matplotlib: pip install 'visutility[plot]'") from None
    done = [trial for trial in trials if trial.state == COMPLETED]
    best = best_of(done, mode)
    if best is None:
        raise ValueError(f"study {name!r} has no completed trial to draw")
    parameters = parse(space).parameters[: _MAX_PANELS - 1]
    panels = 1 + len(parameters)
    columns = min(panels, _COLUMNS)
    rows = math.ceil(panels / columns)
    figure = Figure(figsize=(3.4 * columns, 2.9 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    axes: Any = figure.subplots(rows, columns, squeeze=False).flatten()
    for spare in axes[panels:]:
        spare.remove()
    # Where the values span a decade, the bad ones would flatten all that matters.
    values = [trial.value for trial in done if trial.value is not None]
    log = min(values) > 0 and max(values) / min(values) > _LOG_RATIO
    _best_so_far(axes[0], done, best_so_far(done, mode), log=log)
    for axis, parameter in zip(axes[1:panels], parameters, strict=True):
        _by_parameter(axis, parameter, best, done, log=log)
    figure.suptitle(f"{name}: {len(done)} completed trials, best {best.value:.6g} (trial {best.id})", fontsize=11)
    figure.savefig(path, dpi=130)
    return path


def _best_so_far(axis: Any, done: list[Trial], curve: list[tuple[int, float]], *, log: bool) -> None:
    axis.plot([trial.id for trial in done], [trial.value for trial in done], ".", color=_DOT, alpha=0.35, markersize=4)
    axis.step([trial for trial, _ in curve], [value for _, value in curve], where="post", color=_BEST, linewidth=1.6)
    axis.set(xlabel="trial", ylabel="value", title="best so far")
    if log:
        axis.set_yscale("log")


def _by_parameter(axis: Any, parameter: Parameter, best: Trial, done: list[Trial], *, log: bool) -> None:
    name = parameter.name
    if isinstance(parameter, Choices):
        labels = [str(choice) for choice in parameter.choices]
        places = [labels.index(str(trial.params[name])) + _SPREAD * (trial.id * _GOLDEN % 1 - 0.5) for trial in done]
        axis.set_xlim(-0.6, len(labels) - 0.4)
        axis.set_xticks(range(len(labels)), [label[:12] for label in labels], rotation=30 if len(labels) > 3 else 0)
        best_place: Any = labels.index(str(best.params[name]))
    else:
        places = [trial.params[name] for trial in done]
        best_place = best.params[name]
        if parameter.log:
            axis.set_xscale("log")
    if isinstance(parameter, IntRange) and not parameter.log and parameter.high - parameter.low < 20:
        places = [place + _SPREAD * (trial.id * _GOLDEN % 1 - 0.5) for place, trial in zip(places, done, strict=True)]
    axis.plot(places, [trial.value for trial in done], ".", color=_DOT, alpha=0.5, markersize=4)
    axis.plot([best_place], [best.value], "o", color=_BEST, markersize=6)
    axis.set(xlabel=name)
    if log:
        axis.set_yscale("log")
