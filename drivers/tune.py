"""Search the parameters of an objective on the cluster.

A study has a name. `run` starts a study and waits for it; `submit` starts it and returns.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from drivers.commands import FAILED, FINE, Decorated, Group, cluster, group, joined, run, signed, stored
from drivers.output import Output

if TYPE_CHECKING:
    from actors.tuning.study import Study

STUDY_COLUMNS: Final = ("study", "state", "begun", "error")
TRIAL_COLUMNS: Final = ("trial", "state", "value", "parameters", "attempts", "seconds", "error")
_BRANIN: Final = 'drivers.objectives:branin --space \'{"x": [-5, 10], "y": [0, 15]}\''
_MAX_SHOWN: Final = 10
_READABLE: Final = frozenset({"DONE", "RUNNING", "STOPPED"})
# The spellings of version 0.1, in which `tune` had options for what are commands now.
_OLD_OPTIONS: Final = {"--list": "ls", "--show": "show", "--watch": "watch", "--stop": "stop"}


class TuneGroup(Group):
    """The group `tune`, which also understands `tune OBJECTIVE --space ...` and `tune --show NAME`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse a command line, rewritten where it is an old one."""
        return super().parse_args(ctx, modern(args, self.list_commands(ctx)))


def modern(args: Sequence[str], names: Sequence[str]) -> list[str]:
    """Return the command line of `tune` in today's spelling.

    >>> modern(["m:f", "--space", "s.json", "--trials", "9"], ["run", "show"])
    ['run', 'm:f', '--space', 's.json', '--trials', '9']
    >>> modern(["--show", "churn", "--storage", "sqlite:///s"], ["run", "show"])
    ['show', 'churn', '--storage', 'sqlite:///s']
    """
    if not args or args[0] in names:
        return list(args)
    for at, word in enumerate(args):
        option, equals, value = word.partition("=")
        if option in _OLD_OPTIONS:
            rest = [*args[:at], *args[at + 1 :]]
            return [_OLD_OPTIONS[option], *([value] if equals else []), *rest]
    is_search = ":" in args[0] or any(word.partition("=")[0] == "--space" for word in args)
    return ["run", *args] if is_search else list(args)


tune = group(
    "tune",
    __doc__,
    examples=[f"visutility tune run {_BRANIN} --trials 200", "visutility tune ls"],
    cls=TuneGroup,
)


def _exports(act: Decorated) -> Decorated:
    """Add the files to which a study can be written."""
    for name, text in (("csv", "Write the trials"), ("json", "Write the study"), ("plot", "Draw the study")):
        extra = " (needs the extra `plot`)" if name == "plot" else ""
        path = click.Path(dir_okay=False, path_type=Path)
        act = click.option(f"--{name}", f"{name}_file", type=path, help=f"{text} to this file{extra}.")(act)
    return act


def _search(act: Decorated) -> Decorated:
    """Add the objective and the settings of a study."""
    options = (
        click.argument("objective"),
        click.option("--space", required=True, help='A JSON file, or the JSON itself: {"lr": [1e-5, 1e-2, "log"], ...}.'),
        click.option("--trials", type=int, required=True, help="Number of trials."),
        click.option("--name", help="Name of the study; an existing study of that name continues."),
        click.option(
            "--strategy",
            default="random",
            help="How to choose parameters: random, grid, optuna:TPESampler, scipy:Sobol, module:Class, or JSON.",
        ),
        click.option(
            "--mode",
            type=click.Choice(["min", "max"]),
            default="min",
            help="Minimize or maximize the objective (default: min).",
        ),
        click.option("--seed", type=int, help="Seed of the parameters (default: random)."),
        click.option("--max-concurrent", type=int, help="Trials at once (default: what the cluster's CPUs allow)."),
        click.option("--timeout-s", type=float, help="Hard limit of one trial in seconds; runs it in a child process."),
        click.option("--retries", type=int, default=0, help="Retries of a trial that raises (default: 0)."),
        click.option(
            "--executor",
            type=click.Choice(["auto", "inline", "child", "fork"]),
            default="auto",
            help="How to run a trial (default: auto).",
        ),
        click.option("--resources", help='Resources of one trial, as JSON: {"cpu": 0.5, "gpu": 1, "memory_bytes": 2e9}.'),
        click.option("--early-stopping", help="How to stop bad trials early: asha, median, or JSON."),
    )
    for option in reversed(options):
        act = option(act)
    return act


@tune.command("run", examples=[f"visutility tune run {_BRANIN} --trials 200 --plot branin.png"])
@_search
@click.option("--no-wait", is_flag=True, hidden=True)  # `tune submit` of version 0.1
@_exports
@cluster
def run_(*, objective: str, no_wait: bool, address: str | None, namespace: str | None, output: Output, **given: Any) -> int:
    """Search for the best value of OBJECTIVE and wait for it.

    OBJECTIVE is module:function; it gets (params) or (params, trial) and returns a number. Ctrl-C stops the study; the same
    command with its --name continues it.
    """
    files, settings = _files(given), _settings(**given)
    target = _objective(objective)
    tuning = joined(address, namespace).tuner
    if no_wait:
        return _shown(tuning.submit(target, **settings), files, output, fine={"RUNNING", "DONE"})
    return _shown(tuning.run(target, progress=_progress(output), **settings), files, output)


@tune.command("submit", examples=[f"visutility tune submit {_BRANIN} --trials 200 --name branin"])
@_search
@_exports
@cluster
def submit(*, objective: str, address: str | None, namespace: str | None, output: Output, **given: Any) -> int:
    """Start a study of OBJECTIVE (module:function) and return at once."""
    files, settings = _files(given), _settings(**given)
    target = _objective(objective)
    return _shown(joined(address, namespace).tuner.submit(target, **settings), files, output, fine={"RUNNING", "DONE"})


@tune.command("watch", examples=["visutility tune watch branin"])
@click.argument("name")
@_exports
@cluster
def watch(*, name: str, address: str | None, namespace: str | None, output: Output, **given: Any) -> int:
    """Follow the study NAME until it ends."""
    study = joined(address, namespace).tuner.wait(name, progress=_progress(output))
    return _shown(study, _files(given), output)


@tune.command("stop", examples=["visutility tune stop branin"])
@click.argument("name")
@_exports
@signed
@cluster
def stop(
    *,
    name: str,
    by: str | None,
    comment: str | None,
    address: str | None,
    namespace: str | None,
    output: Output,
    **given: Any,
) -> int:
    """End the study NAME early; `tune resume` continues it."""
    tuning = joined(address, namespace).tuner
    tuning.stop(name, by=by, comment=comment)
    return _shown(tuning.study(name), _files(given), output, fine={"STOPPED", "DONE"})


@tune.command("resume", examples=["visutility tune resume branin", "visutility tune resume branin --trials 400 --wait"])
@click.argument("name")
@click.option("--trials", type=int, help="Total number of trials (default: unchanged).")
@click.option("--wait", is_flag=True, help="Wait until it ends, as `tune run` does.")
@_exports
@cluster
def resume(
    *, name: str, trials: int | None, wait: bool, address: str | None, namespace: str | None, output: Output, **given: Any
) -> int:
    """Continue the study NAME, with the objective and the settings with which it was submitted."""
    tuning = joined(address, namespace).tuner
    study = tuning.resume(name, trials=trials)
    if wait:
        return _shown(tuning.wait(name, progress=_progress(output)), _files(given), output)
    return _shown(study, _files(given), output, fine={"RUNNING", "DONE"})


@tune.command("delete", examples=["visutility tune delete branin"])
@click.argument("name")
@cluster
def delete(*, name: str, address: str | None, namespace: str | None, output: Output) -> int:
    """Delete the study NAME and its trials; it must have ended."""
    joined(address, namespace).tuner.delete(name)
    output.line(f"{name} is deleted")
    output.result({"study": name, "deleted": True})
    return FINE


@tune.command("ls", examples=["visutility tune ls", "visutility tune ls --storage sqlite:///./visutility-data"])
@stored
@cluster
def ls(*, storage: str | None, address: str | None, namespace: str | None, output: Output) -> int:
    """List the studies, the newest first."""
    if storage is None:
        return _listed(joined(address, namespace).tuner.studies(), output)
    from actors.tuning import offline as studies  # 0.6 s; help does without

    return _listed(studies.list_studies(storage), output)


@tune.command("show", examples=["visutility tune show branin", "visutility tune show branin --csv trials.csv"])
@click.argument("name")
@_exports
@stored
@cluster
def show(*, name: str, storage: str | None, address: str | None, namespace: str | None, output: Output, **given: Any) -> int:
    """Show the study NAME: its best trials, and those that failed."""
    if storage is None:
        return _shown(joined(address, namespace).tuner.study(name), _files(given), output, fine=_READABLE)
    from actors.tuning import offline as studies  # 0.6 s; help does without

    return _shown(studies.read_study(storage, name), _files(given), output, fine=_READABLE)


@tune.command(
    "export",
    examples=[
        "visutility tune export branin --optuna sqlite:///optuna.db",
        "visutility tune export branin --optuna sqlite:///optuna.db --storage sqlite:///./visutility-data",
    ],
)
@click.argument("name")
@click.option("--optuna", "target", metavar="URL", required=True, help="Optuna's storage, such as sqlite:///optuna.db.")
@click.option("--live", is_flag=True, help="Keep exporting while the study runs.")
@stored
@cluster
def export(
    *, name: str, target: str, live: bool, storage: str | None, address: str | None, namespace: str | None, output: Output
) -> int:
    """Write the study NAME to an Optuna storage, for Optuna's dashboard and importances.

    Writes each trial that has ended once. Run it again to add trials that have ended since. Needs the extra `optuna`.
    """
    if storage is None:
        study = joined(address, namespace).tuner.study(name)
    else:
        from actors.tuning import offline as studies  # 0.6 s; help does without

        study = studies.read_study(storage, name)
    from actors.checks import redacted  # imports numpy; help does without

    written = study.to_optuna(target, live=live)
    output.line(f"{name}: {written} {'trial' if written == 1 else 'trials'} written to {redacted(target)}")
    output.result({"study": name, "optuna": redacted(target), "written": written})
    return FINE


def _progress(output: Output) -> bool | None:
    """Choose a bar on a terminal, plain lines elsewhere, nothing where a program reads."""
    return False if output.is_json else None if output.moves else True


def _settings(*, space: str, strategy: str, resources: str | None, early_stopping: str | None, **plain: Any) -> dict[str, Any]:
    return plain | {
        "space": _json("--space", space),
        "strategy": _word_or_json("--strategy", strategy),
        "resources": None if resources is None else _json("--resources", resources),
        "early_stopping": _word_or_json("--early-stopping", early_stopping),
    }


def _files(given: dict[str, Any]) -> dict[str, Path]:
    """Take the files to write out of what was given."""
    asked = {name: given.pop(f"{name}_file") for name in ("csv", "json", "plot")}
    return {name: path for name, path in asked.items() if path is not None}


def _objective(target: str) -> Any:
    from actors.tuning import shipping  # 0.5 s; help does without

    return shipping.load(target)  # by value, so that workers need not have the file


def _listed(studies: Sequence[Mapping[str, Any]], output: Output) -> int:
    rows = [
        (
            study["name"],
            study["state"],
            datetime.fromtimestamp(study["created_at"]).astimezone().isoformat(" ", "seconds"),
            study["error"],
        )
        for study in studies
    ]
    output.table("studies", STUDY_COLUMNS, rows)
    output.result(studies)
    return FINE


def _shown(
    study: Study, files: Mapping[str, Path], output: Output, fine: frozenset[str] | set[str] = frozenset({"DONE"})
) -> int:
    counts = study.counts()
    output.line(
        f"{study.name}: {study.state}, " + (", ".join(f"{n} {state.lower()}" for state, n in counts.items()) or "no trials")
    )
    if study.error:
        output.line(f"! {study.error}")
    completed = [trial for trial in study.trials if trial.state == "COMPLETED" and trial.value is not None]
    ranked = sorted(completed, key=lambda trial: (trial.value or 0.0) * (-1 if study.mode == "max" else 1))
    others = [trial for trial in study.trials if trial.error]
    rows = [
        (
            trial.id,
            trial.state,
            trial.value,
            trial.params,
            trial.attempts,
            trial.seconds,
            (trial.error or "").partition("\n")[0] or None,
        )
        for trial in [*ranked[:_MAX_SHOWN], *others[:_MAX_SHOWN]]
    ]
    if rows:
        output.table("the best, and the first that failed", TRIAL_COLUMNS, rows)
    writers = {"csv": study.to_csv, "json": study.to_json, "plot": study.plot}
    for name, path in files.items():
        output.line(f"written: {writers[name](path)}")
    output.result(study.document())
    return FINE if study.state in fine and (completed or study.state != "DONE") else FAILED


def _json(option: str, text: str) -> Mapping[str, Any]:
    content = text
    if not text.lstrip().startswith(("{", "[")):
        content = Path(text).read_text(encoding="utf-8")
    try:
        value = json.loads(content)
    except json.JSONDecodeError as error:
        raise ValueError(f"{option} must be JSON, got {text!r:.60}: {error}") from None
    if not isinstance(value, dict):
        raise ValueError(f"{option} must be a JSON mapping, got {text!r:.60}")
    return value


def _word_or_json(option: str, text: str | None) -> str | Mapping[str, Any] | None:
    return _json(option, text) if text is not None and text.lstrip().startswith("{") else text


def main(argv: Sequence[str] | None = None) -> int:
    """Run `visutility tune run|submit|watch|stop|resume|ls|show|export|delete`."""
    return run(tune, argv)


if __name__ == "__main__":
    sys.exit(main())
