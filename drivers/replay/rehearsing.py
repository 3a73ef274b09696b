"""Rehearse a configuration, or two side by side, on a file of events or on the stored history; nothing is sent."""

from __future__ import annotations

import heapq
import itertools
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, Final

from actors import config, wire
from actors.advice import Advisor
from actors.config import Settings
from actors.config.stored import load_stored
from actors.detection import logged
from actors.detection import stored as detector_stored
from actors.detection.rules import promises
from actors.detection.rules.promises import Promise
from actors.errors import NoSystemError
from actors.metrics import sealing
from actors.rehearsal import PIECE_ROWS, Outcome, Rehearsal, pieces
from actors.retraining.rules.queue import Limits
from actors.retraining.rules.timetable import Timetable
from actors.storage import Part as StoredPart
from actors.storage import Store, StoreReader
from actors.wire import Batch, Bools, Floats
from drivers.commands import FAILED, FINE
from drivers.output import Output
from drivers.replay import event_files
from drivers.replay.asked import Asked, in_words, tell_rejected

logger = logging.getLogger(__name__)

_PAGE: Final = 64  # rows of a log that are read at once
_PER_MODEL: Final = 20_000  # values that are kept for the plot
EPISODE_COLUMNS: Final = (
    "configuration",
    "model",
    "version",
    "cause",
    "alarm at",
    "metric",
    "from",
    "to",
    "events late",
    "order",
    "closed by",
)


@dataclass(slots=True)
class Part:
    """A batch of one model on its way into the rehearsals, or a promise that stands between two."""

    model: str
    batch: Batch | None
    ok: Bools | None = None
    skip: int = 0
    promise: Promise | None = None


@dataclass(slots=True)
class Source:
    """Where the events come from, and the configuration that they came under."""

    settings: Settings
    parts: Iterator[Part]
    what: str
    baselines: dict[str, dict[str, dict[str, Floats]]] = field(default_factory=dict)  # by model, version, metric
    rejected: list[dict[str, Any]] = field(default_factory=list)
    streams: list[Iterator[Part]] | None = None  # the same as `parts`, by model; one of the two is read


def rehearse(asked: Asked, output: Output) -> int:
    """Take the events through each configuration and show what both make of them."""
    takes_s = config.parse_duration(asked.takes)
    source = _source(asked)
    both = {"now": source.settings}
    if asked.what_if is not None:
        both["what-if"] = config.load(asked.what_if)
        for line in config.differences(both["now"], both["what-if"]):
            if ".handler." not in line and not line.startswith("clock:"):  # of neither does a rehearsal make use
                output.line(f"  {line}")
    queues = {name: _queue_of(settings) for name, settings in both.items()}
    parts = (
        source.parts
        if not any(queues.values())
        else interleaved(_by_model(source.parts) if source.streams is None else source.streams)
    )
    rehearsals: dict[str, dict[str, Rehearsal]] = {}
    values: dict[str, list[Any]] = {}
    events = 0
    with output.progress(source.what, None) as step:
        for part in parts:
            if part.model not in rehearsals:
                rehearsals[part.model] = {
                    name: Rehearsal(
                        part.model,
                        settings.for_model(part.model),
                        takes_s=takes_s,
                        baselines=source.baselines.get(part.model),
                        queue=queues[name],
                    )
                    for name, settings in both.items()
                }
            _take(part, rehearsals[part.model].values())
            events += _keep(values.setdefault(part.model, []), part, both["now"])
            step(events)
    for name, queue in queues.items():
        last_at = [at_s for pair in rehearsals.values() if (at_s := pair[name].outcome().last_at) is not None]
        if queue is not None and last_at:
            queue.advance(max(last_at))
    tell_rejected(source.rejected, output)
    if not rehearsals:
        first = f"; {in_words(source.rejected[0])}" if source.rejected else ""
        raise ValueError(f"there are no events{f' of {asked.model}' if asked.model else ''} in {source.what}{first}")
    outcomes = {model: {name: each.outcome() for name, each in pair.items()} for model, pair in rehearsals.items()}
    _show(outcomes, source.what, output)
    if asked.plot is not None:
        from drivers.replay import picture  # matplotlib is an extra

        picture.draw(outcomes, values, asked.plot)
        output.line(f"picture: {asked.plot}")
    models = {model: {name: _in_json(each) for name, each in pair.items()} for model, pair in outcomes.items()}
    output.result({"source": source.what, "rejected": source.rejected, "models": models})
    return FAILED if source.rejected else FINE


