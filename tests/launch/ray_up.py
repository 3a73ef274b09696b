"""Launches cluster.yaml for real on pretend machines of this one: from `ray up`, through a job and a study, to `ray down`.

    python -m tests.launch.ray_up        (or: make test-launch)

Nothing of cluster.yaml is changed but what only AWS has (the provider and its node types) and where packages come from (no
registry is reached: Ray is borrowed from this interpreter, the wheel is built and installed). So `ray stop`, the ports, the
token, the file mounts, the environment file and the system configuration are the real ones, and the worker is started by Ray's
own autoscaler over SSH.

Needs root (for namespaces), sshd, rsync and the extras `jobs` and `postgres`; exits 77 with the reason where it lacks one.
Takes about three minutes.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import yaml

from tests.database import Postgres
from tests.launch import machines

PASSWORD: Final = "launch-secret-do-not-print"  # the run fails where any log or output holds it
HEAD_IP: Final = "10.77.0.1"
WORKER_IPS: Final = ["10.77.0.2"]
PRINTED: list[str] = []


def log(text: str) -> None:
    PRINTED.append(text)
    print(f"[{time.strftime('%H:%M:%S')}] {text}", flush=True)


def step(command: str, *, fails: bool = False, timeout_s: float = 120, **environment: str) -> str:
    """Run a command of the desk, show what it printed, and give it. Ends the run where it fails (or does not, if it should)."""
    log(f"desk$ {' '.join([*(f'{name}={value}' for name, value in environment.items()), command])}")
    began = time.monotonic()
    output = Path.home() / "output"
    with output.open("w") as file:
        process = subprocess.Popen(
            ["bash", "-c", command],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=os.environ | environment,
        )
        try:
            code: int | str = process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            code = f"nothing within {timeout_s:.0f} s"
    shown = re.sub(r"\x1b\[[0-9;]*m", "", output.read_text()).rstrip()
    log("\n    ".join(["", *shown.splitlines()[-40:]]))
    log(f"    = {code} after {time.monotonic() - began:.1f} s")
    claim(bool(code) == fails, f"{command.partition(' -- ')[0]!r} {'fails' if fails else 'succeeds'}")
    return shown


def claim(true: bool, what: str) -> None:
    log(f"{'ok' if true else 'NOT SO'}: {what}")
    if not true:
        raise SystemExit(1)


# --- the cluster's file


def local(cluster: dict[str, Any], key: Path) -> dict[str, Any]:
    """Exchange the provider: what only AWS has goes, everything else stays."""
    cluster = dict(cluster)
    for gone in ("available_node_types", "head_node_type", "head_setup_commands"):
        del cluster[gone]
    cluster["provider"] = {"type": "local", "head_ip": HEAD_IP, "worker_ips": WORKER_IPS}
    cluster["auth"] = {"ssh_user": cluster["auth"]["ssh_user"], "ssh_private_key": str(key)}
    cluster["max_workers"] = cluster["min_workers"] = len(WORKER_IPS)
    # Ray 2.60's second autoscaler forgets the head of a `local` cluster and never starts a worker; the first one does.
    first = "RAY_enable_autoscaler_v2=0 ray start --head"
    cluster["head_start_ray_commands"] = [c.replace("ray start --head", first) for c in cluster["head_start_ray_commands"]]
    cluster["setup_commands"] = [offline(command) for command in cluster["setup_commands"]]
    return cluster


def offline(command: str) -> str:
    """Take Ray and the libraries from this interpreter, and the wheel from the mount, instead of from a registry."""
    if "venv ~/venv" in command:
        return f"test -x ~/venv/bin/python || {sys.executable} -m venv --without-pip ~/venv"
    if "pip install" not in command:
        return command
    site = next(path for path in sys.path if path.endswith("site-packages"))
    pip = f"{sys.executable} -m pip --python ~/venv/bin/python install --quiet --no-index --no-deps --force-reinstall"
    return (
        f"echo {site} > ~/venv/lib/python3.{sys.version_info.minor}/site-packages/borrowed.pth"
        f" && {pip} --no-warn-script-location ~/dist/visutility-*.whl"
        " && printf '#!/bin/sh\\nexec ~/venv/bin/python -m ray.scripts.scripts \"$@\"\\n' > ~/venv/bin/ray"
        " && chmod +x ~/venv/bin/ray"
    )


def build_wheel() -> Path:
    """Build the wheel as `make wheel` does, while there is still a network for the build's own packages."""
    folder = machines.ROOT / "build" / "launch"
    shutil.rmtree(folder, ignore_errors=True)
    step(f"{sys.executable} -m pip wheel --quiet --no-deps -w {folder} {machines.ROOT}")
    return next(folder.glob("visutility-*.whl"))


