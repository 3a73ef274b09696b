"""The page of a store, served by a thread of this process: for the tests in a browser and the pictures of the documentation."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from actors.ui import serving
from tests.database import free_port


@contextmanager
def page_of(store: str) -> Iterator[str]:
    """Serve the store of a URL as `visutility ui` does, and give the page's address, without a slash at its end."""
    with serving.prepared(store, None, host=None, port=free_port(), environment={}) as prepared:
        thread = threading.Thread(target=prepared.run)
        thread.start()
        try:
            yield prepared.url.rstrip("/")
        finally:
            prepared.end()
            thread.join(30)
