"""Write a report as one file to mail: what happened, what was decided, and what it earned.

Writes one HTML file without scripts or external resources. The period ends at the newest event.
"""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from drivers.commands import DEFAULT_NAMESPACE, FINE, cluster, command, labelled, run, stored, written
from drivers.output import Output
from drivers.status import selector


@command(
    "report",
    help=__doc__,
    examples=[
        "visutility report",
        "visutility report fraud --since 30d -o fraud.html",
        "visutility report 'fraud-*' --storage sqlite:///./visutility-data --pdf fraud.pdf",
    ],
)
@click.argument("model", required=False, metavar="[MODEL]")
@click.option(
    "--since", metavar="DURATION", help="Length of the period before the newest event, like 30d (default: the whole history)."
)
@written("report.html")
@click.option("--pdf", type=click.Path(dir_okay=False), help="Also write a PDF, with the Chromium or Chrome of this machine.")
@labelled
@stored
@cluster
def report(
    *,
    model: str | None,
    since: str | None,
    file: str,
    pdf: str | None,
    label: Sequence[str],
    storage: str | None,
    address: str | None,
    namespace: str | None,
    output: Output,
) -> int:
    """Write the report."""
    if importlib.util.find_spec("jinja2") is None:
        raise RuntimeError("a report needs jinja2: pip install 'visutility[ui]'")
    from actors.config.values import parse_duration  # imports the schema, 0.2 s; help does without
    from actors.storage import StoreReader  # imports the store, 0.4 s
    from drivers.report import facts, page, printing

    period_s = None if since is None else parse_duration(since)
    browser = None if pdf is None else printing.browser()
    if storage is None:
        storage = _storage(address, namespace)
    with contextlib.closing(StoreReader(storage)) as store:
        found = facts.read(store, model, selector(label), period_s=period_s)
    text = page.render(found)
    Path(file).write_text(text, encoding="utf-8")
    output.line(f"{file}: {len(found.models)} models, {len(text) / 1024:.0f} KB")
    if pdf is not None and browser is not None:
        printing.to_pdf(browser, text, Path(pdf))
        output.line(f"{pdf}: the same, printed by {browser}")
    output.result({"file": file, "pdf": pdf, "models": [each.name for each in found.models], "others": found.others})
    return FINE


def _storage(address: str | None, namespace: str | None) -> str:
    from actors.ui import serving  # imports the store
    from drivers.commands import joined  # imports Ray

    return serving.storage_of(joined(address, namespace or DEFAULT_NAMESPACE))


def main(argv: Sequence[str] | None = None) -> int:
    """Run `visutility report`."""
    return run(report, argv)


if __name__ == "__main__":
    sys.exit(main())
