"""The examples in the docstrings of the drift room are right, and every public function has one."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil

import pytest

from actors import drift

MODULES = [info.name for info in pkgutil.iter_modules(drift.__path__, "actors.drift.")]
# Values that functions return, and a protocol: the functions' examples show them.
WITHOUT = {"Alarm", "Comparison", "Direction", "DriftStrategy", "Progress", "Stretch", "SeasonProfile"}


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_hold(name: str) -> None:
    if name.endswith("river_adapter"):
        pytest.importorskip("river")
    assert doctest.testmod(importlib.import_module(name)).failed == 0


@pytest.mark.parametrize("name", sorted(set(drift.__all__) - WITHOUT))
def test_what_is_exported_has_an_example(name: str) -> None:
    assert ">>>" in (inspect.getdoc(getattr(drift, name)) or "")
