"""One run: a system, producers, consumers, faults; then all pending work is finished and compared."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from sqlalchemy import select

import actors
from actors.cluster import deployment
from actors.detection import stored as detector_stored
from actors.detection import tables as detector_tables
from actors.detection.stored import detector_parts
from actors.retraining import tables as dispatcher_tables
from actors.retraining.tables import DISPATCHER
from actors.storage import Store
from actors.system import System
from tests.chaos import checker, ledger, processes
from tests.chaos import controls as patches
from tests.chaos.crew import CONSUMERS, PRODUCERS, Crew, first_after
from tests.chaos.database import Postgres
from tests.chaos.faults import Fault, Faults, cross
from tests.chaos.launches import Receiver
from tests.chaos.machine import Machine
from tests.chaos.report import Report
from tests.chaos.scenario import FOLDER_VARIABLE, Scenario, document
from tests.chaos.zombies import Zombies
from tests.speed import slow

logger = logging.getLogger(__name__)

POINTS_VARIABLE: Final = "VISUTILITY_FAILPOINTS"
_FIRST_ACKS_S: Final = slow(60.0)
_SETTLED_S: Final = slow(90.0)
_DATABASE_AWAY_S: Final = 1.5

# What is done to the system while the producers run; gives the faults it did.
Plan = Callable[["Run"], None]


class Run:
    """What a plan may use."""

    def __init__(self, scenario: Scenario, faults: Faults, zombies: Zombies, receiver: Receiver) -> None:
        self.scenario, self.faults, self.zombies, self.receiver = scenario, faults, zombies, receiver


def random_plan(seconds: float, *, nodes: bool, cut: Callable[[], None] | None, kills: int) -> Plan:
    """Do whatever the seed says for so many seconds, and until so many actors were killed."""
    return lambda run: run.faults.until(time.monotonic() + seconds, nodes=nodes, cut=cut, kills=kills)


def campaign(
    storage: str,
    *,
    seed: int,
    seconds: float,
    events: int,
    controls: Sequence[str] = (),
    plan: Plan | None = None,
    keep: bool = False,
    phase_s: float = 6.0,
    cooldown_s: float = 4.0,
    cuts_every: int = 5,
    late_s: float = 0.0,
    crew: tuple[tuple[str, ...], int] = (PRODUCERS, CONSUMERS),
    crowd: int = 0,
    kills: int = 0,
) -> Report:
    """Run once against `storage` (a URL, or the word postgresql for a private server) and return what was found.

    `events` are logged over `seconds` by all producers together. Without a `plan`: random faults by the seed, and nodes where
    the store is a server. `controls` name protections to remove. `crew`: the kinds of producers, how many consumers.
    `cuts_every` and `late_s`: what the receiver of webhooks does to its answers. `crowd`: so many more producers of one model.
    `kills`: random faults strike until at least so many actors were killed, however slow the machine is.
    """
    folder = Path(tempfile.mkdtemp(prefix="visutility-chaos-"))
    points = folder / "points"
    points.mkdir()
    os.environ[FOLDER_VARIABLE], os.environ[POINTS_VARIABLE] = str(folder), str(points)
    if controls:
        os.environ[patches.VARIABLE] = ",".join(controls)
        patches.apply()
    postgres = Postgres() if storage == "postgresql" else None
    url = postgres.url if postgres else storage.replace("{folder}", str(folder))
    spread = url.startswith("postgresql") and plan is None
    receiver = Receiver(folder, lambda post: cuts_every > 0 and post % cuts_every == 1, late_s=late_s)

    def cut() -> None:
        if postgres is not None:
            postgres.cut()
            time.sleep(_DATABASE_AWAY_S)
            postgres.begin()

    # Ray tells of every process that dies, to standard output: that is for the result.
    with contextlib.redirect_stdout(sys.stderr), _machine(2 if spread else 0, patches.HOOK if controls else None) as machine:
        scenario = Scenario(
            folder=str(folder),
            address=machine.address,
            namespace=f"chaos-{uuid.uuid4().hex[:6]}",
            storage=url,
            seed=seed,
            events_per_s=events / seconds,
            phase_s=phase_s,
            cooldown_s=cooldown_s,
            hook_port=receiver.port,
            crowd=crowd,
        )
        chosen = plan or random_plan(seconds, nodes=spread, cut=cut if postgres else None, kills=kills)
        try:
            report = _run(scenario, machine, points, chosen, crew=Crew(scenario, *crew), receiver=receiver)
        finally:
            receiver.close()
            if postgres is not None:
                postgres.close()
    if keep or (report.breached and not controls):
        (folder / "report.json").write_text(json.dumps(report.plain(), indent=1), encoding="utf-8")
        logger.warning("the records of the run are kept in %s", folder)
    else:
        shutil.rmtree(folder, ignore_errors=True)
    return report


def _run(scenario: Scenario, machine: Machine, points: Path, plan: Plan, *, crew: Crew, receiver: Receiver) -> Report:
    zombies = Zombies(scenario.storage, lambda name: _end(name, scenario.namespace))
    system = actors.start(document(scenario), namespace=scenario.namespace)
    faults = Faults(machine, scenario.namespace, points, crew, zombies=zombies, seed=scenario.seed)
    problems = []
    began_s = time.monotonic()
    try:
        crew.begin()
        crew.wait_for_first_acks(_FIRST_ACKS_S)
        began_s = time.monotonic()
        plan(Run(scenario, faults, zombies, receiver))
        faults.calm()
        crew.thawed()
        faults.recovered()
        problems += crew.home()
        crew.look()
        seconds = time.monotonic() - began_s
        problems += _settle(scenario.storage)
    finally:
        crew.dismiss()
        _stop(system)
    for fault in faults.done:
        fault.latency_s = _latency(fault, crew)
    cross(faults.done)
    problems += [note["problem"] for note in _notes(scenario)]
    findings = checker.check(scenario.storage, Path(scenario.folder), crew.sources(), cooldown_s=scenario.cooldown_s)
    return Report(
        store="PostgreSQL" if scenario.storage.startswith("postgresql") else "SQLite",
        seed=scenario.seed,
        seconds=seconds,
        findings=findings,
        faults=faults.done,
        missed=faults.missed,
        zombies_tried=zombies.tried,
        zombies_accepted=zombies.accepted,
        problems=problems,
    )


def _end(name: str, namespace: str) -> None:
    handle = deployment.find(name, namespace)
    if handle is not None:
        processes.kill([deployment.record(handle)["pid"]])


def _latency(fault: Fault, crew: Crew) -> float | None:
    firsts = [first_after(acks, fault.struck_s) for acks in crew.acks.values()]
    return None if None in firsts else max(first for first in firsts if first is not None) - fault.struck_s


def _settle(storage: str) -> list[str]:
    """Wait until no outbox row is left and no order is pending or running; the checker finds what is left."""
    store = Store(storage)
    deadline = time.monotonic() + _SETTLED_S
    quiet = 0
    try:
        while time.monotonic() < deadline:
            quiet = quiet + 1 if _is_settled(store) else 0
            if quiet >= 3:  # when an order ends, an episode may ask again
                return []
            time.sleep(0.7)
    finally:
        store.close()
    return [f"not settled {_SETTLED_S:g} s after the last fault"]


def _is_settled(store: Store) -> bool:
    for part in detector_parts(store):
        with part.read() as connection:
            if connection.execute(select(detector_tables.outbox.c.id)).first() is not None:
                return False
            if any(record["request"]["state"] == "asking" for record in detector_stored.list_episodes(connection)):
                return False
    with store.part(DISPATCHER).read() as connection:
        under_way = select(dispatcher_tables.retrains.c.id).where(
            dispatcher_tables.retrains.c.state.in_(("pending", "running"))
        )
        return connection.execute(under_way).first() is None


def _stop(system: System) -> None:
    try:
        system.stop()
    except Exception:
        logger.exception("the system could not be stopped")


def _notes(scenario: Scenario) -> list[dict[str, Any]]:
    return ledger.notes(scenario.path("problems.jsonl"))


@contextmanager
def _machine(nodes: int, setup_hook: str | None) -> Iterator[Machine]:
    machine = Machine(nodes=nodes, setup_hook=setup_hook)
    try:
        yield machine
    finally:
        machine.close()
