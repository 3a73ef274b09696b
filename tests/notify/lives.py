"""A process that begins a notifier each time a line comes in, and says which one and when it has ended: for the drill.

Everything is imported once, so that a life begins in milliseconds; a life is a real process, ended by a real kill.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys

from actors.notify.actor import NotifierActor

_HINTS_S = 0.02


async def live(url: str) -> None:
    """Notify until the process is killed, as if rooms hinted all the time."""
    notifier = NotifierActor(name="notifier", namespace="drill", storage=url)
    while True:
        await notifier.hint()
        await asyncio.sleep(_HINTS_S)


def main() -> None:
    """Begin lives, one after the other."""
    logging.disable()
    (url,) = sys.argv[1:]
    for _ in sys.stdin:
        child = os.fork()
        if child == 0:
            with contextlib.suppress(BaseException):
                asyncio.run(live(url))
            os._exit(1)
        print(child, flush=True)
        os.waitpid(child, 0)
        print("ended", flush=True)


if __name__ == "__main__":
    main()
