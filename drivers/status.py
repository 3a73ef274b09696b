"""Show the state of the system.

Exits 1 if something needs attention: drift, missing data, a dead letter, an actor that is down.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Final, cast

import click

from drivers.commands import DEFAULT_NAMESPACE, FAILED, FINE, cluster, command, labelled, peers, run, stored
from drivers.output import Output

if TYPE_CHECKING:
    from actors.labels import Selector

MODEL_COLUMNS: Final = ("model", "state", "events", "duplicates", "rejected", "versions", "metrics", "open episodes")
SOURCE_COLUMNS: Final = ("source", "kind", "state", "read until", "last read", "read", "refused", "rejected", "waiting")
ACTOR_COLUMNS: Final = ("actor", "alive", "pid", "node", "epoch")
# A warm actor takes some 30 ms; after that this process reads the store itself.
_WARM_S: Final = 0.5
FIRING: Final = frozenset({"drifting", "no_data"})


@command(
    "status",
    help=__doc__,
    examples=[
        "visutility status",
        "visutility status --storage sqlite:///./visutility-data",
        "visutility status --model fraud -o json",
        "visutility status --label team=risk,tier!=2",
    ],
)
@click.option("--model", help="Only this model.")
@labelled
@stored
@cluster
def status(
    *,
    model: str | None,
    label: Sequence[str],
    storage: str | None,
    address: str | None,
    namespace: str | None,
    output: Output,
) -> int:
    """Show the state of the system."""
    selects = selector(label)
    told = read(address, namespace) if storage is None else read_store(storage)
    told["models"] = selected(told, selects)
    if model is not None:
        told["models"] = {model: one_of(told, model)}
    system = "no system asked" if storage else f"namespace {told['namespace']}, build {told['build']}"
    output.line(f"{system}, storage {told['storage']}")
    if told["pinned_to"]:
        output.line(f"the store is on node {told['pinned_to'][:8]}: the stateful actors are pinned to it")
    if "store_problem" in told:
        output.line(f"the store does not answer: {told['store_problem']}")
    output.table("models", MODEL_COLUMNS, list(model_rows(told)))
    for line in (*rules(told), *rejections(told), *judged(told)):
        output.line(line)
    output.line(
        f"clients: {len(told['clients'])} in the last hour, "
        f"{sum(int(seen.get('dropped', 0)) for seen in told['clients'].values())} events dropped by them"
    )
    output.line("retrains: " + ", ".join(f"{state} {count}" for state, count in told["retrains"].items()))
    output.line("tuner: " + ", ".join(f"{what.replace('_', ' ')} {count}" for what, count in told["tuner"].items()))
    if told.get("sources"):
        output.table("sources", SOURCE_COLUMNS, list(source_rows(told)))
    for name, each in told.get("receivers", {}).items():
        output.line(f"receiver {name}: {each['state']}, {each['sent']} sent, {each['waiting']} waiting")
    if storage is None:
        output.table("actors", ACTOR_COLUMNS, list(actor_rows(told)))
    for problem in problems(told):
        output.line(f"! {problem}")
    output.result(told)
    return FAILED if any(problems(told)) else FINE


def one_of(told: Mapping[str, Any], model: str) -> dict[str, Any]:
    """Return what the status says of a model; KeyError names those there are, or those of a name that is near."""
    models = told["models"]
    if model not in models:
        near = get_close_matches(model, models, n=3) or list(models)[:10]
        others = f", ... ({len(models)} in all)" if len(models) > len(near) else ""
        raise KeyError(f"model must be one that has logged ({', '.join(near) + others or 'none has'}), got {model!r}")
    found: dict[str, Any] = models[model]
    return found


def selector(label: Sequence[str]) -> Selector:
    """Return what `--label` selects; ValueError names the part that is no selector."""
    from actors import labels  # imports what the package imports; help does without

    return labels.parse(label, "--label")


def selected(told: Mapping[str, Any], selects: Selector) -> dict[str, Any]:
    """Return the models of a status whose labels are selected."""
    return {name: seen for name, seen in told["models"].items() if selects.matches(seen.get("labels", {}))}


def read(address: str | None, namespace: str | None) -> dict[str, Any]:
    """Return the state of the system, as `System.status` does.

    An actor reads it where one answers at once: it has imported what this process would need 0.7 s of processor time for.
    """
    actors = peers(address, namespace)
    from actors.cluster.peers import PeerUnavailableError  # imports Ray, 0.4 s; help does without

    try:
        told: dict[str, Any] = actors.call("runner", "status", {}, timeout_s=_WARM_S)
    except (PeerUnavailableError, AttributeError):  # frozen, restarting, its first time, or of an older build
        from actors import system  # 0.7 s

        return cast("dict[str, Any]", system.System(namespace or DEFAULT_NAMESPACE).status())
    return told


def read_store(storage: str) -> dict[str, Any]:
    """Return the state that a store holds, in the same form, with no actors."""
    from actors import status as stored_status  # imports the store, 0.4 s; help does without
    from actors.checks import redacted

    told = stored_status.read_url(storage, time.time())
    return cast(
        "dict[str, Any]", stored_status.joined(told, {}, namespace=None, build=None, storage=redacted(storage), pinned_to=None)
    )


def model_rows(told: Mapping[str, Any]) -> Iterator[tuple[object, ...]]:
    """Return one row a model: its newest version's metrics stand for it."""
    for model, seen in told["models"].items():
        versions = seen.get("versions", {})
        newest = versions[list(versions)[-1]] if versions else {}
        metrics = {name: _metric(each) for name, each in newest.get("metrics", {}).items()}
        yield (
            model,
            seen["state"],
            seen["events"],
            seen["duplicates"],
            seen["rejected"],
            list(versions)[-3:],
            metrics,
            seen["open_episodes"],
        )


