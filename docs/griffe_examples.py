"""Shows the examples of docstrings as code: `Example:` sections, and prompts that stand by themselves.

Griffe takes both for Markdown, where code that is not fenced becomes a paragraph, and a list in a result becomes a link. Our
docstrings do without fences, because people read them in an editor too.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

_EXAMPLE = re.compile(r"^(?P<indent> *)Examples?:\n(?P<code>(?:(?P=indent) {4,}.*\n|\n)+)", re.MULTILINE)
# A prompt after an empty line: not one that stands in a fence already.
_PROMPT = re.compile(r"(?<=\n\n)(?P<indent> *)>>> .*\n(?:(?P=indent)\S.*\n|(?P=indent) +\S.*\n)*", re.MULTILINE)


class Examples(griffe.Extension):
    """Puts fences around the code of examples."""

    def on_object(self, *, obj: griffe.Object, **_more: Any) -> None:
        """Change the docstring of an object that has just been loaded."""
        if obj.docstring is not None:
            obj.docstring.value = fenced(obj.docstring.value)


def fenced(docstring: str) -> str:
    r"""Return `docstring` with the code of its examples between fences.

    >>> print(fenced("Add.\n\nExample:\n    1 + 1\n"))
    Add.
    <BLANKLINE>
    Example:
        ```python
        1 + 1
        ```
    <BLANKLINE>
    """
    return _PROMPT.sub(_around_prompts, _EXAMPLE.sub(_with_fences, docstring + "\n"))


def _with_fences(found: re.Match[str]) -> str:
    indent, code = found["indent"] + " " * 4, found["code"].strip("\n")
    if code.lstrip().startswith("```"):
        return found[0]
    return f"{found['indent']}Example:\n{indent}```python\n{code}\n{indent}```\n"


def _around_prompts(found: re.Match[str]) -> str:
    return f"{found['indent']}```python\n{found[0]}{found['indent']}```\n"
