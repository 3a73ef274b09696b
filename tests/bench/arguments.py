"""What the command lines of benchmarks and chaos have in common: the help, the options, the exit codes.

Exit 0: fine. 1: something fires or failed. 2: the command line or a file is wrong.
"""

from __future__ import annotations

import argparse
import logging
import os
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext, redirect_stdout
from typing import Final, NoReturn

from drivers.output import Output

FINE = 0
FAILED = 1
USAGE = 2

_JSON: Final = re.compile(r"(^| )(-o[ =]?|--output[ =])json( |$)")

Act = Callable[[argparse.Namespace, Output], int]


class UsageError(ValueError):
    """The command line is wrong."""


class Parser(argparse.ArgumentParser):
    """A parser whose help begins with a command that works when it is pasted."""

    def __init__(self, name: str, description: str, *, example: str, program: str = "visutility") -> None:
        """Make the parser of `visutility NAME`, or of `NAME` of another program; it has `-o`."""
        super().__init__(prog=f"{program} {name}", description=description, formatter_class=argparse.RawTextHelpFormatter)
        self._example = example
        self.add_argument("-o", "--output", choices=("text", "json"), default="text", help="json: for a program to read")

    def format_help(self) -> str:
        """Return the help, the example first."""
        return f"{self._example}\n\n{super().format_help()}"

    def error(self, message: str) -> NoReturn:
        """Raise UsageError, so that a program gets it like any other error."""
        self.print_usage(sys.stderr)
        raise UsageError(message)


def run(parser: Parser, argv: Sequence[str] | None, act: Act) -> int:
    """Parse, act, and turn an error into one line and an exit code."""
    arguments = _parsed(parser, argv)
    if isinstance(arguments, int):
        return arguments
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    output = Output(arguments.output)
    try:
        # Ray prints warnings of its nodes to standard output, which is for the result where a program reads.
        with redirect_stdout(sys.stderr) if output.is_json else nullcontext():
            return act(arguments, output)
    except KeyboardInterrupt:
        output.error("interrupted")
        return FAILED
    except BrokenPipeError:  # `visutility watch | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FINE
    except (FileNotFoundError, KeyError, ValueError) as error:
        output.error(_told(error))
        return USAGE
    except (RuntimeError, OSError) as error:  # no system, a conflict, no Ray, no reply in time
        output.error(_told(error))
        return FAILED


def _parsed(parser: Parser, argv: Sequence[str] | None) -> argparse.Namespace | int:
    """Return what was asked for, or the exit code of a help that was printed or of a wrong command line."""
    try:
        return parser.parse_args(argv)
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else USAGE
    except UsageError as error:  # nothing is parsed then, not even the format
        asked = " ".join(sys.argv[1:] if argv is None else argv)
        Output("json" if _JSON.search(asked) else "text").error(str(error))
        return USAGE


def _told(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return f"{error.filename}: there is no such file"
    if isinstance(error, KeyError):  # its text would be quoted
        return str(error.args[0])
    return str(error) or type(error).__name__
