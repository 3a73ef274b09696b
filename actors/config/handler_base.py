"""What every handler's settings can do, and what several of them say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

from actors.checks import shown
from actors.config.fields import Section
from actors.config.values import REFERENCE, expand


def checked_url(value: str) -> str:
    """Return an http or https URL, or a reference to one; ValueError otherwise."""
    if not (value.startswith(("http://", "https://")) or REFERENCE.match(value)):
        raise ValueError(f"must be an http or https URL, got {shown(value)}")
    return value


class HandlerBase(Section):
    """What every handler can do."""

    def expanded(self, environment: Mapping[str, str]) -> Self:
        """Return the same with every `${NAME}` expanded; only to be held as long as the launch takes."""
        return self.model_copy(
            update={name: expand(getattr(self, name), environment) for name in type(self).model_fields if name != "then"}
        )
