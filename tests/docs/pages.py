"""Runs the blocks of a page from top to bottom, as its reader would: in one folder, with one Python namespace.

    ```python                       is executed here, in the process that is connected to the tests' Ray
    ```python title="train.py"      is written to that file
    ```shell                        is executed by bash, with `visutility` and `python` of this environment
    ```yaml                         must be a configuration that can be loaded; with a title it is also written to that file

Everything else (`text`, `json`, ...) is shown only. What cannot run here stands under `<!-- skip: next "why" -->`. What a page
claims of a result is checked by a block that its reader does not see, `<!--- invisible-code-block: python` ... `-->`. It finds
what the last block printed as `printed`, and may set `exits` to the exit code that the next shell block is to end with.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from unittest import SkipTest

from sybil import Document, Example, Region, Sybil
from sybil.evaluators.python import PythonEvaluator
from sybil.parsers.markdown import SkipParser
from sybil.parsers.markdown.lexers import DirectiveInHTMLCommentLexer, RawFencedCodeBlockLexer

from actors import config
from tests.rays import start_alone
from tests.speed import slow

ROOT = Path(__file__).parents[2]
SHELL_S = 120.0
_INFO = re.compile(r"(?P<language>\w+)(?:[ ]+title=\"(?P<title>[^\"]+)\")?[^\n]*$\n", re.MULTILINE)
_PYTHON = PythonEvaluator()


@dataclass(frozen=True)
class Block:
    """One fenced block of a page."""

    language: str
    title: str | None
    source: str


class Runner:
    """Executes the blocks of a page in `folder`; shell blocks get `environment` besides that of this process."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.folder = folder
        binaries = Path(sys.executable).parent
        self.environment = {**os.environ, **environment, "PATH": f"{binaries}:{os.environ['PATH']}", "COLUMNS": "160"}

    def run(self, page: Path) -> list[str]:
        """Run every block of `page`; return why which were skipped. AssertionError names the block that failed."""
        skipped: list[str] = []
        document = Sybil([self._blocks, self._checks, SkipParser()]).parse(page)
        document.namespace["printed"] = ""
        with contextlib.chdir(self.folder):
            for example in document.examples():
                try:
                    example.evaluate()
                except SkipTest as reason:
                    skipped.append(f"{page.name}:{example.line}: {reason}")
                except Exception as error:
                    raise AssertionError(f"{page}:{example.line}: {error}") from error
        return skipped

    def _blocks(self, document: Document) -> Iterator[Region]:
        for region in RawFencedCodeBlockLexer(_INFO)(document):
            found = region.lexemes
            yield Region(region.start, region.end, Block(found["language"], found["title"], found["source"]), self._evaluate)

    def _checks(self, document: Document) -> Iterator[Region]:
        for region in DirectiveInHTMLCommentLexer(directive="invisible-code-block", arguments="python")(document):
            yield Region(region.start, region.end, region.lexemes["source"], _PYTHON)

    def _evaluate(self, example: Example) -> None:
        block: Block = example.parsed
        if block.language == "yaml":
            config.parse(config.read_yaml(block.source, block.title or "the block"), block.title or "the block")
        if block.title is not None:
            target = self.folder / block.title
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(block.source, encoding="utf-8")
        elif block.language == "python":
            with contextlib.redirect_stdout(io.StringIO()) as printed:
                exec(compile(block.source, f"{example.path}:{example.line}", "exec"), example.namespace)
            example.namespace["printed"] = printed.getvalue()
        elif block.language == "shell":
            example.namespace["printed"] = self.shell(block.source, example.namespace.pop("exits", 0))

    def shell(self, source: str, exits: int = 0) -> str:
        """Run `source` as a shell block of a page; return what it printed. AssertionError where it ends with another code."""
        with start_alone() if "visutility up" in source else contextlib.nullcontext():
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", source],
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=slow(SHELL_S),
                check=False,
            )
        assert done.returncode == exits, f"ended with {done.returncode}, not {exits}:\n{done.stdout[-4000:]}"
        return done.stdout


def require_curl(page: Path) -> None:
    """Skip the test of a page with calls of curl on a machine that has none."""
    if "\ncurl " in page.read_text(encoding="utf-8") and shutil.which("curl") is None:
        raise SkipTest(f"{page.name} calls curl, which this machine lacks")


# The pages whose blocks run: those that a reader follows on a laptop where nothing runs yet, and those that find a system.
LAPTOP = [ROOT / "README.md", *sorted((ROOT / "docs").glob("tutorial/*.md"))]
HOW_TO = sorted((ROOT / "docs").glob("how-to/*.md"))
