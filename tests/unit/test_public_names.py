"""What `import actors` offers, and what it costs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import actors
import drivers
from tests.speed import slow


def test_every_public_name_is_there_and_is_what_it_is_called() -> None:
    for name in actors.__all__:
        assert getattr(actors, name).__name__ == name


def test_a_name_that_is_none_is_refused_as_by_any_module() -> None:
    with pytest.raises(AttributeError, match="module 'actors' has no attribute 'Sytem'"):
        _ = actors.Sytem


def test_the_package_alone_imports_no_ray_no_database_and_no_numpy() -> None:
    code = "import actors, sys; print(sorted({'ray', 'sqlalchemy', 'numpy', 'pydantic'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=slow(60))
    assert done.stdout.strip() == "[]"


def test_both_packages_say_that_they_are_typed() -> None:
    assert all((Path(str(package.__file__)).parent / "py.typed").is_file() for package in (actors, drivers))
