"""The environment of the tests is that of this process and of all that it starts."""

from __future__ import annotations

import os

from actors import failpoints
from actors.cluster import build


def test_what_is_read_once_was_set_before_it_was_read() -> None:
    """What unit tests import had read it before the cluster tests set it: in one process their actors were another build."""
    assert os.environ["VISUTILITY_BUILD"] == build.BUILD
    assert os.environ["VISUTILITY_FAILPOINTS"] == failpoints._FOLDER
