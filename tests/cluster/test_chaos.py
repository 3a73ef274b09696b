"""The short chaos run: random faults leave no trace on either store. `make chaos` is the long version.

How long anything took is not asserted here: the command's own table does that.
"""

from __future__ import annotations

import json

import pytest

from tests.cluster.alone import chaos


@pytest.mark.timeout(240)
@pytest.mark.parametrize(("storage", "seconds"), [(None, 15), ("postgresql", 30)])
def test_random_faults_lose_nothing_and_do_nothing_twice(storage: str | None, seconds: int) -> None:
    where = ["--storage", storage] if storage else []
    told = chaos("--seconds", str(seconds), "--kills", "3", "--seed", "7", *where, timeout_s=230)
    assert not told["breached"], json.dumps({key: told[key] for key in ("rows", "examples")}, indent=1)
    assert told["faults"].get("actor kill", 0) >= 3
    assert told["acknowledged"] > 10_000
    assert told["orders"] > 0
