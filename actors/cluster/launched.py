"""What a task that the runner launches runs first: apart, since every cold worker imports this file before its task."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any


def run(target: str, kwargs: Mapping[str, Any]) -> Any:
    """Call `target` (`module:function`) with `kwargs` and return what it returns."""
    module, _, function = target.partition(":")
    return getattr(importlib.import_module(module), function)(**kwargs)
