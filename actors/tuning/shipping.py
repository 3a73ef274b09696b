"""How an objective travels: by value, so that workers run the code that the caller sees, without having his files."""

from __future__ import annotations

import importlib
import site
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import cloudpickle

from actors.tuning.executors.trial import wants_trial


def pack(objective: Callable[..., Any]) -> bytes:
    """Pickle `objective`, its own module by value unless it is installed; ValueError where that cannot be done."""
    wants_trial(objective)
    module = sys.modules.get(getattr(objective, "__module__", None) or "")
    by_value = module if module is not None and _is_local(module) else None
    if by_value is not None:
        cloudpickle.register_pickle_by_value(by_value)
    try:
        packed = bytes(cloudpickle.dumps(objective))
    except Exception as error:  # noqa: BLE001  whatever hides in the objective's closure
        raise ValueError(f"objective cannot be pickled: {type(error).__name__}: {error}") from None
    finally:
        if by_value is not None:
            cloudpickle.unregister_pickle_by_value(by_value)
    return packed


def load(target: str) -> Callable[..., Any]:
    """Import `module:function`, also from the current folder; ValueError names what is missing."""
    module_name, _, name = target.partition(":")
    if not module_name or not name:
        raise ValueError(f"objective must be module:function, got {target!r}")
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        found = getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"objective {target!r} cannot be imported: {error}") from None
    wants_trial(found)
    checked: Callable[..., Any] = found
    return checked


def _is_local(module: ModuleType) -> bool:
    """Tell whether a worker may lack this module, or have another state of it."""
    file = getattr(module, "__file__", None)
    if module.__name__ == "__main__" or file is None:
        return False  # cloudpickle takes __main__ by value anyway; a module without a file is built in
    installed = [*site.getsitepackages(), site.getusersitepackages(), *sysconfig.get_paths().values()]
    return not any(Path(file).is_relative_to(folder) for folder in installed)
