"""The rules and the dashboard for many hosts: valid, tested, and about metrics that exist."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.unit.admin.test_monitoring import (
    METRIC,
    MONITORING,
    complaints_about,
    exposed,
    needs_promtool,
    run_promtool,
)
from tests.unit.test_docs import find_anchors

RULES = (MONITORING / "fleet.yml").read_text()
ALERTS = re.findall(r"alert: (\w+)", RULES)


def expressions() -> list[str]:
    """Every query of the dashboard, variables filled in."""
    document = json.loads((MONITORING / "dashboard-fleet.json").read_text())
    queries = [target["expr"] for panel in document["panels"] for target in panel["targets"]]
    return [query.replace("$__rate_interval", "5m").replace("$job", ".*") for query in queries]


@pytest.mark.slow
@needs_promtool
@pytest.mark.parametrize(
    "command", [("check", "rules", "fleet.yml"), ("test", "rules", "fleet-test.yml")], ids=" ".join
)
def test_promtool_is_content(command: tuple[str, ...]) -> None:
    """The rules are valid and their unit tests pass."""
    run_promtool(*command)


def test_rules_and_dashboard_are_about_metrics_that_exist() -> None:
    """No query names a metric that neither the gateway serves nor a rule records."""
    recorded = set(re.findall(r"record: \w+:(\w+)", RULES))
    asked = set(METRIC.findall(RULES)) | set(METRIC.findall(" ".join(expressions())))
    assert asked - exposed() - recorded == set()


def test_every_alert_is_tested_and_has_a_section_in_the_runbook() -> None:
    """Each rule fires in one unit test at least, and its link leads to a heading."""
    tests = (MONITORING / "fleet-test.yml").read_text()
    assert [name for name in ALERTS if len(re.findall(rf"\b{name}\b", tests)) < 2] == []
    links = re.findall(r"runbook_url: (\S+)", RULES)
    assert links == [f"fleet.md#{name.lower()}" for name in ALERTS]
    anchors = find_anchors(MONITORING.parent / "fleet.md")
    assert {link.partition("#")[2] for link in links} <= anchors


@needs_promtool
def test_the_dashboards_queries_are_valid(tmp_path: Path) -> None:
    """Prometheus's own parser reads every one."""
    assert complaints_about(expressions(), tmp_path) == ""
