"""Keeps the dispatcher's state in one thread, with the settings that it decides by."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

from sqlalchemy import select

from actors import config
from actors.clock import Clock, EventClock, Instant
from actors.cluster import deployment
from actors.cluster.store_thread import StoreThread
from actors.config.stored import load_stored
from actors.retraining.commits import Plan
from actors.retraining.promotions import PromotionPlan
from actors.retraining.rules.delivery import Backoff, Jitter
from actors.retraining.rules.queue import Limits
from actors.retraining.state import RetrainingState
from actors.retraining.tables import DISPATCHER
from actors.storage import Fence, Store, StoreError, removals, schema
from actors.storage.removals import Removal
from actors.storage.schema import SYSTEM

T = TypeVar("T")

OWNER: Final = "dispatcher"
# What the configuration says of a model, worked out once: patterns and documents cost a millisecond.
_MAX_PLANS: Final = 20_000


class StateThread:
    """Opens the state when it is first needed, and runs every function of it in the one thread that owns the store.

    So commits follow each other, and the loop answers while one waits for the disk.
    """

    def __init__(
        self,
        storage: str,
        clock: Clock,
        jitter: Jitter,
        end_stale: Callable[[object], object],
        on_happening: Callable[[], object] | None = None,
    ) -> None:
        self._on_happening = on_happening
        self._clock = clock
        self._jitter = jitter
        self._thread = StoreThread(storage, self._made, end_stale=end_stale)
        self._fence: Fence | None = None
        self._settings = config.Settings()
        self._plans: dict[tuple[tuple[str, ...], str | None], Plan] = {}
        self._documents: dict[int, dict[str, object]] = {}  # of the settings' handlers, which many models share, by their id

    @property
    def epoch(self) -> int:
        """The epoch of this process; 0 before the store has been opened."""
        return 0 if self._fence is None else self._fence.epoch

    @property
    def store(self) -> Store | None:
        """The store, once it has been opened."""
        return self._thread.store

    async def __call__(self, act: Callable[[RetrainingState, Instant], T], /) -> T:
        """Run `act` on the state and return what it returns; a process that has been succeeded ends here."""
        return await self._thread.do(lambda state: act(state, self._clock.now()))

    def rest(self) -> None:
        """Note that there is nothing to look after until now; called while no order is active."""
        if self._thread.state is not None:
            self._thread.state.leases.rest(self._clock.now())

    def reload(self, state: RetrainingState, now: Instant) -> None:
        """Read the configuration again; a pending order goes to the handler that it names now."""
        if self._thread.store is None:
            return
        self._settings = _stored_settings(self._thread.store)
        self._plans.clear()
        self._documents.clear()
        if self._apply(state):
            state.start(now)
        state.reassign()
        state.begin_anew()

    def keep_house(self, state: RetrainingState, now: Instant) -> None:
        """Record this instant, and delete rows that are too old or too many."""
        retention = self._settings.retention
        state.keep_house(now, keep_rows=retention.rows, keep_s=retention.age_s)

    def ages(self) -> bool:
        """Return whether any model is retrained for its age."""
        entries = (self._settings.defaults, *self._settings.models.values())
        return any(entry.retrain.max_age_s is not None for entry in entries)

    def processes(self) -> dict[str, int | None]:
        """Return the detectors' processes on record, each with its slot; none before the store has been opened."""
        if self._thread.store is None:
            return {}
        with self._thread.store.part(SYSTEM).read() as connection:
            rows = connection.execute(select(schema.placements.c.process, schema.placements.c.slot).distinct())
            return {row.process: row.slot for row in rows}

    def needed(self) -> tuple[str, ...]:
        """Return the actors that the configuration needs."""
        return deployment.needed(self._settings)

    def knows(self, matches: Callable[[str], bool]) -> bool:
        """Return whether a model that has ever logged matches; to be called in the store's thread."""
        if self._thread.store is None:
            return False
        with self._thread.store.part(SYSTEM).read() as connection:
            return any(matches(model) for model in connection.execute(select(schema.placements.c.model)).scalars())

    def _lives_of(self, model: str) -> int:
        """Return how often a model was removed; StoreError while it is being removed: requests wait until then."""
        if self._thread.store is None:
            return 0
        with self._thread.store.part(SYSTEM).read() as connection:
            removal = removals.read(connection, [model]).get(model, Removal())
        if removal.under_way:
            raise StoreError(f"model {model!r} is being removed")
        return removal.lives

    def _made(self, store: Store) -> RetrainingState:
        self._settings = _stored_settings(store)
        self._fence = self._fence or Fence.raise_epoch(store.part(DISPATCHER), OWNER)
        self._fence.part.on_happening = self._on_happening
        state = RetrainingState(self._fence, store.store_id, plan_of=self._plan_of, backoff=Backoff(), jitter=self._jitter)
        state.commits.lives_of = self._lives_of
        self._apply(state)
        state.start(self._clock.now())
        return state

    def _apply(self, state: RetrainingState) -> bool:
        """Let the settings count; return whether cooldowns run on another clock than before."""
        delivery, limits = self._settings.delivery, self._settings.orders
        state.commits.backoff = Backoff(
            first_s=delivery.backoff_s,
            ceiling_s=max(delivery.max_backoff_s, delivery.backoff_s),
            max_failures=delivery.attempts,
        )
        state.commits.limits = Limits(limits.max_running, limits.max_per_hour, limits.timeout_s)
        wanted = self._settings.clock == "event"
        changed = wanted != (state.commits.events is not None)
        if changed:
            state.commits.events = EventClock() if wanted else None
        return changed

    def _plan_of(self, model: str) -> Plan:
        # Models of which the same entries speak share a plan: most requests of many models at once find one.
        registered = self._settings.registry.sets_alias(model) is not None
        key = (tuple(self._settings.matching(model)), model if registered else None)
        if key in self._plans:
            return self._plans[key]
        settings = self._settings.for_model(model)
        handler, rule = settings.handler, settings.retrain
        channel = handler if isinstance(handler, config.ChannelHandlerSettings) else config.ChannelHandlerSettings()
        plan = Plan(
            cooldown_s=settings.cooldown_s,
            dry_run=settings.dry_run,
            handler=handler.kind,
            handler_settings=self._document_of(handler),
            lease_s=channel.lease_s,
            metric=rule.metric,
            max_age_s=rule.max_age_s,
            give_up=rule.give_up,
            promotion=_promotion_plan(settings.promotion.handler),
            in_registry=_promotion_plan(settings.promotion.registry),
            labels=settings.labels,
        )
        if len(self._plans) >= _MAX_PLANS:
            self._plans.clear()
        self._plans[key] = plan
        return plan

    def _document_of(self, handler: config.HandlerSettings) -> dict[str, object]:
        if id(handler) not in self._documents:
            self._documents[id(handler)] = config.handler_document(handler)
        return self._documents[id(handler)]


def _promotion_plan(handler: config.HandlerSettings | None) -> PromotionPlan:
    return PromotionPlan() if handler is None else PromotionPlan(handler.kind, config.handler_document(handler))


def _stored_settings(store: Store) -> config.Settings:
    try:
        return load_stored(store)
    except ValueError as error:  # what another build has stored is no mistake of the present caller
        raise StoreError(str(error)) from error
