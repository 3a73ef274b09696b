"""Prints the structure of this tree, or of another checkout, in numbers.

    python -m tests.structure [FOLDER]

A room is a folder or a loose module of `actors/`; `drivers/` is one more. An arrow leads from a room to each room that it
imports. Rooms that reach each other form a circle; the floors are the longest way down, where a circle counts as one room.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import grimp

PACKAGES: Final = ("actors", "drivers")
MARKS: Final = ("dict[str, Any]", "# noqa", "# type: ignore", "# fmt: skip")

Arrows = Mapping[str, set[str]]


def sources(folder: Path, package: str) -> Iterator[tuple[str, str]]:
    """Yield name and text of each module of a package."""
    for path in sorted((folder / package).rglob("*.py")):
        yield path.relative_to(folder).as_posix(), path.read_text(encoding="utf-8")


def sizes(name: str, text: str) -> Iterator[tuple[str, int, str]]:
    """Yield kind, lines and name of a file and of each class and function in it."""
    yield "file", len(text.splitlines()), name
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            kind = "class" if isinstance(node, ast.ClassDef) else "function"
            yield kind, (node.end_lineno or node.lineno) - node.lineno + 1, f"{node.name} in {name}"


def arrows(imports: Iterator[tuple[str, str]]) -> Arrows:
    """Return the rooms that each room imports, of pairs of modules."""
    found: dict[str, set[str]] = {}
    for importer, imported in imports:
        here, there = room(importer), room(imported)
        found.setdefault(here, set())
        found.setdefault(there, set())
        if here != there:
            found[here].add(there)
    return found


def room(module: str) -> str:
    """Return the room of a module.

    >>> room("actors.metrics.client"), room("actors.status"), room("drivers.demo.year"), room("actors")
    ('actors.metrics', 'actors.status', 'drivers', 'actors')
    """
    return "drivers" if module.startswith("drivers") else ".".join(module.split(".")[:2])


def reached(found: Arrows, start: str) -> set[str]:
    """Return every room that is reached from `start` by one arrow or more."""
    seen: set[str] = set()
    waiting = list(found[start])
    while waiting:
        here = waiting.pop()
        if here not in seen:
            seen.add(here)
            waiting.extend(found[here])
    return seen


def circles(found: Arrows) -> list[set[str]]:
    """Return the rooms that reach each other, a set for each circle."""
    reach = {name: reached(found, name) for name in found}
    groups = {frozenset({name, *(other for other in reach[name] if name in reach[other])}) for name in found}
    return [set(group) for group in sorted(groups, key=sorted) if len(group) > 1]


def floors(found: Arrows) -> int:
    """Return the rooms on the longest way down."""
    circle_of = {name: min(group) for group in circles(found) for name in group}
    down: dict[str, set[str]] = {}
    for name, targets in found.items():
        here = circle_of.get(name, name)
        down.setdefault(here, set()).update(circle_of.get(other, other) for other in targets)
    depth: dict[str, int] = {}

    def below(name: str) -> int:
        if name not in depth:
            depth[name] = 1 + max((below(other) for other in down[name] if other != name), default=0)
        return depth[name]

    return max(map(below, down), default=0)


def main() -> int:
    """Print a line for each number."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".").resolve()
    for package in (*PACKAGES, "tests"):
        texts = list(sources(folder, package))
        print(f"{package}: {len(texts)} files, {sum(len(text.splitlines()) for _, text in texts):,} lines")
        print("  " + ", ".join(f"{mark} {sum(text.count(mark) for _, text in texts)}" for mark in MARKS))
    measured = [each for package in PACKAGES for name, text in sources(folder, package) for each in sizes(name, text)]
    for kind in ("class", "function", "file"):
        _, lines, name = max(each for each in measured if each[0] == kind)
        print(f"largest {kind}: {lines} lines, {name}")
    sys.path.insert(0, str(folder))
    graph = grimp.build_graph(*PACKAGES, cache_dir=None)
    found = arrows((here, there) for here in graph.modules for there in (here, *graph.find_modules_directly_imported_by(here)))
    print(f"{len(found)} rooms, {sum(map(len, found.values()))} arrows, {floors(found)} floors, {len(circles(found))} circles")
    for circle in circles(found):
        inside = sum(len(found[name] & circle) for name in circle)
        print(f"circle of {len(circle)} rooms, {inside} arrows: {', '.join(sorted(circle))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
