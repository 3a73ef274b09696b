"""`ray_job`: the retrain is a Ray job whose submission id is the order's id.

Put-if-absent by that id: an existing job is followed, and no second one submitted; Ray itself refuses a second job of one id.
The order follows its job: done when that succeeds, failed when it fails. The job finds the order in its environment:
VISUTILITY_ORDER (the id) and VISUTILITY_EVENT (the event as JSON).
"""

from __future__ import annotations

import json
import re
import shlex
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

import ray

from actors import config
from actors.checks import redacted
from actors.plain import Arguments
from actors.retraining.handlers.interface import Surroundings, event_fields
from actors.retraining.rows import plain
from actors.retraining.rules.delivery import Done, Failed, Launched, Outcome, Retry
from actors.retraining.rules.orders import Order

# Longer than a submission that uploads a working directory may take; then the next attempt looks what came of it.
_CALL_S: Final = 60.0
# Linux gives one variable of the environment 128 KiB.
_MAX_EVENT_BYTES: Final = 64 * 1024
_ROUND: Final = "visutility_round"
_PLACEHOLDER: Final = re.compile(r"\{\{|\}\}|(?<!\$)\{(\w+)\}")
# What Ray's dashboard answers where the agent that starts jobs is not there: it has waited ten seconds for it.
_NO_AGENT: Final = "No available agent"
# Of one request: Ray's client itself waits for ever, and a thread of the dispatcher with it.
_REPLY_S: Final = 30.0
_ENDED: Final = ("SUCCEEDED", "FAILED", "STOPPED")


class Jobs(Protocol):
    """The part of Ray's JobSubmissionClient that is used here."""

    def get_job_info(self, job_id: str) -> Any:
        """Return a job's `status`, `message` and `metadata`; RuntimeError (404) where there is none."""

    def submit_job(self, **job: Any) -> str:
        """Submit a job; RuntimeError where one of its submission id exists."""

    def stop_job(self, job_id: str) -> bool:
        """Ask a job to end; it has ended when its status says so."""

    def delete_job(self, job_id: str) -> bool:
        """Delete a job that has ended."""


class RayJobHandler:
    """Submits one job per order, however often it is called; Ray's client handles token authentication."""

    def __init__(
        self,
        settings: config.RayJobHandlerSettings,
        surroundings: Surroundings,
        connect: Callable[[str | None], Jobs] | None = None,
    ) -> None:
        self._settings = settings
        self._surroundings = surroundings
        self._connect = connect or _jobs_api

    async def launch(self, order: Order) -> Outcome:
        """Submit the job, unless it is there. ConnectionError, TimeoutError: where, for what and how long it waited in vain."""
        settings = self._settings.expanded(self._surroundings.environment)
        try:
            return await self._surroundings.in_thread(lambda: self._launched(settings, order), timeout_s=_CALL_S)
        except TimeoutError:
            where = _shown(settings.address)
            raise TimeoutError(f"the Jobs API of {where} has not taken the job within {_CALL_S:g} s") from None

    async def follow(self, order: Order) -> Outcome:
        """Query the job's state; while the Jobs API does not answer, the job counts as running."""
        settings = self._settings.expanded(self._surroundings.environment)
        try:
            return await self._surroundings.in_thread(lambda: self._followed(settings, order), timeout_s=_CALL_S)
        except (OSError, RuntimeError, TimeoutError, ValueError):
            return Launched()

    async def stop(self, order: Order) -> bool:
        """Stop the job, and say whether it has ended."""
        settings = self._settings.expanded(self._surroundings.environment)
        return await self._surroundings.in_thread(lambda: self._stopped(settings, order), timeout_s=_CALL_S)

    async def forget(self, order: Order) -> None:
        """Leave the job where it is, for people to look at."""

    def _launched(self, settings: config.RayJobHandlerSettings, order: Order) -> Outcome:
        jobs = self._connect(settings.address)
        known = _find(jobs, order.id)
        if known is not None and known.status in _ENDED and not _of_this_round(known, order):
            jobs.delete_job(order.id)  # retried by hand: the job of the previous round has ended and can be replaced
            known = None
        if known is None:
            began = time.monotonic()
            try:
                jobs.submit_job(**job_of(settings, order))
            except RuntimeError as error:
                if _find(jobs, order.id) is None:
                    raise _explained(error, settings.address, time.monotonic() - began) from None
            return Launched()
        return _outcome(known)

    def _stopped(self, settings: config.RayJobHandlerSettings, order: Order) -> bool:
        jobs = self._connect(settings.address)
        known = _find(jobs, order.id)
        if known is None or known.status in _ENDED:
            return True
        jobs.stop_job(order.id)
        return False

    def _followed(self, settings: config.RayJobHandlerSettings, order: Order) -> Outcome:
        known = _find(self._connect(settings.address), order.id)
        if known is None:
            return Retry("the cluster has no job of this order", after_s=0)
        if known.status in _ENDED and not _of_this_round(known, order):
            return Retry("only the job of an earlier round exists", after_s=0)
        return _outcome(known)


