"""Tell the story of a drift episode.

What was seen, how sure, since when, what was decided and what came of it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import click

from drivers.commands import FINE, cluster, command, run
from drivers.output import Output


@command("explain", help=__doc__, examples=["visutility explain last", "visutility explain last --model fraud"])
@click.argument("episode")
@click.option("--model", help="With `last`: the newest episode of this model.")
@cluster
def explain(*, episode: str, model: str | None, address: str | None, namespace: str | None, output: Output) -> int:
    """Tell the story of EPISODE, an id as `visutility status` shows it, or `last`."""
    import ray  # noqa: PLC0415  1 s with the next lines; help does without

    from actors import system  # noqa: PLC0415
    from actors.cluster import card, connection  # noqa: PLC0415
    from actors.cluster.deployment import no_system  # noqa: PLC0415
    from actors.cluster.peers import BlockingPeers  # noqa: PLC0415
    from actors.storage import Store  # noqa: PLC0415

    connection.attach(address, otherwise="look")
    namespace = namespace or system.DEFAULT_NAMESPACE
    known = card.read(namespace)
    if known is None:
        raise no_system(namespace)
    order: dict[str, Any] | None = None
    if known.node is not None and known.node != ray.get_runtime_context().get_node_id():
        # A SQLite folder of another node: its detector answers.
        record = BlockingPeers(namespace).call("broadcaster", "explain", {"episode": episode}, timeout_s=20.0)
    else:
        store = Store(known.storage)
        try:
            record = find(store, episode, model)
            order = _order_of(store, record)
        finally:
            store.close()
    for line in in_words(record, order):
        output.line(line)
    output.result({**record, "order_record": order})
    return FINE


def find(store: Any, episode: str, model: str | None = None) -> dict[str, Any]:
    """Give an episode's record from the store, `last` the newest one. KeyError where there is none such."""
    from actors.detection import tables as detector_tables  # noqa: PLC0415

    newest: dict[str, Any] | None = None
    for part in detector_tables.detector_parts(store):
        with part.read() as connection:
            if episode != "last":
                found = detector_tables.read_episode(connection, episode)
                if found is not None:
                    return found
                continue
            for record in detector_tables.list_episodes(connection, model, limit=1):
                if newest is None or record["opened_at"] > newest["opened_at"]:
                    newest = record
    if newest is None:
        raise KeyError(f"episode must be one of this store, got {episode!r}" + (f" of model {model!r}" if model else ""))
    return newest


def _order_of(store: Any, record: Mapping[str, Any]) -> dict[str, Any] | None:
    """Give what the dispatcher has on record of the episode's order, the study of a `tune` handler included."""
    from actors.retraining import tables as dispatcher_tables  # noqa: PLC0415

    if record["order"] is None:
        return None
    with store.part(dispatcher_tables.DISPATCHER).read() as connection:
        table = dispatcher_tables.retrains
        row = connection.execute(table.select().where(table.c.id == record["order"]["order"])).mappings().first()
    if row is None:
        return None
    texts = ("explanation", "handler_settings", "tuning")  # kept as JSON
    return dict(row) | {name: json.loads(row[name]) for name in texts if row[name] is not None}


def in_words(record: Mapping[str, Any], order: Mapping[str, Any] | None = None) -> Iterator[str]:
    """Tell the record, a line at a time."""
    state = "open" if record["closed_at"] is None else f"closed by {record['closed_by']} {_at(record['closed_at'])}"
    yield f"episode {record['id']}: {record['model']} {record['version']}, {state}"
    yield ""
    yield "What was seen"
    for seen in record["evidence"][:5]:
        yield from _evidence(seen)
    if record["alarms"] > min(5, len(record["evidence"])):
        yield f"  and {record['alarms'] - min(5, len(record['evidence']))} more alarms while it was open"
    yield ""
    yield "What was decided"
    for decision in record["decisions"]:
        why = f": {decision['why']}" if decision["why"] else ""
        yield f"  {_at(decision['at'])}  {decision['decision']}{why}"
    yield ""
    yield "What came of it"
    yield from _outcome(record, order)


def _evidence(seen: Mapping[str, Any]) -> Iterator[str]:
    way = "fell" if seen["direction"] == "down" else "rose"
    shift = seen["window_mean"] - seen["baseline_mean"]
    sds = f", {abs(shift) / seen['baseline_sd']:.1f} deviations" if seen["baseline_sd"] > 0 else ""
    yield (
        f"  {_at(seen['time'])}  {seen['metric']} {way} from {seen['baseline_mean']:.4g} (mean of {seen['baseline_n']} events) "
        f"to {seen['window_mean']:.4g} (mean of {seen['window_n']}): {shift:+.4g}{sds}"
    )
    start = seen["estimated_start"]
    since = "at the alarm itself" if start <= 1 else f"about {start} events before the alarm"
    sure = f"statistic {seen['statistic']:.3g} over its threshold {seen['threshold']:.3g}"
    yield f"    {seen['detector']}: {sure}; it began {since}"


def _outcome(record: Mapping[str, Any], order: Mapping[str, Any] | None) -> Iterator[str]:
    request, told = record["request"], record["order"]
    if told is None:
        reason = f": {request['reason']}" if request["reason"] else ""
        yield f"  no retrain order ({request['state']}{reason})"
    else:
        version = told["new_version"] or (order or {}).get("new_version")
        yield f"  order {told['order']} is {told['state']}" + (f", new version {version}" if version else "")
        if told["reason"]:
            yield f"    {told['reason']}"
        if order is not None and order.get("tuning"):
            study, trial, params, value = (order["tuning"].get(key) for key in ("study", "trial", "params", "value"))
            yield f"    study {study}: trial {trial} with {params}, value {value}"
    if record["recovered"]:
        yield f"  recovered: {', '.join(record['recovered'])}"
    elif record["closed_at"] is not None:
        yield "  not seen to recover"
    if record["flagged"]:
        seen = "" if record["acknowledged_at"] is None else " (a person has seen it)"
        yield f"  ! for a person: {record['flagged']}{seen}"


def _at(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")


def main(argv: Sequence[str] | None = None) -> int:
    """Run `visutility explain EPISODE`."""
    return run(explain, argv)


if __name__ == "__main__":
    sys.exit(main())
