"""The effects of a model's decisions, as writes of a commit: calls of the dispatcher, reset detectors, happenings."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable

from actors import people
from actors.clock import Instant
from actors.detection import tables
from actors.detection.model import Model, Outgoing
from actors.detection.rows import OutboxRow
from actors.detection.rules.decisions import Ask, Effect, Ordered, Overtaken, Rearm, Retrained, Tell
from actors.detection.rules.judging import Judged
from actors.detection.rules.record import asks_at, explanation, observed_drift
from actors.detection.rules.retrain import Outcome, Pays
from actors.detection.rules.versions import Decision
from actors.replies import Episode, Json, happening

logger = logging.getLogger(__name__)


def decided(model: Model, outcomes: Iterable[Outcome], before: Iterable[str], now: Instant) -> None:
    """Take what the retrain watch has decided; `before` are the versions that were known before these events."""
    known = list(before)
    for outcome in outcomes:
        match outcome:
            case Pays():
                if not model.book.has_shortfall:
                    model.effects += model.book.shortfall(outcome.version, outcome.metric, outcome.at, outcome.numbers, now)
            case Judged():
                _judged(model, outcome)
            case Decision():
                _version(model, outcome, known, now)
                if outcome.version not in known:
                    known.append(outcome.version)


def carried_out(model: Model, process: str, now: Instant) -> tuple[list[OutboxRow], list[Tell]]:
    """Carry out what has gathered on a model; return what is to be sent, and what people are told after the commit."""
    told = [effect for effect in model.effects if isinstance(effect, Tell)]
    for effect in model.effects:
        _carry_out(model, effect)
    _deployed(model)
    rows: list[OutboxRow] = [
        {
            "id": call.id,
            "model": model.name,
            "process": process,
            "method": call.method,
            "body": tables.pack(call.body),
            "created_at": now.wall_s,
        }
        for call in model.outgoing
    ]
    model.effects, model.outgoing = [], []
    return rows, told


def _carry_out(model: Model, effect: Effect) -> None:
    match effect:
        case Ask(episode=episode):
            record = model.book.get(episode)
            if record is not None:
                _send(model, episode, "request", _request(record, model))
        case Overtaken(version=version, over=over):
            body: Json = {"model": model.name, "version": version, "over": list(over)}
            _send(model, f"overtaken-{_digest(model, version)}", "overtaken", body)
        case Rearm(version=version, metric=metric):
            if model.monitor.learned_drift(version, metric, effect.baseline_mean, effect.margin, effect.since_alarm):
                model.monitor.reset(version, metric)
                model.force_snapshot = True
        case Ordered():
            for judged in model.retrain.ordered(model.monitor.newest_time):
                _judged(model, judged)
        case Retrained():
            at = model.monitor.newest_time
            model.retrain.retrained(effect.version, effect.order, effect.numbers, effect.new_version, at)
        case Tell():
            pass  # after the commit


def tell(effect: Tell) -> None:
    """Log what people should know; a commit has made it true."""
    level = logging.WARNING if effect.kind in {"opened", "flagged", "skipped"} else logging.INFO
    logger.log(level, "episode %s %s: %s", effect.episode, effect.kind, effect.text)


def _deployed(model: Model) -> None:
    live = model.retrain.versions.live
    if live is None or not model.is_undeployed:
        return
    model.deployed = live
    since = next(row["since"] for row in model.retrain.versions.rows() if row["version"] == live)
    body: Json = {"model": model.name, "version": live, "at": since}
    _send(model, f"deployed-{_digest(model, live)}", "deployed", body)


def _judged(model: Model, judged: Judged) -> None:
    logger.info("retrain %s of %s: %s, %.0f errors saved", judged.order, model.name, judged.verdict, judged.saved)
    body: Json = {
        "order": judged.order,
        "verdict": judged.verdict,
        "saved": judged.saved,
        "standard_error": judged.standard_error,
        "at": judged.at,
    }
    _send(model, f"verdict-{judged.order}", "verdict", body)


def _version(model: Model, decision: Decision, known: list[str], now: Instant) -> None:
    """Let episodes learn of a new live version, and the dispatcher of one that did not go live by itself."""
    if decision.kind in {"flagged", "rejected"}:
        logger.warning("%s: version %s is worse than %s (%s)", model.name, decision.version, decision.over, decision.kind)
        return
    model.effects += model.book.new_version(decision.version, known, now)
    if decision.kind != "went live":
        by, comment = decision.signed.by, decision.signed.comment
        model.happenings.append(
            happening(
                "rolled_back" if decision.kind == "rolled back" else "promoted",
                f"{_digest(model, decision.version)}:{now.wall_s!r}",
                now.wall_s,
                model=model.name,
                version=decision.version,
                by=by,
                comment=comment,
                data={"over": decision.over},
            )
        )
    if decision.kind == "went live" or not model.settings.promotion.is_delivered:
        return
    kind = decision.kind.replace(" ", "_")
    model.book.ordinal += 1  # so that the same version may be promoted more than once
    key = f"{kind}-{_digest(model, decision.version)}-{model.book.ordinal}"
    body: Json = {
        "key": key,
        "model": model.name,
        "version": decision.version,
        "over": decision.over,
        "kind": kind,
        "evidence": decision.evidence,
        **people.given(by=decision.signed.by, comment=decision.signed.comment),
    }
    _send(model, key, "promoted", body)


def _request(record: Episode, model: Model) -> Json:
    body: Json = {
        "episode": record["id"],
        "model": record["model"],
        "version": record["version"],
        "metric": record["metric"],
        "observed_drift": observed_drift(record["evidence"][0]),
        "triggered_at": asks_at(record) if model.on_event_time else record["opened_at"],
        "explanation": explanation(record),
    }
    numbers = record.get("shortfall")
    if numbers is None:
        return body
    own = {"episode": "", "key": record["id"], "cause": numbers["cause"], "ordinal": record["ordinal"]}
    return body | own | {"observed_drift": abs(numbers["drift"]), "lost": numbers["lost"], "price": numbers["price"]}


def _send(model: Model, id_: str, method: str, body: Json) -> None:
    model.outgoing.append(Outgoing(id_, method, body))


def _digest(model: Model, version: str) -> str:
    return hashlib.sha256(f"{len(model.name)}:{model.name}{version}".encode()).hexdigest()[:32]
