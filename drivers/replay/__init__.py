"""Send a file of events through the system, or see what another configuration would make of it or of the stored history."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from drivers.arguments import FAILED, FINE, Parser, add_cluster, run
from drivers.output import Output

if TYPE_CHECKING:
    from actors.config import Settings
    from actors.rehearsal import Outcome, Rehearsal
    from actors.storage import Store
    from actors.wire import Batch, Bools, Floats

_FLUSH_S: Final = 600.0
_SHOWN: Final = 5  # rejected lines that are printed
_PER_MODEL: Final = 20_000  # values that are kept for the plot
EPISODE_COLUMNS: Final = (
    "configuration",
    "model",
    "version",
    "alarm at",
    "metric",
    "from",
    "to",
    "events late",
    "order",
    "closed by",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run `visutility replay`."""
    parser = Parser("replay", __doc__, example="visutility replay --what-if other.yaml")
    parser.add_argument("file", nargs="?", type=Path, help="CSV or JSONL (default, for --what-if: the stored history)")
    parser.add_argument(
        "--dry-run", action="store_true", help="send nothing: say what the configuration would have made of FILE"
    )
    parser.add_argument("--what-if", type=Path, metavar="OTHER", help="rehearse with this configuration beside the present one")
    parser.add_argument("--config", type=Path, help="the present one (default: that of the running system or store)")
    parser.add_argument("--model", help="only this model; in FILE also the model of lines that name none")
    parser.add_argument("--version", help="the version of lines of FILE that name none")
    parser.add_argument("--since", help="leave out earlier events: 2026-11-23, 2026-11-23T14:00, or seconds since the epoch")
    parser.add_argument("--takes", default="0s", help="how long a rehearsed retrain takes (default 0s)")
    parser.add_argument("--storage", help="read the history of this store (a URL), without any system running")
    parser.add_argument("--plot", type=Path, help="draw both to this file (PNG, SVG; needs the extra `plot`)")
    add_cluster(parser)
    return run(parser, argv, _replay)


def _replay(arguments: argparse.Namespace, output: Output) -> int:
    from drivers import event_files  # noqa: PLC0415  --help needs nothing

    since_s = None
    if arguments.since is not None:
        try:
            since_s = event_files.moment(arguments.since)
        except ValueError as error:
            raise ValueError(f"--since {error}") from None
    if arguments.file is not None and not arguments.file.is_file():
        raise FileNotFoundError(2, "no such file", str(arguments.file))
    if arguments.what_if is None and not arguments.dry_run:
        if arguments.file is None:
            raise ValueError("replay needs a FILE, or --what-if OTHER for the stored history")
        return _send(arguments, since_s, output)
    if arguments.file is None and arguments.what_if is None:
        raise ValueError("--dry-run needs a FILE")
    return _rehearse(arguments, since_s, output)


# --- through the running system --------------------------------------------------------------------------------------


def _send(arguments: argparse.Namespace, since_s: float | None, output: Output) -> int:
    import actors  # noqa: PLC0415
    from actors import system  # noqa: PLC0415
    from actors.cluster import connection  # noqa: PLC0415
    from drivers import event_files  # noqa: PLC0415

    connection.attach(arguments.address, otherwise="look")
    joined = actors.connect(namespace=arguments.namespace or system.DEFAULT_NAMESPACE, on_full="wait")
    began_s = time.time()
    rejected: list[dict[str, Any]] = []
    models: set[str] = set()
    sent = 0
    with output.progress("events", None) as step:
        for chunk in event_files.chunks(
            arguments.file, model=arguments.model, version=arguments.version, since_s=since_s, now_s=began_s
        ):
            rejected += chunk.rejected
            for event in chunk.events:
                if arguments.model is not None and event["model_name"] != arguments.model:
                    continue
                _log(joined.metrics, event)
                models.add(event["model_name"])
                sent += 1
            step(sent)
        counts = joined.metrics.flush(timeout_s=_FLUSH_S)
    told = {name: seen for name, seen in joined.status()["models"].items() if name in models}
    orders = [
        row for row in joined.retrains.history(arguments.model) if row["requested_at"] >= began_s and row["model"] in models
    ]
    _tell_rejected(rejected, output)
    output.line(", ".join(f"{name} {count}" for name, count in counts.items()))
    rows = [(name, seen["state"], seen["events"], seen["open_episodes"]) for name, seen in told.items()]
    output.table("models", ("model", "state", "events", "open episodes"), rows)
    if orders:
        columns = ("id", "model", "version", "metric", "state", "reason")
        output.table("retrains", columns, [tuple(row[name] for name in columns) for row in orders])
    output.result({"counts": counts, "rejected": rejected, "models": told, "retrains": orders})
    return FAILED if rejected or counts["pending"] or counts["rejected"] else FINE


