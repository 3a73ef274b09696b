"""The measurements of `python -m tests.bench tuning`: one function a section, each returns plain figures."""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any, Final

from actors.tuning.study import Study
from drivers.objectives import (
    BRANIN_MINIMUM,
    BRANIN_SPACE,
    DIGITS_SPACE,
    HARTMANN6_MINIMUM,
    HARTMANN6_SPACE,
    branin,
    digits,
    hartmann6,
)
from tests.bench import tuning_peers as peers
from tests.bench.tuning_stage import CPUS, NAMESPACE, SPACE, Stage, Trace, exponential, ideal_s, nothing, sleeping

Figures = dict[str, Any]
Say = Callable[[str], None]
EXECUTORS: Final = ("inline", "child", "fork")
# The peers run in one process and in memory: nothing survives its end.
OPTUNA_TWO: Final = "Optuna, two threads"
OPTUNA_ONE: Final = "Optuna, one thread"
RUSTUNA: Final = "Rustuna, one thread"
# No-op trials of one lap: about half a second each.
_LAP: Final = {"inline": 8000, "child": 4000, "fork": 400}
_TUNE_LAP: Final = 100  # Ray Tune's rate falls with the number of trials
_RUSTUNA_LAP: Final = 50_000


def throughput(stage: Stage, laps: int, say: Say) -> Figures:
    """Measure no-op trials a second at concurrency 2, peers in between."""
    who = (*EXECUTORS, "inline, 100 trials", OPTUNA_TWO, OPTUNA_ONE, RUSTUNA, "ray tune")
    rates: dict[str, list[float]] = {name: [] for name in who}
    with_tune = peers.has_ray_tune()
    if with_tune:
        peers.ray_tune_s([0.0] * 4, 2, CPUS)  # the first run imports and exports
    for lap in range(laps):
        say(f"throughput, lap {lap + 1} of {laps}")
        for executor in EXECUTORS:
            stage.run(nothing, 2, max_concurrent=2, executor=executor)
            _, seconds = stage.run(nothing, _LAP[executor], max_concurrent=2, executor=executor, seed=lap)
            rates[executor].append(_LAP[executor] / seconds)
        _, seconds = stage.run(nothing, _TUNE_LAP, max_concurrent=2, seed=lap)
        rates["inline, 100 trials"].append(_TUNE_LAP / seconds)
        rates[OPTUNA_TWO].append(peers.optuna_rate(2000, 2))
        rates[OPTUNA_ONE].append(peers.optuna_rate(2000, 1))  # threads take Python's lock from each other
        if peers.has_rustuna():
            rates[RUSTUNA].append(peers.rustuna_rate(_RUSTUNA_LAP))
        if with_tune:
            rates["ray tune"].append(_TUNE_LAP / peers.ray_tune_s([0.0] * _TUNE_LAP, 2, CPUS))
    medians = {name: statistics.median(found) for name, found in rates.items() if found}
    return {
        "trials_per_s": {name: spread(found) for name, found in rates.items() if found},
        "over_optuna": {name: medians[name] / medians[OPTUNA_TWO] for name in EXECUTORS},
        "over_optuna_alone": {name: medians[name] / medians[OPTUNA_ONE] for name in EXECUTORS},
        "over_ray_tune": {name: medians[name] / medians["ray tune"] for name in EXECUTORS} if with_tune else None,
    }


def cold_start(say: Say, laps: int) -> Figures:
    """Measure until the eighth of eight cold workers runs a trial of 64, and how long Ray alone takes for eight tasks."""
    taken: dict[str, list[float]] = {"tuner": [], "ray": []}
    for lap in range(laps):
        for who, seconds in taken.items():
            say(f"cold start, {who}, lap {lap + 1} of {laps}")
            command = [sys.executable, "-m", "tests.bench.tuning_cold", who]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise RuntimeError(f"cold start, {who}: {done.stderr[-500:]}")
            seconds.append(float(done.stdout.split()[-1]))
    ratios = [ours / rays for ours, rays in zip(taken["tuner"], taken["ray"], strict=True)]
    return {"seconds": {who: spread(each) for who, each in taken.items()}, "over_ray": spread(ratios)}


def makespan_exponential(stage: Stage, laps: int, say: Say, mean_s: float) -> Figures:
    """Measure 64 trials of exponentially distributed length at concurrency 8."""
    return _makespan(stage, laps, say, f"64 trials, Exp({mean_s:g} s)", exponential(64, mean_s))


