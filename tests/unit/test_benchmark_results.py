"""The benchmark's own arithmetic and reading: no program is run here."""

from __future__ import annotations

import json
import re
import sys
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.benchmarks.__main__ import MEASURES, insert_figures
from tests.benchmarks.chart import draw_chart
from tests.benchmarks.loads import parse_wrk
from tests.benchmarks.measures import Measure, Setting
from tests.benchmarks.own import OWN_MEASURES
from tests.benchmarks.processes import BenchmarkError
from tests.benchmarks.report import write_report
from tests.benchmarks.results import BEFORE, COMPILED, GOALS, Goal, Results, judge
from tests.benchmarks.rounds import plan, take_turns
from tests.benchmarks.subjects import FLOOR, OURS, PEERS, Subject, installed

WRK = """Running 1s test @ http://127.0.0.1:1/
  1 threads and 64 connections
  Latency Distribution
     50%    1.08ms
     75%    1.20ms
     90%  900.00us
     99%   32.65ms
  28650 requests in 1.00s, 5.6MB read
Requests/sec:  28618.49
"""


def results_with(samples: Mapping[str, list[float]]) -> Results:
    results = Results()
    for subject, values in samples.items():
        for value in values:
            results.add("requests-64", subject, {"cpu_us": value})
    return results


def test_figure_is_the_middle_of_the_rounds() -> None:
    """One odd round does not move the figure, but shows in the range."""
    figure = results_with({"HAProxy": [20.0, 90.0, 22.0]}).figure(
        "requests-64", "HAProxy", "cpu_us"
    )
    assert figure is not None
    assert (figure.median, figure.low, figure.high, figure.rounds) == (22.0, 20.0, 90.0, 3)


def test_goals_are_judged_against_the_peer_they_name() -> None:
    """A goal names its peer; "c" is the better of HAProxy and nginx, whatever Envoy does."""
    results = results_with(
        {"etcd-gateway": [9.0], "HAProxy": [10.0], "nginx stream": [12.0], "Envoy": [6.0]}
    )
    goals = [
        Goal("requests-64", "cpu_us", 0.95, against, "")
        for against in ("c", "best", "Envoy", "", "etcd gateway")
    ]
    outcomes = judge(results, goals)
    assert [o.reached for o in outcomes] == [0.9, 1.5, 1.5, 9.0, None]
    assert [o.holds(o.reached) for o in outcomes] == [True, False, False, False, False]


def test_results_survive_a_file() -> None:
    """What was written is read back the same, to draw an earlier run again."""
    results = results_with({"HAProxy": [20.0]})
    results.failures.append("Envoy is not installed")
    assert Results.from_json(json.loads(json.dumps(results.to_json()))) == results


def test_report_and_chart_show_everybody() -> None:
    """Every subject is in the table and in the chart, failures are in the report."""
    results = results_with({"etcd-gateway": [9.0, 11.0], "HAProxy": [20.0], "Envoy & co": [30.0]})
    results.failures.append("etcd gateway is not installed")
    report = write_report(results, MEASURES, OWN_MEASURES, judge(results))
    assert "| **etcd-gateway** |" in report
    assert "| 0.50 |" in report.replace(" ", "").replace("|0.50|", "| 0.50 |")
    assert "- etcd gateway is not installed" in report
    chart = ET.fromstring(draw_chart(results, MEASURES))
    bars = [e for e in chart.iter() if e.get("class", "").startswith("bar")]
    assert len(bars) == 3


def test_goals_name_measures_that_exist() -> None:
    """A goal that nothing measures would never be noticed to fail."""
    metrics = {
        (measure.key, metric.key)
        for measure in (*MEASURES, *OWN_MEASURES)
        for metric in measure.metrics
    }
    peers = {"", "c", "best", *(peer.name for peer in (*PEERS, FLOOR))}
    assert {(goal.measure, goal.metric) for goal in GOALS} <= metrics
    for goal in GOALS:
        assert goal.against in peers or (goal.measure, goal.against) in metrics


def test_wrk_is_read() -> None:
    """Units are told apart."""
    seen = parse_wrk(WRK)
    assert (seen.count, seen.rate, seen.p50_us, seen.p99_us) == (28650, 28618.49, 1080.0, 32650.0)


