"""What a person may do, on a page and through the API: each act goes through `System`, with the name of who does it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from actors.system import System

Form = Mapping[str, str]


class Done(NamedTuple):
    """What was done as a sentence, and what came back."""

    text: str
    result: Mapping[str, Any]


def _acknowledge(system: System, form: Form, by: str | None, comment: str | None) -> Done:
    system.acknowledge(form["subject"], by=by, comment=comment)
    return Done(f"episode {form['subject']} is acknowledged", {})


def _judge(system: System, form: Form, by: str | None, comment: str | None) -> Done:
    system.verdict(form["subject"], form["verdict"], by=by, comment=comment)
    return Done(f"episode {form['subject']} is recorded as a {form['verdict']} alarm", {})


def _silence(system: System, form: Form, by: str | None, comment: str | None) -> Done:
    made = system.retrains.silence(
        form["subject"], form["duration"], comment=comment or "", label=form.get("label") or None, by=by
    )
    return Done(f"{form['subject']} is silent for {form['duration']} (silence {made})", {"silence": made})


def _unsilence(system: System, form: Form, by: str | None, comment: str | None) -> Done:  # noqa: ARG001  it takes no name
    system.retrains.unsilence(form["subject"])
    return Done(f"silence {form['subject']} has ended", {})


def _trigger(system: System, form: Form, by: str | None, comment: str | None) -> Done:
    told = system.retrains.trigger(form["subject"], reason=comment or "ordered on the page", by=by, comment=comment)
    return Done(f"retrain of {form['subject']}: {told['decision']} {told['order'] or told['reason']}", told)


def _retry(system: System, form: Form, by: str | None, comment: str | None) -> Done:
    told = system.retrains.retry(form["subject"], by=by, comment=comment)
    return Done(f"order {form['subject']}: {told['decision']}", told)


def _dismiss(system: System, form: Form, by: str | None, comment: str | None) -> Done:
    system.retrains.dismiss(form["subject"], comment or "dismissed on the page", by=by, comment=comment)
    return Done(f"order {form['subject']} is dismissed", {})


def _front(system: System, form: Form, by: str | None, comment: str | None) -> Done:
    system.retrains.front(form["subject"], by=by, comment=comment)
    return Done(f"order {form['subject']} is the next", {})


def _promote(system: System, form: Form, by: str | None, comment: str | None) -> Done:
    told = system.versions.promote(form["subject"], form["version"], by=by, comment=comment)
    return Done(f"version {form['version']} of {form['subject']} is live", told)


def _roll_back(system: System, form: Form, by: str | None, comment: str | None) -> Done:
    told = system.versions.rollback(form["subject"], by=by, comment=comment)
    return Done(f"version {told.get('version')} of {form['subject']} is live again", told)


def _stop_study(system: System, form: Form, by: str | None, comment: str | None) -> Done:
    system.tuner.stop(form["subject"], by=by, comment=comment)
    return Done(f"study {form['subject']} is stopped", {})


ACTS: Final[Mapping[str, Callable[[System, Form, str | None, str | None], Done]]] = {
    "acknowledge": _acknowledge,
    "judge": _judge,
    "silence": _silence,
    "unsilence": _unsilence,
    "trigger": _trigger,
    "retry": _retry,
    "dismiss": _dismiss,
    "front": _front,
    "promote": _promote,
    "roll-back": _roll_back,
    "stop-study": _stop_study,
}
