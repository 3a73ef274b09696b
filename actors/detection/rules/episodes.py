"""Decides what becomes of alarms: when an episode opens, what it asks for, when it closes, and when a person must look.

Pure: values and instants in, decisions out. An episode is open at most once for a model and version; all alarms of its metrics
meanwhile are its evidence. It asks for one order. A request that was skipped (cooldown, silence) is asked again when the time
that was named is over, if the episode is still open and never got an order. The order's end (`done`), a new version or recovery
closes it. One that was answered by a retrain is held on to until the level that it saw has come back, or has not: then it is
flagged. Everything decided is on the episode's record with its numbers.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from actors.clock import Instant
from actors.detection.rules.monitor import Feed
from actors.detection.rules.recovery import RecoveryWatch
from actors.drift import Alarm
from actors.replies import Episode, Evidence, Json, OrderOf, ShortfallNumbers, Skipped
from actors.wire import Floats

MAX_EVIDENCE: Final = 32  # alarms kept with all their numbers; of the others the count
MAX_DECISIONS: Final = 200  # the first and the newest are kept
MAX_HELD: Final = 64  # of one model; a version that drifts again and again must not fill the memory
_FINAL: Final = frozenset({"done", "failed", "dead", "expired", "dry_run"})
# After a retrain the level may wander for a while: as often the events that recovery needs, before a person is asked.
_PATIENCE: Final = 3


@dataclass(frozen=True, slots=True)
class Ask:
    """Ask for a retrain order of this episode."""

    episode: str


@dataclass(frozen=True, slots=True)
class Overtaken:
    """Tell that this version has come, so that an order that nobody has begun may expire."""

    version: str
    over: tuple[str, ...]  # the versions that it came after: an order for a later one is none of its business


@dataclass(frozen=True, slots=True)
class Rearm:
    """Let a metric learn its level afresh, if what its detector has learned since the alarm is the drifted one."""

    version: str
    metric: str
    baseline_mean: float
    margin: float
    since_alarm: int


@dataclass(frozen=True, slots=True)
class Tell:
    """Tell people: `kind` is opened, closed, flagged, skipped or ordered."""

    kind: str
    episode: str
    text: str


@dataclass(frozen=True, slots=True)
class Ordered:
    """An episode has got its order."""

    episode: str


@dataclass(frozen=True, slots=True)
class Retrained:
    """The order of an episode of `version` is done; `numbers` are those of the shortfall that opened it."""

    version: str
    order: str
    new_version: str | None
    numbers: ShortfallNumbers | None


Effect = Ask | Overtaken | Rearm | Tell | Ordered | Retrained


def episode_id(store_id: str, model: str, version: str, ordinal: int) -> str:
    """Name the episode: the same after any restart."""
    # Each part with its length: no two different triples read the same.
    named = f"{len(model)}:{model}{len(version)}:{version}{ordinal}".encode()
    return f"{store_id}-e-{hashlib.sha256(named).hexdigest()[:16]}"


def request_key(store_id: str, model: str, version: str, cause: str, ordinal: int) -> str:
    """Name a request that no alarm has made: the same after any restart."""
    named = f"{len(model)}:{model}{len(version)}:{version}{cause}{ordinal}".encode()
    return f"{store_id}-q-{hashlib.sha256(named).hexdigest()[:16]}"


class EpisodeBook:
    """The episodes of one model that are not settled yet."""

    def __init__(self, store_id: str, model: str, ordinal: int = 0, records: Iterable[Episode] = ()) -> None:
        self._store_id = store_id
        self._model = model
        self.ordinal = ordinal
        self._held: dict[str, Episode] = {record["id"]: record for record in records}
        self._dirty: dict[str, Episode] = {}

    # --- questions

    @property
    def has_shortfall(self) -> bool:
        """Whether a shortfall's request is open: there is one at a time."""
        return any(_is_shortfall(r) and r["closed_at"] is None for r in self._held.values())

    def open_of(self, version: str) -> Episode | None:
        """Give the open episode of a version."""
        return next((record for record in self.open_episodes if record["version"] == version), None)

    @property
    def open_episodes(self) -> list[Episode]:
        """The episodes of alarms that are open."""
        return [record for record in self._held.values() if record["closed_at"] is None and not _is_shortfall(record)]

    @property
    def flagged(self) -> list[str]:
        """The episodes that a person must look at."""
        return [record["id"] for record in self._held.values() if record["flagged"] and record["acknowledged_at"] is None]

    def drifting(self, version: str) -> dict[str, float]:
        """Give the metrics of the version that have drifted and not recovered, and what their baselines were."""
        record = self.open_of(version)
        return {} if record is None else {metric: watch["baseline_mean"] for metric, watch in record["watches"].items()}

    @property
    def open_versions(self) -> set[str]:
        """The versions that have an open episode."""
        return {record["version"] for record in self.open_episodes}

    def followed(self) -> list[str]:
        """Give the episodes whose order's state is worth asking for."""
        return [r["id"] for r in self._held.values() if r["order"] is not None and not _order_is_settled(r)]

    def get(self, episode: str) -> Episode | None:
        """Give an episode that is held."""
        return self._held.get(episode)

    def changed(self) -> list[Episode]:
        """Give the records that changed since they were written; `held` tells whether the book still needs them."""
        return list(self._dirty.values())

    def written(self) -> None:
        """Learn that the changed records are in the store."""
        self._dirty.clear()

    # --- events

    def new_version(self, version: str, known: Iterable[str], now: Instant) -> list[Effect]:
        """Learn that `version` was seen for the first time; `known` are the versions before it."""
        effects: list[Effect] = []
        over = tuple(name for name in known if name != version)
        if not over:
            return effects
        for record in list(self._held.values()):
            if record["closed_at"] is None:
                effects += self._close(record, "new version", f"version {version} came", now)
                if record["order"] is not None:
                    record["after"] = {"version": version}
            elif record["after"] is not None and record["after"]["version"] is None and record["order"]:
                record["after"] = {"version": version}
            self._settle(record)
        effects.append(Overtaken(version, over))
        return effects

    def feed(self, feed: Feed, now: Instant, informs: str | None = None) -> list[Effect]:
        """Take what a metric saw: its alarms open an episode or add to it, its values tell whether it has recovered.

        An episode asks for an order, unless alarms of this version only inform: `informs` says why.
        """
        effects: list[Effect] = []
        for record in [r for r in self._held.values() if _follows(r, feed)]:
            effects += self._follow_up(record, feed, now)
        start = 0
        for alarm in feed.alarms:
            effects += self._observe(feed.version, feed.metric, feed.values[start : alarm.index + 1], now)
            effects += self._alarm(feed, alarm, now, informs)
            start = alarm.index + 1
        return effects + self._observe(feed.version, feed.metric, feed.values[start:], now)

    def _alarm(self, feed: Feed, alarm: Alarm, now: Instant, informs: str | None) -> list[Effect]:
        version, metric, time = feed.version, feed.metric, float(feed.times[alarm.index])
        record = self.open_of(version)
        effects: list[Effect] = []
        if record is None:
            record = self._opened(version, metric, alarm, time, now)
            effects.append(Tell("opened", record["id"], in_words(self._model, version, metric, alarm.as_dict())))
            if informs is None:
                self._decide(record, "ask", "an episode asks for one order", now)
                effects.append(Ask(record["id"]))
            else:
                record["request"] |= {"state": "informed", "reason": informs, "asks": 0}
                self._decide(record, "inform", informs, now)
        record["alarms"] += 1
        if len(record["evidence"]) < MAX_EVIDENCE:
            numbers = alarm.as_dict()
            del numbers["index"]
            record["evidence"].append(cast(Evidence, {"metric": metric, "at": now.wall_s, "time": time, **numbers}))
        if metric not in record["watches"]:
            record["watches"][metric] = RecoveryWatch.after(alarm).as_dict()
        self._dirty[record["id"]] = record
        return effects

    def shortfall(self, version: str, metric: str, at: float, numbers: ShortfallNumbers, now: Instant) -> list[Effect]:
        """Ask for an order because the retrain pays, as of event time `at`."""
        self.ordinal += 1
        id_ = request_key(self._store_id, self._model, version, "shortfall", self.ordinal)
        record = _record(id_, self._model, version, ordinal=self.ordinal, metric=metric, time=at, now=now)
        record["cause"], record["shortfall"] = "shortfall", numbers
        record["evidence"].append(_as_evidence(metric, at, numbers, now))
        why = (
            f"{self._model} {version}: {metric} has lost {numbers['lost']:.0f} errors of its promise of "
            f"{numbers['promised']:.4g} over {numbers['stretch_rows']} rows, a retrain is worth {numbers['price']:.0f}"
        )
        self._decide(record, "open", why, now, dict(numbers))
        self._decide(record, "ask", "a retrain pays", now)
        self._hold(record, now)
        return [Tell("opened", id_, why), Ask(id_)]

    def _opened(self, version: str, metric: str, alarm: Alarm, time: float, now: Instant) -> Episode:
        self.ordinal += 1
        id_ = episode_id(self._store_id, self._model, version, self.ordinal)
        record = _record(id_, self._model, version, ordinal=self.ordinal, metric=metric, time=time, now=now)
        self._decide(record, "open", f"{alarm.statistic:.3g} > {alarm.threshold:.3g}", now, _numbers(alarm))
        self._hold(record, now)
        return record

    def _hold(self, record: Episode, now: Instant) -> None:
        self._held[record["id"]] = record
        self._dirty[record["id"]] = record
        for old in sorted(self._held.values(), key=lambda r: int(r["ordinal"]))[: len(self._held) - MAX_HELD]:
            if old["closed_at"] is None:
                self._close(old, "too many", f"more than {MAX_HELD} episodes of the model are unsettled", now)
            self._let_go(old)

    def _observe(self, version: str, metric: str, values: Floats, now: Instant) -> list[Effect]:
        record = self.open_of(version)
        if record is None or metric not in record["watches"] or not len(values):
            return []
        watch = RecoveryWatch.from_dict(record["watches"][metric])
        recovered = watch.update(values)
        record["watches"][metric] = watch.as_dict()
        self._dirty[record["id"]] = record
        if not recovered:
            return []
        del record["watches"][metric]
        record["recovered"].append(metric)
        numbers = {"metric": metric, "level": watch.level, "baseline_mean": watch.baseline_mean, "margin": watch.margin}
        self._decide(record, "recovered", f"{metric} is back at {watch.level:.4g}", now, numbers | {"events": watch.seen})
        effects: list[Effect] = [_rearm(version, metric, watch)]
        if not record["watches"]:
            effects += self._close(record, "recovery", "every metric that had drifted is back at its baseline", now)
        return effects

    def _follow_up(self, record: Episode, feed: Feed, now: Instant) -> list[Effect]:
        """Look, after a retrain, whether the level from before the episode has come back."""
        watch = RecoveryWatch.from_dict(record["watches"][feed.metric])
        needed = watch.events
        recovered = watch.update(feed.values)
        self._dirty[record["id"]] = record
        if not recovered and watch.seen < _PATIENCE * needed:
            record["watches"][feed.metric] = watch.as_dict()
            return []
        del record["watches"][feed.metric]
        numbers = {"metric": feed.metric, "level": watch.level, "baseline_mean": watch.baseline_mean, "events": watch.seen}
        effects: list[Effect] = []
        if recovered:
            record["recovered"].append(feed.metric)
            self._decide(record, "recovered", f"{feed.metric} is back at {watch.level:.4g} after the retrain", now, numbers)
        else:
            why = f"{feed.metric} is at {watch.level:.4g} after the retrain, its baseline was {watch.baseline_mean:.4g}"
            effects.append(self._flag(record, f"not recovered: {why}", now, numbers))
        if not record["watches"]:
            record["after"] = None
        self._settle(record)
        return effects

    # --- the order

    def reply(self, episode: str, reply: Mapping[str, Any], now: Instant, pace: Instant | None = None) -> list[Effect]:
        """Take the dispatcher's reply to the request of an episode; what is skipped waits on the clock of `pace`, or `now`."""
        record = self._held.get(episode)
        if record is None or record["order"] is not None:
            return []
        self._dirty[episode] = record
        if reply["decision"] == "skipped":
            after_s = reply.get("retry_in_s")
            wait = None if after_s is None else _wait(float(after_s), pace or now)
            record["request"] |= {"state": "skipped", "reason": reply["reason"], "skipped": wait}
            self._decide(record, "skip", str(reply["reason"]), now, {"retry_in_s": after_s})
            return [Tell("skipped", episode, str(reply["reason"]))]
        record["request"] |= {"state": "ordered", "reason": reply.get("reason"), "skipped": None}
        record["order"] = {"order": reply["order"], "state": reply["decision"], "reason": None, "new_version": None}
        self._decide(record, "order", f"{reply['decision']}: order {reply['order']}", now, {"order": reply["order"]})
        if record["closed_at"] is not None:
            record["after"] = record["after"] or {"version": None}
        self._settle(record)
        return [Tell("ordered", episode, str(reply["order"])), Ordered(episode)]

    def order(self, episode: str, order: Mapping[str, Any], now: Instant) -> list[Effect]:
        """Take what the dispatcher says of the order of an episode now."""
        record = self._held.get(episode)
        if record is None or record["order"] is None:
            return []
        told: OrderOf = {
            "order": str(order["order"]),
            "state": str(order["state"]),
            "reason": order.get("reason"),
            "new_version": order.get("new_version"),
        }
        if told == record["order"]:
            return []
        before = record["order"]["state"]
        record["order"] = told
        self._dirty[episode] = record
        effects: list[Effect] = []
        if told["state"] != before:
            self._decide(record, f"order {told['state']}", str(told["reason"] or ""), now, dict(told))
            if told["state"] == "done":
                effects.append(Retrained(record["version"], told["order"], told["new_version"], record.get("shortfall")))
                effects += self._done(record, told["new_version"], now)
            elif told["state"] == "expired":
                effects += self._close(record, "expired", "the order expired before anybody had begun it", now)
            elif told["state"] in {"failed", "dead"} and record["closed_at"] is None:
                effects.append(self._flag(record, f"the retrain {told['state']}: {told['reason']}", now, dict(told)))
                if _is_shortfall(record):  # what goes on losing asks again
                    effects += self._close(record, told["state"], f"the retrain {told['state']}", now)
        self._settle(record)
        return effects

    def _done(self, record: Episode, new_version: str | None, now: Instant) -> list[Effect]:
        if record["after"] is None and record["watches"]:
            record["after"] = {"version": new_version}
        if record["closed_at"] is not None:
            return []
        why = "the retrain is done" if new_version is None else f"the retrain is done: version {new_version}"
        effects = self._close(record, "done", why, now)
        if new_version is None:
            # The same version goes on: what was learned since the alarm is the drifted level.
            record["after"] = {"version": record["version"]}
            effects += [_rearm(record["version"], m, RecoveryWatch.from_dict(w)) for m, w in record["watches"].items()]
        return effects

    def has_due(self, pace: Instant) -> bool:
        """Whether `tick` would ask again."""
        return any(_is_due(record, pace) for record in self._held.values())

    def due_in(self, pace: Instant) -> float | None:
        """Return the seconds until `tick` asks again on the clock of `pace`; None: nothing waits."""
        waits = [_due_in(record, pace) for record in self._held.values()]
        return min((wait for wait in waits if wait is not None), default=None)

    def tick(self, now: Instant, pace: Instant | None = None, *, pays: bool = True) -> list[Effect]:
        """Ask again for what was skipped, where the time that was named is over on the clock of `pace`, or `now`.

        A shortfall asks again only where a retrain still `pays`.
        """
        effects: list[Effect] = []
        for record in list(self._held.values()):
            request, wait = record["request"], record["request"]["skipped"]
            if wait is not None and _is_due(record, pace or now):
                if _is_shortfall(record) and not pays:
                    effects += self._close(record, "recovery", "a retrain does not pay any more", now)
                    continue
                due_at = wait["wall_s"] + wait["s"]
                request |= {"state": "asking", "skipped": None, "asks": request["asks"] + 1, "due_at": due_at}
                self._decide(record, "ask again", f"what it was skipped for is over: {request['reason']}", now)
                self._dirty[record["id"]] = record
                effects.append(Ask(record["id"]))
        return effects

    def ask_again(self, now: Instant) -> None:
        """Let what was refused for good be due again: a changed configuration may answer otherwise."""
        for record in self._held.values():
            request = record["request"]
            if request["state"] == "skipped" and request["skipped"] is None and record["closed_at"] is None:
                request["skipped"] = _wait(0.0, now)
                self._dirty[record["id"]] = record

    # --- people

    def acknowledge(self, episode: str, now: Instant) -> bool:
        """Learn that a person has seen it: it asks no more, its flag is taken down. False where it is settled already."""
        record = self._held.get(episode)
        if record is None:
            return False
        if record["acknowledged_at"] is None:
            record["acknowledged_at"] = now.wall_s
            self._decide(record, "acknowledged", "a person has seen it", now)
            self._dirty[episode] = record
            self._settle(record)
        return True

    # --- records

    def _close(self, record: Episode, by: str, why: str, now: Instant) -> list[Effect]:
        if record["closed_at"] is not None:
            return []
        record["closed_at"], record["closed_by"] = now.wall_s, by
        record["request"]["skipped"] = None
        for watch in record["watches"].values():
            watch["seen"] = 0  # patience is with what comes after the retrain, not with the drifted events before it
        self._decide(record, "close", why, now)
        self._dirty[record["id"]] = record
        self._settle(record)
        return [Tell("closed", record["id"], why)]

    def _flag(self, record: Episode, why: str, now: Instant, numbers: Mapping[str, object]) -> Effect:
        record["flagged"] = why
        self._decide(record, "flag", why, now, numbers)
        self._dirty[record["id"]] = record
        return Tell("flagged", record["id"], why)

    def _decide(
        self, record: Episode, decision: str, why: str, now: Instant, numbers: Mapping[str, object] | None = None
    ) -> None:
        entries = record["decisions"]
        entries.append({"at": now.wall_s, "decision": decision, "why": why, "numbers": dict(numbers or {})})
        if len(entries) > MAX_DECISIONS:
            del entries[MAX_DECISIONS // 2]

    def _settle(self, record: Episode) -> None:
        """Let go of a closed episode of which nothing more is to be learned."""
        waits_for_order = record["order"] is not None and not _order_is_settled(record)
        asked = record["request"]["state"] == "asking"  # its request may be on its way: the reply belongs on the record
        follows = record["after"] is not None and bool(record["watches"])
        flagged = record["flagged"] is not None and record["acknowledged_at"] is None
        if record["closed_at"] is not None and not (waits_for_order or asked or follows or flagged):
            self._let_go(record)

    def _let_go(self, record: Episode) -> None:
        record["held"] = False
        self._dirty[record["id"]] = record
        self._held.pop(record["id"], None)


def in_words(model: str, version: str, metric: str, alarm: Mapping[str, Any]) -> str:
    """Say an alarm in one line."""
    way = "fell" if alarm["direction"] == "down" else "rose"
    return (
        f"{model} {version}: {metric} {way} from {alarm['baseline_mean']:.4g} (of {alarm['baseline_n']}) to "
        f"{alarm['window_mean']:.4g} (of {alarm['window_n']}), {alarm['detector']} {alarm['statistic']:.3g} "
        f"> {alarm['threshold']:.3g}"
    )


def _record(id_: str, model: str, version: str, *, ordinal: int, metric: str, time: float, now: Instant) -> Episode:
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


def _as_evidence(metric: str, at: float, numbers: ShortfallNumbers, now: Instant) -> Evidence:
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


def _is_shortfall(record: Episode) -> bool:
    return record.get("cause") == "shortfall"


def observed_drift(evidence: Evidence) -> float | None:
    """Give the size of a drift in deviations of the baseline; None against a constant one."""
    sd = evidence["baseline_sd"]
    return abs(evidence["window_mean"] - evidence["baseline_mean"]) / sd if sd > 0 else None


def asks_at(record: Episode) -> float:
    """Give the event time at which an episode asks: that of its alarm, or that at which what held it back was over.

    It depends on no cut of the events into batches, so a replay decides the same however fast it is. Rounded up, so that no
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


def _follows(record: Episode, feed: Feed) -> bool:
    after = record["after"]
    return (
        record["closed_at"] is not None
        and after is not None
        and after["version"] == feed.version
        and feed.metric in record["watches"]
    )


def _rearm(version: str, metric: str, watch: RecoveryWatch) -> Rearm:
    return Rearm(version, metric, watch.baseline_mean, watch.margin, watch.seen)


def _is_due(record: Episode, now: Instant) -> bool:
    due_in = _due_in(record, now)
    return due_in is not None and due_in <= 0


def _due_in(record: Episode, now: Instant) -> float | None:
    """Return the seconds until a request is made again; None where it is not, or not by time."""
    wait = record["request"]["skipped"]
    if wait is None or record["closed_at"] is not None or record["order"] is not None or record["acknowledged_at"] is not None:
        return None
    return float(wait["s"]) - now.seconds_since(Instant(wait["wall_s"], wait["boot_s"], wait["boot_id"]))


def _order_is_settled(record: Episode) -> bool:
    # A failed or dead order may be put back by a person while its episode is open.
    state = None if record["order"] is None else record["order"]["state"]
    return state in _FINAL and (state not in {"failed", "dead"} or record["closed_at"] is not None)


def _wait(seconds: float, now: Instant) -> Skipped:
    return {"s": seconds, "wall_s": now.wall_s, "boot_s": now.boot_s, "boot_id": now.boot_id}


def _numbers(alarm: Alarm) -> Json:
    return {key: value for key, value in alarm.as_dict().items() if key not in {"index", "extra"}} | dict(alarm.extra)
