"""The KubeRay manifests hold no field that KubeRay does not know.

The API server drops an unknown field in silence (`kubectl apply` warns at best), so a typing error would cost the fault
tolerance or the token without a word. `FIELDS` is our own list of the fields we use, written after reading KubeRay 1.7's
published CRDs; point VISUTILITY_KUBERAY_CRDS at `ray-operator/config/crd/bases` of a kuberay checkout and the manifests (and
the list) are held against the published schema itself, strictly.
"""

import copy
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

KUBERAY = Path(__file__).parents[2] / "deploy" / "kuberay"
ANY = {"*": str}
TEMPLATE = {"metadata": {"annotations": ANY, "labels": ANY}, "spec": None}  # a Pod: Kubernetes' own, checked by the CRD only
GROUP = {"rayStartParams": ANY, "template": TEMPLATE}
HEAD = {"name": str, "labels": ANY}
FIELDS: dict[str, Any] = {
    "RayCluster": {
        "apiVersion": str,
        "kind": str,
        "metadata": HEAD,
        "spec": {
            "rayVersion": str,
            "authOptions": {"mode": str},
            "gcsFaultToleranceOptions": {
                "redisAddress": str,
                "redisPassword": {"valueFrom": {"secretKeyRef": {"name": str, "key": str}}},
            },
            "enableInTreeAutoscaling": bool,
            "autoscalerOptions": {"idleTimeoutSeconds": int},
            "headGroupSpec": GROUP,
            "workerGroupSpecs": [GROUP | {"groupName": str, "replicas": int, "minReplicas": int, "maxReplicas": int}],
        },
    },
    "RayJob": {
        "apiVersion": str,
        "kind": str,
        "metadata": HEAD,
        "spec": {
            "clusterSelector": ANY,
            "submissionMode": str,
            "entrypoint": str,
            "entrypointNumCpus": int,
            "runtimeEnvYAML": str,
        },
    },
}


def complaints(value: Any, shape: Any, path: str) -> list[str]:
    """Hold a value against our list: one line for each field that is not on it or of another type."""
    if shape is None:
        return []
    if isinstance(shape, list):
        return [line for index, item in enumerate(value) for line in complaints(item, shape[0], f"{path}[{index}]")]
    if not isinstance(shape, dict):
        return [] if type(value) is shape else [f"{path}: must be {shape.__name__}, got {value!r}"]
    found = []
    for key, item in value.items():
        if "*" in shape or key in shape:
            found += complaints(item, shape.get(key, shape.get("*")), f"{path}.{key}")
        else:
            found.append(f"{path}.{key}: KubeRay knows no such field")
    return found


def strict(value: Any, schema: dict[str, Any], path: str) -> list[str]:
    """Hold a value against a CRD's schema as `kubectl --validate=strict` would: unknown fields, types, required, enums."""
    if schema.get("x-kubernetes-preserve-unknown-fields"):
        return []
    if schema.get("x-kubernetes-int-or-string"):
        return [] if isinstance(value, (int, str)) else [f"{path}: must be a number or a text"]
    kinds: dict[str, type | tuple[type, ...]] = {
        "object": dict,
        "array": list,
        "string": str,
        "integer": int,
        "boolean": bool,
        "number": (int, float),
    }
    kind = schema.get("type")
    if kind and (not isinstance(value, kinds[kind]) or (isinstance(value, bool) and kind != "boolean")):
        return [f"{path}: must be {kind}, got {value!r}"]
    if "enum" in schema and value not in schema["enum"]:
        return [f"{path}: must be one of {schema['enum']}, got {value!r}"]
    if kind == "array":
        return [line for index, item in enumerate(value) for line in strict(item, schema["items"], f"{path}[{index}]")]
    return strict_fields(value, schema, path) if kind == "object" else []


def strict_fields(value: dict[str, Any], schema: dict[str, Any], path: str) -> list[str]:
    found = [f"{path}.{key}: is required" for key in schema.get("required", []) if key not in value]
    known, more = schema.get("properties", {}), schema.get("additionalProperties")
    for key, item in value.items():
        if key in known or isinstance(more, dict):
            found += strict(item, known.get(key, more), f"{path}.{key}")
        elif known:
            found.append(f"{path}.{key}: KubeRay knows no such field")
    return found


def documents(*kinds: str) -> list[dict[str, Any]]:
    loaded = [item for path in sorted(KUBERAY.glob("*.yaml")) for item in yaml.safe_load_all(path.read_text())]
    return [item for item in loaded if not kinds or item["kind"] in kinds]


def published() -> dict[str, dict[str, Any]]:
    folder = os.environ.get("VISUTILITY_KUBERAY_CRDS")
    if not folder:
        pytest.skip("set VISUTILITY_KUBERAY_CRDS to ray-operator/config/crd/bases of a kuberay checkout")
    schemas = {}
    for path in Path(folder).glob("ray.io_*.yaml"):
        crd = yaml.load(path.read_text(), yaml.CSafeLoader)
        newest = next(version for version in crd["spec"]["versions"] if version["name"] == "v1")
        schemas[crd["spec"]["names"]["kind"]] = newest["schema"]["openAPIV3Schema"]
    return schemas


def test_every_field_is_one_that_kuberay_knows() -> None:
    for item in documents("RayCluster", "RayJob"):
        assert complaints(item, FIELDS[item["kind"]], item["kind"]) == []


@pytest.mark.parametrize("check", ["ours", "published"])
def test_a_misspelt_field_and_a_wrong_type_are_found(check: Any) -> None:
    broken = copy.deepcopy(documents("RayCluster")[0])
    broken["spec"]["gcsFaultTolerance"] = broken["spec"].pop("gcsFaultToleranceOptions")
    broken["spec"]["headGroupSpec"]["rayStartParams"]["num-cpus"] = 0
    if check == "ours":
        found = complaints(broken, FIELDS["RayCluster"], "RayCluster")
    else:
        found = strict(broken, published()["RayCluster"], "RayCluster")
    assert len(found) == 2
    assert any("gcsFaultTolerance" in line for line in found)
    assert any("num-cpus" in line for line in found)


def test_the_manifests_are_valid_against_the_published_crds() -> None:
    schemas = published()
    for item in documents("RayCluster", "RayJob"):
        assert strict(item, schemas[item["kind"]], item["kind"]) == []


def test_what_the_manifests_refer_to_is_there() -> None:
    cluster = documents("RayCluster")[0]
    assert {item["spec"]["clusterSelector"]["ray.io/cluster"] for item in documents("RayJob")} == {cluster["metadata"]["name"]}
    redis = documents("Service")[0]
    port = redis["spec"]["ports"][0]["port"]
    assert cluster["spec"]["gcsFaultToleranceOptions"]["redisAddress"] == f"{redis['metadata']['name']}:{port}"
    policy = documents("NetworkPolicy")[0]
    assert policy["spec"]["podSelector"]["matchLabels"] == {"ray.io/cluster": cluster["metadata"]["name"]}


def test_no_manifest_holds_a_secret() -> None:
    assert documents("Secret") == []
    for item in documents("RayCluster"):
        groups = [item["spec"]["headGroupSpec"], *item["spec"]["workerGroupSpecs"]]
        for container in (each for group in groups for each in group["template"]["spec"]["containers"]):
            assert all("secretKeyRef" in variable["valueFrom"] for variable in container["env"])