def _in_json(outcome: Outcome) -> dict[str, Any]:
    return {"summary": outcome.summary(), "episodes": [asdict(seen) for seen in outcome.episodes]}


def _queue_of(settings: Settings) -> Timetable | None:
    """Return the queue in which the orders of all models wait, where they have limits."""
    limits = Limits(settings.orders.max_running, settings.orders.max_per_hour, settings.orders.timeout_s)
    return Timetable(limits) if limits.queues else None


def advised(store: Store, model: str, since_s: float | None, takes_s: float, step: Callable[[float], None]) -> Advisor:
    """Take the stored history of `model` through a grid of prices and budgets; ValueError where there is none."""
    baselines: dict[str, dict[str, dict[str, Floats]]] = {}
    settings = load_stored(store)
    advisor: Advisor | None = None
    events = 0
    for part in stored_parts(store, model, since_s, baselines):
        if advisor is None:
            advisor = Advisor(model, settings, takes_s=takes_s, baselines=baselines.get(model))
        _take(part, [advisor])
        events += 0 if part.batch is None else part.batch.rows
        step(events)
    if advisor is None:
        raise ValueError(f"there are no events of {model} in the history")
    return advisor


def _source(asked: Asked) -> Source:
    given = None if asked.config is None else config.load(asked.config)
    if asked.file is not None:
        source = Source(given or _running_settings(asked) or config.Settings(), iter(()), str(asked.file))
        source.parts = _file_parts(asked, asked.file, source.rejected)
        return source
    store = open_store(asked.storage, asked.address, asked.namespace)
    source = Source(given or load_stored(store), iter(()), "the stored history")
    source.streams = list(_streams(store, asked.model, asked.since_s, source.baselines))
    source.parts = itertools.chain.from_iterable(source.streams)
    return source


def _running_settings(asked: Asked) -> Settings | None:
    """Return the configuration of the running system, if one runs."""
    if asked.storage is not None:
        return load_stored(StoreReader(asked.storage))
    from actors import system  # imports Ray, 0.4 s: a file or a store is read without
    from actors.cluster import connection

    try:
        connection.attach(asked.address, otherwise="look")
        return system.System(asked.namespace or system.DEFAULT_NAMESPACE).settings()
    except (ConnectionError, NoSystemError):
        if asked.address or asked.namespace:
            raise
        return None


def open_store(url: str | None, address: str | None, namespace: str | None) -> Store:
    """Return the store at `url`, else that of the running system, to be read."""
    if url is None:
        from actors import system  # imports Ray, 0.4 s
        from actors.cluster import card, connection, deployment

        connection.attach(address, otherwise="look")
        known = card.read(namespace or system.DEFAULT_NAMESPACE)
        if known is None:
            raise deployment.no_system(namespace or system.DEFAULT_NAMESPACE)
        url = known.storage
    return StoreReader(url)


def _file_parts(asked: Asked, file: Path, rejected: list[dict[str, Any]]) -> Iterator[Part]:
    for chunk in event_files.chunks(
        file, model=asked.model, version=asked.version, since_s=asked.since_s, now_s=time.time(), n_column=asked.n_column
    ):
        rejected += chunk.rejected
        for model, rows in chunk.rows.items():
            if asked.model in {None, model}:
                for batch in sealing.split_rows(rows):
                    yield Part(model, batch)


def stored_parts(
    store: Store, model: str | None, since_s: float | None, baselines: dict[str, dict[str, dict[str, Floats]]]
) -> Iterator[Part]:
    """Read the log, model by model, from snapshots, without disturbing the writer."""
    for stream in _streams(store, model, since_s, baselines):
        yield from stream