def _log(metrics: Any, event: Mapping[str, Any]) -> None:
    values = {name: event[name] for name in ("accuracy", "precision", "recall") if event.get(name) is not None}
    version = {} if event.get("model_version") is None else {"version": event["model_version"]}
    metrics.log({**event.get("extras", {}), **values}, model=event["model_name"], timestamp=event.get("timestamp"), **version)


def _tell_rejected(rejected: Sequence[Mapping[str, Any]], output: Output) -> None:
    for bad in rejected[:_SHOWN]:
        output.note(f"line {bad['line']}: {bad['field']} {bad['rule']}, got {bad['value']!r}")
    if len(rejected) > _SHOWN:
        output.note(f"... and {len(rejected) - _SHOWN} more lines")


# --- what if ---------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Part:
    """A batch of one model on its way into the rehearsals."""

    model: str
    batch: Batch
    ok: Bools | None = None
    skip: int = 0


@dataclass(slots=True)
class Source:
    """Where the events come from, and the configuration that they came under."""

    settings: Settings
    parts: Iterator[Part]
    what: str
    baselines: dict[str, dict[str, dict[str, Floats]]] = field(default_factory=dict)  # by model, version, metric
    rejected: list[dict[str, Any]] = field(default_factory=list)


def _rehearse(arguments: argparse.Namespace, since_s: float | None, output: Output) -> int:
    from actors import config  # noqa: PLC0415
    from actors.rehearsal import Rehearsal  # noqa: PLC0415

    takes_s = config.parse_duration(arguments.takes)
    source = _source(arguments, since_s)
    both = {"now": source.settings}
    if arguments.what_if is not None:
        both["what-if"] = config.load(arguments.what_if)
        for line in config.differences(both["now"], both["what-if"]):
            if ".handler." not in line and not line.startswith("clock:"):  # of neither does a rehearsal make use
                output.line(f"  {line}")
    rehearsals: dict[str, dict[str, Rehearsal]] = {}
    values: dict[str, list[Any]] = {}
    events = 0
    with output.progress(source.what, None) as step:
        for part in source.parts:
            if part.model not in rehearsals:
                rehearsals[part.model] = {
                    name: Rehearsal(
                        part.model, settings.for_model(part.model), takes_s=takes_s, baselines=source.baselines.get(part.model)
                    )
                    for name, settings in both.items()
                }
            for rehearsal in rehearsals[part.model].values():
                rehearsal.take(part.batch, part.ok, part.skip)
            _keep(values.setdefault(part.model, []), part, both["now"])
            events += part.batch.rows
            step(events)
    _tell_rejected(source.rejected, output)
    if not rehearsals:
        raise ValueError(f"there are no events{f' of {arguments.model}' if arguments.model else ''} in {source.what}")
    outcomes = {model: {name: each.outcome() for name, each in pair.items()} for model, pair in rehearsals.items()}
    _show(outcomes, source.what, output)
    if arguments.plot is not None:
        from drivers import replay_picture  # noqa: PLC0415  matplotlib is an extra

        replay_picture.draw(outcomes, values, arguments.plot)
        output.line(f"picture: {arguments.plot}")
    output.result(
        {
            "source": source.what,
            "rejected": source.rejected,
            "models": {
                model: {
                    name: {"summary": each.summary(), "episodes": [asdict(seen) for seen in each.episodes]}
                    for name, each in pair.items()
                }
                for model, pair in outcomes.items()
            },
        }
    )
    return FAILED if source.rejected else FINE


def _source(arguments: argparse.Namespace, since_s: float | None) -> Source:
    from actors import config  # noqa: PLC0415

    given = None if arguments.config is None else config.load(arguments.config)
    if arguments.file is not None:
        source = Source(given or _running_settings(arguments) or config.Settings(), iter(()), str(arguments.file))
        source.parts = _file_parts(arguments, since_s, source.rejected)
        return source
    store = _store(arguments)
    source = Source(given or config.load_stored(store), iter(()), "the stored history")
    source.parts = _stored_parts(store, arguments.model, since_s, source.baselines)
    return source


def _running_settings(arguments: argparse.Namespace) -> Settings | None:
    """Give the configuration of the running system, if one runs."""
    if arguments.storage is not None:
        from actors import config  # noqa: PLC0415

        return config.load_stored(_store(arguments))
    from actors import system  # noqa: PLC0415
    from actors.cluster import connection, deployment  # noqa: PLC0415

    try:
        connection.attach(arguments.address, otherwise="look")
        return system.System(arguments.namespace or system.DEFAULT_NAMESPACE).settings()
    except (ConnectionError, deployment.NoSystemError):
        if arguments.address or arguments.namespace:
            raise
        return None


