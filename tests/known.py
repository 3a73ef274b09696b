"""What a test knows to be there: it says so once, a type checker believes it, and the test fails with a reason if it is not."""

from __future__ import annotations

from typing import TypeVar

from actors.replies import Unavailable

T = TypeVar("T")


def some(value: T | None) -> T:
    """Return the value that this test knows to be there."""
    assert value is not None, "nothing is there"
    return value


def answered(reply: T | Unavailable) -> T:
    """Return an actor's answer; a store that cannot be reached is no answer."""
    assert not (isinstance(reply, dict) and reply.get("status") == "unavailable"), reply
    return reply  # type: ignore[return-value]