def _streams(
    store: Store, model: str | None, since_s: float | None, baselines: dict[str, dict[str, dict[str, Floats]]]
) -> Iterator[Iterator[Part]]:
    """Return the log of each model."""
    for part in detector_stored.detector_parts(store):
        with part.read() as connection:
            names = [name for name in detector_stored.read_status(connection) if model in {None, name}]
            for name in names:
                baselines[name] = detector_stored.all_samples(connection, name)
        for name in names:
            yield _log_of(part, name, since_s)


def _log_of(part: StoredPart, name: str, since_s: float | None) -> Iterator[Part]:
    """Read one model's log, a page at a time: many may be read side by side, and none holds a snapshot for long."""
    after = 0
    while True:
        with part.read() as connection:
            rows = list(islice(logged.read_log(connection, name, after=after, promises=True), _PAGE))
        for row in rows:
            if row.count == 0:
                yield Part(name, None, promise=promises.unpacked(row.payload))
                continue
            try:
                seen = wire.recheck(row.payload, row.received_at, row.skip)
            except ValueError as error:  # damaged: the model's process reports it
                logger.warning("%s: row %d of the log is left out: %s", name, row.number, error)
                continue
            batch, ok = seen.batch, seen.ok
            if since_s is not None:
                late_enough = batch.times >= since_s
                ok = late_enough if ok is None else ok & late_enough
            yield Part(name, batch, ok, row.skip)
        if len(rows) < _PAGE:
            return
        after = rows[-1].number


def interleaved(streams: Iterable[Iterable[Part]]) -> Iterator[Part]:
    """Merge the parts of several models into the order of their events' times, a few events at a time."""
    for _at_s, part in heapq.merge(*(_timed(stream) for stream in streams), key=lambda each: each[0]):
        yield part


def _timed(stream: Iterable[Part]) -> Iterator[tuple[float, Part]]:
    at_s = float("-inf")  # late events turn no clock back
    for part in stream:
        if part.batch is None:
            yield at_s, part
            continue
        for piece in pieces(part.batch, part.ok, part.skip, PIECE_ROWS if part.batch.weights is None else 1):
            at_s = max(at_s, float(piece.times.max()))
            yield at_s, Part(part.model, piece)


def _by_model(parts: Iterable[Part]) -> list[list[Part]]:
    found: dict[str, list[Part]] = {}
    for part in parts:
        found.setdefault(part.model, []).append(part)
    return list(found.values())


def _take(part: Part, rehearsals: Iterable[Rehearsal | Advisor]) -> None:
    for rehearsal in rehearsals:
        if part.promise is not None:
            rehearsal.promise(part.promise)
        if part.batch is not None:
            rehearsal.take(part.batch, part.ok, part.skip)


def _keep(held: list[Any], part: Part, settings: Settings) -> int:
    """Keep some values of one watched metric for the plot, the first that comes; return how many events the part has."""
    model, batch = part.model, part.batch
    if batch is None:
        return 0
    watched = [held[0][0]] if held else list(settings.for_model(model).watch)
    metric = next((name for name in watched if name in batch.columns), None)
    if metric is None or len(held) >= _PER_MODEL:
        return batch.rows
    column = batch.columns[metric]
    there = slice(None) if column.present is None else column.present
    held += [(metric, *pair) for pair in zip(batch.times[there].tolist(), column.values[there].tolist(), strict=True)]
    return batch.rows


def _show(outcomes: Mapping[str, Mapping[str, Outcome]], what: str, output: Output) -> None:
    for model, pair in outcomes.items():
        summaries: dict[str, dict[str, Any]] = {name: {**each.summary()} for name, each in pair.items()}
        figures = list(next(iter(summaries.values())))
        rows = [(figure, *(_told(figure, summary[figure]) for summary in summaries.values())) for figure in figures]
        output.line()
        output.table(f"{model}, {what}", ("figure", *summaries), rows)
        for name, each in pair.items():
            if each.missing:
                output.line(f"! {name}: the rule shortfall lacks {' and '.join(each.missing)}; alarms order retrains")
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
        name,
        model,
        seen.version,
        seen.cause,
        _date(seen.opened_at),
        seen.metric,
        seen.alarm["baseline_mean"],
        seen.alarm["window_mean"],
        seen.delay_events,
        order,
        seen.closed_by,
    )


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
