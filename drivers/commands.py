"""The common part of all commands of `visutility`: help, `-o json`, exit codes, the connection to the system.

Exit 0: fine. 1: something needs attention or failed. 2: the command line or a file is wrong.
"""

from __future__ import annotations

import importlib
import logging
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, redirect_stdout
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from drivers.output import Format, Output, ready_streams

if TYPE_CHECKING:
    from actors.cluster.peers import BlockingPeers
    from actors.system import System

FINE: Final = 0
FAILED: Final = 1
USAGE: Final = 2
DEFAULT_NAMESPACE: Final = "visutility"  # that of actors.system, which takes 1 s to import

Act = Callable[..., int]
Decorated = TypeVar("Decorated", bound=Callable[..., Any])

_SETTINGS: Final = {"help_option_names": ["-h", "--help"], "max_content_width": 120}

# What click says of words that are too many.
_EXTRA: Final = re.compile(r"Got unexpected extra arguments? \((.*)\)", re.DOTALL)
_NO_LIMIT: Final = 1000  # characters of a first sentence


class Command(click.Command):
    """A command whose help begins with lines that work when they are pasted, and whose function returns the exit code.

    The function takes its parameters by name, and `output: Output` besides.
    """

    def __init__(self, *args: Any, examples: Sequence[str] = (), **settings: Any) -> None:
        """Make the command; `examples` are whole command lines."""
        super().__init__(*args, **settings)
        self.examples = tuple(examples)
        if not any("-o" in each.opts for each in self.params):
            self.params.append(_output_option())

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples, then what click writes."""
        _write_examples(self.examples, formatter)
        super().format_help(ctx, formatter)

    def invoke(self, ctx: click.Context) -> int:
        """Run the function and return its exit code, whatever goes wrong in it."""
        output = Output(_form(ctx))
        act = self.callback
        if act is None:
            raise TypeError(f"{ctx.command_path} has no function")
        return _guarded(lambda: int(ctx.invoke(act, output=output, **ctx.params)), output)


class Group(click.Group):
    """A command with subcommands. `-o` may come before or after the name of the subcommand.

    `aliases` are further spellings of its commands, which work and are not listed.
    """

    command_class = Command

    def __init__(
        self, name: str, *, examples: Sequence[str] = (), aliases: Mapping[str, str] | None = None, **settings: Any
    ) -> None:
        """Make the group."""
        super().__init__(name, callback=_require_command, invoke_without_command=True, no_args_is_help=False, **settings)
        self.examples = tuple(examples)
        self.aliases = dict(aliases or {})
        self.params.append(_output_option())

    def list_commands(self, ctx: click.Context) -> list[str]:  # click's signature
        """Return the names in the order of the file."""
        return list(self.commands)

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples, then what click writes."""
        _write_examples(self.examples, formatter)
        super().format_help(ctx, formatter)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list, each with its whole first sentence."""
        rows = [(name, each.get_short_help_str(_NO_LIMIT)) for name, each in self.commands.items() if not each.hidden]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that the first argument names; UsageError lists those there are."""
        name = self.aliases.get(args[0], args[0])
        found = self.get_command(ctx, name)
        if found is None:
            raise click.UsageError(self._unknown(ctx, args[0]), ctx)
        return name, found, args[1:]

    def _unknown(self, ctx: click.Context, name: str) -> str:
        names = self.list_commands(ctx)
        near = get_close_matches(name, names, n=1)
        hint = f": did you mean {near[0]}?" if near else ""
        return f"command must be one of {', '.join(names)}, got {name!r}{hint}"


class Modules(Group):
    """The commands that are modules of `drivers`, imported when they are named: some need Ray, some scikit-learn."""

    def __init__(self, name: str, *, sections: Mapping[str, Mapping[str, str]], **settings: Any) -> None:
        """Take the commands with their first lines, by section of the help."""
        super().__init__(name, **settings)
        self.sections = sections

    def list_commands(self, ctx: click.Context) -> list[str]:  # click's signature
        """Return the names in the order of the help."""
        return [name for section in self.sections.values() for name in section]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Import the module of that name and return its command, which has the name too."""
        if name not in self.list_commands(ctx):
            return None
        found = getattr(importlib.import_module(f"drivers.{name}"), name)
        return found if isinstance(found, click.Command) else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list by sections, without importing any of them."""
        for title, section in self.sections.items():
            with formatter.section(title):
                formatter.write_dl(list(section.items()))


