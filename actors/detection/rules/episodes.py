"""Decides what becomes of alarms: when an episode opens, what it asks for, when it closes, and when a person must look.

Pure: values and instants in, decisions out. At most one episode is open for a model and version; all alarms of its metrics
meanwhile are its evidence. It asks for one order. A request that was skipped (cooldown, silence) is made again when that time
has passed, if the episode is still open and never got an order. The order's end (`done`), a new version or recovery closes it.
An episode that a retrain has answered is kept until the level from before has come back, or has not: then it is flagged.
Everything decided is on the episode's record with its numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal, cast

from actors.clock import Instant
from actors.detection.rules.decisions import Ask, Effect, Ordered, Overtaken, Retrained, Tell
from actors.detection.rules.monitor import Feed
from actors.detection.rules.record import (
    as_evidence,
    due_in,
    episode_id,
    follows,
    in_words,
    is_due,
    is_shortfall,
    new_record,
    numbers_of,
    rearm,
    request_key,
    waiting,
)
from actors.detection.rules.recovery import RecoveryWatch
from actors.detection.rules.shelf import Shelf
from actors.drift import Alarm
from actors.people import NOBODY, Signature, told
from actors.replies import Episode, Evidence, OrderOf, ShortfallNumbers
from actors.wire import Floats

MAX_EVIDENCE: Final = 32  # alarms kept with all their numbers; of the others the count
# After a retrain the level may wander for a while: this many times the events that recovery needs, before a person is asked.
_PATIENCE: Final = 3


class EpisodeBook(Shelf):
    """Takes what metrics, orders and people say of one model's episodes, and decides what follows."""

    def __init__(self, store_id: str, model: str, ordinal: int = 0, records: Iterable[Episode] = ()) -> None:
        super().__init__(records)
        self._store_id = store_id
        self._model = model
        self.ordinal = ordinal

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
        for record in [r for r in self._held.values() if follows(r, feed)]:
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
                self._decide(record, "ask", "an episode requests one order", now)
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
        record = new_record(id_, self._model, version, ordinal=self.ordinal, metric=metric, time=at, now=now)
        record["cause"], record["shortfall"] = "shortfall", numbers
        record["evidence"].append(as_evidence(metric, at, numbers, now))
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
        record = new_record(id_, self._model, version, ordinal=self.ordinal, metric=metric, time=time, now=now)
        self._decide(record, "open", f"{alarm.statistic:.3g} > {alarm.threshold:.3g}", now, numbers_of(alarm))
        self._hold(record, now)
        return record

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
        effects: list[Effect] = [rearm(version, metric, watch)]
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
        """Apply the dispatcher's reply to an episode's request; a skipped request waits on the clock of `pace`, or `now`."""
        record = self._held.get(episode)
        if record is None or record["order"] is not None:
            return []
        self._dirty[episode] = record
        if reply["decision"] == "skipped":
            after_s = reply.get("retry_in_s")
            wait = None if after_s is None else waiting(float(after_s), pace or now)
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
                effects += self._close(record, "expired", "the order expired before anybody started it", now)
            elif told["state"] in {"failed", "dead"} and record["closed_at"] is None:
                effects.append(self._flag(record, f"the retrain {told['state']}: {told['reason']}", now, dict(told)))
                if is_shortfall(record):  # what goes on losing asks again
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
            # The same version continues: the level learned since the alarm is the drifted one.
            record["after"] = {"version": record["version"]}
            effects += [rearm(record["version"], m, RecoveryWatch.from_dict(w)) for m, w in record["watches"].items()]
        return effects

    def has_due(self, pace: Instant) -> bool:
        """Whether `tick` would ask again."""
        return any(is_due(record, pace) for record in self._held.values())

    def due_in(self, pace: Instant) -> float | None:
        """Return the seconds until `tick` asks again on the clock of `pace`; None: nothing waits."""
        waits = [due_in(record, pace) for record in self._held.values()]
        return min((wait for wait in waits if wait is not None), default=None)

    def tick(self, now: Instant, pace: Instant | None = None, *, pays: bool = True) -> list[Effect]:
        """Repeat skipped requests whose wait has ended on the clock of `pace`, or `now`.

        A shortfall asks again only where a retrain still `pays`.
        """
        effects: list[Effect] = []
        for record in list(self._held.values()):
            request, wait = record["request"], record["request"]["skipped"]
            if wait is not None and is_due(record, pace or now):
                if is_shortfall(record) and not pays:
                    effects += self._close(record, "recovery", "a retrain no longer pays", now)
                    continue
                due_at = wait["wall_s"] + wait["s"]
                request |= {"state": "asking", "skipped": None, "asks": request["asks"] + 1, "due_at": due_at}
                self._decide(record, "ask again", f"the wait is over: {request['reason']}", now)
                self._dirty[record["id"]] = record
                effects.append(Ask(record["id"]))
        return effects

    def ask_again(self, now: Instant) -> None:
        """Make permanently refused requests due again: a changed configuration may accept them."""
        for record in self._held.values():
            request = record["request"]
            if request["state"] == "skipped" and request["skipped"] is None and record["closed_at"] is None:
                request["skipped"] = waiting(0.0, now)
                self._dirty[record["id"]] = record

    # --- people

    def acknowledge(self, episode: str, now: Instant, signed: Signature = NOBODY) -> bool:
        """Learn that a person has seen it: it asks no more, its flag is taken down. False where it is settled already."""
        record = self._held.get(episode)
        if record is None:
            return False
        if record["acknowledged_at"] is None:
            record["acknowledged_at"] = now.wall_s
            record["acknowledged_by"] = signed.by
            self._decide(record, "acknowledged", told("seen", signed) or "a person has seen it", now)
            self._dirty[episode] = record
            self._settle(record)
        return True

    def unsettled(self, episode: str) -> Episode | None:
        """Return the record of an episode that is held, or was let go and is not written yet."""
        return self._held.get(episode) or self._dirty.get(episode)

    def judge(self, record: Episode, verdict: Literal["true", "false"], now: Instant, signed: Signature = NOBODY) -> bool:
        """Put on record whether a person calls it a true or a false alarm; the last one counts. False where that is known.

        `record` is that of `unsettled`, or of an episode that was settled before.
        """
        known = record.get("judged")
        if known is not None and (known["verdict"], known["by"], known["comment"]) == (verdict, signed.by, signed.comment):
            return False
        record["judged"] = {"verdict": verdict, "at": now.wall_s, "by": signed.by, "comment": signed.comment}
        why = told(f"a {verdict} alarm", signed) or f"a person calls it a {verdict} alarm"
        self._decide(record, "judged", why, now)
        self._dirty[record["id"]] = record
        return True
