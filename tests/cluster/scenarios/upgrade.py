"""An upgrade: two builds of the package, a cluster that has neither installed, a producer that logs all the while."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.cluster.alone import ROOT
from tests.cluster.scenarios.nodes import cluster_of
from tests.speed import slow

# What each process below does with the package that its PYTHONPATH holds; Ray ships that folder to the workers.
START = """
import json, os, sys, ray
ray.init(runtime_env={"py_modules": [os.environ["SHIPPED"]]}, log_to_driver=False, logging_level="ERROR")
import actors
print(json.dumps(actors.start({"storage": sys.argv[1]}).status()))
"""
STOP = "import actors; actors.connect().stop()"
STATUS = "import actors, json; print(json.dumps(actors.connect().status()))"
PRODUCE = """
import actors, json, os, pathlib, sys, time
system = actors.connect()
logged = 0
while not pathlib.Path(sys.argv[1]).exists():
    for _ in range(10):
        system.metrics.log({"accuracy": 0.93}, model="fraud", version="v1")
        logged += 1
    pathlib.Path(sys.argv[2] + ".new").write_text(str(logged))
    os.replace(sys.argv[2] + ".new", sys.argv[2])  # at once: the other side reads it at any moment
    time.sleep(0.05)
print(json.dumps({"logged": logged} | system.metrics.flush(timeout_s=300)))
"""


def build(folder: str, name: str, change: str) -> Path:
    """Make a build of the package that differs from the others by `change`."""
    package = Path(folder) / name / "actors"
    shutil.copytree(ROOT / "actors", package, ignore=shutil.ignore_patterns("__pycache__"))
    with (package / "build.py").open("a") as source:
        source.write(f"# {change}\n")
    return package


def python(package: Path, code: str, *arguments: str) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(package.parent), "SHIPPED": str(package), "VISUTILITY_BUILD": ""}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.Popen(
        command, env=environment, cwd=package.parent, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def run(package: Path, code: str, *arguments: str, fails: bool = False) -> str:
    process = python(package, code, *arguments)
    out, err = process.communicate(timeout=slow(100))
    assert bool(process.returncode) == fails, err[-3000:]
    return err if fails else out.strip()


def upgrade(folder: str) -> dict[str, Any]:
    """Start the old build, refuse the new one, stop, start the new one; count what a producer logged all the while."""
    old, new = build(folder, "old", "as it was"), build(folder, "new", "as it is now")
    store, over, progress = f"sqlite:///{folder}/store", f"{folder}/over", Path(folder) / "progress"
    with cluster_of(0, num_cpus=2) as cluster:
        os.environ["RAY_ADDRESS"] = cluster.address
        first = json.loads(run(old, START, store))
        producer = python(old, PRODUCE, over, str(progress))
        beyond(progress, 0)
        # Its driver is gone; an actor that dies now must still find the package that was shipped.
        os.kill(first["actors"]["broadcaster"]["pid"], signal.SIGKILL)
        refused = run(new, START, store, fails=True)
        beyond(progress, int(progress.read_text()))
        run(new, STOP)
        beyond(progress, int(progress.read_text()))
        upgraded = json.loads(run(new, START, store))["build"]
        beyond(progress, int(progress.read_text()))
        Path(over).touch()
        out, err = producer.communicate(timeout=slow(90))
        told = json.loads(out.splitlines()[-1])
        seen = json.loads(run(new, STATUS))
    assert told["pending"] == told["dropped"] == 0, (told, err[-2000:])
    assert seen["models"]["fraud"]["events"] == told["logged"], "the upgrade cost no event, and none was counted twice"
    assert seen["build"] == upgraded != first["build"]
    return {"old": first["build"], "new": upgraded, "refused": refused.splitlines()[-1], "logged": told["logged"]}


def beyond(progress: Path, count: int) -> None:
    """Wait until the producer has gone on for a while."""
    deadline = time.monotonic() + slow(60)
    while not progress.exists() or int(progress.read_text()) < count + 50:
        assert time.monotonic() < deadline, "the producer stands still"
        time.sleep(0.1)
