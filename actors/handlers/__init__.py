"""The ways to launch a retrain, one a file; `create` makes one from its settings."""

from __future__ import annotations

from typing import Any

from actors.handlers.interface import Handler, Surroundings

__all__ = ["Handler", "Surroundings", "create"]


def create(settings: Any, surroundings: Surroundings) -> Handler:
    """Make the handler that `settings` describe; `channel` is not among them, since nobody launches it."""
    raise ValueError(f"handler must be one that {surroundings.namespace} can launch, got {settings.kind!r}")
