r"""Cleans every text on its way into a database, at the one place that no table can bypass: the engine.

PostgreSQL refuses a text with a NUL, and no driver can encode a lone surrogate. Such a text comes from outside: the message of
an exception, the output of a job, the return value of a training function. A row that cannot be stored would be retried without
end, and its order or study would never end. So such characters are escaped (`\x00`, `\udc80`), and the cause stays readable.

Names, which are identities, are refused at the border of the system if they contain such a character.
"""

from __future__ import annotations

import re
from typing import Any, Final

from sqlalchemy import Connection, Engine, event

_UNSTORABLE: Final = re.compile("[\x00\ud800-\udfff]")


def clean(text: str) -> str:
    r"""Return `text` in a form that every database can store.

    >>> clean("killed\x00")
    'killed\\x00'
    """
    if text.isascii() and "\x00" not in text:  # nearly always, and much faster than the search
        return text
    return _UNSTORABLE.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def clean_parameters(parameters: Any) -> Any:
    """Return the parameters of one statement, or of each of many, with every text cleaned."""
    match parameters:
        case dict():
            return {name: clean(value) if isinstance(value, str) else value for name, value in parameters.items()}
        case tuple():
            return tuple([clean(value) if isinstance(value, str) else value for value in parameters])
        case list():
            return [clean_parameters(each) for each in parameters]
        case _:
            return parameters


def clean_all(engine: Engine) -> None:
    """Clean the parameters of every statement that `engine` executes from now on, searched values as well as stored ones."""

    @event.listens_for(engine, "before_cursor_execute", retval=True)
    def _clean(
        _connection: Connection, _cursor: object, statement: str, parameters: Any, _context: object, _many: object
    ) -> tuple[str, Any]:
        return statement, clean_parameters(parameters)
