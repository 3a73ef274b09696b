"""Changes by callers other than logging: baselines, pins, promises, versions. Each is a `Change` for the next commit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

from actors import replies, wire
from actors.clock import Instant
from actors.detection import baselines, effects, stored
from actors.detection.model import Change, Model
from actors.detection.rows import JudgementRow
from actors.detection.rules.promises import Promise
from actors.detection.rules.retrain import Outcome
from actors.people import NOBODY, Signature
from actors.storage import Part


def baseline(name: str, version: str, values: Mapping[str, wire.Floats]) -> Change:
    """Let a version's metrics learn from these values instead of from its first events."""

    def make(model: Model, now: Instant) -> replies.BaselineLearned:
        watched = model.monitor.give_baseline(version, values)
        model.force_snapshot = True
        model.last_seen = model.last_seen or now
        model.samples += [baselines.sample_row(name, version, metric, values[metric]) for metric in watched]
        return {"status": "learned", "metrics": watched, "unwatched": sorted(values.keys() - set(watched))}

    return Change(name, make, creates=True)


def pin(part: Part, name: str, version: str | None) -> Change:
    """Compare every version from now on with the baseline of this one; None: each with its own again."""

    def make(model: Model, _now: Instant) -> replies.Pinned:
        if version is None:
            model.monitor.pin(None, {})
            return {"status": "unpinned", "metrics": []}
        if version not in model.monitor.versions:
            raise KeyError(f"version must be one that {name} has logged, got {version!r}")
        with part.read() as connection:
            samples = baselines.baseline_of(connection, model, version, damaged=[])  # they are reported where they are read
        if not samples:
            raise ValueError(f"version must have logged a watched metric or been given a baseline, got {version!r}")
        model.monitor.pin(version, samples)
        model.samples += [baselines.sample_row(name, version, metric, sample) for metric, sample in samples.items()]
        return {"status": "pinned", "metrics": sorted(samples)}

    return Change(name, make)


def promise(name: str, promised: Promise) -> Change:
    """Record what a version has promised, as a numbered row of the model's log."""

    def make(model: Model, now: Instant) -> replies.PromiseRecorded:
        if model.retrain.promise(promised):
            model.number += 1
            model.last_seen = model.last_seen or now
            model.rows.append(
                {
                    "model": name,
                    "number": model.number,
                    "producer": None,
                    "sequence": 0,
                    "skip": 0,
                    "count": 0,
                    "received_at": now.wall_s,
                    "payload": promised.packed(),
                }
            )
        return {"status": "recorded"}

    return Change(name, make, creates=True)


def announce(name: str, version: str, signed: Signature = NOBODY, *, live: bool) -> Change:
    """Take a version that a registry has; it is live where the registry's alias points there. Safe to repeat."""

    def make(model: Model, now: Instant) -> replies.VersionAnnounced:
        outcomes = model.retrain.announce(version, model.pace(now).wall_s, signed, live=live)
        model.last_seen = model.last_seen or now
        effects.decided(model, outcomes, list(model.monitor.versions), now)
        return {"status": "recorded", "live": model.retrain.versions.live}

    return Change(name, make, creates=True)


def promote(name: str, version: str, signed: Signature = NOBODY) -> Change:
    """Make a version live because a person says so. KeyError: it has never logged; ValueError: it is live already."""
    return _moved(name, "promoted", lambda model, at: model.retrain.promote(version, at, signed))


def rollback(name: str, signed: Signature = NOBODY) -> Change:
    """Return to the version that was live before. ValueError: there is none."""
    return _moved(name, "rolled_back", lambda model, at: model.retrain.rollback(at, signed))


def _moved(name: str, status: Literal["promoted", "rolled_back"], move: Callable[[Model, float], list[Outcome]]) -> Change:
    def make(model: Model, now: Instant) -> replies.VersionChanged:
        over = model.retrain.versions.live
        outcomes = move(model, model.pace(now).wall_s)
        effects.decided(model, outcomes, list(model.monitor.versions), now)
        return {"status": status, "version": str(model.retrain.versions.live), "over": over}

    return Change(name, make)


def acknowledge(name: str, episode: str, signed: Signature = NOBODY) -> Change:
    """Note that a person has seen an episode: it asks no more."""

    def make(model: Model, now: Instant) -> replies.Acknowledged:
        return {"status": "acknowledged" if model.book.acknowledge(episode, now, signed) else "settled"}

    return Change(name, make)


def judge(part: Part, name: str, episode: str, verdict: Literal["true", "false"], signed: Signature = NOBODY) -> Change:
    """Note whether a person calls an episode a true or a false alarm, also of one that was settled long ago."""

    def make(model: Model, now: Instant) -> replies.EpisodeJudged:
        record = model.book.unsettled(episode)
        if record is None:
            with part.read() as connection:
                record = stored.read_episode(connection, episode)
        if record is None:  # retention has removed it in between
            raise KeyError(f"episode must be one of this store, got {episode!r}")
        changed = model.book.judge(record, verdict, now, signed)
        if changed:
            row: JudgementRow = {"episode": episode, "model": name, "opened_at": record["opened_at"], "verdict": verdict}
            model.judgements.append(row)
        return {"status": "recorded", "episode": episode, "verdict": verdict, "changed": changed}

    return Change(name, make)


def versions(model: Model) -> replies.VersionsListed:
    """Return a model's versions: live, candidate or former, what each has promised, and how it compared."""
    rows: list[replies.VersionShown] = [
        {
            "version": row["version"],
            "state": row["state"],
            "since": row["since"],
            "promise": _plain(model.retrain.promise_of(row["version"])),
            "evidence": _plain(row["evidence"]),
            "by": row.get("by"),
            "comment": row.get("comment"),
        }
        for row in model.retrain.versions.rows()
    ]
    return {"status": "ok", "rows": rows}


def _plain(record: Mapping[str, object] | None) -> replies.Json | None:
    return None if record is None else dict(record)