@pytest.mark.parametrize(
    "text",
    [
        WRK + "  Socket errors: connect 0, read 3, write 0, timeout 0\n",
        WRK + "  Non-2xx or 3xx responses: 7\n",
        "unable to connect to 127.0.0.1:1 Connection refused\n",
        "",
    ],
)
def test_failed_requests_are_no_figures(text: str) -> None:
    """A proxy that fails requests must not look cheap."""
    with pytest.raises(BenchmarkError):
        parse_wrk(text)


def test_wrk_without_errors_is_accepted() -> None:
    """The line about errors alone is none."""
    assert parse_wrk(WRK + "  Socket errors: connect 0, read 0, write 0, timeout 0\n").count


def test_subjects_take_turns() -> None:
    """Within a round everybody has a turn, and each round begins with another one."""
    subjects = [OURS, *PEERS[:2]]
    turns = plan(MEASURES[:1], OWN_MEASURES[:1], subjects, 2)
    names = [turn.subject.name for turn in turns]
    assert names[:6] == [OURS.name, "HAProxy", "nginx stream", "HAProxy", "nginx stream", OURS.name]
    assert names[6:] == [OURS.name, OURS.name]


def test_another_release_is_beside_ours_and_no_peer(tmp_path: Path) -> None:
    """It has its row or column, no peer is judged by it, and it runs what is run as a program."""
    former = installed(BEFORE, Path(sys.executable))
    assert former.program == sys.executable
    assert installed(BEFORE, tmp_path / "none").program is None
    subjects = (OURS, former, *PEERS[:1])
    turns = plan(MEASURES[:1], OWN_MEASURES, subjects, 1)
    run = {turn.measure.key for turn in turns if turn.subject is former}
    assert run == {
        each.key
        for each in (MEASURES[0], *OWN_MEASURES)
        if each is MEASURES[0] or not each.in_process
    }
    results = results_with({OURS.name: [9.0], BEFORE: [3.0], "HAProxy": [10.0]})
    for subject, value in ((OURS.name, 3.5), (BEFORE, 3.9)):
        results.add("idle-workers", subject, {"mb_per_worker": value})
    goal = Goal("requests-64", "cpu_us", 1.0, "best", "")
    assert [outcome.reached for outcome in judge(results, [goal])] == [pytest.approx(0.9)]
    results.add("requests-64", COMPILED, {"cpu_us": 10.5})
    (outcome,) = judge(results, [goal])
    assert [outcome.reached, outcome.compiled] == pytest.approx([0.9, 1.05])
    report = write_report(results, MEASURES, OWN_MEASURES, [outcome])
    assert re.search(r"\| +0\.90 \| yes +\| +1\.05 \| \*\*no\*\* +\|", report)
    assert f"| {BEFORE}" in report
    assert "| before |" in report
    assert "3.90 |" in report


def test_failed_turn_is_noted_and_the_others_go_on(setting: Setting) -> None:
    """A subject that fails costs its own figure only, and the report says so."""

    def take(subject: Subject, _setting: Setting) -> Mapping[str, float]:
        if subject.name == "HAProxy":
            raise BenchmarkError("HAProxy: ended")
        return {"cpu_us": 1.0}

    measure = Measure("requests-64", "round trip", MEASURES[0].metrics[:1], take)
    results, said = Results(), list[str]()
    take_turns(plan([measure], [], PEERS[:2], 1), setting, results, said.append)
    assert results.subjects("requests-64") == ["nginx stream"]
    assert results.failures == ["round trip, HAProxy, round 1: HAProxy: ended"]
    assert len(said) == 2


@pytest.fixture
def setting(tmp_path_factory: pytest.TempPathFactory) -> Setting:
    """A setting in which nothing runs."""
    from tests.benchmarks.machine import share_cpus

    return Setting(
        places=share_cpus(),
        endpoints=(),
        tls_endpoints=(),
        http2_endpoints=(),
        many_endpoints=(),
        sink="",
        directory=tmp_path_factory.getbasetemp(),
        duration_s=1,
        sessions=1,
    )


def test_figures_replace_those_in_the_page() -> None:
    """Only what is between the marks changes, however often."""
    page = "before\n<!-- figures -->\nold\n<!-- end of figures -->\nafter\n"
    once = insert_figures(page, "new\n")
    assert once == insert_figures(once, "new\n")
    assert once.startswith("before\n")
    assert once.endswith("after\n")
    assert "old" not in once
