"""Local modules that were shipped with an objective: a worker imports them without having their files.

The finder comes before all others, so that a shipped module wins over a file of the same name on the worker.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import pickle
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple


class Source(NamedTuple):
    """One module as text: `file` is where it was, for tracebacks; a package has submodules, a namespace has no text."""

    text: str
    file: str
    is_package: bool


# As it travels: name, text, file, is_package.
Shipped = tuple[str, str, str, bool]


def opened(sources: Sequence[Shipped], packed: bytes) -> Any:
    """Return what `packed` holds, with `sources` at hand for its imports, now and while it runs."""
    _FINDER.take({name: Source(text, file, is_package) for name, text, file, is_package in sources})
    if _FINDER not in sys.meta_path:
        sys.meta_path.insert(0, _FINDER)
    return pickle.loads(packed)  # noqa: S301  the caller's own code, in the caller's own worker


def forget() -> None:
    """Forget what travelled with the objective before: another one is about to be opened."""
    _FINDER.take({})


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """Finds and loads the modules of one objective at a time: a worker process runs one study after the other."""

    def __init__(self) -> None:
        self._sources: Mapping[str, Source] = {}

    def take(self, sources: Mapping[str, Source]) -> None:
        """Serve these, and forget modules of the same names that are other ones."""
        for name in {*self._sources, *sources}:
            module = sys.modules.get(name)
            if module is not None and not self._is_same(module, sources.get(name)):
                del sys.modules[name]
        self._sources = sources

    def find_spec(
        self, fullname: str, _path: Sequence[str] | None = None, _target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Return the spec of a module that was shipped."""
        source = self._sources.get(fullname)
        if source is None:
            return None
        spec = importlib.util.spec_from_loader(fullname, self, origin=source.file, is_package=source.is_package)
        if spec is not None:
            spec.has_location = True
            if source.is_package:  # what did not travel may be there all the same
                spec.submodule_search_locations = [str(Path(source.file).parent)]
        return spec

    def get_source(self, fullname: str) -> str:
        """Return a module's text, for its execution and for tracebacks."""
        return self._sources[fullname].text

    def get_code(self, fullname: str) -> Any:
        """Return a module's code."""
        source = self._sources[fullname]
        return self.source_to_code(source.text, source.file)

    def is_package(self, fullname: str) -> bool:
        """Return whether a module has submodules."""
        return self._sources[fullname].is_package

    def _is_same(self, module: ModuleType, source: Source | None) -> bool:
        if source is None:
            return module.__spec__ is None or module.__spec__.loader is not self
        if module.__spec__ is not None and module.__spec__.loader is self:
            return self._sources.get(module.__name__) == source
        if module.__file__ is None:
            return source.is_package and not source.text
        try:
            return Path(module.__file__).read_text(encoding="utf-8") == source.text
        except (OSError, UnicodeDecodeError):
            return False


_FINDER = _Finder()