def makespan_equal(stage: Stage, laps: int, say: Say) -> Figures:
    """Measure 400 trials of 50 ms at concurrency 8."""
    return _makespan(stage, laps, say, "400 trials of 50 ms", [0.05] * 400)


def _makespan(stage: Stage, laps: int, say: Say, case: str, durations_s: list[float]) -> Figures:
    """Measure how much longer than a scheduler that costs nothing."""
    ideal = ideal_s(durations_s, 8)
    overs: dict[str, list[float]] = {}
    for lap in range(laps):
        say(f"makespan of {case}, lap {lap + 1} of {laps}, {ideal:.1f} s each at best")
        for executor in EXECUTORS:
            stage.warm(8)  # Ray ends idle processes where another's tasks want theirs
            _, seconds = stage.run(sleeping(durations_s), len(durations_s), max_concurrent=8, executor=executor)
            overs.setdefault(executor, []).append(seconds / ideal - 1)
        overs.setdefault("optuna on ray", []).append(peers.optuna_on_ray_s(durations_s, 8) / ideal - 1)
    if peers.has_ray_tune():
        overs["ray tune (one lap)"] = [peers.ray_tune_s(durations_s, 8, CPUS) / ideal - 1]
    return {"case": case, "ideal_s": ideal, "over": {who: spread(each) for who, each in overs.items()}}


def faults(stage: Stage, say: Say, *, trials: int) -> Figures:
    """Kill the tuner, workers and the driver, each by `kill -9`, and count what was lost and what was run again."""
    return {
        "tuner killed 3 times": _tuner_killed(stage, say, trials),
        "workers killed 3 times": _workers_killed(stage, say),
        "driver killed, study resumed by name": _driver_killed(stage, say),
    }


