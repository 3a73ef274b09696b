"""The random numbers of a trial: a function of the study's seed and the trial's id, of nothing else.

`SeedSequence(seed, spawn_key=(trial,))` (numpy; O'Neill's seed_seq design) gives every trial a stream of its own at about
6 us, so neither the order of trials nor the number of workers nor a restart changes a draw.
"""

from __future__ import annotations

import numpy as np
from numpy.random import SeedSequence

# The 53 upper bits of a word fill a double and make a uniform number in [0, 1).
_UNIT = 2.0**-53


def trial_seed(seed: int, trial: int) -> int:
    """Give the seed that an objective may use, in [0, 2**32): the widest that scikit-learn and numpy's old interface take."""
    return int(SeedSequence(seed, spawn_key=(trial,)).generate_state(1, np.uint32)[0])


def uniform_draws(seed: int, trial: int, count: int) -> list[float]:
    """Give `count` uniform numbers in [0, 1) for the parameters of a trial; apart from the stream behind `trial_seed`."""
    words = SeedSequence(seed, spawn_key=(trial, 1)).generate_state(count, np.uint64)
    return [(word >> 11) * _UNIT for word in words.tolist()]


def fresh_seed() -> int:
    """Draw a seed from the operating system, for who gave none; it is kept with the study."""
    return int(SeedSequence().generate_state(1, np.uint32)[0])
