"""Ships an objective, so that workers run the caller's code without having the caller's files.

The module of the objective travels by value, with the state that it has. The local modules that it uses, directly or through
one another, also by an import inside a function or by `import_module("name")`, travel as their sources. A module is local
unless it is installed.
"""

from __future__ import annotations

import ast
import dis
import importlib
import importlib.machinery
import io
import pickle
import site
import sys
import sysconfig
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any, Final

import cloudpickle

from actors.tuning.executors.modules import Shipped, opened
from actors.tuning.executors.trial import wants_trial

# Of all local modules together: an objective drags its helpers along, not a code base.
_MAX_MODULES: Final = 500
_MAX_SOURCE_BYTES: Final = 16 * 2**20
# What every worker has, in the build of the system.
_OURS: Final = frozenset({"actors", "drivers"})
# What imports the module that it is given as a text.
_IMPORTERS: Final = frozenset({"import_module", "__import__"})


def pack(objective: Callable[..., Any]) -> bytes:
    """Return `objective` pickled, with the local modules that it uses; ValueError where that cannot be done."""
    wants_trial(objective)
    module = sys.modules.get(getattr(objective, "__module__", None) or "")
    by_value = module if module is not None and _is_local_module(module) else None
    if by_value is not None:
        cloudpickle.register_pickle_by_value(by_value)
    file = io.BytesIO()
    pickler = _Pickler(file)
    try:
        pickler.dump(objective)
    except Exception as error:  # noqa: BLE001  whatever hides in the objective's closure
        raise ValueError(f"objective cannot be pickled: {type(error).__name__}: {error}") from None
    finally:
        if by_value is not None:
            cloudpickle.unregister_pickle_by_value(by_value)
    packed = file.getvalue()
    # The objective's own module is in the pickle; its source is needed only where another module imports it.
    used = pickler.used - ({by_value.__name__} if by_value is not None else set())
    try:
        sources = _sources(used)
    except _TooManyError:  # a large package that is installed from its own folder: workers have it or they do not
        try:
            sources = _sources(used, but=_editable())
        except _TooManyError as error:
            raise ValueError(str(error)) from None
    return pickle.dumps(_Package(sources, packed)) if sources else packed


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


class _TooManyError(Exception):
    """More modules than an objective may drag along."""


class _Package:
    """An objective and the modules that have to be there when it is opened."""

    def __init__(self, sources: list[Shipped], packed: bytes) -> None:
        self._opened_by = (sources, packed)

    def __reduce__(self) -> tuple[Any, ...]:
        return opened, self._opened_by


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # Ray ships it without types
    """Notes the modules that the pickle refers to, and those that the functions in it import when they run."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self.used: set[str] = set()

    def reducer_override(self, obj: Any) -> Any:
        """See each object before it is pickled."""
        if isinstance(obj, ModuleType):
            self.used.add(obj.__name__)
        elif isinstance(obj, FunctionType):
            self.used.add(obj.__module__ or "")
            self.used.update(_imported_by(obj.__code__, obj.__globals__))
        else:
            owner = obj if isinstance(obj, type) else type(obj)
            self.used.add(getattr(owner, "__module__", None) or "")
        return super().reducer_override(obj)


def _imported_by(code: CodeType, variables: Mapping[str, Any]) -> Iterator[str]:
    """Return the modules that a function's own code imports, those of functions inside it too."""
    constants: list[Any] = []
    for instruction in dis.get_instructions(code):
        if instruction.opname == "LOAD_CONST":
            constants = [*constants[-1:], instruction.argval]
        elif instruction.opname == "IMPORT_NAME" and len(constants) == 2:
            level, names = constants
            yield from _named(instruction.argval, level or 0, names or (), str(variables.get("__package__") or ""))
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _imported_by(constant, variables)
        elif isinstance(constant, str) and not _IMPORTERS.isdisjoint(code.co_names) and _is_name(constant):
            yield constant  # perhaps the name that it imports; most other texts are the name of no module


def _named(name: str, level: int, names: Iterable[str], package: str) -> Iterator[str]:
    """Return the modules that `from name import names` may mean."""
    if level:
        parts = package.split(".")
        name = ".".join([*parts[: len(parts) - level + 1], *([name] if name else [])])
    yield name
    yield from (f"{name}.{each}" for each in names if each != "*")


