"""From alarms to requests: when an episode opens, what it asks for, when it closes, and when a person must look."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from actors.clock import Instant
from actors.detection.rules.decisions import Ask, Overtaken, Rearm, Tell
from actors.detection.rules.episodes import MAX_EVIDENCE, EpisodeBook
from actors.detection.rules.monitor import Feed
from actors.detection.rules.record import episode_id, explanation
from actors.drift import Alarm


def at(seconds: float, boot: str = "boot") -> Instant:
    return Instant(1e9 + seconds, seconds, boot)


def alarm(index: int = 0, *, baseline: float = 0.9, window: float = 0.7, sd: float = 0.01) -> Alarm:
    return Alarm(
        index=index,
        detector="default",
        statistic=9.0,
        threshold=4.9,
        direction="down",
        baseline_n=500,
        baseline_mean=baseline,
        baseline_sd=sd,
        window_n=3,
        window_mean=window,
        estimated_start=3,
    )


def feed(level: float, n: int = 1, *, alarms: tuple[int, ...] = (), version: str = "v1", metric: str = "accuracy") -> Feed:
    return Feed(version, metric, np.full(n, level), np.arange(n, dtype=float), [alarm(i, window=level) for i in alarms])


def asks(effects: list[Any]) -> list[str]:
    return [effect.episode for effect in effects if isinstance(effect, Ask)]


def told(effects: list[Any]) -> list[str]:
    return [effect.kind for effect in effects if isinstance(effect, Tell)]


def opened() -> tuple[EpisodeBook, str]:
    book = EpisodeBook("store", "m")
    book.new_version("v1", [], at(0))
    (episode,) = asks(book.feed(feed(0.7, alarms=(0,)), at(1)))
    return book, episode


def skipped(retry_in_s: float | None) -> dict[str, Any]:
    return {"status": "recorded", "decision": "skipped", "order": None, "reason": "cooling down", "retry_in_s": retry_in_s}


ORDERED = {"status": "recorded", "decision": "dispatched", "order": "o-1", "reason": "", "retry_in_s": None}


def order(state: str, new_version: str | None = None, reason: str | None = None) -> dict[str, Any]:
    return {"order": "o-1", "state": state, "reason": reason, "new_version": new_version}


def test_an_alarm_opens_an_episode_that_asks_once() -> None:
    book, episode = opened()
    assert asks(book.feed(feed(0.7, 5, alarms=(0, 2)), at(2))) == []
    record = book.get(episode)
    assert record is not None
    assert record["alarms"] == 3
    assert [d["decision"] for d in record["decisions"]] == ["open", "ask"]
    assert record["decisions"][0]["numbers"]["baseline_mean"] == 0.9


def test_alarms_of_every_metric_are_evidence_of_one_episode() -> None:
    book, episode = opened()
    assert asks(book.feed(feed(0.6, alarms=(0,), metric="recall"), at(2))) == []
    record = book.get(episode)
    assert record is not None
    assert explanation(record)["metrics"] == ["accuracy", "recall"]


def test_versions_have_episodes_of_their_own() -> None:
    book, first = opened()
    (second,) = asks(book.feed(feed(0.6, alarms=(0,), version="v2"), at(2)))
    assert first != second
    assert len(book.open_episodes) == 2


def test_an_episode_is_named_by_model_version_and_ordinal() -> None:
    names = {episode_id("s", m, v, o) for m, v in [("a", "bc"), ("ab", "c"), ("a", "b")] for o in (1, 2, 11)}
    assert len(names) == 9
    assert episode_id("s", "a", "b", 1) == episode_id("s", "a", "b", 1)


def test_recovery_closes_it_and_a_detector_that_learned_the_drift_is_rearmed() -> None:
    book, episode = opened()
    effects = book.feed(feed(0.9, 300), at(3))
    assert told(effects) == ["closed"]
    (rearm,) = [effect for effect in effects if isinstance(effect, Rearm)]
    assert (rearm.version, rearm.metric, rearm.baseline_mean) == ("v1", "accuracy", 0.9)
    (record,) = [r for r in book.changed() if r["id"] == episode]
    assert record["closed_by"] == "recovery"


def test_one_metric_that_recovers_does_not_close_what_another_holds_open() -> None:
    book, episode = opened()
    book.feed(feed(0.6, alarms=(0,), metric="recall"), at(2))
    book.feed(feed(0.9, 300), at(3))
    assert [r["id"] for r in book.open_episodes] == [episode]
    assert list(book.drifting("v1")) == ["recall"]


def test_staying_at_the_drifted_level_does_not_recover() -> None:
    book, episode = opened()
    book.feed(feed(0.7, 5000), at(3))
    assert [r["id"] for r in book.open_episodes] == [episode]


def test_a_new_version_closes_the_older_ones_and_tells_the_dispatcher() -> None:
    book, _ = opened()
    effects = book.new_version("v2", ["v1"], at(2))
    assert Overtaken("v2", ("v1",)) in effects
    assert book.open_episodes == []


def test_the_first_version_of_a_model_overtakes_nothing() -> None:
    assert EpisodeBook("store", "m").new_version("v1", [], at(0)) == []


def test_a_skipped_request_is_asked_again_when_the_cooldown_is_over() -> None:
    book, episode = opened()
    assert told(book.reply(episode, skipped(60.0), at(10))) == ["skipped"]
    assert not book.has_due(at(69))
    assert book.tick(at(69)) == []
    assert asks(book.tick(at(70))) == [episode]
    assert book.tick(at(71)) == []


def test_asking_again_survives_a_clock_that_steps_back_and_a_reboot() -> None:
    book, episode = opened()
    book.reply(episode, skipped(60.0), at(10))
    stepped = Instant(at(70).wall_s - 86_400, 70.0, "boot")
    assert asks(book.tick(stepped)) == [episode]
    book.reply(episode, skipped(60.0), at(100))
    assert asks(book.tick(Instant(at(161).wall_s, 5.0, "another boot"))) == [episode]


def test_what_was_skipped_for_good_is_not_asked_again() -> None:
    book, episode = opened()
    book.reply(episode, skipped(None), at(10))
    assert book.tick(at(1e6)) == []


def test_an_episode_that_closed_meanwhile_does_not_ask_again() -> None:
    book, episode = opened()
    book.reply(episode, skipped(60.0), at(10))
    book.feed(feed(0.9, 300), at(20))
    assert book.tick(at(1000)) == []


def test_an_acknowledged_episode_asks_no_more_but_stays_open() -> None:
    book, episode = opened()
    book.reply(episode, skipped(60.0), at(10))
    assert book.acknowledge(episode, at(11))
    assert book.tick(at(1000)) == []
    assert [r["id"] for r in book.open_episodes] == [episode]
    assert not book.acknowledge("unknown", at(12))


def test_an_order_that_is_done_closes_the_episode() -> None:
    book, episode = opened()
    book.reply(episode, ORDERED, at(10))
    assert book.followed() == [episode]
    assert told(book.order(episode, order("running"), at(11))) == []
    assert told(book.order(episode, order("done", "v2"), at(12))) == ["closed"]
    assert book.open_episodes == []


def test_a_new_version_that_recovers_settles_the_episode() -> None:
    book, episode = opened()
    book.reply(episode, ORDERED, at(10))
    book.new_version("v2", ["v1"], at(11))
    book.order(episode, order("done", "v2"), at(12))
    book.feed(feed(0.9, 400, version="v2"), at(13))
    (record,) = [r for r in book.changed() if r["id"] == episode]
    assert not record["held"]
    assert record["flagged"] is None
    assert record["recovered"] == ["accuracy"]


def test_a_good_new_version_is_not_flagged_however_many_bad_events_came_before_the_retrain() -> None:
    book, episode = opened()
    book.reply(episode, ORDERED, at(10))
    book.feed(feed(0.7, 1000), at(11))
    book.order(episode, order("done", "v2"), at(12))
    book.new_version("v2", ["v1"], at(13))
    assert told(book.feed(feed(0.9, 10, version="v2"), at(14))) == []
    assert book.flagged == []


def test_a_retrain_that_did_not_help_is_flagged_until_a_person_has_seen_it() -> None:
    book, episode = opened()
    book.reply(episode, ORDERED, at(10))
    book.new_version("v2", ["v1"], at(11))
    book.order(episode, order("done", "v2"), at(12))
    assert told(book.feed(feed(0.7, 2000, version="v2"), at(13))) == ["flagged"]
    assert book.flagged == [episode]
    assert book.acknowledge(episode, at(14))
    assert book.flagged == []
    assert book.get(episode) is None


def test_done_without_a_new_version_watches_the_same_one() -> None:
    book, episode = opened()
    book.reply(episode, ORDERED, at(10))
    effects = book.order(episode, order("done"), at(12))
    assert any(isinstance(effect, Rearm) for effect in effects)
    assert told(book.feed(feed(0.7, 2000), at(13))) == ["flagged"]


def test_a_retrain_that_failed_is_flagged_and_may_be_put_back() -> None:
    book, episode = opened()
    book.reply(episode, ORDERED, at(10))
    assert told(book.order(episode, order("dead", reason="no receiver"), at(11))) == ["flagged"]
    assert book.followed() == [episode]
    assert told(book.order(episode, order("done", "v2"), at(12))) == ["closed"]


def test_an_expired_order_closes_the_episode() -> None:
    book, episode = opened()
    book.reply(episode, ORDERED, at(10))
    assert told(book.order(episode, order("expired"), at(11))) == ["closed"]


def test_a_reply_that_comes_twice_changes_nothing_more() -> None:
    book, episode = opened()
    book.reply(episode, ORDERED, at(10))
    book.written()
    assert book.reply(episode, ORDERED, at(11)) == []
    assert book.changed() == []


def test_evidence_and_episodes_are_bounded() -> None:
    book, episode = opened()
    book.feed(feed(0.7, 5000, alarms=tuple(range(0, 5000, 2))), at(2))
    record = book.get(episode)
    assert record is not None
    assert len(record["evidence"]) == MAX_EVIDENCE
    assert record["alarms"] == 2501
    for n in range(200):
        book.feed(feed(0.5, alarms=(0,), version=f"w{n}"), at(10 + n))
    assert len(book.open_episodes) <= 64


class AnyHistory(RuleBasedStateMachine):
    """Whatever comes in whatever order, these hold."""

    def __init__(self) -> None:
        super().__init__()
        self.book = EpisodeBook("store", "m")
        self.now = 0.0
        self.versions: list[str] = []
        self.asked: dict[str, int] = {}
        self.answered: set[str] = set()
        self.ordered: set[str] = set()
        self.silent_until: dict[str, float] = {}

    def instant(self) -> Instant:
        return at(self.now)

    def note(self, effects: list[Any]) -> None:
        for episode in asks(effects):
            assert episode not in self.ordered, "an episode with an order asks for another"
            assert self.now >= self.silent_until.get(episode, 0.0), "asked again before the time that was named"
            if episode in self.asked:
                assert episode in self.answered, "asked again although no reply said to"
            self.asked[episode] = self.asked.get(episode, 0) + 1
            self.answered.discard(episode)

    @rule(seconds=st.floats(0, 100))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.note(self.book.tick(self.instant()))

    @rule(version=st.sampled_from("abc"), level=st.sampled_from([0.9, 0.7, 0.5]), n=st.integers(1, 300), alarmed=st.booleans())
    def events_come(self, version: str, level: float, n: int, alarmed: bool) -> None:
        if version not in self.versions:
            self.note(self.book.new_version(version, self.versions, self.instant()))
            self.versions.append(version)
        self.note(self.book.feed(feed(level, n, alarms=(n // 2,) if alarmed else (), version=version), self.instant()))

    @precondition(lambda self: self.asked)
    @rule(data=st.data(), retry=st.one_of(st.none(), st.floats(0, 50)))
    def a_request_is_skipped(self, data: st.DataObject, retry: float | None) -> None:
        episode = data.draw(st.sampled_from(sorted(self.asked)))
        if episode in self.ordered:
            return
        self.note(self.book.reply(episode, skipped(retry), self.instant()))
        self.answered.add(episode)
        self.silent_until[episode] = self.now + (1e12 if retry is None else retry)

    @precondition(lambda self: self.asked)
    @rule(data=st.data())
    def a_request_gets_an_order(self, data: st.DataObject) -> None:
        episode = data.draw(st.sampled_from(sorted(self.asked)))
        self.note(self.book.reply(episode, ORDERED, self.instant()))
        self.ordered.add(episode)

    @precondition(lambda self: self.ordered)
    @rule(data=st.data(), state=st.sampled_from(["running", "done", "failed", "dead", "expired"]))
    def an_order_moves(self, data: st.DataObject, state: str) -> None:
        episode = data.draw(st.sampled_from(sorted(self.ordered)))
        self.note(self.book.order(episode, order(state, "b"), self.instant()))

    @precondition(lambda self: self.asked)
    @rule(data=st.data())
    def a_person_looks(self, data: st.DataObject) -> None:
        self.book.acknowledge(data.draw(st.sampled_from(sorted(self.asked))), self.instant())

    @rule()
    def the_process_restarts(self) -> None:
        import msgpack

        records = msgpack.unpackb(msgpack.packb([r for r in self.book._held.values() if r["held"]]))
        self.book = EpisodeBook("store", "m", self.book.ordinal, records)

    @invariant()
    def one_episode_at_most_is_open_for_a_version(self) -> None:
        versions = [record["version"] for record in self.book.open_episodes]
        assert len(versions) == len(set(versions))

    @invariant()
    def every_open_episode_is_held_and_has_asked(self) -> None:
        for record in self.book.open_episodes:
            assert record["held"]
            assert record["id"] in self.asked


TestAnyHistory = AnyHistory.TestCase
TestAnyHistory.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
