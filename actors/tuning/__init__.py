"""The logic of the search: spaces, strategies, stopping rules, and the book of a study's trials. No Ray, no clock."""

from actors.tuning.create import create
from actors.tuning.grid import GridTuner
from actors.tuning.interface import ExhaustedError, Learner, PastTrial, TuningStrategy
from actors.tuning.random_search import RandomSearchTuner

__all__ = ["ExhaustedError", "GridTuner", "Learner", "PastTrial", "RandomSearchTuner", "TuningStrategy", "create"]
