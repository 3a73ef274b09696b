"""The random numbers of a trial: a function of the study's seed and the trial's id, of nothing else.

`SeedSequence(seed, spawn_key=...)` (numpy; O'Neill's seed_seq design) gives independent streams, so neither the order of
trials nor the number of workers nor a restart changes a draw.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.random import PCG64, Generator, SeedSequence

# Draws are made for this many consecutive trials at once: a stream costs 20 us to begin, a number next to nothing.
_BLOCK = 256


def trial_seed(seed: int, trial: int) -> int:
    """Return the seed that an objective may use, in [0, 2**32): the widest that scikit-learn and numpy's old interface take."""
    return int(SeedSequence(seed, spawn_key=(trial,)).generate_state(1, np.uint32)[0])


def uniform_draws(seed: int, trial: int, count: int) -> list[float]:
    """Return `count` uniform numbers in [0, 1) for the parameters of a trial; apart from the stream behind `trial_seed`."""
    block, place = divmod(trial, _BLOCK)
    return _draws(seed, block, count)[place]


def fresh_seed() -> int:
    """Draw a seed from the operating system, for who gave none; it is kept with the study."""
    return int(SeedSequence().generate_state(1, np.uint32)[0])


@lru_cache(maxsize=4)
def _draws(seed: int, block: int, count: int) -> list[list[float]]:
    drawn: list[list[float]] = Generator(PCG64(SeedSequence(seed, spawn_key=(block, 1)))).random((_BLOCK, count)).tolist()
    return drawn