def _store(arguments: argparse.Namespace) -> Store:
    from actors import config, system  # noqa: PLC0415
    from actors.cluster import card, connection, deployment  # noqa: PLC0415
    from actors.storage import Store, is_local  # noqa: PLC0415

    url = arguments.storage
    if url is None:
        connection.attach(arguments.address, otherwise="look")
        namespace = arguments.namespace or system.DEFAULT_NAMESPACE
        known = card.read(namespace)
        if known is None:
            raise deployment.no_system(namespace)
        url = known.storage
    url = config.anchored(url, Path.cwd())
    if is_local(url) and not (Path(url.removeprefix("sqlite:///")) / "system.db").is_file():
        raise ValueError(f"--storage must be the store of a system, there is none at {url}")
    return Store(url)


def _file_parts(arguments: argparse.Namespace, since_s: float | None, rejected: list[dict[str, Any]]) -> Iterator[Part]:
    from drivers import event_files  # noqa: PLC0415

    for chunk in event_files.chunks(
        arguments.file, model=arguments.model, version=arguments.version, since_s=since_s, now_s=time.time()
    ):
        rejected += chunk.rejected
        for model, batch in chunk.batches.items():
            if arguments.model in {None, model}:
                yield Part(model, batch)


def _stored_parts(
    store: Store, model: str | None, since_s: float | None, baselines: dict[str, dict[str, dict[str, Floats]]]
) -> Iterator[Part]:
    """Read the log, model by model, from snapshots: whoever writes it is not disturbed."""
    from actors import wire  # noqa: PLC0415
    from actors.detection import tables as detector_tables  # noqa: PLC0415

    for part in detector_tables.detector_parts(store):
        with part.read() as connection:
            names = [name for name in detector_tables.read_status(connection) if model in {None, name}]
        for name in names:
            with part.read() as connection:
                baselines[name] = detector_tables.all_samples(connection, name)
                for row in detector_tables.read_log(connection, name):
                    batch = wire.unpack(row.payload)
                    ok = wire.check(batch, row.received_at, row.skip).ok
                    if since_s is not None:
                        late_enough = batch.times >= since_s
                        ok = late_enough if ok is None else ok & late_enough
                    yield Part(name, batch, ok, row.skip)


def _keep(held: list[Any], part: Part, settings: Settings) -> None:
    """Keep some values of one watched metric for the plot: the first that comes."""
    watched = [held[0][0]] if held else list(settings.for_model(part.model).watch)
    metric = next((name for name in watched if name in part.batch.columns), None)
    if metric is None or len(held) >= _PER_MODEL:
        return
    column = part.batch.columns[metric]
    there = slice(None) if column.present is None else column.present
    held += [(metric, *pair) for pair in zip(part.batch.times[there].tolist(), column.values[there].tolist(), strict=True)]


def _show(outcomes: Mapping[str, Mapping[str, Outcome]], what: str, output: Output) -> None:
    for model, pair in outcomes.items():
        summaries = {name: each.summary() for name, each in pair.items()}
        figures = list(next(iter(summaries.values())))
        rows = [(figure, *(_told(figure, summary[figure]) for summary in summaries.values())) for figure in figures]
        output.line()
        output.table(f"{model}, {what}", ("figure", *summaries), rows)
    rows = [
        _episode(name, model, seen) for model, pair in outcomes.items() for name, each in pair.items() for seen in each.episodes
    ]
    if rows:
        output.line()
        output.table("episodes", EPISODE_COLUMNS, rows)


def _episode(name: str, model: str, seen: Any) -> tuple[object, ...]:
    order = "-" if seen.ordered_at is None else _date(seen.ordered_at)
    if seen.skips:
        order += f" after {len(seen.skips)} skipped"
    return (
        name, model, seen.version, _date(seen.opened_at), seen.metric, seen.alarm["baseline_mean"], seen.alarm["window_mean"],
        seen.delay_events, order, seen.closed_by,
    )  # fmt: skip


def _told(figure: str, value: Any) -> object:
    if value is None:
        return "-"
    if figure.endswith("_at"):
        return _date(value)
    if figure.endswith("_s"):
        return _span(value)
    return value


def _span(seconds: float) -> str:
    for unit_s, unit in ((86_400.0, "d"), (3600.0, "h"), (60.0, "min")):
        if seconds >= unit_s:
            return f"{seconds / unit_s:.3g} {unit}"
    return f"{seconds:.3g} s"


def _date(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, tz=UTC).strftime("%Y-%m-%d %H:%M")


if __name__ == "__main__":
    sys.exit(main())
