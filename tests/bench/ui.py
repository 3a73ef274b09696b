"""Measure the server time of the fleet: `python -m tests.bench ui --models 20000`."""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Sequence

import numpy as np
from sqlalchemy import insert, select
from starlette.testclient import TestClient

from actors.detection.tables import DETECTOR, models
from actors.ui.access import Access
from actors.ui.app import create
from actors.ui.backend import StoreBackend
from tests.unit.ui.conftest import write

_PATHS = ("/", "/?page=200", "/?sort=events&order=down", "/?text=model-00", "/?state=drifting&page=7", "/models/m")


def main(argv: Sequence[str] | None = None) -> int:
    """Print the first read of the store and, for each path, the server time at the median and the 95th percentile."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=int, default=20_000)
    parser.add_argument("--requests", type=int, default=60)
    asked = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/store"
        store = write(url)
        with store.part(DETECTOR, 0).write() as connection:
            row = dict(connection.execute(select(models).where(models.c.model == "m")).mappings().one())
            connection.execute(insert(models), [{**row, "model": f"model-{number:05d}"} for number in range(asked.models)])
        store.close()
        backend = StoreBackend(url)
        began = time.perf_counter()
        backend.fleet()
        print(f"{asked.models} models, first read of the store: {time.perf_counter() - began:.2f} s")
        page = TestClient(create(backend, Access()), base_url="http://127.0.0.1", client=("127.0.0.1", 5))
        for path in _PATHS:
            took_ms = []
            for _ in range(asked.requests):
                began = time.perf_counter()
                assert page.get(path).status_code == 200
                took_ms.append(1000 * (time.perf_counter() - began))
            print(f"{path:30} median {np.median(took_ms):6.1f} ms   p95 {np.quantile(took_ms, 0.95):6.1f} ms")
        print(f"largest memory of the process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")
        backend.close()
    return 0
