"""What runs the pages finds what is wrong in them; the pages themselves run in tests/cluster/test_pages_*.py."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.pages import HOW_TO, LAPTOP, Runner


def run(folder: Path, text: str) -> list[str]:
    page = folder / "page.md"
    page.write_text(text)
    return Runner(folder, {}).run(page)


def test_blocks_of_a_page_share_a_folder_and_a_namespace(tmp_path: Path) -> None:
    text = """
```python
number = 41
```

```python title="sum.py"
print(41 + 1)
```

```shell
python sum.py > sum.txt
```

```python
with open("sum.txt") as file:
    assert number + 1 == int(file.read())
print("equal")
```

<!--- invisible-code-block: python
assert printed == "equal\\n"
-->
"""
    assert run(tmp_path, text) == []


@pytest.mark.parametrize(
    "text",
    [
        "```python\nraise ValueError\n```\n",
        "```shell\nfalse\n```\n",
        "```shell\nfalse | true\n```\n",
        "```yaml\ndefaults: {cooldwon: 5m}\n```\n",
        "```python\nprint(1)\n```\n\n<!--- invisible-code-block: python\nassert printed == '2'\n-->\n",
        "<!--- invisible-code-block: python\nexits = 1\n-->\n\n```shell\ntrue\n```\n",
        "1. In a list:\n\n    ```python\n    raise ValueError\n    ```\n",
    ],
)
def test_a_block_that_fails_fails_its_page(text: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"page\.md:"):
        run(tmp_path, text)


def test_what_is_skipped_says_why(tmp_path: Path) -> None:
    assert run(tmp_path, '<!-- skip: next "needs a cloud" -->\n\n```shell\nfalse\n```\n') == ["page.md:3: needs a cloud"]


@pytest.mark.parametrize("page", LAPTOP + HOW_TO, ids=lambda page: str(page.name))
def test_a_page_has_no_block_that_nobody_knows_how_to_run(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    known = {"python", "shell", "yaml", "text", "json", "promql"}
    assert set(re.findall(r"^ *```(\w+)", text, re.MULTILINE)) <= known
    assert not re.search(r"\n\n    [^ \-*\d`|].*\n", re.sub(r"```.*?```", "", text, flags=re.DOTALL)), "an indented block"
    assert not re.search(r"skip: (next|start)\s*-->", text), "a skip without its reason"
