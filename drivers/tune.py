"""Search the parameters of an objective on the cluster: run, watch, stop, resume, list and show studies."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from drivers.arguments import FAILED, FINE, Parser, add_cluster, run
from drivers.output import Output

if TYPE_CHECKING:
    from actors.tuning.client import Tuning
    from actors.tuning.study import Study

STUDY_COLUMNS: Final = ("study", "state", "begun", "error")
TRIAL_COLUMNS: Final = ("trial", "state", "value", "parameters", "attempts", "seconds", "error")
_EXAMPLE: Final = 'visutility tune drivers.objectives:branin --space \'{"x": [-5, 10], "y": [0, 15]}\' --trials 200'
_MAX_SHOWN: Final = 10
_READABLE: Final = frozenset({"DONE", "RUNNING", "STOPPED"})


def main(argv: Sequence[str] | None = None) -> int:
    """Run `visutility tune`."""
    parser = Parser("tune", __doc__, example=_EXAMPLE)
    parser.add_argument("objective", nargs="?", help="module:function; gets (params) or (params, trial), gives a number")
    parser.add_argument("--space", help='a JSON file, or the JSON itself: {"lr": [1e-5, 1e-2, "log"], ...}')
    parser.add_argument("--trials", type=int)
    parser.add_argument("--name", help="of the study; a study of that name is taken up where it stands")
    parser.add_argument(
        "--strategy", default="random", help="random, grid, optuna:TPESampler, scipy:Sobol, module:Class, or JSON"
    )
    parser.add_argument("--mode", choices=("min", "max"), default="min")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--max-concurrent", type=int, help="trials at once (default: what the cluster's CPUs allow)")
    parser.add_argument("--timeout-s", type=float, help="hard limit for one trial; runs it in a child process")
    parser.add_argument("--retries", type=int, default=0, help="of a trial that raises")
    parser.add_argument("--executor", choices=("auto", "inline", "child", "fork"), default="auto")
    parser.add_argument("--resources", help='JSON, of one trial: {"cpu": 0.5, "gpu": 1, "memory_bytes": 2e9}')
    parser.add_argument("--early-stopping", help="asha, median, or JSON")
    parser.add_argument("--no-wait", action="store_true", help="submit the study and leave it to the cluster")
    parser.add_argument("--csv", type=Path, help="write the trials to this file")
    parser.add_argument("--json", type=Path, dest="json_file", help="write the study to this file")
    parser.add_argument("--plot", type=Path, help="draw the study to this file (needs the extra `plot`)")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--list", action="store_true", help="list the studies")
    which.add_argument("--watch", metavar="NAME", help="follow a study that runs")
    which.add_argument("--stop", metavar="NAME", help="end a study before its time; --name resumes it")
    which.add_argument("--show", metavar="NAME", help="show a study")
    parser.add_argument("--storage", help="with --list and --show: read this store (a URL), without any system running")
    add_cluster(parser)
    return run(parser, argv, _tune)


def _tune(arguments: argparse.Namespace, output: Output) -> int:
    if arguments.storage:
        return _offline(arguments, output)
    chosen = arguments.list or arguments.watch or arguments.stop or arguments.show
    if chosen and arguments.objective:
        raise ValueError(f"objective must be left out with --list, --watch, --stop and --show, got {arguments.objective!r}")
    return _of_known(arguments, output) if chosen else _of_new(arguments, output)


def _of_new(arguments: argparse.Namespace, output: Output) -> int:
    if not (arguments.objective and arguments.space and arguments.trials is not None):
        raise ValueError("objective, --space and --trials must be given (or one of --list, --watch, --stop, --show)")
    objective, settings = _objective(arguments.objective), _settings(arguments)
    tuning = _tuning(arguments)
    if arguments.no_wait:
        return _shown(tuning.submit(objective, **settings), arguments, output, fine={"RUNNING", "DONE"})
    return _shown(tuning.run(objective, progress=_progress(output), **settings), arguments, output)


def _of_known(arguments: argparse.Namespace, output: Output) -> int:
    tuning = _tuning(arguments)
    if arguments.list:
        return _listed(tuning.studies(), output)
    if arguments.stop:
        tuning.stop(arguments.stop)
        return _shown(tuning.study(arguments.stop), arguments, output, fine={"STOPPED", "DONE"})
    if arguments.show:
        return _shown(tuning.study(arguments.show), arguments, output, fine=_READABLE)
    return _shown(tuning.wait(arguments.watch, progress=_progress(output)), arguments, output)


def _progress(output: Output) -> bool | None:
    """Choose a bar on a terminal, plain lines elsewhere, nothing where a program reads."""
    return False if output.is_json else None if output.is_terminal else True


def _settings(arguments: argparse.Namespace) -> dict[str, Any]:
    return {
        "space": _json("--space", arguments.space),
        "trials": arguments.trials,
        "name": arguments.name,
        "strategy": _word_or_json("--strategy", arguments.strategy),
        "mode": arguments.mode,
        "seed": arguments.seed,
        "max_concurrent": arguments.max_concurrent,
        "timeout_s": arguments.timeout_s,
        "retries": arguments.retries,
        "executor": arguments.executor,
        "resources": None if arguments.resources is None else _json("--resources", arguments.resources),
        "early_stopping": _word_or_json("--early-stopping", arguments.early_stopping),
    }


def _objective(target: str) -> Any:
    from actors.tuning import shipping  # noqa: PLC0415  --help needs none of it

    return shipping.load(target)  # by value, so that workers need not have the file


def _tuning(arguments: argparse.Namespace) -> Tuning:
    from actors import system  # noqa: PLC0415  --help needs no Ray
    from actors.cluster import connection  # noqa: PLC0415  --help needs no Ray

    connection.attach(arguments.address, otherwise="look")
    tuning: Tuning = system.connect(namespace=arguments.namespace or system.DEFAULT_NAMESPACE).tuner
    return tuning


def _offline(arguments: argparse.Namespace, output: Output) -> int:
    from actors.tuning import stored as studies  # noqa: PLC0415  --help needs none of it

    if arguments.list:
        return _listed(studies.list_studies(arguments.storage), output)
    if not arguments.show:
        raise ValueError("--storage must come with --list or --show")
    return _shown(studies.read_study(arguments.storage, arguments.show), arguments, output, fine=_READABLE)


def _listed(studies: list[dict[str, Any]], output: Output) -> int:
    from datetime import datetime  # noqa: PLC0415

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
    study: Study, arguments: argparse.Namespace, output: Output, fine: frozenset[str] | set[str] = frozenset({"DONE"})
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
    written = {"csv": study.to_csv, "json_file": study.to_json, "plot": study.plot}
    for option, write in written.items():
        path = getattr(arguments, option)
        if path is not None:
            output.line(f"written: {write(path)}")
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
        raise ValueError(f"{option} must be a JSON mapping, got {text!r:.60}")  # noqa: TRY004  exit 2
    return value


def _word_or_json(option: str, text: str | None) -> str | Mapping[str, Any] | None:
    return _json(option, text) if text is not None and text.lstrip().startswith("{") else text


if __name__ == "__main__":
    import sys

    sys.exit(main())
