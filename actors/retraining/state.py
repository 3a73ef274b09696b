"""The state of the dispatcher and its decisions on retrain orders; every change is one fenced transaction.

The rules are in `rules/`; here they meet the store: `admissions` answers requests, `leases` hands orders of the channel to
consumers, `queries` answers questions, and the rest is here. Methods are called from one thread, take the instant they happen
at, and return values; StaleEpochError and the database's errors pass through, and then nothing has changed.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from actors.clock import EVENT_TIME, Instant
from actors.labels import ALL, Selector
from actors.people import NOBODY, Signature
from actors.retraining import model_tables, promotions, queue_tables, tables
from actors.retraining.admissions import Admission, Admissions, admission_of
from actors.retraining.commits import Commits, Plan
from actors.retraining.leases import Leases
from actors.retraining.model_tables import Deployed
from actors.retraining.queries import Queries
from actors.retraining.rules import gate, happened, orders, queue
from actors.retraining.rules.countdown import Countdown
from actors.retraining.rules.delivery import Backoff, Failed, Jitter, Outcome
from actors.retraining.rules.gate import Silence
from actors.retraining.rules.orders import Order, Request, Verdict
from actors.storage import Fence, StoreError, happenings

CHANNEL: Final = tables.CHANNEL
# Versions that have come of age and are requested at once; more wait for the next call.
_MOST_AGED: Final = 100
# Attempts that are begun in one round; more wait for the next.
_MOST_DUE: Final = 256
# Of these, at most so many to one receiver.
_OF_RECEIVER: Final = 16
# A model that was given up is not asked about again before this time; a reload or a trigger ends that at once.
_GAVE_UP_AGAIN_S: Final = 3600.0


class RetrainingState:
    """Orders, cooldowns, silences and leases of one system, kept in the store."""

    def __init__(
        self, fence: Fence, store_id: str, *, plan_of: Callable[[str], Plan], backoff: Backoff, jitter: Jitter
    ) -> None:
        self.commits = Commits(fence, store_id, plan_of=plan_of, backoff=backoff, jitter=jitter)
        self.admissions = Admissions(self.commits)
        self.leases = Leases(self.commits)
        self.queries = Queries(self.commits)
        self._age_again: dict[str, float] = {}  # by model: when a version that was refused may ask again

    def start(self, now: Instant) -> None:
        """Take over from a predecessor: countdowns of another boot carry on under this one."""
        events = self.commits.events
        with self.commits.write() as connection:
            if events is not None:  # the latest time so far: a later cooldown must not start in the past
                for cooldown in model_tables.read_cooldowns(connection).values():
                    if cooldown.countdown.since.boot_id == EVENT_TIME:
                        events.advance_to(cooldown.countdown.since.wall_s)
            promotions.rebase(connection, now, model_tables.read_sighting(connection))
            model_tables.rebase_countdowns(connection, now, self.commits.pace(now))
            model_tables.put_sighting(connection, now)
            self.leases.start(connection, now)

    # --- delivery by the dispatcher

    def due(self, now: Instant) -> list[Order]:
        """Return the pending orders that a handler other than the channel should launch now, in their order."""
        with self.commits.read() as connection:
            room = self.commits.room(connection, now)
            if room is None:
                return queue_tables.due_orders(connection, now, channel=False, limit=_MOST_DUE, of_receiver=_OF_RECEIVER)
            if room == 0:
                return []
            waiting = queue_tables.waiting_orders(connection, now, channel=False)
            chosen = queue.next_up(waiting, queue_tables.read_load(connection, now).started, room)
            found = tables.read_orders(connection, [each.id for each in chosen])
            return [found[each.id] for each in chosen]

    def begin(self, id_: str, now: Instant, *, promotion: bool = False) -> Order | None:
        """Put the next attempt on record, before anything is launched; None where the order is not due any more."""
        with self.commits.write() as connection:
            if promotion:
                return promotions.begin(connection, id_, now)
            order = tables.read_order(connection, id_)
            if order is None or order.handler == CHANNEL or not order.is_due(now):
                return None
            if self.commits.room(connection, now) == 0:
                return None
            self.commits.count_start(connection)
            # Each attempt is a launch of its own: the cooldown counts from the last one that may have had an effect.
            begun = replace(orders.begun(order, now), launched=False)
            tables.put(connection, begun)
            tables.put_attempt(connection, begun, now)
            return begun

    def settle(self, id_: str, attempt: int, outcome: Outcome, now: Instant, *, promotion: bool = False) -> Order | None:
        """Record what came of an attempt, and re-arm the cooldown after the effect; None where it is not the present one."""
        with self.commits.write() as connection:
            if promotion:
                backoff, jitter = self.commits.backoff, self.commits.jitter
                return promotions.settle(connection, id_, attempt, outcome, now, backoff=backoff, jitter=jitter)
            order = tables.read_order(connection, id_)
            if order is None or order.state != orders.RUNNING or order.attempts != attempt:
                return None
            return self.commits.settle(connection, order, outcome, now)

    def overdue(self, order: Order, now: Instant) -> Failed | None:
        """Return the ending of an order that has run for longer than `orders.timeout`; None while it may go on."""
        timeout_s = self.commits.limits.timeout_s
        return orders.timed_out(timeout_s) if timeout_s is not None and orders.ran_s(order, now) >= timeout_s else None

    def promises_due(self) -> list[tuple[Order, str]]:
        """Return the orders whose promise has to be passed on to the detector, each with the metric that it is about."""
        with self.commits.read() as connection:
            found = tables.promises_due(connection, _MOST_DUE)
        return [(order, self.commits.plan_of(order.model).metric) for order in found]

    def promise_passed_on(self, id_: str) -> None:
        """Note that the detector has the promise of an order on record."""
        with self.commits.write() as connection:
            tables.promise_passed_on(connection, id_)

    def reassign(self) -> None:
        """Hand every pending order to the handler that the configuration names now."""
        with self.commits.write() as connection:
            for order in tables.active_orders(connection):
                plan = self.commits.plan_of(order.model)
                waits = order.state == orders.PENDING and order.tuning is None
                if waits and (plan.handler, plan.handler_settings) != (order.handler, order.handler_settings):
                    tables.put(
                        connection, replace(order, handler=plan.handler, handler_settings=plan.handler_settings, wait=None)
                    )

    # --- what else changes an order

    def overtaken(self, model: str, version: str, now: Instant, over: Sequence[str] | None = None) -> Order | None:
        """Note a new version of a model, which came after `over`; give the order that expired by it, if one did."""
        with self.commits.write() as connection:
            order = tables.active_order(connection, model)
            if order is None:
                return None
            after = orders.overtaken(order, version, now, over)
            if after != order:
                tables.put(connection, after)
            return after if after.state == orders.EXPIRED else None

    def promoted(self, key: str, asked: Request, now: Instant, signed: Signature = NOBODY) -> Order:
        """Put a decision about versions on record, once for its `key`; the promotion handler carries it out."""
        with self.commits.write() as connection:
            plan = self.commits.plan_of(asked.model)
            own, in_registry = plan.promotion, plan.in_registry
            id_ = orders.promotion_id(self.commits.store_id, key)
            if own.handler == promotions.NO_HANDLER:
                own = in_registry
            elif in_registry.handler != promotions.NO_HANDLER:  # first: a receiver finds the alias where it belongs
                also = orders.promotion_id(self.commits.store_id, f"{key}-registry")
                promotions.record(connection, also, asked, in_registry, now)
            if signed != NOBODY and promotions.read(connection, id_) is None:
                tables.put_act(connection, id_, asked.cause, signed, now)
            return promotions.record(connection, id_, asked, own, now)

    def promotions_under_way(self, now: Instant) -> tuple[list[Order], list[Order]]:
        """Return the decisions that have been begun, and those that are to be begun now."""
        with self.commits.read() as connection:
            return promotions.running(connection), promotions.due(connection, now)

    def verdict(self, id_: str, verdict: Verdict, now: Instant) -> None:
        """Record whether a retrain paid; the first verdict counts. One of an order that retention has removed is moot."""
        with self.commits.write() as connection:
            order = tables.read_order(connection, id_)
            if order is None or order.verdict is not None:
                return
            tables.put(connection, replace(order, verdict=verdict))
            tables.tell(connection, happened.judged(order, verdict, now))
            if verdict.word == orders.DID_NOT_PAY:
                self.commits.lose_patience(connection, order, now)
            else:
                model_tables.restore_patience(connection, order.model)

    def deployed(self, model: str, version: str, at: float, now: Instant) -> None:
        """Note the live version of a model and since when; its age counts from then on. The same again changes nothing."""
        with self.commits.write() as connection:
            known = model_tables.read_deployment(connection, model)
            if known is not None and (known.version == version or known.at > at):
                return
            if self.commits.events is not None:
                self.commits.events.advance_to(at)
            # The ordinal goes on: a version that comes back after a rollback has asked before.
            ordinal = 0 if known is None else known.ordinal
            since = _deployed_since(at, self.commits.pace(now))
            model_tables.put_deployment(connection, Deployed(model, version, at, since, ordinal))

    def age_all(self, now: Instant) -> list[tuple[Deployed, Admission]]:
        """Ask for the retrains of versions that are older than their `max_age`; return what became of up to 100 of them.

        To be called until it returns nothing: each takes a commit, and no call may hold the store's thread for long.
        """
        pace = self.commits.pace(now)
        with self.commits.read() as connection:
            deployed = model_tables.read_deployments(connection)
        answers: list[tuple[Deployed, Admission]] = []
        for each in deployed:
            if len(answers) >= _MOST_AGED:
                break
            max_age_s = self.commits.plan_of(each.model).max_age_s
            age_s = pace.seconds_since(each.since)
            if max_age_s is not None and age_s >= max_age_s and pace.wall_s >= self._age_again.get(each.model, 0.0):
                told = {"cause": orders.AGE, "age_s": age_s, "max_age_s": max_age_s, "deployed_at": each.at}
                metric = self.commits.plan_of(each.model).metric
                asked = Request(
                    each.model, each.version, metric, None, pace.wall_s, "", told, cause=orders.AGE, ordinal=each.ordinal
                )
                try:
                    admission = self.admissions.aged(asked, each, now)
                except StoreError:  # it is being removed; the others' ages count on
                    continue
                if admission.order is None:  # not before that, so that a skipped request costs no commit a minute
                    self._age_again[each.model] = pace.wall_s + (admission.retry_in_s or _GAVE_UP_AGAIN_S)
                answers.append((each, admission))
        return answers

    def forget(self, model: str, *, purge: bool, only_ask: bool = False) -> str | None:
        """Forget a model: its cooldown, live version and patience, with `purge` its orders and decisions too.

        Return the order that is not finished and keeps it from that, or None. With `only_ask` nothing is forgotten.
        """
        with self.commits.write() as connection:
            active = tables.active_order(connection, model) or promotions.active_of(connection, model)
            if active is None and not only_ask:
                model_tables.forget(connection, model)
                tables.forget(connection, model, purge=purge)
            return None if active is None else active.id

    def dismiss(self, id_: str, reason: str, now: Instant, signed: Signature = NOBODY) -> None:
        """Close a failed or dead order, which a person has dealt with. KeyError: no such order; ValueError: another state."""
        with self.commits.write() as connection:
            order = tables.known_order(connection, id_)
            if order.state != orders.DISMISSED:
                tables.put(connection, orders.dismissed(order, reason))
                tables.put_act(connection, id_, "dismissed", signed, now)

    def front(self, id_: str, now: Instant, signed: Signature = NOBODY) -> None:
        """Move a waiting order to the front of the queue. KeyError: no such order; ValueError: it does not wait."""
        with self.commits.write() as connection:
            order = tables.known_order(connection, id_)
            if order.state != orders.PENDING:
                raise ValueError(f"order {id_!r} must be {orders.PENDING} to be moved to the front, got {order.state!r}")
            tables.put(connection, replace(order, front=queue_tables.last_front(connection) + 1))
            tables.put_act(connection, id_, "front", signed, now)

    def begin_anew(self) -> None:
        """Forget what came to nothing before: the configuration has been read again."""
        with self.commits.write() as connection:
            model_tables.restore_patience(connection, None)
        self._age_again.clear()

    def retry(self, id_: str, now: Instant, signed: Signature = NOBODY) -> Admission:
        """Put a failed, dead or expired order back, as a person asks for. KeyError, ValueError for any other."""
        with self.commits.write() as connection:
            order = promotions.read(connection, id_) or tables.known_order(connection, id_)
            if order.state == orders.PENDING and order.rounds:
                return Admission("pending", id_, "the order has already been retried")
            if (decision := promotions.put_back(connection, id_)) is not None:
                tables.put_act(connection, id_, "retried", signed, now)
                return admission_of(decision)
            again = orders.put_back(order, f"retried by hand; it was {order.state}: {order.reason}")
            active = tables.active_order(connection, order.model)
            if active is not None:
                return Admission("skipped", None, f"order {active.id} of this model is not finished", gate.ASK_AGAIN_S)
            plan = self.commits.plan_of(order.model)
            if order.tuning is None:
                again = replace(again, handler=plan.handler, handler_settings=plan.handler_settings)
            tables.put(connection, again)
            tables.put_act(connection, id_, "retried", signed, now)
            model_tables.restore_patience(connection, order.model)
            self.commits.arm(connection, again, plan, now)
            return admission_of(again)

    # --- silences

    def silence(
        self,
        pattern: str,
        duration_s: float,
        comment: str,
        key: str,
        now: Instant,
        *,
        selector: Selector = ALL,
        by: str | None = None,
    ) -> str:
        """Silence the models that `pattern` and `selector` match; the same silence for the same `key`."""
        id_ = f"{self.commits.store_id}-q-{uuid.uuid5(uuid.NAMESPACE_OID, key).hex[:16]}"
        silence = Silence(id_, pattern, Countdown(self.commits.pace(now), duration_s), comment, selector, by)
        with self.commits.write() as connection:
            model_tables.put_silence(connection, silence, now)
            tables.tell(connection, happened.silenced(silence, now))
        return id_

    def unsilence(self, id_: str, now: Instant) -> None:
        """End a silence. KeyError where there is none of that id."""
        with self.commits.write() as connection:
            if not model_tables.expire_silence(connection, id_, now):
                raise KeyError(f"silence must be the id of a known silence, got {id_!r}")

    def keep_house(self, now: Instant, *, keep_rows: int, keep_s: float) -> None:
        """Record this instant, and delete rows that are too old or too many."""
        with self.commits.write() as connection:
            model_tables.put_sighting(connection, now)
            tables.prune(connection, keep_rows=keep_rows, older_than_s=now.wall_s - keep_s)
            promotions.prune(connection, keep_rows=keep_rows, older_than_s=now.wall_s - keep_s)
            happenings.prune(connection, tables.happened, keep_rows=keep_rows, older_than_s=now.wall_s - keep_s)
            model_tables.prune_silences(connection, self.commits.pace(now), older_than_s=now.wall_s - keep_s)

    def give_back(self) -> bool:
        """Return freed pages to the file system, in one short step; True if there are more."""
        return self.commits.give_back()


def _deployed_since(at: float, pace: Instant) -> Instant:
    """Return the instant from which the age of a version counts that was deployed at the events' time `at`."""
    known_s = max(pace.wall_s - at, 0.0)
    return Instant(pace.wall_s - known_s, pace.boot_s - known_s, pace.boot_id)
