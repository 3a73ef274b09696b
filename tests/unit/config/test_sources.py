"""What is wrong with a source in the configuration is named with its key, its value and the rule."""

from __future__ import annotations

import json
from typing import Any

import pytest

from actors import config


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ({"kind": "files", "path": "drop"}, "sources.s.path: must be an absolute path or a URL"),
        ({"kind": "files", "path": "/drop", "format": "xml"}, "sources.s.format: must be"),
        (
            {"kind": "files", "path": "/drop", "columns": {"modle": "m"}},
            "sources.s.columns.modle: unknown key, did you mean model?",
        ),
        ({"kind": "sql", "url": "sqlite://", "query": "SELECT 1"}, "sources.s.watermark: is missing"),
        ({"kind": "prometheus", "url": "p:9090", "query": "up"}, "sources.s.url: must be an http or https URL, got 'p:9090'"),
        (
            {"kind": "prometheus", "url": "http://p", "query": "up", "stpe": "1m"},
            "sources.s.stpe: unknown key, did you mean step?",
        ),
        ({"kind": "mlflow", "url": "http://m", "experiments": []}, "sources.s.experiments: "),
        ({"path": "/drop"}, "sources.s"),
    ],
)
def test_what_is_wrong_is_named(source: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match="configuration: ") as found:
        config.load({"sources": {"s": source}})
    assert problem in str(found.value)


def test_a_url_with_a_password_is_not_shown_in_the_differences() -> None:
    source = {"kind": "sql", "url": "postgresql://me:secret@host/db", "query": "SELECT 1", "watermark": "id"}
    old, new = (
        config.load({"sources": {"s": source}}),
        config.load({"sources": {"s": source | {"url": "postgresql://me:other@host/db"}}}),
    )
    assert config.differences(old, new) == ["sources.s.url: differs"]


def test_two_registered_models_are_not_one_model_here_and_a_wrong_key_is_named() -> None:
    with pytest.raises(ValueError, match=r"registry\.mlflow\.models: two registered models must not be one model here"):
        config.load({"registry": {"mlflow": {"url": "http://m", "models": {"a": "x", "b": "x"}}}})
    with pytest.raises(ValueError, match=r"registry\.mlflow\.modles: unknown key, did you mean models\?"):
        config.load({"registry": {"mlflow": {"url": "http://m", "modles": {"a": "x"}}}})


def test_a_model_of_the_registry_has_its_alias_set_there() -> None:
    said = config.load({"registry": {"mlflow": {"url": "http://m", "models": {"there": "here"}, "alias": "best"}}})
    alias = said.for_model("here").promotion.registry
    assert alias is not None
    assert (alias.name, alias.alias) == ("there", "best")
    assert said.for_model("other").promotion.registry is None
    assert config.parse(json.loads(config.document(said)), "stored").for_model("here").promotion.registry == alias
