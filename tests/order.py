"""In which order files of tests run: so that two processes end together, and none waits at the end for the longest file.

Files with a Ray of their own wait most of their time; files without one compute. One of each goes side by side, the longest
first. Those that share the Ray of their process come last: it stays connected, and the tests before want none.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

# Seconds on two quiet cores of the files that take longest (`make test`, `--durations=0`). A file that is missing here costs at
# most that the last process ends later.
SECONDS: Final = {
    "tests/cluster/test_pages_how_to.py": 148,
    "tests/cluster/test_pages_laptop.py": 96,
    "tests/cluster/test_lifecycle.py": 90,
    "tests/cluster/test_tuner.py": 71,
    "tests/cluster/test_chaos_controls.py": 67,
    "tests/cluster/test_upgrade.py": 65,
    "tests/cluster/test_nodes.py": 65,
    "tests/cluster/test_promotions.py": 61,
    "tests/cluster/test_chaos.py": 60,
    "tests/cluster/test_secured.py": 50,
    "tests/cluster/test_tuning_loop.py": 44,
    "tests/cluster/test_tuner_nodes.py": 43,
    "tests/cluster/test_dispatcher.py": 36,
    "tests/cluster/test_data_path.py": 32,
    "tests/cluster/test_demo.py": 22,
    "tests/cluster/test_sources.py": 21,
    "tests/cluster/test_notifier.py": 21,
    "tests/contracts/test_remote_handlers.py": 21,
    "tests/docs/test_site.py": 19,
    "tests/cluster/test_handlers_on_ray.py": 12,
    "tests/cluster/test_small_disk.py": 10,
    "tests/cluster/test_caller_without_package.py": 10,
    "tests/cluster/test_store_lost.py": 9,
    "tests/unit/drivers/test_terminals.py": 7,
    "tests/contracts/test_executors.py": 7,
    "tests/contracts/test_store.py": 6,
    "tests/contracts/test_backup.py": 6,
    "tests/unit/detection/test_bounded_memories.py": 5,
}
_USUAL_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class File:
    """A file of tests, by its path from the root of the repository."""

    path: str
    shares_ray: bool

    @property
    def seconds(self) -> float:
        """Return how long it takes, as far as that is known."""
        return SECONDS.get(self.path, _USUAL_S)


def ordered(files: Iterable[File]) -> list[File]:
    """Return the files in the order in which they are to run; those that are alike keep their order."""
    longest_first = sorted(files, key=lambda file: -file.seconds)
    waiting = [file for file in longest_first if not file.shares_ray and file.path.startswith("tests/cluster/")]
    computing = [file for file in longest_first if not file.shares_ray and not file.path.startswith("tests/cluster/")]
    found, waited_s, computed_s = list[File](), 0.0, 0.0
    while waiting or computing:
        if waiting and (waited_s <= computed_s or not computing):
            found.append(waiting.pop(0))
            waited_s += found[-1].seconds
        else:
            found.append(computing.pop(0))
            computed_s += found[-1].seconds
    return found + [file for file in longest_first if file.shares_ray]
