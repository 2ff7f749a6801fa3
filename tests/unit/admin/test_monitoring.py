"""The files for Prometheus and Grafana: valid, tested, and about metrics that exist."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.unit.admin.test_metrics import page, view

MONITORING = Path(__file__).parents[3] / "docs" / "monitoring"
METRIC = re.compile(r"\b(?:etcd_gateway|process)_\w+")
needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="needs promtool (Debian: prometheus)"
)


def exposed() -> set[str]:
    """Every sample name that the gateway serves."""
    lines = page(view()).decode().splitlines()
    return {re.split(r"[ {]", line)[0] for line in lines if not line.startswith("#")}


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
    done = subprocess.run(
        ["promtool", *command], cwd=MONITORING, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_alerts_and_dashboard_are_about_metrics_that_exist() -> None:
    """No query names a metric that the gateway does not serve."""
    rules = (MONITORING / "alerts.yml").read_text()
    asked = set(METRIC.findall(rules)) | set(METRIC.findall(" ".join(expressions())))
    assert asked - exposed() == set()


def test_every_alert_is_tested() -> None:
    """Each rule fires in one unit test at least, and is quiet when all is well."""
    alerts = re.findall(r"alert: (\w+)", (MONITORING / "alerts.yml").read_text())
    tests = (MONITORING / "alerts-test.yml").read_text()
    assert len(alerts) == len(set(alerts))
    assert [name for name in alerts if len(re.findall(rf"\b{name}\b", tests)) < 2] == []


@needs_promtool
def test_the_dashboards_queries_are_valid(tmp_path: Path) -> None:
    """Prometheus's own parser reads every one."""
    rules = [
        {"record": f"query:number_{number}", "expr": expression}
        for number, expression in enumerate(expressions())
    ]
    path = tmp_path / "queries.yml"  # JSON is YAML
    path.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    done = subprocess.run(
        ["promtool", "check", "rules", "--lint=none", str(path)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr


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
