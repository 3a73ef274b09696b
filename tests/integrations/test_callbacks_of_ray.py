"""Callbacks in Ray Train and Ray Tune, in a Ray of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import ray

from tests.unit.integrations.recording import Recording

pytest.importorskip("pyarrow")
pytest.importorskip("fsspec")
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def cluster() -> Any:
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@ray.remote(num_cpus=0)
class Held:
    """Keeps what callbacks in other processes have logged."""

    def __init__(self) -> None:
        self.recording = Recording()

    def add(self, method: str, arguments: tuple[Any, ...], said: dict[str, Any]) -> None:
        getattr(self.recording, method)(*arguments, **said)

    def get(self) -> Recording:
        return self.recording


class Remote:
    """The system of a callback that runs in another process."""

    def __init__(self, held: Any) -> None:
        self.held = held

    @property
    def metrics(self) -> Remote:
        return self

    def log(self, *arguments: Any, **said: Any) -> None:
        ray.get(self.held.add.remote("log", arguments, said))

    def promise(self, *arguments: Any, **said: Any) -> None:
        ray.get(self.held.add.remote("promise", arguments, said))

    def flush(self, timeout_s: float) -> None:
        pass


def test_ray_train_logs_what_the_first_worker_reports(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    from actors.integrations.ray_train import VisuTility

    def train() -> None:
        import ray.train

        for step in range(3):
            accuracy = 0.5 + step / 10 + ray.train.get_context().get_world_rank() / 100
            ray.train.report({"loss": 1.0 - step / 10, "val_accuracy": accuracy})

    held = Held.remote()  # type: ignore[attr-defined]
    callback = VisuTility("fraud", "v8", n=50, system=Remote(held))
    run = RunConfig(name="run", storage_path=str(tmp_path), callbacks=[callback])
    TorchTrainer(train, scaling_config=ScalingConfig(num_workers=1), run_config=run).fit()
    found: Recording = ray.get(held.get.remote())
    assert found.column("val_accuracy") == [0.5, 0.6, 0.7]
    assert found.column("train_loss") == [1.0, 0.9, 0.8]
    assert found.promises[-1] == {"metrics": {"accuracy": 0.7}, "n": 50, "version": "v8", "source": "hold_out"}


def test_ray_tune_logs_each_trial_as_a_version(tmp_path: Path) -> None:
    from ray import tune

    from actors.integrations.ray_tune import VisuTility

    def objective(config: dict[str, Any]) -> None:
        for step in range(2):
            tune.report({"val_accuracy": config["x"] + step / 10})

    system = Recording()
    tuner = tune.Tuner(
        objective,
        param_space={"x": tune.grid_search([0.1, 0.2])},
        run_config=tune.RunConfig(storage_path=str(tmp_path), verbose=0, callbacks=[VisuTility("fraud", n=50, system=system)]),
    )
    results = tuner.fit()
    assert len(results) == 2
    assert sorted(system.column("val_accuracy")) == pytest.approx([0.1, 0.2, 0.2, 0.3])
    assert len({version for version, _, _ in system.events}) == 2
    assert sorted(each["metrics"]["accuracy"] for each in system.promises) == pytest.approx([0.2, 0.3])
