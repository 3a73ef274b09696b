"""What a chaos run is made of: its models, their configuration, the drift that is injected, the identity of events.

Every event carries its identity in its values (`id`, a number that float64 holds exactly), so that the checker compares sets of
events and not only counts. Time is cut into phases: each is a version of its own, its first half good, its second half
drifted, so each phase opens one episode a model.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

# The first models to be placed have a process each, the others share two.
MODELS: Final = ("chaos/channel", "chaos/task", "chaos/hook", "chaos/class", "chaos/channel-2")
CHANNELS: Final = ("chaos/channel", "chaos/channel-2")
HOOK: Final = "chaos/hook"
MAX_PROCESSES: Final = 4
FOLDER_VARIABLE: Final = "VISUTILITY_CHAOS_FOLDER"
LEASE_S: Final = 5.0
_SOURCE: Final = 2**40  # events of one source; both factors together stay below 2**53
_GOOD_SHARE: Final = 0.5
_GOOD, _BAD, _NOISE = 0.9, 0.5, 0.01


@dataclass(frozen=True, slots=True)
class Scenario:
    """What every process of a run must know."""

    folder: str
    address: str
    namespace: str
    storage: str
    seed: int
    events_per_s: float  # of all producers together
    phase_s: float
    cooldown_s: float
    hook_port: int
    crowd: int = 0  # how many producers of one model a process is, besides the others

    def path(self, name: str) -> Path:
        """Return the file `name` of the run."""
        return Path(self.folder) / name

    def plain(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        return asdict(self)


def document(scenario: Scenario) -> dict[str, Any]:
    """Return the configuration of the system under test: every kind of handler that needs no service, short cooldowns."""
    hook = {"kind": "webhook", "url": f"http://127.0.0.1:{scenario.hook_port}/", "timeout": "2s"}
    return {
        "storage": scenario.storage,
        "detectors": {"max_processes": MAX_PROCESSES},
        "retention": {"rows": 10_000_000},
        # What chaos breaks is tried again soon, and for longer than any run: a dead letter would be a breach.
        "delivery": {"attempts": 100, "backoff": "200ms", "max_backoff": "1s"},
        "defaults": {
            "cooldown": f"{scenario.cooldown_s:g}s",
            "handler": {"kind": "channel", "lease": f"{LEASE_S:g}s"},
        },
        "models": {
            "chaos/task": {
                "handler": {"kind": "task", "target": "tests.chaos.launches:retrain", "resources": {"num_cpus": 0.1}}
            },
            "chaos/hook": {"handler": hook},
            "chaos/class": {"handler": {"kind": "tests.chaos.launches:Launches", "options": {"folder": scenario.folder}}},
        },
    }


def version_at(scenario: Scenario, wall_s: float) -> str:
    """Name the version that logs at this time."""
    return f"v{math.floor(wall_s / scenario.phase_s)}"


def accuracy_at(scenario: Scenario, wall_s: float, rows: int, random: np.random.Generator) -> Floats:
    """Return `rows` values as the model has them at this time: float64[rows]."""
    good = (wall_s / scenario.phase_s) % 1.0 < _GOOD_SHARE
    return np.clip((_GOOD if good else _BAD) + random.normal(0.0, _NOISE, rows), 0.0, 1.0)


def identities(source: int, first: int, rows: int) -> Floats:
    """Return the identities of a source's events from the number `first` on: float64[rows], exact."""
    return source * float(_SOURCE) + np.arange(first, first + rows, dtype=np.float64)


def sources_of(ids: Floats) -> dict[int, npt.NDArray[np.int64]]:
    """Sort identities by source; the numbers of each come in the order of `ids`."""
    whole = ids.astype(np.int64)
    source, number = whole // _SOURCE, whole % _SOURCE
    return {int(each): number[source == each] for each in np.unique(source)}
