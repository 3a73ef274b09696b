"""End the Ray that `visutility up` started, and the system in it.

Every other Ray on this machine keeps running.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Sequence
from typing import Final

from drivers.commands import FINE, command, run
from drivers.output import Output

_PATIENCE_S: Final = 30.0


@command("down", help=__doc__, examples=["visutility down"])
def down(*, output: Output) -> int:
    """End what `visutility up` began."""
    from actors.cluster import connection  # 0.5 s; help does without

    known = connection.remembered()
    if known is None:
        output.line("nothing is up")
        output.result({"ended": False})
        return FINE
    pid = int(known["pid"])
    # The number may be another process's by now; the time at which it began may not.
    ours = connection.alive(pid) and connection.began(pid) == known["began"]
    if ours:
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + _PATIENCE_S
        while connection.alive(pid):
            if time.monotonic() > deadline:
                # Ray's reaper ends the other processes when their parent is gone.
                os.kill(pid, signal.SIGKILL)
                break
            time.sleep(0.05)
    connection.note().unlink(missing_ok=True)
    output.line(f"ended the Ray at {known['address']}" if ours else "the Ray of `visutility up` has ended already")
    output.result({"ended": ours, "address": known["address"]})
    return FINE


def main(argv: Sequence[str] | None = None) -> int:
    """Run `visutility down`."""
    return run(down, argv)


if __name__ == "__main__":
    sys.exit(main())
