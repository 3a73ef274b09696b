"""A memory of recently used entries, whose owner says when none of them is in use."""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Recent(Generic[K, V]):
    """A mapping that keeps the `limit` entries used last; it evicts in `trim` alone.

    A memory that evicts during an insertion sooner or later forgets an entry that the same work needs. So the
    caller trims after a group of entries, when none of them is in use any more.

    >>> recent: Recent[str, int] = Recent(2)
    >>> for number, name in enumerate("abc"):
    ...     recent[name] = number
    >>> recent["a"]
    0
    >>> recent.trim()
    >>> "a" in recent, "b" in recent, "c" in recent
    (True, False, True)
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._entries: OrderedDict[K, V] = OrderedDict()

    def __contains__(self, key: K) -> bool:
        return key in self._entries

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, key: K) -> V:
        self._entries.move_to_end(key)
        return self._entries[key]

    def __setitem__(self, key: K, value: V) -> None:
        self._entries[key] = value
        self._entries.move_to_end(key)

    def discard(self, key: K) -> None:
        """Forget an entry, if there is one."""
        self._entries.pop(key, None)

    def trim(self) -> None:
        """Evict the least recently used entries, down to the limit."""
        while len(self._entries) > self.limit:
            self._entries.popitem(last=False)
