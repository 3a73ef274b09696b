"""What can be done: the acts of the page, each with a body of its own."""

from __future__ import annotations

from typing import Final

from actors.people import signature
from actors.ui.acts import ACTS
from actors.ui.api import types
from actors.ui.api.operation import Asked, Operation
from actors.ui.api.problems import RefusedError

# Of each act: its body, the field of it that says on what, and what it is.
_ACTS: Final = (
    ("acknowledge", types.EpisodeAct, "episode", "Note that a person has seen an episode"),
    ("judge", types.VerdictAct, "episode", "Note whether an alarm was a true or a false one"),
    ("silence", types.SilenceAct, "model", "Hold back the orders of a model or of a pattern for a time"),
    ("unsilence", types.UnsilenceAct, "silence", "End a silence"),
    ("trigger", types.ModelAct, "model", "Ask for a retrain"),
    ("retry", types.OrderAct, "order", "Put a failed, dead or expired order back"),
    ("dismiss", types.OrderAct, "order", "Close a dead or failed order that a person has dealt with"),
    ("front", types.OrderAct, "order", "Move an order that waits to the front of the queue"),
    ("promote", types.VersionAct, "model", "Make a version the live one"),
    ("roll-back", types.ModelAct, "model", "Make the version before the live one live again"),
    ("stop-study", types.StudyAct, "study", "Stop a study"),
)


def _operation(name: str, body: type[types.Request], subject: str, summary: str) -> Operation:
    def do(asked: Asked) -> types.ActDone:
        system = asked.backend.system
        if system is None:
            raise RefusedError(409, "this API reads a store; acts need a running system")
        given = asked.body.model_dump(exclude_none=True)
        signed = signature(asked.visitor.name or given.get("by"), given.get("comment"))
        done = ACTS[name](system, {**given, "subject": given[subject]}, signed.by, signed.comment)
        return {"text": done.text, "result": dict(done.result)}

    return Operation(
        "POST", f"/acts/{name}", name.replace("-", "_"), summary, do, types.ActDone,
        right="act", body=body, refuses=(400, 404, 409, 413, 415, 422),
    )  # fmt: skip


DOING: Final = tuple(_operation(*each) for each in _ACTS)