def command(name: str, *, examples: Sequence[str], **settings: Any) -> Callable[[Act], Command]:
    """Make a function the command `name`; its docstring is the help."""
    return click.command(name, cls=Command, examples=examples, context_settings=_SETTINGS, **settings)


def group(
    name: str, text: str | None, *, examples: Sequence[str], aliases: Mapping[str, str] | None = None, cls: type[Group] = Group
) -> Group:
    """Return a group; `text` is its help, `aliases` are further spellings of its commands."""
    return cls(name, help=text, examples=examples, aliases=aliases, context_settings=_SETTINGS)


def cluster(act: Decorated) -> Decorated:
    """Add `--address` and `--namespace`: which Ray cluster, and which system on it."""
    address = click.option(
        "--address",
        metavar="HOST:PORT",
        help="The Ray cluster (default: RAY_ADDRESS, else the Ray of `visutility up`, else any on this machine).",
    )
    namespace = click.option(
        "--namespace",
        metavar="NAME",
        help="The Ray namespace of the system (default: that of the configuration, else visutility).",
    )
    return address(namespace(act))


def stored(act: Decorated) -> Decorated:
    """Add `--storage`: read a store directly."""
    return click.option("--storage", metavar="URL", help="Read this store directly; needs no running system.")(act)


def labelled(act: Decorated) -> Decorated:
    """Add `--label`: only models whose labels a selector matches."""
    text = "Only models with matching labels, like team=risk,tier!=2; if given several times, all must match."
    return click.option("--label", "label", metavar="SELECTOR", multiple=True, help=text)(act)


def written(default: str) -> Callable[[Decorated], Decorated]:
    """Add `-o FILE` to a command that writes one, as `file`; `-o json` and `-o text` mean what they mean elsewhere."""

    def remember(ctx: click.Context, parameter: click.Parameter, values: Sequence[str]) -> str:
        files = [value for value in values if value not in _FORMS]
        for form in set(values) - set(files):
            _remember_form(ctx, parameter, form)
        return files[-1] if files else default

    text = f"File to write (default: {default}); `-o json` also prints one JSON value for programs."
    return click.option("-o", "--output", "file", metavar="FILE", multiple=True, callback=remember, help=text)


def signed(act: Decorated) -> Decorated:
    """Add `--by` and `--comment`: who does it and why, for the history."""
    by = click.option("--by", metavar="NAME", default=_this_user, show_default="you", help="Your name, for the history.")
    return by(click.option("--comment", help="A comment, for the history.")(act))


def _this_user() -> str | None:
    from actors import people  # 0.02 s; help does without

    return people.local_user()


def peers(address: str | None, namespace: str | None) -> BlockingPeers:
    """Return the actors of the system in `namespace`, connected to its Ray: lighter than `joined`, for one call."""
    from actors.cluster import connection  # Ray takes 0.4 s of processor time; help does without
    from actors.cluster.peers import BlockingPeers

    connection.attach(address, otherwise="look")
    return BlockingPeers(namespace or DEFAULT_NAMESPACE)


def joined(address: str | None, namespace: str | None) -> System:
    """Return the system in `namespace` on the cluster at `address`, connected to its Ray."""
    # Ray and the store's packages take 1 s of processor time together; help and usage errors do without.
    from actors import system
    from actors.cluster import connection

    connection.attach(address, otherwise="look")
    return system.System(namespace or system.DEFAULT_NAMESPACE)


