"""The mappings whose keys nobody here can list, named by why that is so; whatever has known keys is a TypedDict or a dataclass.

A checker cannot look into any of them, so each stays at a border: it is read once, checked, and turned into a record.
"""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]
"""A JSON object whose keys are a user's or another program's: parameters, a space, options, an explanation, a reply."""

Arguments = dict[str, Any]
"""Keyword arguments on their way to a function that a text names (an actor's method, an importable function), or to Ray."""

Values = dict[str, Any]
"""A row of a database or of a file, as values by the name of their column."""

Saved = dict[str, Any]
"""What one class has written of itself and it alone reads again: the state of a detector, a season, a recovery watch."""
