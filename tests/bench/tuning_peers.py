"""What a user would otherwise search with, measured alongside the tuner: Optuna, Rustuna and Ray Tune."""

from __future__ import annotations

import importlib
import logging
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any

import ray


def has_ray_tune() -> bool:
    """Return whether Ray Tune and what it needs are installed."""
    return all(find_spec(name) for name in ("fsspec", "pyarrow", "pandas", "tensorboardX"))


def optuna_rate(trials: int, threads: int) -> float:
    """Return Optuna's no-op trials a second: in this process, in memory, random sampler."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    began_s = time.perf_counter()
    study.optimize(lambda trial: trial.suggest_float("x", 0.0, 1.0), n_trials=trials, n_jobs=threads)
    return trials / (time.perf_counter() - began_s)


def has_rustuna() -> bool:
    """Return whether Rustuna is installed."""
    return find_spec("rustuna") is not None


def rustuna_rate(trials: int) -> float:
    """Return Rustuna's no-op trials a second: in this process, in memory, random sampler, one thread."""
    rustuna: Any = importlib.import_module("rustuna")
    study = rustuna.create_study(sampler=rustuna.samplers.RandomSampler(seed=1))
    began_s = time.perf_counter()
    study.optimize(lambda trial: trial.suggest_float("x", 0.0, 1.0), n_trials=trials)
    return trials / (time.perf_counter() - began_s)


def optuna_best(
    objective: Callable[[dict[str, float]], float],
    space: dict[str, list[Any]],
    *,
    trials: int,
    workers: int,
    seed: int,
    pause_s: float,
) -> float:
    """Return the best value that Optuna's TPE finds alone, by threads, each trial taking `pause_s`."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)

    def asked(trial: Any) -> float:
        params = {name: trial.suggest_float(name, low, high, log=bool(log)) for name, (low, high, *log) in space.items()}
        time.sleep(pause_s)
        return objective(params)

    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed, constant_liar=True))
    study.optimize(asked, n_trials=trials, n_jobs=workers)
    return float(study.best_value)


def optuna_on_ray_s(durations_s: Sequence[float], workers: int) -> float:
    """Return the seconds that Optuna's ask and tell takes over Ray tasks."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)

    @ray.remote(num_cpus=1)
    def sleeping(x: float, seconds: float) -> float:
        time.sleep(seconds)
        return x

    ray.get([sleeping.remote(0.0, 0.3) for _ in range(workers)])  # its worker processes are there
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    running: dict[Any, Any] = {}
    left = list(reversed(durations_s))
    began_s = time.perf_counter()
    while left or running:
        while left and len(running) < workers:
            trial = study.ask()
            running[sleeping.remote(trial.suggest_float("x", 0.0, 1.0), left.pop())] = trial
        (done,), _ = ray.wait(list(running), num_returns=1)
        study.tell(running.pop(done), ray.get(done))
    return time.perf_counter() - began_s


def ray_tune_s(durations_s: Sequence[float], workers: int, cpus: int) -> float:
    """Return the seconds that Ray Tune takes with reused actors, on the Ray that runs."""
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
    from ray import tune

    class Sleeping(tune.Trainable):  # type: ignore[misc, unused-ignore]
        def setup(self, config: dict[str, Any]) -> None:
            self._seconds = config["seconds"]

        def step(self) -> dict[str, Any]:
            time.sleep(self._seconds)
            return {"loss": 0.0, "done": True}

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            self._seconds = new_config["seconds"]
            return True

        def save_checkpoint(self, _checkpoint_dir: str) -> None:
            return None

        def load_checkpoint(self, _checkpoint: Any) -> None:
            return None

    for name in ("ray.tune", "ray.train"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        tuner = tune.Tuner(
            tune.with_resources(Sleeping, {"cpu": cpus / workers}),
            param_space={"seconds": tune.grid_search(list(durations_s))},
            tune_config=tune.TuneConfig(reuse_actors=True, max_concurrent_trials=workers, metric="loss", mode="min"),
            run_config=tune.RunConfig(verbose=0, storage_path=folder),
        )
        began_s = time.perf_counter()
        results = tuner.fit()
        seconds = time.perf_counter() - began_s
    if results.num_errors:
        raise RuntimeError(f"Ray Tune: {results.num_errors} trials failed")
    return seconds
