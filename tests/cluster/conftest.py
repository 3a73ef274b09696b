"""One real local Ray for the whole run, or for each process of it; each system in a namespace and a store of its own."""

from __future__ import annotations

import logging
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

import actors
from actors.system import System
from tests.docs.pages import ROOT
from tests.environment import FAILPOINTS, PAGES
from tests.rays import start_alone


@pytest.fixture(scope="session")
def cluster() -> Iterator[str]:
    """A Ray of this run alone; gives its address, for the tests' subprocesses."""
    os.environ.pop("RAY_ADDRESS", None)
    with start_alone():
        ray.init(
            address="local",
            num_cpus=4,
            include_dashboard=False,
            object_store_memory=150 * 2**20,
            namespace=f"tests-{uuid.uuid4().hex[:6]}",
            logging_level=logging.WARNING,
            log_to_driver=False,
        )
    yield ray.get_runtime_context().gcs_address
    ray.shutdown()


@pytest.fixture
def failpoints() -> Iterator[Path]:
    """The folder for `failpoints.arm`; what was not reached is disarmed at the end."""
    yield FAILPOINTS
    for left in FAILPOINTS.iterdir():
        left.unlink()


@pytest.fixture
def namespace(cluster: str) -> Iterator[str]:
    """A namespace that nobody uses; a system that a test leaves there is stopped."""
    unique = f"ns-{uuid.uuid4().hex[:8]}"
    yield unique
    System(unique).stop()


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, Any]:
    """The smallest configuration: a store of its own."""
    return {"storage": f"sqlite:///{tmp_path}/store"}


@pytest.fixture
def start(namespace: str, settings: dict[str, Any]) -> Callable[..., System]:
    """Start the system of this test: `start()` or `start(defaults={...}, models={...})`."""

    def started(**sections: Any) -> System:
        return actors.start(settings | sections, namespace=namespace)

    return started


@pytest.fixture
def system(start: Callable[..., System]) -> System:
    """A system with its defaults, of this test alone."""
    return start()


@pytest.fixture
def work() -> Iterator[Path]:
    """The folder in which a page's reader works; empty for each. Modules that workers import have names of their own."""
    yield PAGES
    for left in PAGES.iterdir():
        shutil.rmtree(left) if left.is_dir() else left.unlink()


def pages_environment(folder: Path) -> dict[str, str]:
    """Keep what `up` notes apart from that of the person who runs the tests."""
    return {"XDG_STATE_HOME": str(folder / "state"), "PYTHONPATH": f"{PAGES}:{ROOT}"}


@pytest.fixture(scope="session")
def shared_system(cluster: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """One system for tests that only need some system: each takes model names of its own."""
    folder = tmp_path_factory.mktemp("shared")
    shared = actors.start({"storage": f"sqlite:///{folder}/store"}, namespace=f"shared-{uuid.uuid4().hex[:6]}")
    yield shared
    shared.stop()