def errors(seen: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Return each version and metric of a model whose detector cannot take it, and why."""
    for version, held in seen.get("versions", {}).items():
        for metric, progress in held["metrics"].items():
            if progress["state"] == "error":
                yield version, metric, progress.get("error", "")


def rules(told: Mapping[str, Any]) -> Iterator[str]:
    """Return a line for each model whose retrains are ordered by price: what it has lost, or what the rule is missing."""
    for model, seen in told["models"].items():
        line = rule_in_words(seen.get("retrain") or {})
        if line:
            yield f"{model}: {line}"


def rule_in_words(rule: Mapping[str, Any]) -> str:
    """Say how near a retrain is to paying; nothing where retrains are ordered otherwise."""
    if rule.get("when") != "shortfall":
        return ""
    if rule["missing"]:
        return f"retrains on alarms, since there is no {' and no '.join(rule['missing'])} for retrain.when: shortfall"
    whose = f", promised by {rule['inherited_from']}" if rule["inherited_from"] else ""
    return (
        f"errors lost since deployment of {rule['live_version']}: {rule['lost']:.0f} of {rule['price']:.0f} "
        f"(promised {rule['promised']:.4g}{whose})"
    )


def judged(told: Mapping[str, Any]) -> Iterator[str]:
    """Return a line for each model of whose alarms people have judged any: how many were false, against its budget."""
    for model, seen in told["models"].items():
        if seen.get("judged"):
            yield f"{model}: {judged_in_words(seen['judged'])}"


def judged_in_words(count: Mapping[str, Any]) -> str:
    """Say how many alarms were false, against what is stated."""
    judged_in_all = count["true"] + count["false"]
    return f"false alarms: stated 1 in {count['stated']}, seen {count['false']} in {count['days']}d (of {judged_in_all} judged)"


def rejections(told: Mapping[str, Any]) -> Iterator[str]:
    """Return a line for each model that has rejected events, and one for those that no model counts: how many, and the last."""
    for model, seen in told["models"].items():
        last = seen.get("last_rejection")
        if last:
            yield f"{model}: {seen['rejected']} events rejected, the last: {_reason(last)}"
    refused = told.get("refused", {})
    if refused.get("last"):
        yield f"{refused['events']} events refused, the last of {refused['last']['model']!r}: {_reason(refused['last'])}"


def actor_rows(told: Mapping[str, Any]) -> Iterator[tuple[object, ...]]:
    """Return one row a process."""
    for name, actor in told["actors"].items():
        yield name, actor["alive"], actor["pid"], (actor["node"] or "")[:8], actor["epoch"]


def source_rows(told: Mapping[str, Any]) -> Iterator[tuple[object, ...]]:
    """Return a row for each source: how far it is, and what of it was not taken."""
    for name, each in told["sources"].items():
        last = None if each["last_at"] is None else f"{datetime.fromtimestamp(each['last_at'], UTC):%Y-%m-%d %H:%M:%SZ}"
        counts = (each[count] for count in ("read", "refused", "rejected", "waiting"))
        yield name, each["kind"], each["state"], each.get("place"), last, *counts


def problems(told: Mapping[str, Any]) -> Iterator[str]:
    """Return a line for each thing that a person should look at."""
    for model, seen in told["models"].items():
        yield from _problems_of(model, seen)
    if told["retrains"].get("dead"):
        yield f"{told['retrains']['dead']} retrain orders could not be delivered: visutility retrains ls"
    for name, actor in told["actors"].items():
        if not actor["alive"]:
            yield f"{name}: does not answer"
    yield from _of_other_systems(told)
    for what in told.get("unreadable", ()):
        yield f"{what}: its row in the store cannot be read"
    if "store_problem" in told:
        yield told["store_problem"]


def _of_other_systems(told: Mapping[str, Any]) -> Iterator[str]:
    for name, each in told.get("sources", {}).items():
        if each["state"] == "failing":
            yield f"source {name}: cannot be read: {each['problem']}"
        elif each["problem"]:
            yield f"source {name}: {each['refused'] + each['rejected']} rows were not taken, the last: {each['problem']}"
    for name, each in told.get("receivers", {}).items():
        if each["state"] == "failing":
            yield f"receiver {name}: {each['waiting']} happenings wait, it cannot be reached: {each['problem']}"
        if each["lost"]:
            yield f"receiver {name}: has refused {each['lost']} messages for good"


def _problems_of(model: str, seen: Mapping[str, Any]) -> Iterator[str]:
    if seen["state"] in FIRING:
        yield f"{model}: {seen['state']}"
    for version, metric, why in errors(seen):
        yield f"{model} {version}: {metric} is no longer watched, because its detector cannot process it: {why}"
    if seen.get("clock_ahead"):
        yield f"{model}: the clock of a sender is {seen['clock_ahead']['s']:.0f} s ahead"
    if seen.get("damaged"):
        yield f"{model}: {seen['damaged']['rows']} rows of the store could not be read, the last: {seen['damaged']['last']}"
    if seen.get("flagged"):
        yield f"{model}: has not recovered after its retrain"
    if seen.get("gave_up"):
        yield f"{model}: {seen['gave_up']} retrains in a row did not succeed, it requests no more until you trigger one"


def _reason(last: Mapping[str, Any]) -> str:
    return f"{last['field']} {last['rule']}, got {last['value']!r}"


def _metric(seen: Mapping[str, Any]) -> str:
    baseline = seen.get("baseline")
    mean = baseline.get("mean") if isinstance(baseline, Mapping) else baseline
    return f"{seen['state']}" + (f" ({mean:.4g})" if isinstance(mean, float) else "")


def main(argv: Sequence[str] | None = None) -> int:
    """Run `visutility status`."""
    return run(status, argv)


if __name__ == "__main__":
    sys.exit(main())
