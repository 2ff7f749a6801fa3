"""The files for Prometheus and Grafana: valid, tested, and about metrics that exist."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.unit.admin.test_metrics import page, view
from tests.unit.test_docs import find_anchors

MONITORING = Path(__file__).parents[3] / "docs" / "monitoring"
METRIC = re.compile(r"\b(?:etcd_gateway|process)_\w+")
needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="needs promtool (Debian: prometheus)"
)


def exposed() -> set[str]:
    """Every sample name that the gateway serves."""
    lines = page(view()).decode().splitlines()
    return {re.split(r"[ {]", line)[0] for line in lines if not line.startswith("#")}


def complaints_about(queries: Sequence[str], directory: Path) -> str:
    """What Prometheus's own parser says against any of them; "" if nothing."""
    rules = [{"record": f"query:number_{n}", "expr": query} for n, query in enumerate(queries)]
    path = directory / "queries.yml"  # JSON is YAML
    path.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    command = ["promtool", "check", "rules", "--lint=none", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return done.stdout + done.stderr if done.returncode else ""


def dashboard() -> dict[str, Any]:
    document: dict[str, Any] = json.loads((MONITORING / "dashboard.json").read_text())
    return document


def expressions() -> list[str]:
    """Every query of the dashboard, variables filled in."""
    panels = dashboard()["panels"]
    queries = [target["expr"] for panel in panels for target in panel.get("targets", [])]
    queries += [each["expr"] for each in dashboard()["annotations"]["list"]]
    variables = {"$__rate_interval": "5m", "$__range": "1h", "$job": ".*", "$instance": ".*"}
    for variable, value in variables.items():
        queries = [query.replace(variable, value) for query in queries]
    return queries


def run_promtool(*command: str) -> None:
    """Fails with what it says if it is not content."""
    done = subprocess.run(
        ["promtool", *command], cwd=MONITORING, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@needs_promtool
@pytest.mark.parametrize(
    "command",
    [
        ("check", "rules", "alerts.yml"),
        ("test", "rules", "alerts-test.yml"),
        ("check", "config", "prometheus.yml"),
    ],
    ids=" ".join,
)
def test_promtool_is_content(command: tuple[str, ...]) -> None:
    """The rules are valid, their unit tests pass, the scrape configuration loads."""
    run_promtool(*command)


def test_alerts_and_dashboard_are_about_metrics_that_exist() -> None:
    """No query names a metric that the gateway does not serve."""
    rules = (MONITORING / "alerts.yml").read_text()
    asked = set(METRIC.findall(rules)) | set(METRIC.findall(" ".join(expressions())))
    assert asked - exposed() == set()


def find_label_values() -> dict[str, dict[str, set[str]]]:
    """The values of every label of every metric that the gateway serves from the start."""
    values: dict[str, dict[str, set[str]]] = {}
    for line in page(view()).decode().splitlines():
        if match := re.match(r"(\w+)\{(.*)\} ", line):
            for label, value in re.findall(r'(\w+)="([^"]*)"', match[2]):
                values.setdefault(match[1], {}).setdefault(label, set()).add(value)
    return values


@pytest.mark.parametrize("label", ["reason", "result", "state", "direction"])
def test_rules_and_panels_name_no_value_that_does_not_exist(label: str) -> None:
    """A rule about a reason that the gateway never gives is never true, or always."""
    rules = re.sub(r"^\s*#.*$", "", (MONITORING / "alerts.yml").read_text(), flags=re.MULTILINE)
    known = find_label_values()
    asked = [
        (metric, value)
        for text in (rules, *expressions())
        for metric, selector in re.findall(r"(etcd_gateway_\w+)\{([^}]*)\}", text)
        for name, wanted in re.findall(r'(\w+)\s*(?:=|!)~?=?\s*"([^"]*)"', selector)
        if name == label
        for value in wanted.split("|")
    ]
    assert asked
    assert [each for each in asked if each[1] not in known[each[0]].get(label, ())] == []


def test_every_alert_has_a_section_in_the_runbook() -> None:
    """Its runbook_url leads to a heading of the page about operations."""
    rules = (MONITORING / "alerts.yml").read_text()
    alerts = re.findall(r"alert: (\w+)", rules)
    links = re.findall(r"runbook_url: (\S+)", rules)
    assert links == [f"operations.md#{name.lower()}" for name in alerts]
    operations = MONITORING.parent / "operations.md"
    assert {link.partition("#")[2] for link in links} <= find_anchors(operations)


def test_every_alert_is_tested() -> None:
    """Each rule fires in one unit test at least, and is quiet when all is well."""
    alerts = re.findall(r"alert: (\w+)", (MONITORING / "alerts.yml").read_text())
    tests = (MONITORING / "alerts-test.yml").read_text()
    assert len(alerts) == len(set(alerts))
    assert [name for name in alerts if len(re.findall(rf"\b{name}\b", tests)) < 2] == []


@needs_promtool
def test_the_dashboards_queries_are_valid(tmp_path: Path) -> None:
    """Prometheus's own parser reads every one."""
    assert complaints_about(expressions(), tmp_path) == ""


def test_panels_have_numbers_of_their_own_and_do_not_overlap() -> None:
    """Ids are unique, every panel says what it shows, the grid is 24 wide and has no collision."""
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert max(x for x, _ in cells) < 24
        assert not cells & taken, panel["title"]
        taken |= cells
        assert panel["type"] == "row" or panel["description"]
