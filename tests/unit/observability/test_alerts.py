"""Rules and alerts: Prometheus takes them, each fires for its cause, and each names its runbook."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.promtool import promtool

PROJECT = Path(__file__).resolve().parents[3]
RULES = PROJECT / "observability" / "prometheus"
CASES = sorted(Path(__file__).parent.glob("alerts*.test.yml"))


def alerts() -> dict[str, dict[str, Any]]:
    found = yaml.safe_load((RULES / "alerts.rules.yml").read_text())
    return {rule["alert"]: rule for group in found["groups"] for rule in group["rules"]}


def test_prometheus_takes_the_configuration_and_the_rules(tmp_path: Path) -> None:
    for rules in RULES.glob("*.rules.yml"):
        promtool("check", "rules", rules)
    config = (RULES / "prometheus.yml").read_text().replace('"*.rules.yml"', f'"{RULES}/*.rules.yml"')
    (tmp_path / "targets.json").write_text("[]")
    (tmp_path / "prometheus.yml").write_text(config)
    assert "2 rule files found" in promtool("check", "config", tmp_path / "prometheus.yml")


@pytest.mark.parametrize("cases", CASES, ids=lambda path: path.name)
def test_every_alert_fires_for_its_cause_and_for_nothing_else(cases: Path) -> None:
    promtool("test", "rules", cases)


def test_what_panels_query_is_what_their_titles_name() -> None:
    promtool("test", "rules", Path(__file__).with_name("recording.test.yml"))


def test_every_alert_has_a_case_in_which_it_fires() -> None:
    cases = [case for path in CASES for case in yaml.safe_load(path.read_text())["tests"]]
    asked = [case for test in cases for case in test["alert_rule_test"]]
    assert {case["alertname"] for case in asked if case["exp_alerts"]} == set(alerts())


@pytest.mark.parametrize("name", alerts())
def test_an_alert_has_a_severity_and_a_runbook(name: str) -> None:
    alert = alerts()[name]
    assert alert["labels"]["severity"] in ("critical", "warning")
    assert alert["annotations"]["summary"]
    assert alert["annotations"]["runbook_url"] == f"docs/runbooks/{name}.md"
    runbook = (PROJECT / alert["annotations"]["runbook_url"]).read_text()
    for part in (f"# {name}\n", "## What it means", "## How to look", "## What to do"):
        assert part in runbook


def test_every_runbook_belongs_to_an_alert() -> None:
    pages = {page.stem for page in (PROJECT / "docs" / "runbooks").glob("*.md")} - {"README"}
    assert pages == set(alerts())