def furnish(desk: Path, wheel: Path, key: Path, storage: str) -> None:
    """Lay out what a person has next to cluster.yaml."""
    (desk / "dist").mkdir()
    shutil.copy(wheel, desk / "dist")
    (desk / "settings").mkdir()
    shutil.copy(machines.ROOT / "deploy" / "visutility.yaml", desk / "settings")
    shutil.copytree(machines.ROOT / "tests" / "launch" / "job", desk / "job")
    cluster = local(yaml.safe_load((machines.ROOT / "cluster.yaml").read_text()), key)
    (desk / "cluster.yaml").write_text(yaml.safe_dump(cluster, sort_keys=False))
    (desk / "typo.yaml").write_text(yaml.safe_dump(cluster | {"min_worker": 2}, sort_keys=False))
    example = (machines.ROOT / "deploy" / "visutility.env.example").read_text()
    (desk / "settings" / "visutility.env").write_text(re.sub("VISUTILITY_STORAGE=.*", f"VISUTILITY_STORAGE={storage}", example))


# --- what is seen


def on(machine: machines.Machine, command: str, timeout_s: float = 60) -> str:
    return machine.run(command, timeout_s).stdout


def ray_processes(machine: machines.Machine) -> list[str]:
    return [
        line for line in on(machine, "ps -eo args").splitlines() if "raylet" in line or "gcs_server" in line or "ray::" in line
    ]


def until(true: Any, what: str, deadline_s: float) -> None:
    began = time.monotonic()
    while not true():
        if time.monotonic() - began > deadline_s:
            claim(False, f"{what} within {deadline_s:.0f} s")
        time.sleep(1)
    log(f"ok: {what} ({time.monotonic() - began:.0f} s)")


def status(timeout_s: float = 60) -> dict[str, Any]:
    told = step('ray exec cluster.yaml "visutility status -o json" 2>/dev/null', timeout_s=timeout_s)
    found: dict[str, Any] = json.loads(told[told.index("{") : told.rindex("}") + 1])
    return found


@contextmanager
def tunnel(key: Path, *forward: str) -> Iterator[None]:
    """Forward a port through SSH: `-L` to the head's dashboard (as `ray dashboard cluster.yaml` does), `-R` from the head."""
    options = ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"]
    process = subprocess.Popen(["ssh", "-N", "-i", str(key), *options, *forward, f"ubuntu@{HEAD_IP}"])
    try:
        time.sleep(2)
        yield
    finally:
        process.terminate()
        process.wait()


# --- the run


def launch(nodes: list[machines.Machine]) -> None:
    refused = step("ray up -y --no-config-cache typo.yaml", fails=True)
    claim("min_worker" in refused, "the error names the unknown key")
    claim(not ray_processes(nodes[0]), "an invalid file starts nothing")
    step("ray get-auth-token --generate >/dev/null")
    step("ray up -y --no-config-cache cluster.yaml")
    listed = "RAY_LOG_TO_STDERR=0 ray list nodes --format json 2>/dev/null"
    until(lambda: on(nodes[0], listed).count('"ALIVE"') == len(nodes), "every machine is a node of the cluster", 120)


def refuse_a_store_that_a_node_cannot_reach(nodes: list[machines.Machine], key: Path) -> None:
    """The head reaches this database on its loopback address; the worker has none there."""
    with tunnel(key, "-R", f"5433:{machines.DESK_IP}:5432"):
        near = f"postgresql://visutility:{PASSWORD}@127.0.0.1:5433/postgres"
        on(nodes[0], f"echo 'storage: {near}' > near.yaml; chmod 600 near.yaml")
        refused = step('ray exec cluster.yaml "visutility start near.yaml"', fails=True)
    claim("cannot be reached from node" in refused, "the error names the node that cannot reach the store")
    left = on(nodes[0], "visutility status 2>&1; rm near.yaml")
    claim("no system runs" in left, "nothing was started")


