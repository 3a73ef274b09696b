"""cluster.yaml is valid by Ray's own validation, and by the rules that Ray's validation leaves out."""

import copy
import json
import logging
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray
import yaml
from ray import _raylet
from ray.autoscaler._private.util import prepare_config, validate_config

from actors import config
from tests.known import some

Config: Any = vars(_raylet)["Config"]  # compiled, without stubs
ROOT = Path(__file__).parents[2]


@pytest.fixture
def cluster() -> dict[str, Any]:
    logging.getLogger("ray.autoscaler").setLevel(logging.ERROR)
    read: dict[str, Any] = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    return read


def validated(cluster: dict[str, Any]) -> dict[str, Any]:
    prepared = prepare_config(copy.deepcopy(cluster))
    validate_config(prepared)
    return prepared


def test_it_is_valid_by_rays_own_validation(cluster: dict[str, Any]) -> None:
    prepared = validated(cluster)
    assert prepared["available_node_types"].keys() == {"head", "steady", "spot"}


@pytest.mark.parametrize("key", ["min_worker", "head_setup_command", "health_check"])
def test_an_unknown_key_is_an_error_that_names_it(cluster: dict[str, Any], key: Any) -> None:
    cluster[key] = 1
    with pytest.raises(jsonschema.ValidationError, match=key):
        validated(cluster)


def test_a_missing_resource_and_a_wrong_type_are_errors(cluster: dict[str, Any]) -> None:
    del cluster["available_node_types"]["spot"]["resources"]
    with pytest.raises(jsonschema.ValidationError, match="resources"):
        validated(cluster)
    cluster["available_node_types"]["spot"]["resources"] = {"CPU": "many"}
    with pytest.raises(jsonschema.ValidationError, match="many"):
        validated(cluster)


def test_no_node_type_holds_a_key_that_ray_would_pass_over(cluster: dict[str, Any]) -> None:
    # Ray's schema forbids unknown keys at the top alone: `min_worker: 2` in a node type would start no worker, in silence.
    known = {"resources", "node_config", "min_workers", "max_workers", "labels", "idle_timeout_s"}
    for name, node_type in cluster["available_node_types"].items():
        assert node_type.keys() <= known, name


def test_a_node_that_is_gone_is_noticed_within_two_seconds(cluster: dict[str, Any]) -> None:
    told = re.search("--system-config='(.*)'", " ".join(cluster["head_start_ray_commands"]))
    health = json.loads(some(told)[1])
    assert health["health_check_failure_threshold"] * health["health_check_period_ms"] <= 2000
    assert health.keys() == {name for name in dir(Config) if name.startswith("health_check_")}, "Ray knows each of them"


def test_every_node_gets_the_wheel_the_settings_the_secrets_and_the_same_ray(cluster: dict[str, Any]) -> None:
    mounts = cluster["file_mounts"]
    assert {"./dist", "./settings"} <= set(mounts.values())
    settings = config.load(ROOT / "deploy" / "visutility.yaml")
    assert settings.storage == "${VISUTILITY_STORAGE}"
    assert "worker_setup_commands" not in cluster, "the common setup_commands install the wheel, on the head and on workers"
    assert any(f"ray[default]=={ray.__version__}" in command for command in cluster["setup_commands"])
    assert any("visutility-*.whl" in command for command in cluster["setup_commands"])


def test_no_secret_is_in_a_tracked_file(cluster: dict[str, Any]) -> None:
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    assert "/settings/" in ignored
    example = dict(
        line.split("=", 1) for line in (ROOT / "deploy" / "visutility.env.example").read_text().splitlines() if "=" in line
    )
    assert example["RAY_AUTH_MODE"] == "token"
    assert "CHANGE-ME" in example["VISUTILITY_STORAGE"]


def test_nothing_but_ssh_comes_in_from_outside(cluster: dict[str, Any]) -> None:
    permissions = cluster["provider"]["security_group"]["IpPermissions"]
    assert [(rule["FromPort"], rule["ToPort"]) for rule in permissions] == [(22, 22)]
    assert "--dashboard-host=127.0.0.1" in " ".join(cluster["head_start_ray_commands"])