def run(entry: click.Command, argv: Sequence[str] | None, name: str | None = None) -> int:
    """Run a command line and return its exit code: what every `main` of this folder does.

    `argv` None means that of the process. `name` is how the command is called in its help, `visutility NAME` by default.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    ready_streams()
    try:
        code = entry.main(arguments, prog_name=name or f"visutility {entry.name}", standalone_mode=False)
    except click.UsageError as error:
        if error.ctx is not None:
            print(error.ctx.get_usage(), file=sys.stderr)
        Output(_asked_form(arguments)).error(_usage_problem(error))
        return USAGE
    except click.Abort:
        Output(_asked_form(arguments)).error("interrupted")
        return FAILED
    return code if isinstance(code, int) else FINE


def _require_command() -> None:
    """Run for each group of a command line, before the command below it."""
    ctx = click.get_current_context()
    if ctx.invoked_subcommand is not None or not isinstance(ctx.command, click.Group):
        return
    if ctx.parent is None and isinstance(ctx.command, Modules):  # `visutility` alone
        click.echo(ctx.get_help())
        ctx.exit()
    raise click.UsageError(f"a command must follow: one of {', '.join(ctx.command.list_commands(ctx))}", ctx)


def _guarded(act: Callable[[], int], output: Output) -> int:
    """Act, and turn whatever goes wrong into one line and an exit code."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    try:
        # Ray prints warnings of its nodes to standard output, which is for the result where a program reads.
        with redirect_stdout(sys.stderr) if output.is_json else nullcontext():
            code = act()
        output.flush()
    except KeyboardInterrupt:
        output.error("interrupted")
        return FAILED
    except BrokenPipeError:  # `visutility watch | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FINE
    except click.UsageError:
        raise
    except (FileNotFoundError, KeyError, ValueError) as error:
        output.error(_problem(error))
        return USAGE
    except (RuntimeError, OSError) as error:  # no system, a conflict, no Ray, no reply in time
        output.error(_problem(error))
        return FAILED
    return code


def _problem(error: Exception) -> str:
    if isinstance(error, FileNotFoundError) and error.filename is not None:
        return f"{error.filename}: there is no such file"
    if isinstance(error, KeyError) and error.args:  # its text would be quoted
        return str(error.args[0])
    return str(error) or type(error).__name__


def _usage_problem(error: click.UsageError) -> str:
    if isinstance(error, click.NoSuchOption):
        near = f": did you mean {error.possibilities[0]}?" if error.possibilities else ""
        return f"unrecognized arguments: {error.option_name}{near}"
    if isinstance(error, click.MissingParameter) and error.param is not None:
        return f"the following arguments are required: {_spelling(error.param)}"
    if isinstance(error, click.BadParameter) and error.param is not None:
        return f"argument {_spelling(error.param)}: {error.message}"
    extra = _EXTRA.fullmatch(error.message)
    return f"unrecognized arguments: {extra[1]}" if extra else error.message


def _spelling(parameter: click.Parameter) -> str:
    if isinstance(parameter, click.Option):
        return max(parameter.opts, key=len)
    return parameter.human_readable_name


def _output_option() -> click.Option:
    text = "json: print one JSON value for programs."
    return click.Option(
        ["-o", "--output", "form"], type=click.Choice(_FORMS), help=text, expose_value=False, callback=_remember_form
    )


def _remember_form(ctx: click.Context, _parameter: click.Parameter, value: str | None) -> None:
    if value is not None:
        ctx.meta[_FORM] = value  # shared by the contexts of one command line; the one below is read last


_FORM: Final = "drivers.commands.form"
_FORMS: Final = ("text", "json")


def _form(ctx: click.Context) -> Format:
    return "json" if ctx.meta.get(_FORM) == "json" else "text"


def _asked_form(arguments: Sequence[str]) -> Format:
    """Return the form that a command line asks for which could not be read whole."""
    for at, word in enumerate(arguments):
        after = arguments[at + 1] if at + 1 < len(arguments) else ""
        if word in {"-ojson", "--output=json"} or (word in {"-o", "--output"} and after == "json"):
            return "json"
    return "text"


def _write_examples(examples: Sequence[str], formatter: click.HelpFormatter) -> None:
    for example in examples:
        formatter.write(f"{example}\n")
    if examples:
        formatter.write_paragraph()
