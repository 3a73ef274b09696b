"""What a model's decisions ask for, as what a commit writes: requests for the outbox, detectors learned afresh, people told."""

from __future__ import annotations

import hashlib
import logging

from actors.clock import Instant
from actors.detection import tables
from actors.detection.model import Model
from actors.detection.rules import episodes
from actors.detection.rules.episodes import Ask, Overtaken, Rearm, Tell
from actors.detection.tables import OutboxRow
from actors.replies import Episode, Json

logger = logging.getLogger(__name__)


def carried_out(model: Model, process: str, now: Instant) -> tuple[list[OutboxRow], list[Tell]]:
    """Carry out what has gathered on a model; return what is to be sent, and what people are told after the commit."""
    sent: list[OutboxRow] = []
    told: list[Tell] = []

    def send(id_: str, method: str, body: Json) -> None:
        sent.append(
            {
                "id": id_,
                "model": model.name,
                "process": process,
                "method": method,
                "body": tables.pack(body),
                "created_at": now.wall_s,
            }
        )

    for effect in model.effects:
        match effect:
            case Ask(episode=episode):
                record = model.book.get(episode)
                if record is not None:
                    send(episode, "request", _request(record, model))
            case Overtaken(version=version, over=over):
                digest = hashlib.sha256(f"{len(model.name)}:{model.name}{version}".encode()).hexdigest()[:32]
                body: Json = {"model": model.name, "version": version, "over": list(over)}
                send(f"overtaken-{digest}", "overtaken", body)
            case Rearm(version=version, metric=metric):
                if model.monitor.learned_drift(version, metric, effect.baseline_mean, effect.margin, effect.since_alarm):
                    model.monitor.reset(version, metric)
                    model.force_snapshot = True
            case Tell():
                told.append(effect)
    model.effects.clear()
    return sent, told


def tell(effect: Tell) -> None:
    """Log what people should know; a commit has made it true."""
    level = logging.WARNING if effect.kind in {"opened", "flagged", "skipped"} else logging.INFO
    logger.log(level, "episode %s %s: %s", effect.episode, effect.kind, effect.text)


def _request(record: Episode, model: Model) -> Json:
    return {
        "episode": record["id"],
        "model": record["model"],
        "version": record["version"],
        "metric": record["metric"],
        "observed_drift": episodes.observed_drift(record["evidence"][0]),
        "triggered_at": episodes.asks_at(record) if model.on_event_time else record["opened_at"],
        "explanation": episodes.explanation(record),
    }
