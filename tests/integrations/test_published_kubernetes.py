"""Kubernetes as a target, by its published API: no cluster was there to try it on.

The schemas are those of each version's OpenAPI document (package kubernetes-validate, the strict ones), paths and parameters
those of the official client, which is generated from it (package kubernetes).
"""

from __future__ import annotations

import asyncio
import functools
import json
import re
from collections.abc import Iterator
from importlib import resources
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

import jsonschema
import pytest
import referencing

from actors.config.remote import KubernetesHandlerSettings
from actors.retraining.handlers.kubernetes import job_of
from actors.retraining.rules import orders
from actors.retraining.rules.delivery import Done, Launched
from tests.contracts.pretended import TOKEN, Kubernetes, Said
from tests.contracts.test_handlers import an_order
from tests.contracts.test_remote_handlers import handler_of

validate = pytest.importorskip("kubernetes_validate")
client = pytest.importorskip("kubernetes.client")
# From the one that labels a Job's pods `batch.kubernetes.io/job-name`, by which its result is found.
VERSIONS = [each for each in dict.fromkeys(validate.utils.all_versions()) if int(each.split(".")[1]) >= 27]
NEWEST = VERSIONS[-1]
META, BATCH, CORE = "io.k8s.apimachinery.pkg.apis.meta.v1", "io.k8s.api.batch.v1", "io.k8s.api.core.v1"
KINDS = {
    "Job": f"{BATCH}.Job",
    "PodList": f"{CORE}.PodList",
    "Status": f"{META}.Status",
    "DeleteOptions": f"{META}.DeleteOptions",
}


@functools.cache
def published(version: str) -> Any:
    folder = resources.files("kubernetes_validate") / "kubernetes-json-schema" / f"v{version}-local-strict"
    document = json.loads((folder / "_definitions.json").read_text())
    return document["$id"], referencing.Registry().with_resource(document["$id"], referencing.Resource.from_contents(document))


def check(value: Any, version: str = NEWEST) -> None:
    """Raise a ValidationError where an object is not what its kind is in this version; an unknown field is one."""
    at, registry = published(version)
    kind = {"$ref": f"{at}#/$defs/{KINDS[value['kind']]}"}
    jsonschema.Draft202012Validator(kind, registry=registry).validate(value)


class Call(NamedTuple):
    method: str
    path: str
    query: str


class Published(Kubernetes):
    """Takes and gives only what the document allows; `calls` are those that came."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []
        self.wrong: list[str] = []

    def answer(self, method: str, path: str, body: Any, headers: dict[str, str]) -> Said | str:
        parts = urlsplit(path)
        self.calls.append(Call(method, unquote(parts.path), str(sorted(parse_qs(parts.query).items()))))
        said = super().answer(method, path, body, headers)
        try:
            if body is not None:
                check({"kind": "DeleteOptions", **body} if method == "DELETE" else body)
            check(said[1])
        except jsonschema.ValidationError as error:
            self.wrong.append(f"{method} {path}: {error.message}")
        return said


@pytest.fixture
def cluster() -> Iterator[Published]:
    made = Published()
    yield made
    made.close()
    assert made.wrong == []


def asked(cluster: Published) -> list[Call]:
    """Have the handler do all it can: begin a run twice, follow it to its end, begin another and stop it."""
    handler = handler_of(cluster)
    for _ in range(2):
        assert asyncio.run(handler.launch(an_order())) == Launched()
    assert asyncio.run(handler.follow(an_order())) == Launched()
    done = asyncio.run(handler.follow(an_order()))
    assert isinstance(done, Done)
    assert done.new_version == "v3"
    other = an_order(id="s-r-2")
    asyncio.run(handler.launch(other))
    assert [asyncio.run(handler.stop(other)) for _ in range(2)] == [False, True]
    return cluster.calls


def test_requests_and_the_answers_that_the_tests_pretend_are_as_published(cluster: Published) -> None:
    assert {call.method for call in asked(cluster)} == {"GET", "POST", "DELETE"}


def test_the_handler_calls_what_the_official_client_calls_which_reads_the_pretended_answers(cluster: Published) -> None:
    ours = set(asked(cluster))
    cluster.runs.clear()
    cluster.calls.clear()
    with client.ApiClient(client.Configuration(host=cluster.url), "Authorization", f"Bearer {TOKEN}") as api:
        batch, core = client.BatchV1Api(api), client.CoreV1Api(api)
        template: Any = cluster.document["template"]
        for name in ("s-r-1", "s-r-2"):
            job = batch.create_namespaced_job("ml", job_of(template, an_order(id=name), name))
            assert job.metadata.name == name
            batch.read_namespaced_job(name, "ml")
        (condition,) = batch.read_namespaced_job("s-r-1", "ml").status.conditions
        assert (condition.type, condition.status) == ("Complete", "True")
        pods = core.list_namespaced_pod("ml", label_selector="batch.kubernetes.io/job-name=s-r-1")
        assert "v3" in pods.items[0].status.container_statuses[0].state.terminated.message
        foreground = client.V1DeleteOptions(propagation_policy="Foreground")
        batch.delete_namespaced_job("s-r-2", "ml", body=foreground)
        with pytest.raises(client.ApiException, match="NotFound"):
            batch.read_namespaced_job("s-r-2", "ml")
    assert set(cluster.calls) == ours


@pytest.mark.parametrize("version", VERSIONS)
def test_a_job_is_one_in_each_version_and_an_unknown_field_or_a_wrong_type_is_none(version: str) -> None:
    container = {"name": "train", "image": "train:1", "env": [{"name": "QUEUE", "value": "q"}]}
    template = {
        "metadata": {"labels": {"team": "ml"}},
        "spec": {"backoffLimit": 2, "template": {"spec": {"restartPolicy": "Never", "containers": [container]}}},
    }
    settings = KubernetesHandlerSettings.model_validate({"kind": "kubernetes", "template": template})
    job = job_of(settings.template, an_order(), "s-r-1")
    check(job, version)
    for wrong in ({"backofLimit": 2}, {"backoffLimit": "2"}):
        with pytest.raises(jsonschema.ValidationError):
            check({**job, "spec": job["spec"] | wrong}, version)
    options = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Foreground"}
    check(options, version)
    with pytest.raises(jsonschema.ValidationError):
        check(options | {"propagation": "Foreground"}, version)


def test_an_orders_id_is_a_name_and_a_label_as_kubernetes_takes_them() -> None:
    """RFC 1123, 63 characters: the name of a Job is the value of a label of its pods. No schema says so."""
    longest = f"{orders.order_id('0123abcd', 'key')}-{10**6}"
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", longest)
