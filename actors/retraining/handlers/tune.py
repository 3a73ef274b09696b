"""`tune`: a study runs first, and hands what it found to the next handler.

The study is named by the order's id, so that one id leads from the event to the trials; its objective finds the order as
`trial.context`. The parameters in force are trial 0: they are judged on the same data as all others. Where nothing improves
on them by `min_improvement`, nothing is handed on, and the record says why.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Final

from actors import config
from actors.cluster.peers import PeerUnavailableError
from actors.retraining.handlers.interface import Surroundings, event_fields
from actors.retraining.rules.delivery import Done, Failed, HandOn, Launched, Outcome, Retry, Stop
from actors.retraining.rules.orders import Order

logger = logging.getLogger(__name__)

_CALL_S: Final = 20.0


class TuneHandler:
    """Runs a study of the configured objective for an order, then hands the order on with the best parameters."""

    def __init__(self, settings: config.TuneHandlerSettings, surroundings: Surroundings) -> None:
        self._settings = settings
        self._surroundings = surroundings

    async def launch(self, order: Order) -> Outcome:
        """Submit the study, put-if-absent by the order's id."""
        try:
            in_force = await self._surroundings.parameters_in_force(order.model, self._settings.space.keys())
            if in_force is None:
                reply = await self._submitted(order, self._settings.current)
            else:
                try:
                    reply = await self._submitted(order, dict(in_force))
                except ValueError as error:  # they were found in a space that has been narrowed since
                    logger.warning("order %s: leaving out the current parameters: %s", order.id, error)
                    reply = await self._submitted(order, self._settings.current)
        except PeerUnavailableError as error:
            return Retry(f"the tuner does not answer: {error}")
        except ValueError as error:  # the configuration is wrong; another attempt says the same
            return Stop(f"the study cannot start: {error}")
        return Retry(f"the tuner's store: {reply['reason']}") if reply["status"] == "unavailable" else Launched()

    async def _submitted(self, order: Order, current: Mapping[str, Any] | None) -> Any:
        settings = self._settings
        return await self._call(
            "submit",
            objective=settings.objective,
            plan={
                "name": order.id,
                "space": settings.space,
                "trials": settings.trials,
                "strategy": settings.strategy,
                "mode": settings.mode,
                "seed": settings.seed,
                "max_concurrent": settings.max_concurrent,
                "timeout_s": settings.timeout_s,
                "retries": settings.retries,
                "context": event_fields(order),
                "first": [] if current is None else [current],
            },
        )

    async def follow(self, order: Order) -> Outcome:
        """Ask the tuner; at the end hand on, or say why not."""
        try:
            summary = await self._call("study", name=order.id)
            if summary.get("status") == "unavailable" or summary["state"] == "RUNNING":
                return Launched()
            if summary["state"] == "DONE" and summary["best"] is not None:
                return await self._judged(order, summary)
        except PeerUnavailableError:
            return Launched()
        except KeyError:
            return Retry("the study never started", after_s=0)
        if summary["state"] == "DONE":
            return Failed(f"study {order.id}: none of its {summary['done']} trials completed")
        return Failed(f"study {order.id}: {summary['state'].lower()}: {summary['error'] or 'by a person'}")

    async def stop(self, order: Order) -> bool:
        """Stop the study."""
        try:
            await self._call("stop_study", name=order.id)
        except PeerUnavailableError:
            return False
        except KeyError:
            pass  # it never began
        return True

    async def forget(self, order: Order) -> None:
        """Keep the study: it is part of the order's record."""

    async def _judged(self, order: Order, summary: Mapping[str, Any]) -> Outcome:
        bests = await self._call("trials", name=order.id, since=summary["best"], limit=1)
        zeroths = await self._call("trials", name=order.id, limit=1)
        if isinstance(bests, dict) or isinstance(zeroths, dict):
            return Launched()  # its store does not answer now
        best, zeroth = bests[0], zeroths[0]
        given = zeroth["params"] if summary["first"] else None
        current_value = zeroth["value"] if given is not None and zeroth["state"] == "COMPLETED" else None
        improvement = None
        if current_value is not None:
            improvement = best["value"] - current_value if summary["mode"] == "max" else current_value - best["value"]
        least = self._settings.min_improvement
        if least is not None and improvement is not None and not improvement >= least:
            return Done(
                reason=f"study {order.id}: the best {best['value']:.6g} improves on {current_value:.6g} of those in force "
                f"by {improvement:.3g}, less than min_improvement {least:g}: they stay, nothing is retrained"
            )
        tuning = {
            "study": summary["study"],
            "name": order.id,
            "trial": best["id"],
            "params": best["params"],
            "value": best["value"],
            "trials": summary["done"],
            "current_params": given,
            "current_value": current_value,
            "improvement": improvement,
        }
        return HandOn(tuning, self._settings.then.kind, config.handler_document(self._settings.then))

    async def _call(self, method: str, **arguments: Any) -> Any:
        return await self._surroundings.peers.call("tuner", method, timeout_s=_CALL_S, **arguments)
