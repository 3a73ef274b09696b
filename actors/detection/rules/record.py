"""An episode's record: what it is called, what it holds from the start, and what can be read off it. Pure functions."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from actors.clock import Instant
from actors.detection.rules.decisions import Rearm
from actors.detection.rules.monitor import Feed
from actors.detection.rules.recovery import RecoveryWatch
from actors.drift import Alarm
from actors.replies import Episode, Evidence, Json, ShortfallNumbers, Skipped

_FINAL: Final = frozenset({"done", "failed", "dead", "expired", "dry_run"})


def episode_id(store_id: str, model: str, version: str, ordinal: int) -> str:
    """Name the episode: the same after any restart."""
    # Each part with its length: no two different triples read the same.
    named = f"{len(model)}:{model}{len(version)}:{version}{ordinal}".encode()
    return f"{store_id}-e-{hashlib.sha256(named).hexdigest()[:16]}"


def request_key(store_id: str, model: str, version: str, cause: str, ordinal: int) -> str:
    """Name a request that no alarm has made: the same after any restart."""
    named = f"{len(model)}:{model}{len(version)}:{version}{cause}{ordinal}".encode()
    return f"{store_id}-q-{hashlib.sha256(named).hexdigest()[:16]}"


def in_words(model: str, version: str, metric: str, alarm: Mapping[str, Any]) -> str:
    """Say an alarm in one line."""
    way = "fell" if alarm["direction"] == "down" else "rose"
    return (
        f"{model} {version}: {metric} {way} from {alarm['baseline_mean']:.4g} (of {alarm['baseline_n']}) to "
        f"{alarm['window_mean']:.4g} (of {alarm['window_n']}), {alarm['detector']} {alarm['statistic']:.3g} "
        f"> {alarm['threshold']:.3g}"
    )


def new_record(id_: str, model: str, version: str, *, ordinal: int, metric: str, time: float, now: Instant) -> Episode:
    """Return the record of an episode that opens now."""
    return {
        "id": id_,
        "model": model,
        "version": version,
        "ordinal": ordinal,
        "metric": metric,
        "opened_at": now.wall_s,
        "time": time,
        "closed_at": None,
        "closed_by": None,
        "alarms": 0,
        "evidence": [],
        "watches": {},
        "recovered": [],
        "request": {"state": "asking", "reason": None, "asks": 1, "skipped": None},
        "order": None,
        "after": None,
        "acknowledged_at": None,
        "flagged": None,
        "decisions": [],
        "held": True,
    }


def as_evidence(metric: str, at: float, numbers: ShortfallNumbers, now: Instant) -> Evidence:
    """Return a shortfall as evidence like an alarm's: the promise is its baseline, the stretch its window."""
    rows, error = numbers["stretch_rows"], numbers["standard_error"]
    return {
        "metric": metric,
        "at": now.wall_s,
        "time": at,
        "detector": "shortfall",
        "direction": "down",
        "statistic": numbers["lost"],
        "threshold": numbers["price"],
        "baseline_n": int(numbers["promised_n"]),
        "baseline_mean": numbers["promised"],
        "baseline_sd": error,
        "window_n": rows,
        "window_mean": numbers["stretch_rate"],
        "estimated_start": numbers["stretch_windows"],
        "extra": {"z": numbers["z"], "since": numbers["stretch_since"]},
    }


def is_shortfall(record: Episode) -> bool:
    """Return whether a shortfall has opened it, not an alarm."""
    return record.get("cause") == "shortfall"


def observed_drift(evidence: Evidence) -> float | None:
    """Return the size of a drift in deviations of the baseline; None against a constant one."""
    sd = evidence["baseline_sd"]
    return abs(evidence["window_mean"] - evidence["baseline_mean"]) / sd if sd > 0 else None


def asks_at(record: Episode) -> float:
    """Return the event time at which an episode asks: that of its alarm, or that at which the wait ended.

    It does not depend on how events are cut into batches, so a replay decides the same at any speed. Rounded up, so that no
    rounding error asks a moment too early.
    """
    due_at = record["request"].get("due_at")
    return float(record["time"]) if due_at is None else float(math.ceil(due_at))


def explanation(record: Episode) -> Json:
    """Return the numbers behind the request of an episode: those of its first alarm, and which metrics alarmed.

    A shortfall has numbers of its own.
    """
    if "shortfall" in record:
        return dict(record["shortfall"])
    return {
        **record["evidence"][0],
        "episode": record["id"],
        "alarms": record["alarms"],
        "metrics": _metrics(record["evidence"]),
    }


def _metrics(evidence: Sequence[Evidence]) -> list[str]:
    return list(dict.fromkeys(str(entry["metric"]) for entry in evidence))


def follows(record: Episode, feed: Feed) -> bool:
    """Return whether a closed episode watches this metric for the level that its retrain should bring back."""
    after = record["after"]
    return (
        record["closed_at"] is not None
        and after is not None
        and after["version"] == feed.version
        and feed.metric in record["watches"]
    )


def rearm(version: str, metric: str, watch: RecoveryWatch) -> Rearm:
    """Return the decision that a metric learns its level afresh."""
    return Rearm(version, metric, watch.baseline_mean, watch.margin, watch.seen)


def is_due(record: Episode, now: Instant) -> bool:
    """Return whether a request is to be made again now."""
    wait_s = due_in(record, now)
    return wait_s is not None and wait_s <= 0


def due_in(record: Episode, now: Instant) -> float | None:
    """Return the seconds until a request is made again; None where it is not, or not by time."""
    wait = record["request"]["skipped"]
    if wait is None or record["closed_at"] is not None or record["order"] is not None or record["acknowledged_at"] is not None:
        return None
    return float(wait["s"]) - now.seconds_since(Instant(wait["wall_s"], wait["boot_s"], wait["boot_id"]))


def order_is_settled(record: Episode) -> bool:
    """Return whether nothing more is to be learned of the order of an episode."""
    # A failed or dead order may be put back by a person while its episode is open.
    state = None if record["order"] is None else record["order"]["state"]
    return state in _FINAL and (state not in {"failed", "dead"} or record["closed_at"] is not None)


def waiting(seconds: float, now: Instant) -> Skipped:
    """Return a wait of so many seconds from now."""
    return {"s": seconds, "wall_s": now.wall_s, "boot_s": now.boot_s, "boot_id": now.boot_id}


def numbers_of(alarm: Alarm) -> Json:
    """Return the numbers of an alarm, those of its detector alone included."""
    return {key: value for key, value in alarm.as_dict().items() if key not in {"index", "extra"}} | dict(alarm.extra)
