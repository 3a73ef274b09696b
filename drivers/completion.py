"""Print the completion script of a shell.

For bash, in ~/.bashrc: eval "$(visutility completion bash)". For zsh the same in ~/.zshrc. For fish: visutility completion fish
> ~/.config/fish/completions/visutility.fish
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Final

import click
from click.shell_completion import get_completion_class

from drivers.commands import FINE, command, run
from drivers.output import Output

_SHELLS: Final = ("bash", "zsh", "fish")


@command("completion", help=__doc__, examples=[f"visutility completion {shell}" for shell in _SHELLS])
@click.argument("shell", type=click.Choice(_SHELLS))
def completion(*, shell: str, output: Output) -> int:
    """Print the script for SHELL."""
    # cli imports this module by name, when it runs the command.
    from drivers import cli

    found = get_completion_class(shell)
    if found is None:
        raise ValueError(f"shell must be one of {', '.join(_SHELLS)}, got {shell!r}")
    script = found(cli.ROOT, {}, "visutility", "_VISUTILITY_COMPLETE").source()
    output.raw(script)
    output.result({"shell": shell, "script": script})
    return FINE


def main(argv: Sequence[str] | None = None) -> int:
    """Run `visutility completion SHELL`."""
    return run(completion, argv)


if __name__ == "__main__":
    sys.exit(main())
