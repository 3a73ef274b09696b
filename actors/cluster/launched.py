"""The entry point of the runner's tasks. A separate file, because every cold worker imports it before its task."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any


def run(target: str, kwargs: Mapping[str, Any]) -> Any:
    """Call `target` (`module:function`) with `kwargs` and return what it returns."""
    module, _, function = target.partition(":")
    return getattr(importlib.import_module(module), function)(**kwargs)
