"""Write the reference pages that follow from the code: the command line, and every key of the configuration.

The pages hold blocks like

    ```python exec="1"
    from docs import render
    print(render.commands())
    ```

which the build replaces by what they print, so nothing has to be kept up to date.
"""

from __future__ import annotations

import contextlib
import importlib
import io

from drivers import cli


def commands() -> str:
    """Return a section for each command: its help, as a terminal shows it."""
    return "\n".join(f"## visutility {name}\n\n```text\n{_help(name)}\n```\n" for name in cli.COMMANDS)


def _help(name: str) -> str:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        importlib.import_module(f"drivers.{name}").main(["--help"])
    return printed.getvalue().strip()
