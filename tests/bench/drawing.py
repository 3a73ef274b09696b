"""Writes the pictures of a benchmark."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

# Given pyplot and the results, returns the figure.
Drawing = Callable[[Any, Any], Any]


def drawn(drawings: Mapping[str, tuple[Drawing, Any]], folder: Path) -> list[Path]:
    """Draw each with its results into `folder/name.png`; return the files written."""
    plt = importlib.import_module("matplotlib.pyplot")
    plt.switch_backend("Agg")
    plt.rcParams.update({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "0"})
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, (drawing, results) in drawings.items():
        figure = drawing(plt, results)
        path = folder / f"{name}.png"
        figure.savefig(path, dpi=110, bbox_inches="tight")
        plt.close(figure)
        written.append(path)
    return written