def use(nodes: list[machines.Machine], key: Path) -> None:
    step('ray exec cluster.yaml "visutility start ~/settings/visutility.yaml"')
    with tunnel(key, "-L", "8265:127.0.0.1:8265"):
        submit = "ray job submit --address http://127.0.0.1:8265 --working-dir job -- python train.py"
        step(submit, fails=True, RAY_AUTH_TOKEN="wrong")
        printed = step(submit)
    told = json.loads(next(line for line in printed.splitlines() if line.startswith("{") and '"trials"' in line))
    claim(told["flush"]["pending"] == told["flush"]["dropped"] == 0, f"{told['logged']} events are acknowledged")
    claim(told["trials"] == 16 and len(told["trial_nodes"]) == len(nodes), f"16 trials ran on {len(told['trial_nodes'])} nodes")
    seen = status()
    claim(seen["models"]["launch"]["events"] == told["logged"], "status counts exactly what was logged")
    claim(seen["retrains"]["done"] == 1, "one retrain was dispatched and done")
    claim(len({actor["node"] for actor in seen["actors"].values()}) == len(nodes), "the actors are spread over the machines")
    texts = [on(node, f"curl -s http://{node.ip}:8090/metrics | grep visutility") for node in nodes]
    metrics = "\n".join(texts)
    claim(
        "visutility_events_total{" in metrics and 'model="launch"' in metrics, "Prometheus would read the metrics from a node"
    )
    log(
        "\n".join(re.sub(r"\{.*?(model|build)=", r"{...\1=", line) for line in metrics.splitlines() if line.startswith("ray_"))[
            :3000
        ]
    )


def no_secret(nodes: list[machines.Machine]) -> None:
    for node in nodes:
        found = on(node, f"grep -rl {PASSWORD} /tmp/ray/ 2>/dev/null")
        claim(not found.strip(), f"no log on {node.name} holds the store's password {found}")
    claim(not any(PASSWORD in text for text in PRINTED), "no command printed the store's password")


def take_down(nodes: list[machines.Machine]) -> None:
    step("ray down -y cluster.yaml")
    claim(not ray_processes(nodes[0]), "`ray down` ended Ray on the head")
    for worker in nodes[1:]:  # machines of one's own go on running: docs/how-to/run-on-a-cluster.md says so
        on(worker, "ray stop")
    claim(not any(ray_processes(node) for node in nodes), "`ray stop` on each worker ended the rest")


def main() -> int:
    wheel = None if machines.inside() else build_wheel()
    machines.enter("tests.launch.ray_up", [*sys.argv[1:], str(wheel)])
    desk = Path.home() / "desk"
    desk.mkdir()
    programs = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    os.environ.update(RAY_AUTH_MODE="token", RAY_USAGE_STATS_ENABLED="0", PATH=programs)
    key = machines.throw_away_key(desk)
    database = Postgres(machines.DESK_IP, 5432, PASSWORD)
    furnish(desk, Path(sys.argv[-1]), key, database.url)
    os.chdir(desk)
    nodes = [machines.Machine(f"node{number}", ip, key) for number, ip in enumerate([HEAD_IP, *WORKER_IPS])]
    for node in nodes:
        node.start()
    log(f"{len(nodes)} machines and a database are up; Ray here is {step('ray --version')}")
    launch(nodes)
    refuse_a_store_that_a_node_cannot_reach(nodes, key)
    use(nodes, key)
    no_secret(nodes)
    take_down(nodes)
    log("the cluster is gone; the store is not: the next one carries on")
    launch_again(nodes)
    for node in nodes:
        node.kill()
    database.stop()
    log("all of it is so")
    return 0


def launch_again(nodes: list[machines.Machine]) -> None:
    step("ray up -y --no-config-cache cluster.yaml")
    step('ray exec cluster.yaml "visutility start ~/settings/visutility.yaml"')
    seen = status()
    claim(seen["models"]["launch"]["events"] > 0 and seen["retrains"]["done"] == 1, "a new cluster on the same store knows all")
    take_down(nodes)


if __name__ == "__main__":
    sys.exit(main())
