"""Makes a source of its settings; each kind imports what it needs where it is made."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from typing import Any, Final

from actors import plugins
from actors.config.registry import MlflowRegistrySettings
from actors.config.sources import (
    CustomSourceSettings,
    FilesSettings,
    MlflowSettings,
    PrometheusSettings,
    SourceSettings,
    SqlSettings,
)
from actors.sources.interface import Source, SourceError
from actors.sources.mlflow_registry import Decisions, MlflowRegistry

# What `status` calls the registry among the sources.
REGISTRY: Final = "registry.mlflow"


def make(
    settings: SourceSettings | MlflowRegistrySettings,
    environment: Mapping[str, str] | None = None,
    *,
    decisions: Decisions = lambda _model: (),
) -> Source:
    """Return the source that `settings` names, with `${NAME}` taken from the environment of this process.

    Raises:
        SourceError: it cannot be made, say because a package is missing.
        ValueError: a variable of the environment is missing.

    Example:
        make(FilesSettings(kind="files", path="/data/metrics")).read(None, now_s=0.0)
    """
    said = settings.expanded(os.environ if environment is None else environment)
    match said:
        case PrometheusSettings():
            from actors.sources.prometheus import Prometheus  # each kind is imported by those who use it

            return Prometheus(said)
        case SqlSettings():
            from actors.sources.sql import Sql  # as above

            return Sql(said)
        case FilesSettings():
            from actors.sources.files import Files  # as above

            return Files(said)
        case MlflowSettings():
            from actors.sources.mlflow import Mlflow  # as above

            return Mlflow(said)
        case MlflowRegistrySettings():
            return MlflowRegistry(said, decisions)
        case CustomSourceSettings():
            source: Source = _class(said.kind)(**said.options)
            return source


def _class(kind: str) -> Any:
    if ":" not in kind:
        try:
            return plugins.load("sources", kind)
        except KeyError:
            known = ", ".join(["prometheus", "sql", "files", "mlflow", *plugins.names("sources")])
            raise SourceError(f"kind must be one of {known} or module:Class, got {kind!r}") from None
    module, _, name = kind.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise SourceError(f"kind {kind!r} cannot be imported: {error}") from None