def _tuner_killed(stage: Stage, say: Say, trials: int) -> Figures:
    say(f"tuner killed three times in {trials} trials of 2 ms")
    trace = Trace(stage.folder / "tuner-killed")
    stage.tuning.submit(trace.objective(0.002), SPACE, trials=trials, name="tuner killed", seed=1, max_concurrent=2)
    for part in (1, 2, 3):
        trace.wait_for(trials * part // 5)
        stage.kill("tuner")
    study = stage.tuning.wait("tuner killed", timeout_s=300)
    return {"trials": trials, **_lost_and_repeated(study, trace)}


def _workers_killed(stage: Stage, say: Say) -> Figures:
    say("workers killed three times in 400 trials of 5 ms")
    trace = Trace(stage.folder / "workers-killed")
    stage.tuning.submit(trace.objective(0.005), SPACE, trials=400, name="workers killed", seed=1, max_concurrent=2)
    reported: dict[int, int] = {}  # trials known as completed, and how often they had run by then
    for part in (1, 2, 3):
        trace.wait_for(80 * part)
        completed = [trial.id for trial in stage.tuning.study("workers killed").trials if trial.state == "COMPLETED"]
        times = trace.times()
        reported.update({trial: times[trial] for trial in completed})
        os.kill(trace.executions()[-1][1], signal.SIGKILL)
        trace.wait_for(len(trace.executions()) + 20)
    study = stage.tuning.wait("workers killed", timeout_s=300)
    figures = _lost_and_repeated(study, trace)
    times = trace.times()
    again = [trial for trial, before in reported.items() if times[trial] > before]
    return {"trials": 400, **figures, "repeated although reported": len(again)}


_DRIVER: Final = """
import sys, ray
from pathlib import Path
from actors.tuning.client import Tuning
from tests.bench.tuning_stage import NAMESPACE, SPACE, Trace
ray.init(address=sys.argv[1], logging_level="ERROR", log_to_driver=False)
objective = Trace(Path(sys.argv[2])).objective(0.02)
Tuning(NAMESPACE).run(objective, SPACE, trials=200, name="driver killed", seed=1, max_concurrent=2)
"""


def _driver_killed(stage: Stage, say: Say) -> Figures:
    import ray

    say("driver killed in 200 trials of 20 ms, and its study resumed by name")
    trace = Trace(stage.folder / "driver-killed")
    address = ray.get_runtime_context().gcs_address
    driver = subprocess.Popen([sys.executable, "-c", _DRIVER, address, str(trace.path)])
    try:
        trace.wait_for(40)
    finally:
        driver.kill()
        driver.wait()
    study = stage.tuning.run(trace.objective(0.02), SPACE, trials=200, name="driver killed", seed=1, progress=False)
    return {"trials": 200, **_lost_and_repeated(study, trace)}


def _lost_and_repeated(study: Study, trace: Trace) -> Figures:
    times = trace.times()
    completed = {trial.id for trial in study.trials if trial.state == "COMPLETED"}
    return {
        "completed": len(completed),
        "lost": len(times.keys() - completed),
        "repeated": sum(times.values()) - len(times),
    }


def time_outs(stage: Stage, say: Say, *, trials: int) -> Figures:
    """Measure how late a hard time-out of 0.3 s ends a trial."""
    timeout_s = 0.3
    found: Figures = {"timeout_s": timeout_s}
    for executor in ("child", "fork"):
        say(f"time-outs, {executor}")
        study, _ = stage.run(sleeping([60.0] * trials), trials, timeout_s=timeout_s, executor=executor, max_concurrent=2)
        late_ms = [(trial.seconds - timeout_s) * 1000 for trial in study.trials if trial.state == "TIMED_OUT" and trial.seconds]
        found[executor] = {"timed_out": len(late_ms), "late_ms": spread(late_ms)}
    return found


def equality(stage: Stage, say: Say, *, trials: int) -> Figures:
    """Run one seed with 1, 2 and 8 workers, and once more with a killed tuner: the tables must be equal bit for bit."""

    def objective(params: dict[str, Any], trial: Any) -> float:
        return float(params["x"] * trial.seed)

    tables: dict[str, str] = {}
    for workers in (1, 2, 8):
        say(f"equality, {workers} workers")
        study, _ = stage.run(objective, trials, seed=42, max_concurrent=workers)
        tables[f"{workers} workers"] = _table(study)
    say("equality, tuner killed")
    stage.tuning.submit(objective, SPACE, trials=trials, seed=42, name="equality, killed", max_concurrent=2, executor="child")
    stage.kill("tuner")
    tables["2 workers in child processes, tuner killed"] = _table(stage.tuning.wait("equality, killed", timeout_s=120))
    first = next(iter(tables.values()))
    return {"trials": trials, "equal": {name: table == first for name, table in tables.items()}}


def _table(study: Study) -> str:
    return json.dumps([(trial.id, trial.params, trial.value) for trial in study.trials])


def tpe(stage: Stage, say: Say, *, seeds: int, trials: int = 50, workers: int = 4, pause_s: float = 0.01) -> Figures:
    """Compare TPE by our adapter with Optuna alone: the median regret over seeds, both at parallelism 4."""
    from scipy.stats import mannwhitneyu

    tasks: dict[str, tuple[Any, dict[str, list[Any]], float]] = {
        "branin": (branin, BRANIN_SPACE, BRANIN_MINIMUM),
        "hartmann6": (hartmann6, HARTMANN6_SPACE, HARTMANN6_MINIMUM),
        "digits, RBF SVM": (digits, DIGITS_SPACE, 0.0),
    }
    found: Figures = {"seeds": seeds, "trials": trials, "parallelism": workers}
    for name, (objective, space, minimum) in tasks.items():
        regrets: dict[str, list[float]] = {"adapter": [], "optuna alone": [], "random": []}
        for seed in range(seeds):
            say(f"TPE on {name}, seed {seed + 1} of {seeds}")
            for who, strategy in (("adapter", {"name": "optuna:TPESampler", "constant_liar": True}), ("random", "random")):
                study, _ = stage.run(
                    _paused(objective, pause_s), trials, space=space, strategy=strategy, seed=seed, max_concurrent=workers
                )
                regrets[who].append((study.best.value or 0.0) - minimum)
            best = peers.optuna_best(objective, space, trials=trials, workers=workers, seed=seed, pause_s=pause_s)
            regrets["optuna alone"].append(best - minimum)
        p = float(mannwhitneyu(regrets["adapter"], regrets["optuna alone"]).pvalue)
        found[name] = {"regret": {who: spread(each) for who, each in regrets.items()}, "mann_whitney_p": p}
    return found


def _paused(objective: Callable[[dict[str, float]], float], pause_s: float) -> Callable[[dict[str, float]], float]:
    def paused(params: dict[str, float]) -> float:
        time.sleep(pause_s)
        return float(objective(params))

    return paused


def spread(values: list[float]) -> Figures:
    """Return the median and the range."""
    if not values:
        return {"median": None, "min": None, "max": None, "n": 0}
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "n": len(values)}


__all__ = [
    "EXECUTORS",
    "NAMESPACE",
    "cold_start",
    "equality",
    "faults",
    "makespan_equal",
    "makespan_exponential",
    "spread",
    "throughput",
    "time_outs",
    "tpe",
]
