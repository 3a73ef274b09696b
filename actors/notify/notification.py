"""A notification: one message about a group of happenings, and the interface of its senders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NotRequired, Protocol, TypedDict

from actors.replies import Happening, Severity


class Told(TypedDict):
    """One happening as a receiver gets it, with the labels of its model; `resolved` is there once it is over."""

    happening: Happening
    labels: dict[str, str]
    resolved: NotRequired[Happening]


@dataclass(frozen=True, slots=True)
class Notification:
    """One message. A resend has the same `id`, so a receiver that remembers ids shows it once.

    `text` is plain. `link` leads to
    the page of what it tells, `base` is where the page begins.
    """

    id: str
    receiver: str
    at: float
    severity: Severity
    group: Mapping[str, str]
    firing: Sequence[Told]
    resolved: Sequence[Told]
    title: str = ""
    text: str = ""
    link: str | None = None
    base: str | None = None


class ReceiverError(RuntimeError):
    """It could not be sent; the text says why, and holds no secret. `for_good`: nor will it be, whatever is tried."""

    def __init__(self, text: str, *, for_good: bool = False, after_s: float | None = None) -> None:
        """Take the reason; `after_s`: when the receiver accepts a retry."""
        super().__init__(text)
        self.for_good = for_good
        self.after_s = after_s


class Notifier(Protocol):
    """Sends messages; called by one thread, one message after the other. It must have a time limit of its own.

    Example:
        class Print:
            def send(self, notification):
                print(notification.title)
    """

    def send(self, notification: Notification) -> None:
        """Send it; ReceiverError, or any other exception, where that failed: it is tried again under the same id."""
