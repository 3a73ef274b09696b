"""Write the reference pages that follow from the code: the command line, and every key of the configuration.

The pages hold blocks like

    ```python exec="1"
    from docs import render
    print(render.commands())
    ```

which the build replaces by what they print, so nothing has to be kept up to date.
"""

from __future__ import annotations

from drivers import cli


def commands() -> str:
    """Return a section for each command: its help, as a terminal shows it."""
    return "\n".join(f"## {path}\n\n```text\n{text.strip()}\n```\n" for path, text in cli.helps())
