"""What a reader may rely on in our own code: nothing is too long, and the tools ignore little, each time with a reason."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
CLASS_LINES, FUNCTION_LINES, FILE_LINES = 300, 60, 500
# Each mark names its rule and its reason; a rule that we reject on principle stands in pyproject.toml.
MOST_IGNORED = {"actors": 120, "drivers": 14}
# Mappings with keys that nobody can list have a name that says why (actors.plain); left are mostly signatures of other tools.
MOST_BARE = 50
# What a comment says to tools, and not to a reader.
MARK = re.compile(r"# (?:noqa: [A-Z]+[0-9]+(?:, [A-Z]+[0-9]+)*|type: ignore\[[^]]*\])")


def sources() -> Iterator[tuple[str, str]]:
    for package in ("actors", "drivers"):
        for path in sorted((ROOT / package).rglob("*.py")):
            yield path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")


def lines_of(package: str) -> Iterator[tuple[str, str]]:
    for name, source in sources():
        if name.startswith(f"{package}/"):
            yield from ((name, line.strip()) for line in source.splitlines())


def too_long(name: str, source: str) -> Iterator[str]:
    """Yield what of a file is longer than anybody reads at once."""
    if len(source.splitlines()) > FILE_LINES:
        yield f"{name}: {len(source.splitlines())} lines"
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            most = CLASS_LINES if isinstance(node, ast.ClassDef) else FUNCTION_LINES
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > most:
                yield f"{name}: {node.name} has {lines} lines, of at most {most}"


def test_no_class_function_or_file_is_longer_than_anybody_reads_at_once() -> None:
    assert [found for name, source in sources() for found in too_long(name, source)] == []


def test_negative_control_what_is_too_long_is_found() -> None:
    function = "def long() -> None:\n" + "    pass\n" * FUNCTION_LINES
    assert list(too_long("a.py", function)) == [f"a.py: long has {FUNCTION_LINES + 1} lines, of at most {FUNCTION_LINES}"]
    assert len(list(too_long("a.py", "class Long:\n" + "    x = 1\n" * FILE_LINES))) == 2


def test_a_mapping_of_anything_has_a_name_that_says_why() -> None:
    bare = [f"{name}: {line}" for name, line in lines_of("actors") if "dict[str, Any]" in line]
    assert len(bare) <= MOST_BARE, "\n".join(bare)


def says_why(lines: list[str], number: int) -> bool:
    """Return whether a comment for readers is on this line, or is the line above it."""
    comment = "".join(lines[number].partition("# ")[1:])
    return bool(MARK.sub("", comment).strip("# ")) or (number > 0 and lines[number - 1].lstrip().startswith("#"))


def unreasoned(name: str, source: str) -> Iterator[str]:
    """Yield the marks for tools that do not say why; of marks on lines that follow each other the first may say it for all."""
    lines = source.splitlines()
    marked = [number for number, line in enumerate(lines) if MARK.search(line)]
    said = -2
    for number in marked:
        if says_why(lines, number) or said == number - 1:
            said = number
        else:
            yield f"{name}:{number + 1}: {lines[number].strip()}"


def test_a_mark_for_a_tool_says_why() -> None:
    found = [line for name, source in sources() for line in unreasoned(name, source)]
    assert found == [], "\n".join(found)


def test_negative_control_a_mark_without_a_reason_is_found() -> None:
    assert len(list(unreasoned("a.py", "x = f()\ny = g()  # type: ignore[misc]\n"))) == 1
    assert list(unreasoned("a.py", "y = g()  # noqa: S310  checked by the configuration\n")) == []
    assert list(unreasoned("a.py", "# Ray ships it without types.\ny = g()  # type: ignore[misc]\n")) == []


def unexplained(name: str, source: str) -> Iterator[str]:
    """Yield the imports inside functions of which no comment says what they cost, or which extra they are of.

    One comment serves imports that follow each other: on a line of theirs, or above them.
    """
    lines = source.splitlines()
    for function in ast.walk(ast.parse(source)):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        imports = [node for node in ast.walk(function) if isinstance(node, ast.Import | ast.ImportFrom)]
        explained = False
        before = 0
        for node in sorted(imports, key=lambda each: each.lineno):
            here = range(node.lineno - 1, node.end_lineno or node.lineno)
            explained = (explained and node.lineno - before <= 2) or any(says_why(lines, number) for number in here)
            before = node.end_lineno or node.lineno
            if not explained:
                yield f"{name}:{node.lineno}: {lines[node.lineno - 1].strip()}"


def test_an_import_inside_a_function_says_what_it_costs_or_which_extra_it_is_of() -> None:
    found = [line for name, source in sources() for line in unexplained(name, source)]
    assert found == [], "\n".join(found)


def test_negative_control_an_import_without_a_reason_is_found() -> None:
    assert len(list(unexplained("a.py", "def f():\n    import a\n"))) == 1
    assert len(list(unexplained("a.py", "def f():\n    import a  # noqa: PLC0415\n"))) == 1
    assert list(unexplained("a.py", "def f():\n    import a  # noqa: PLC0415  an extra\n    import b\n")) == []
    assert list(unexplained("a.py", "def f():\n    # 0.4 s\n    import a\n")) == []


def test_the_tools_are_told_to_ignore_little() -> None:
    for package, most in MOST_IGNORED.items():
        marks = [f"{name}: {line}" for name, line in lines_of(package) if "# noqa" in line or "# type: ignore" in line]
        assert len(marks) <= most, "\n".join(marks)


def promising(name: str, source: str) -> Iterator[str]:
    """Yield the functions that return nothing and whose docstring begins with "Return"."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or node.returns is None:
            continue
        if ast.unparse(node.returns) == "None" and (ast.get_docstring(node) or "").startswith("Return "):
            yield f"{name}:{node.lineno}: {node.name}"


def test_a_function_that_returns_nothing_does_not_say_that_it_returns() -> None:
    tests = ((path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")) for path in (ROOT / "tests").rglob("*.py"))
    found = [line for name, source in (*sources(), *tests) for line in promising(name, source)]
    assert found == [], "\n".join(found)


def test_negative_control_a_docstring_that_promises_a_value_that_is_not_returned_is_found() -> None:
    assert list(promising("a.py", 'def f() -> None:\n    """Return it."""\n')) == ["a.py:1: f"]
    assert list(promising("a.py", 'def f() -> int:\n    """Return it."""\n')) == []
