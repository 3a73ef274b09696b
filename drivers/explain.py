"""Explain a drift episode, an order or a model.

Prints what the detector saw, how certain it is, since when, what the system decided, and the outcome. Give an id from
`visutility status` or `visutility retrains ls`, a model for its newest episode, or `last`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import click

from drivers.commands import DEFAULT_NAMESPACE, FINE, cluster, command, peers, run, stored
from drivers.output import Output
from drivers.status import judged_in_words, rule_in_words

if TYPE_CHECKING:
    from actors.story import Story

_PATIENCE_S: Final = 10.0


@command(
    "explain",
    help=__doc__,
    examples=[
        "visutility explain last",
        "visutility explain fraud",
        "visutility explain ORDER --storage sqlite:///./visutility-data",
    ],
)
@click.argument("about", metavar="EPISODE|ORDER|MODEL")
@click.option("--model", help="With `last`: the newest episode of this model.")
@stored
@cluster
def explain(
    *, about: str, model: str | None, storage: str | None, address: str | None, namespace: str | None, output: Output
) -> int:
    """Tell the story."""
    told = _read(about, model, address, namespace) if storage is None else _stored(storage, about, model)
    for line in in_words(told):
        output.line(line)
    output.result(_document(told))
    return FINE


def _stored(storage: str, about: str, model: str | None) -> Story:
    from actors import story  # imports the store, 0.4 s; help does without

    return story.read_url(storage, about, model)


def _read(about: str, model: str | None, address: str | None, namespace: str | None) -> Story:
    actors = peers(address, namespace)
    from actors.cluster import card, connection  # imports Ray, 0.4 s; help does without
    from actors.cluster.peers import PeerUnavailableError

    try:
        told: Story = actors.call("runner", "story", {"about": about, "model": model}, timeout_s=_PATIENCE_S)
    except PeerUnavailableError:
        known = card.read(namespace or DEFAULT_NAMESPACE)
        if known is None or (known.node is not None and not connection.is_this_node(known.node)):
            raise  # a SQLite folder of another node
        return _stored(known.storage, about, model)
    return told


def _document(told: Story) -> dict[str, Any]:
    """Return what a program reads: the episode's record with its order, or what there is of an order or a model alone."""
    if told["episode"] is not None:
        latest = {"latest_order": told["latest"]} if "latest" in told else {}
        return {**told["episode"], "order_record": told["order"], **latest}
    if told["order"] is not None:
        return {"order_record": told["order"]}
    return {"model_record": told["model"], "latest_order": told.get("latest")}


def in_words(told: Story) -> Iterator[str]:
    """Tell the story, a line at a time."""
    if told["episode"] is not None:
        yield from _episode(told["episode"], told["order"])
        if told.get("judged"):
            yield f"  {judged_in_words(told['judged'] or {})}"
    elif told["order"] is not None:
        yield from _order(told["order"])
    elif told["model"] is not None:
        yield from _model(told["model"])
    latest = told.get("latest")
    if latest is not None:
        yield ""
        yield from _order(latest)


def _order(order: Mapping[str, Any]) -> Iterator[str]:
    """Tell of an order that no episode asked for."""
    yield f"order {order['id']}: {order['model']} {order['version']}, {order['state']}{_verdict(order)}"
    yield ""
    yield f"  {_at(order['requested_at'])}  asked for: {order['reason'] or 'no reason is recorded'}"
    for act in order.get("acts", ()):
        yield f"  {_at(act['at'])}  {told_act(act)}"
    for attempt in order["attempt_log"]:
        ended = "" if attempt["ended_at"] is None else f", {attempt['outcome']} {_at(attempt['ended_at'])}"
        yield f"  {_at(attempt['started_at'])}  attempt {attempt['attempt']} by {attempt['handler']}{ended}"
    if order["finished_at"] is not None:
        version = f", new version {order['new_version']}" if order["new_version"] else ""
        yield f"  {_at(order['finished_at'])}  {order['state']}{version}"


def told_act(act: Mapping[str, Any]) -> str:
    """Say what a person has done with an order."""
    done = {"front": "moved to the front"}.get(act["act"], act["act"])
    return f"{done} by {act['by'] or 'a person'}" + (f": {act['comment']}" if act["comment"] else "")


def _short(value: object) -> str:
    """Return a parameter or a value to four digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _verdict(order: Mapping[str, Any]) -> str:
    if not order.get("verdict"):
        return ""
    saved, error = order["verdict_saved"], order["verdict_error"]
    return f"; it {order['verdict']}: {saved:.0f} +- {error:.0f} errors saved, a retrain is worth {order['price']:.0f}"


def _model(model: Mapping[str, Any]) -> Iterator[str]:
    """Tell of a model that has not drifted."""
    yield f"model {model['name']}: {model['state']}, {model['events']} events; it has had no drift episode"
    rule = rule_in_words(model.get("retrain") or {})
    if rule:
        yield f"  {rule}"
    for version, seen in model["versions"].items():
        yield f"  {version}: {seen['state']}, {seen['events']} events, last {_at(model['last_at'])}"


def _episode(record: Mapping[str, Any], order: Mapping[str, Any] | None = None) -> Iterator[str]:
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
    if seen["detector"] == "shortfall":
        yield (
            f"  {_at(seen['time'])}  {seen['metric']} is {seen['window_mean']:.4g} over {seen['window_n']} rows, "
            f"{seen['baseline_mean']:.4g} was promised (on {seen['baseline_n']} rows)"
        )
        yield f"    {seen['statistic']:.0f} errors lost beyond chance, a retrain is worth {seen['threshold']:.0f}"
        return
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
        # The dispatcher's own record, where there is one: the episode hears of it up to two seconds later.
        state, version = ((told if order is None else order)[key] for key in ("state", "new_version"))
        yield f"  order {told['order']} is {state}" + (f", new version {version}" if version else "")
        if told["reason"]:
            yield f"    {told['reason']}"
        for act in (order or {}).get("acts", ()):
            yield f"    {_at(act['at'])}  {told_act(act)}"
        if order is not None and order.get("verdict"):
            yield f"    {_verdict(order).removeprefix('; ')}"
        if order is not None and order.get("tuning"):
            study, trial, params, value = (order["tuning"].get(key) for key in ("study", "trial", "params", "value"))
            chosen = ", ".join(f"{name}={_short(each)}" for name, each in (params or {}).items())
            yield f"    study {study}: trial {trial} with {chosen}, value {_short(value)}"
    if record["recovered"]:
        yield f"  recovered: {', '.join(record['recovered'])}"
    elif record["closed_at"] is not None and record.get("cause") != "shortfall":  # whose retrain has a verdict instead
        yield "  not seen to recover"
    said = record.get("judged")
    if said is not None:
        why = f": {said['comment']}" if said["comment"] else ""
        yield f"  {said['by'] or 'a person'} calls it a {said['verdict']} alarm{why}"
    if record["flagged"]:
        by = record.get("acknowledged_by") or "a person"
        seen = "" if record["acknowledged_at"] is None else f" ({by} has seen it)"
        yield f"  ! for a person: {record['flagged']}{seen}"


def _at(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")


def main(argv: Sequence[str] | None = None) -> int:
    """Run `visutility explain EPISODE`."""
    return run(explain, argv)


if __name__ == "__main__":
    sys.exit(main())
