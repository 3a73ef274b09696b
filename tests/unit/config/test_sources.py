"""What is wrong with a source in the configuration is named with its key, its value and the rule."""

from __future__ import annotations

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
