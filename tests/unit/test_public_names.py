"""What `import actors` offers, and what it costs."""

from __future__ import annotations

import inspect
import subprocess
import sys
import typing
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

import actors
import drivers
from actors import config
from tests.speed import slow


def test_every_public_name_is_there_and_is_what_it_is_called() -> None:
    for name in actors.__all__:
        assert getattr(actors, name).__name__ == name


def named_in(hint: object) -> Iterator[type]:
    """Yield our own classes that an annotation names, however deep."""
    parts = hint if isinstance(hint, list) else typing.get_args(hint)
    for part in parts:
        yield from named_in(part)
    found = typing.get_origin(hint) or hint
    if isinstance(found, type) and found.__module__.partition(".")[0] == "actors":
        yield found


def types_of(of: object) -> dict[str, Any]:
    """Return what a class or a function says of its types, where all imports for types alone are in force too."""
    module = vars(sys.modules[str(getattr(of, "__module__", ""))])
    everywhere = {name: getattr(actors, name) for name in actors.__all__}
    return typing.get_type_hints(of, globalns=everywhere | module, localns=None if isinstance(of, type) else everywhere)


def public_hints(public: object) -> Iterator[tuple[str, object]]:
    """Yield each annotation of a public type that its user meets: fields, and arguments and results of its public methods."""
    if not isinstance(public, type):
        yield from types_of(public).items()
        return
    yield from ((name, hint) for name, hint in types_of(public).items() if not name.startswith("_"))
    for name, member in vars(public).items():
        if name.startswith("_"):
            continue
        inner = getattr(member, "fget", None) or getattr(member, "func", None) or getattr(member, "__func__", member)
        if inspect.isfunction(inner):
            yield from ((f"{name}.{argument}", hint) for argument, hint in types_of(inner).items())


def not_exported(names: Iterable[str]) -> set[str]:
    exported = {getattr(actors, name) for name in names}
    sections = {getattr(config, name) for name in config.__all__}  # of the configuration's schema: named there
    return {
        f"{found.__module__}.{found.__qualname__}, of {public.__name__}.{where}"
        for public in exported
        for where, hint in public_hints(public)
        for found in named_in(hint)
        if found not in exported and found not in sections
    }


def test_whatever_a_public_method_takes_or_returns_can_be_imported_from_actors() -> None:
    assert not_exported(actors.__all__) == set()


@pytest.mark.parametrize(
    ("hidden", "where"),
    [("OrderRow", "Retrains.history.return"), ("Metrics", "System.metrics.return"), ("Told", "Notification.firing")],
)
def test_negative_control_a_type_that_is_not_exported_is_found(hidden: str, where: str) -> None:
    assert any(found.endswith(where) for found in not_exported(set(actors.__all__) - {hidden}))


def test_a_name_that_is_none_is_refused_as_by_any_module() -> None:
    with pytest.raises(AttributeError, match="module 'actors' has no attribute 'Sytem'"):
        _ = actors.Sytem


def test_the_package_alone_imports_no_ray_no_database_and_no_numpy() -> None:
    code = "import actors, sys; print(sorted({'ray', 'sqlalchemy', 'numpy', 'pydantic'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=slow(60))
    assert done.stdout.strip() == "[]"


def test_both_packages_say_that_they_are_typed() -> None:
    assert all((Path(str(package.__file__)).parent / "py.typed").is_file() for package in (actors, drivers))
