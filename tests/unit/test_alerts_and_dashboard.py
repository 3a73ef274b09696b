"""The alert rules and the dashboard ask for metrics that the dispatcher exports, in PromQL that promtool accepts."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from actors import telemetry
from tests.speed import slow

DEPLOY = Path(__file__).parents[2] / "deploy"
RULES = DEPLOY / "prometheus" / "alerts.yml"
promtool = shutil.which("promtool")
with_promtool = pytest.mark.skipif(promtool is None, reason="needs promtool: apt-get install prometheus")


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def dashboard_queries() -> list[str]:
    dashboard = json.loads((DEPLOY / "grafana" / "dashboard.json").read_text())
    found = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    return [query.replace("$model", "fraud") for query in found]


def test_a_panel_of_single_models_and_an_alert_about_one_link_to_the_page() -> None:
    dashboard = json.loads((DEPLOY / "grafana" / "dashboard.json").read_text())
    assert "label_values(ray_visutility_page_info, url)" in {
        each["query"]["query"] for each in dashboard["templating"]["list"] if each["name"] == "page"
    }
    of_a_model = re.compile(r"(max|min) by \(model(, \w+)?\)")
    for panel in dashboard["panels"]:
        if panel["type"] != "stat" and all(
            of_a_model.match(each["expr"].removeprefix("time() - ")) for each in panel["targets"]
        ):
            assert panel["fieldConfig"]["defaults"]["links"][0]["url"].startswith("${page}/models/"), panel["title"]
    for rule in rules():
        if "{{ $labels.model }}" in rule.get("annotations", {}).get("summary", ""):
            assert 'query "visutility:page_info"' in rule["annotations"]["page"], rule["alert"]


def check(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    assert promtool
    return subprocess.run([promtool, *arguments], cwd=cwd, capture_output=True, text=True, timeout=slow(60), check=False)


def test_every_query_asks_for_what_is_exported_or_recorded() -> None:
    exported = {f"ray_{name}" for name in telemetry.NAMES}
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    asked = {
        name
        for query in [*dashboard_queries(), *(rule["expr"] for rule in rules())]
        for name in re.findall(r"(?:ray_visutility_|visutility:)\w+", query)
    }
    assert asked <= exported | recorded
    assert exported <= asked, "what is exported is shown or watched"


def test_no_alert_or_panel_of_raw_series_counts_a_replaced_dispatcher_twice() -> None:
    for query in [*dashboard_queries(), *(rule["expr"] for rule in rules())]:
        for name in re.findall(r"ray_visutility_\w+", query):
            before = query[: query.index(name)]
            assert re.search(r"(max|min|count)( by \([\w, ]+\))? ?\($|absent\($", before), query


@with_promtool
def test_the_rules_are_valid_and_do_what_they_say() -> None:
    checked = check("check", "rules", "alerts.yml", cwd=RULES.parent)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    tested = check("test", "rules", "alerts_test.yml", cwd=RULES.parent)
    assert tested.returncode == 0, tested.stdout + tested.stderr


@with_promtool
def test_the_rule_tests_can_fail(tmp_path: Path) -> None:
    broken = RULES.read_text().replace('state="drifting"', 'state="no_data"')
    (tmp_path / "alerts.yml").write_text(broken)
    shutil.copy(RULES.parent / "alerts_test.yml", tmp_path)
    assert check("test", "rules", "alerts_test.yml", cwd=tmp_path).returncode != 0


@with_promtool
def test_the_queries_of_the_dashboard_are_valid(tmp_path: Path) -> None:
    recorded = [{"record": f"panel:query:{number}", "expr": query} for number, query in enumerate(dashboard_queries())]
    (tmp_path / "panels.yml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": recorded}]}))
    checked = check("check", "rules", "panels.yml", cwd=tmp_path)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert f"{len(recorded)} rules found" in checked.stdout


def test_the_numbers_of_the_states_are_the_exported_ones() -> None:
    dashboard = json.loads((DEPLOY / "grafana" / "dashboard.json").read_text())
    shown = dashboard["panels"][0]["fieldConfig"]["defaults"]["mappings"][0]["options"]
    assert {int(number): told["text"].replace(" ", "_") for number, told in shown.items()} == {
        number: state for state, number in telemetry.STATES.items()
    }
    by_name = {rule.get("alert"): rule["expr"] for rule in rules()}
    for alert, state in (("ModelDrifting", "drifting"), ("NoData", "no_data"), ("Unwatched", "unwatched")):
        assert f'{{state="{state}"}}' in by_name[f"VisuTility{alert}"]
        assert state in telemetry.STATES