def _sources(used: Iterable[str], *, but: Sequence[str] = ()) -> list[Shipped]:
    """Return the local modules among `used` and those that they use in turn, without those below the folders `but`.

    ValueError where one has no source.
    """
    found: dict[str, Shipped] = {}
    waiting, seen, size = sorted(used), {"__main__"}, 0
    while waiting:
        name = waiting.pop()
        if not name or name in seen:
            continue
        seen.add(name)
        waiting.append(name.rpartition(".")[0])
        spec = _spec(name)
        place = None if spec is None else _place(spec)
        if spec is None or place is None or _is_installed(place) or any(Path(place).is_relative_to(each) for each in but):
            continue
        found[name] = shipped = _shipped(name, place)
        size += len(shipped[1])
        if len(found) > _MAX_MODULES or size > _MAX_SOURCE_BYTES:
            raise _TooManyError(
                f"objective uses more than {_MAX_MODULES} local modules or {_MAX_SOURCE_BYTES} bytes of them: install them as "
                f"a package on the workers; the last one looked at is {name!r}"
            )
        waiting += _imported_in(shipped)
    return [found[name] for name in sorted(found)]


def _shipped(name: str, place: str) -> Shipped:
    file = Path(place)
    if file.suffix != ".py":
        raise ValueError(f"objective uses the local module {name!r}, which has no source to ship ({file}): install it")
    if file.name == "__init__.py" and not file.exists():
        return (name, "", place, True)  # a namespace, which has no file
    try:
        return (name, file.read_text(encoding="utf-8"), place, file.name == "__init__.py")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"objective uses the local module {name!r}, which cannot be read: {error}") from None


def _imported_in(shipped: Shipped) -> Iterator[str]:
    name, text, file, is_package = shipped
    try:
        tree = ast.parse(text, file)
    except SyntaxError as error:
        raise ValueError(f"objective uses the local module {name!r}, which is not Python: {error}") from None
    package = name if is_package else name.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from _named(node.module or "", node.level, [alias.name for alias in node.names], package)
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) in _IMPORTERS:
            texts = (each.value for each in node.args if isinstance(each, ast.Constant))
            yield from (text for text in texts if isinstance(text, str) and _is_name(text))


def _is_name(text: str) -> bool:
    return all(part.isidentifier() for part in text.split("."))


def _spec(name: str) -> importlib.machinery.ModuleSpec | None:
    """Return where a module is, without importing anything; None where there is none of that name."""
    if name in sys.builtin_module_names or name.partition(".")[0] in _OURS | sys.stdlib_module_names:
        return None
    known = sys.modules.get(name)
    if known is not None and known.__spec__ is not None:
        return known.__spec__
    parent, _, last = name.rpartition(".")
    if not parent:
        return _found(last, None)
    above = _spec(parent)
    if above is None or above.submodule_search_locations is None:
        return None
    return _found(name, list(above.submodule_search_locations))


def _found(name: str, path: list[str] | None) -> importlib.machinery.ModuleSpec | None:
    try:
        return importlib.machinery.PathFinder.find_spec(name, path)
    except (ImportError, ValueError):
        return None


def _is_local_module(module: ModuleType) -> bool:
    """Return whether a worker may lack this module, or have another state of it."""
    file = getattr(module, "__file__", None)
    # cloudpickle takes __main__ by value anyway; a module without a file is built in.
    return module.__name__ != "__main__" and file is not None and not _is_installed(file)


def _place(spec: importlib.machinery.ModuleSpec) -> str | None:
    """Return the file of a module, of a namespace the one that it does not have; None for what is built in."""
    if spec.origin in {"built-in", "frozen"}:
        return None
    if spec.origin not in {None, "namespace"}:
        return spec.origin
    folder = next(iter(spec.submodule_search_locations or ()), None)
    return None if folder is None else str(Path(folder) / "__init__.py")


def _editable() -> list[str]:
    """Return the folders from which packages are installed without a copy."""
    folders = []
    for site_folder in [*site.getsitepackages(), site.getusersitepackages()]:
        for file in Path(site_folder).glob("*.pth"):
            lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
            folders += [line for line in lines if line.startswith("/") and Path(line).is_dir()]
    return folders


@cache
def _is_installed(file: str) -> bool:
    installed = [*site.getsitepackages(), site.getusersitepackages(), *sysconfig.get_paths().values()]
    return any(Path(file).is_relative_to(folder) for folder in installed)
