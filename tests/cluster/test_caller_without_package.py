"""A job whose environment has ray alone calls the broadcaster by name, with plain values, and gets plain values."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import ray

from actors import wire
from actors.system import System
from tests.speed import slow

# No site: the editable install's .pth is not read, so what is in site-packages is there and this package is not.
_JOB = """
import json, sys
sys.path.insert(0, {packages!r})
try:
    import actors
except ModuleNotFoundError:
    pass
else:
    raise SystemExit("the package can be imported: this proves nothing")
import numpy, ray
ray.init(address={address!r}, logging_level="ERROR", log_to_driver=False)
{body}
"""


def job(folder: Path, body: str) -> Any:
    """Run lines in such an environment; give what they put into `reply`."""
    packages = str(Path(ray.__file__).parents[1])
    script = folder / "job.py"
    text = _JOB.format(packages=packages, address=ray.get_runtime_context().gcs_address, body=textwrap.dedent(body))
    script.write_text(text + "\nprint('REPLY', json.dumps(reply))\n")
    command = [sys.executable, "-I", "-S", str(script)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=slow(90), check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(re.findall("REPLY (.*)", done.stdout)[-1])


def documented_lines(namespace: str) -> str:
    """Return the lines of wire's docstring that a job copies."""
    lines = textwrap.dedent("\n".join(line for line in str(wire.__doc__).splitlines() if line.startswith("    ")))
    assert len(lines.strip().splitlines()) == 3
    assert 'namespace="visutility"' in lines
    return lines.replace('namespace="visutility"', f"namespace={namespace!r}")


def begun(system: System, model: str) -> None:
    """Log one event, so that the detector of `model` is there: a call that comes before it is answered `unavailable`."""
    system.metrics.log({"accuracy": 0.9}, model=model, version="v1")
    assert system.metrics.flush(timeout_s=slow(60))["pending"] == 0


def test_the_documented_lines_log_an_event(shared_system: System, tmp_path: Path) -> None:
    begun(shared_system, "fraud")
    body = documented_lines(shared_system.namespace).replace("ray.get(broadcaster", "reply = ray.get(broadcaster")
    assert job(tmp_path, body) == {"accepted": 1, "duplicates": 0, "rejected": []}
    assert shared_system.status()["models"]["fraud"]["events"] == 2


def test_plain_values_numpy_and_mistakes_cross_the_border(shared_system: System, tmp_path: Path) -> None:
    begun(shared_system, "alone")
    body = f"""
    broadcaster = ray.get_actor("broadcaster", namespace={shared_system.namespace!r})
    def call(method, **arguments):
        try:
            return ray.get(getattr(broadcaster, method).remote(**arguments), timeout={slow(30)})
        except ray.exceptions.RayTaskError as error:
            return [type(error.cause).__name__, str(error.cause)]
    good = {{"model_name": "alone", "accuracy": numpy.float32(0.5), "extras": {{"steps": numpy.int64(3), "region": "eu"}}}}
    reply = {{
        "numbered": call("broadcast", events=[good, good], producer="job-1", sequence=0),
        "again": call("broadcast", events=[good, good], producer="job-1", sequence=0),
        "mixed": call("broadcast", events=[good, {{**good, "accuracy": 1.5}}, {{**good, "acuracy": 1.0}}, 7]),
        "bad value": call("broadcast", events=[{{**good, "accuracy": float("nan"), "n": 200}}, {{**good, "n": 0}}]),
        "gap": call("broadcast", events=[good], producer="job-1", sequence=9),
        "no list": call("broadcast", events="all of them"),
        "too much": call("broadcast", events=[{{**good, "extras": {{"x": "x" * 16000}}}}] * 640),
        "broken": call("ingest", model="alone", producer="job-1", sequence=2, payload=b"no msgpack"),
        "unknown": call("explain", episode="none"),
        "high water": call("high_water", model="alone", producer="job-1"),
        "baseline": call("baseline", model="alone", version="v9", values={{"accuracy": numpy.full(100, 0.9)}}),
    }}
    """
    reply = job(tmp_path, body)
    assert reply["numbered"]["accepted"] == 2
    assert (reply["again"]["accepted"], reply["again"]["duplicates"]) == (0, 2)
    assert reply["mixed"]["accepted"] == 1
    assert [(r["index"], r["field"]) for r in reply["mixed"]["rejected"]] == [(1, "accuracy"), (2, "acuracy"), (3, "event")]
    assert (reply["bad value"]["accepted"], reply["bad value"]["bad_values"]) == (1, 1)
    assert [(r["index"], r["field"]) for r in reply["bad value"]["rejected"]] == [(1, "n")]
    kinds = {name: reply[name][0] for name in ("gap", "no list", "too much", "broken", "unknown")}
    assert kinds == {
        "gap": "ValueError",
        "no list": "ValueError",
        "too much": "ValueError",
        "broken": "ValueError",
        "unknown": "KeyError",
    }
    assert "bytes in one call" in reply["too much"][1]
    assert reply["high water"]["high_water"] == 2
    assert reply["baseline"]["status"] == "learned"
    assert np.isclose(shared_system.status()["models"]["alone"]["versions"]["v9"]["metrics"]["accuracy"]["baseline"], 0.9)