def job_of(settings: config.RayJobHandlerSettings, order: Order) -> Arguments:
    """Return the arguments of `submit_job` for an order."""
    asked = order.request
    values = {"model": asked.model, "version": asked.version, "order": order.id, "metric": asked.metric}
    event = json.dumps(plain(event_fields(order)))
    if len(event) > _MAX_EVENT_BYTES:
        event = json.dumps(plain(event_fields(order) | {"explanation": {}}))
    runtime_env = dict(settings.runtime_env)
    known = runtime_env.get("env_vars") or {}
    runtime_env["env_vars"] = {**known, "VISUTILITY_ORDER": order.id, "VISUTILITY_EVENT": event}
    resources = dict(settings.resources)
    job: Arguments = {
        "entrypoint": filled(settings.entrypoint, values),
        "submission_id": order.id,
        "runtime_env": runtime_env,
        "metadata": {**settings.metadata, _ROUND: str(order.rounds)},
        "entrypoint_num_cpus": resources.pop("num_cpus", None),
        "entrypoint_num_gpus": resources.pop("num_gpus", None),
        "entrypoint_memory": int(resources.pop("memory", 0)) or None,
        "entrypoint_resources": resources or None,
    }
    return {name: value for name, value in job.items() if value is not None}


def filled(template: str, values: Mapping[str, str]) -> str:
    """Put values in the place of `{name}`, quoted for the shell that will read them; `{{` and `}}` are braces."""

    def put(match: re.Match[str]) -> str:
        if match[1] is None:
            return match[0][0]
        try:
            return shlex.quote(values[match[1]])
        except KeyError:
            raise ValueError(f"entrypoint may hold {', '.join(values)} in braces, got {match[1]!r}") from None

    return _PLACEHOLDER.sub(put, template)


def _find(jobs: Jobs, id_: str) -> Any | None:
    try:
        return jobs.get_job_info(id_)
    except RuntimeError as error:
        if "404" in str(error):
            return None
        raise


def _of_this_round(job: Any, order: Order) -> bool:
    return (job.metadata or {}).get(_ROUND) == str(order.rounds)


def _outcome(job: Any) -> Outcome:
    match str(getattr(job.status, "value", job.status)):
        case "SUCCEEDED":
            return Done()
        case "FAILED":
            return Failed(f"the job failed: {job.message}")
        case "STOPPED":
            return Failed("the job was stopped")
        case _:
            return Launched()


def _jobs_api(address: str | None) -> Jobs:
    try:
        from ray.job_submission import JobSubmissionClient  # noqa: PLC0415  an extra: only where it is used
    except ImportError as error:
        raise RuntimeError(f"the Jobs API needs: pip install 'visutility[jobs]' ({error})") from None

    class Client(JobSubmissionClient):
        def _do_request(self, method: str, endpoint: str, **more: Any) -> Any:
            return super()._do_request(method, endpoint, **{"timeout": _REPLY_S} | more)

    began = time.monotonic()
    try:
        client: Any = Client(address or ray.get_runtime_context().gcs_address)
    except (OSError, RuntimeError) as error:  # its text may hold the address as it is written, with a password
        waited_s = time.monotonic() - began
        raise ConnectionError(
            f"the Jobs API of {_shown(address)} cannot be reached: {type(error).__name__} after {waited_s:.0f} s; is Ray's "
            "dashboard running there?"
        ) from None
    jobs: Jobs = client  # narrower than Ray's signature, which names every argument
    return jobs


def _explained(error: RuntimeError, address: str | None, waited_s: float) -> Exception:
    """Return what a submission that was refused means."""
    if _NO_AGENT not in str(error):
        return error
    return ConnectionError(
        f"the Jobs API of {_shown(address)} takes no job: it has waited {waited_s:.0f} s for the job agent of its head node; "
        "dashboard_agent.log there says why it has not started (often its port is in use)"
    )


def _shown(address: str | None) -> str:
    """Return an address for messages: that of the configuration, else of the Ray that the dispatcher runs on."""
    if address is None:
        return f"this Ray ({ray.get_runtime_context().gcs_address})" if ray.is_initialized() else "this Ray"
    return redacted(address) if "://" in address or "@" in address else address
