"""The notifier: reads what has happened and tells receivers, one thread each, so that one that is slow delays no other.

It runs only where the configuration has receivers. On restart: what was read, what waits and what was on its way are in the
store; it goes on there. A predecessor that still runs is fenced off before its next commit.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final, Literal, TypedDict

from actors import config
from actors.checks import brief
from actors.clock import Clock, SystemClock
from actors.cluster import actor
from actors.cluster.store_thread import STORE_ERRORS, StoreThread, or_unavailable
from actors.config.notify import ReceiverSettings
from actors.config.stored import load_stored
from actors.notify import preview, receivers, texts
from actors.notify.notification import Notification, Notifier, ReceiverError, Told
from actors.notify.rules.board import Outgoing
from actors.notify.rules.routing import ways
from actors.notify.state import NotifyState
from actors.replies import Hello, Reloaded, Unavailable, happening
from actors.storage import StaleEpochError, Store, StoreError

logger = logging.getLogger(__name__)

LOOK_S: Final = 15.0  # where no room says that something has happened
_AFTER_ERROR_S: Final = 1.0
_TROUBLE_S: Final = 60.0  # a store that is unavailable for so long is told of, from memory
_BEYOND_S: Final = 5.0  # what ends a send whose own time limit does not

Make = Callable[[ReceiverSettings], Notifier]


class Tested(TypedDict):
    """The reply to a test of a receiver."""

    status: Literal["sent", "failed"]
    reason: str | None


@dataclass(slots=True)
class _Receiver:
    settings: ReceiverSettings
    thread: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, thread_name_prefix="receiver"))
    notifier: Notifier | None = None


class NotifierActor:
    """The process that tells people. Constructed by deployment.py; every public method is a message."""

    def __init__(
        self,
        *,
        name: str,
        namespace: str,
        storage: str,
        slot: int | None = None,
        clock: Clock | None = None,
        make: Make = receivers.make,
        end_stale: Callable[[object], object] | None = None,
    ) -> None:
        self._name = name
        self._clock = clock or SystemClock()
        self._make = make
        self._thread = StoreThread(storage, self._made, end_stale=end_stale)
        self._settings = config.Settings()
        self._receivers: dict[str, _Receiver] = {}
        self._busy: dict[str, asyncio.Task[None]] = {}
        self._stirred = asyncio.Event()
        self._trouble_at: float | None = None
        self._loop: asyncio.Task[None] | None = None
        self._start()

    async def hello(self) -> Hello:
        """Say who is here. Also begins the work after a restart."""
        self._start()
        state = self._thread.state
        return actor.hello(self._name, epoch=0 if state is None else state.epoch, store=self._thread.store)

    async def hint(self) -> None:
        """Look now: a room has committed something that has happened."""
        self._start()
        self._stirred.set()

    async def reload(self) -> Reloaded | Unavailable:
        """Read the configuration again; what waits goes out by the times of the one before."""

        async def act() -> Reloaded:
            await self._thread.do(self._configure)
            self._stirred.set()
            return {"status": "reloaded"}

        return await or_unavailable(act())

    async def test(self, *, receiver: str) -> Tested | Unavailable:
        """Send a message that says that it is a test. KeyError: there is no such receiver."""

        async def act() -> Tested:
            await self._thread.do(lambda _state: None)
            if receiver not in self._receivers:
                raise KeyError(f"receiver must be one of {', '.join(self._receivers)}, got {receiver!r}")
            problem = await self._sent(receiver, preview.test_message(receiver, self._clock.now().wall_s))
            return {"status": "sent", "reason": None} if problem is None else {"status": "failed", "reason": str(problem)}

        return await or_unavailable(act())

    async def preview(self, *, subject: str) -> list[preview.Preview] | Unavailable:
        """Return what is told of an episode or order. KeyError: nothing has happened to it."""

        def act() -> list[preview.Preview]:
            if self._thread.store is None:
                raise StoreError("the store has not been opened yet")
            return preview.read(self._thread.store, subject)

        return await or_unavailable(self._thread.do(lambda _state: act()))

    # --- the work

    def _start(self) -> None:
        """Start the loop once there is one to run on: Ray makes the object inside it, a unit test perhaps outside."""
        if self._loop is None or self._loop.done():
            with contextlib.suppress(RuntimeError):
                self._loop = asyncio.get_running_loop().create_task(self._run())

    def _made(self, store: Store) -> NotifyState:
        state = NotifyState(store, self._clock)
        self._configure(state, store)
        return state

    def _configure(self, state: NotifyState, store: Store | None = None) -> None:
        opened = store or self._thread.store
        if opened is None:
            return
        settings = load_stored(opened)
        for name in state.configure(settings):
            logger.warning("receiver %s is gone from the configuration, and with it what waited for it", name)
        kept = self._receivers
        self._receivers = {
            name: kept[name] if name in kept and kept[name].settings == said else _Receiver(said)
            for name, said in settings.notify.receivers.items()
        }
        self._settings = settings

    async def _run(self) -> None:
        while True:
            self._stirred.clear()
            try:
                wait_s = await self._look()
                self._trouble_at = None
            except STORE_ERRORS as error:
                wait_s = _AFTER_ERROR_S
                logger.warning("the notifier waits for the store: %s", brief(error))
                await self._warn_of_store(brief(error))
            except StaleEpochError:
                return
            except Exception:
                wait_s = _AFTER_ERROR_S
                logger.exception("a look of the notifier failed; the next one follows in %g s", wait_s)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stirred.wait(), min(max(wait_s, 0.01), LOOK_S))

    async def _look(self) -> float:
        found = await self._thread.do(lambda state: state.look(list(self._busy)))
        by_receiver: dict[str, list[Outgoing]] = {}
        for each in found.outgoing:
            by_receiver.setdefault(each.notification.receiver, []).append(each)
        for name, some in by_receiver.items():
            self._busy[name] = asyncio.get_running_loop().create_task(self._deliver(name, some))
        return found.wait_s

    async def _deliver(self, name: str, some: Sequence[Outgoing]) -> None:
        """Send messages one after the other, until one fails; what was not sent stays on its way."""
        try:
            for key, notification in some:
                problem = await self._sent(name, notification)
                # A default argument, which a later round does not change, has no type for mypy.
                failures = await self._thread.do(lambda state, key=key, problem=problem: state.settle(key, problem))  # type: ignore[misc]
                if problem is not None and problem.for_good:
                    logger.error("receiver %s refuses a message for good: %s", name, problem)
                elif failures:
                    if failures == 1:
                        logger.warning("receiver %s cannot be reached, it is tried again: %s", name, problem)
                    return
        except STORE_ERRORS as error:
            logger.warning("the notifier waits for the store, %s is told again under the same id: %s", name, brief(error))
        except StaleEpochError:
            return
        except Exception:
            logger.exception("telling %s failed; it is tried again", name)
        finally:
            del self._busy[name]
            self._stirred.set()

    async def _sent(self, name: str, notification: Notification) -> ReceiverError | None:
        receiver = self._receivers.get(name)
        if receiver is None:
            return ReceiverError("it is not in the configuration any more")
        limit_s = receiver.settings.timeout_s + _BEYOND_S

        def send() -> None:
            if receiver.notifier is None:
                receiver.notifier = self._make(receiver.settings)
            receiver.notifier.send(texts.written(notification, self._settings))

        try:
            await asyncio.wait_for(asyncio.get_running_loop().run_in_executor(receiver.thread, send), limit_s)
        except ReceiverError as error:
            return error
        except TimeoutError:
            return ReceiverError(f"no answer within {limit_s:g} s")
        except Exception as error:  # noqa: BLE001  whatever a receiver or its library raises: the others are told
            receiver.notifier = None
            return ReceiverError(f"{type(error).__name__}: {error}")
        return None

    async def _warn_of_store(self, reason: str) -> None:
        """Tell from memory that the store has been unavailable for a minute: nothing can be committed now."""
        now_s = self._clock.now().wall_s
        self._trouble_at = self._trouble_at or now_s + _TROUBLE_S
        if now_s < self._trouble_at:
            return
        happened = happening("store_trouble", repr(now_s), now_s, "critical", comment=reason)
        id_ = hashlib.sha256(happened["id"].encode()).hexdigest()[:32]
        problems = []
        for way in ways(happened, {}, self._settings.notify.in_order()):
            told: Told = {"happening": happened, "labels": {}}
            message = Notification(id_, way.receiver, now_s, "critical", dict(way.group), [told], [])
            problems.append(await self._sent(way.receiver, message))
        is_told = any(problem is None for problem in problems)
        self._trouble_at = now_s + (3600.0 if is_told else _TROUBLE_S)
