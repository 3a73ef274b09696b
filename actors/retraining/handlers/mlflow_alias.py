"""`mlflow_alias`: a promotion or a rollback moves the alias of the registered model, as a person would in MLflow.

How far "once" goes: setting an alias to where it is changes nothing, so a decision is carried out again without harm. An alias
that somebody has moved since the decision, to neither of its two versions, is left there: `registry` follows it. Otherwise the
outcome's `new_version` is where the alias is, by which `registry` knows that this system has put it there.
"""

from __future__ import annotations

from actors import config
from actors.http_json import Http, HttpError
from actors.retraining.handlers.interface import Surroundings
from actors.retraining.rules import orders
from actors.retraining.rules.delivery import Done, Outcome, Retry, Stop
from actors.retraining.rules.orders import Order

_API = "/api/2.0/mlflow/registered-models"
_BEYOND_TIMEOUT_S = 2.0
# What no further attempt changes: who asks may not, or there is no such model or version.
_FOR_GOOD = frozenset({401, 403, 404})


class MlflowAliasHandler:
    """Looks where the alias is, then sets it."""

    def __init__(self, settings: config.MlflowAliasHandlerSettings, surroundings: Surroundings) -> None:
        self._settings = settings
        self._surroundings = surroundings

    async def launch(self, order: Order) -> Outcome:
        """Set the alias."""
        if order.request.cause not in orders.PROMOTIONS:
            return Stop("mlflow_alias carries out promotions and rollbacks, no retrains: name it under promotion.handler")
        timeout_s = 2 * self._settings.timeout_s + _BEYOND_TIMEOUT_S
        try:
            return await self._surroundings.in_thread(lambda: self._set(order), timeout_s=timeout_s)
        except TimeoutError:
            return Retry(f"no answer within {timeout_s:g} s", silent=True)
        except HttpError as error:
            if error.code in _FOR_GOOD:
                return Stop(str(error))
            return Retry(str(error), silent=error.code is None)

    async def follow(self, order: Order) -> Outcome:
        """Nobody knows what an attempt came to whose process died; the next one looks."""
        return Retry(f"the outcome of attempt {order.attempts} is unknown: looked up again", after_s=0)

    async def stop(self, order: Order) -> bool:
        """Nothing runs here: an attempt ends with its time-out."""
        return True

    async def forget(self, order: Order) -> None:
        """Nothing is kept."""

    def _set(self, order: Order) -> Outcome:
        said = self._settings.expanded(self._surroundings.environment)
        http = Http(said.url, headers=said.headers, timeout_s=said.timeout_s)
        model = http.get(f"{_API}/get", {"name": said.name})["registered_model"]
        at = next((str(each["version"]) for each in model.get("aliases", ()) if each["alias"] == said.alias), None)
        version, over = order.request.version, order.request.explanation.get("over")
        if at == version:
            return Done(version, f"{said.alias} of {said.name} is at {version}")
        if at not in {None, over}:
            return Done(reason=f"{said.alias} of {said.name} was moved to {at} since the decision: left there")
        http.post(f"{_API}/alias", {"name": said.name, "alias": said.alias, "version": version})
        return Done(version, f"{said.alias} of {said.name} moved from {at or 'nothing'} to {version}")
