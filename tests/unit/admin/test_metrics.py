"""The metrics page: the contract's names, correct values, accepted by Prometheus's own checker."""

from __future__ import annotations

import dataclasses
import math
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from prometheus_client.core import Metric
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse

from gateway.core.endpoint import EndpointState
from gateway.core.messages import EndpointReport, Report
from supervisor.admin import metrics
from supervisor.core.admin.totals import Totals
from supervisor.core.admin.views import (
    DiscoveryView,
    EndpointView,
    GatewayView,
    ReloadView,
    WorkerView,
)
from supervisor.core.health.health_view import HealthView
from supervisor.core.workers.worker_id import WorkerId

A, B = "a.test:2379", "[2001:db8::1]:2379"

CONTRACT = {
    "build_info": {"version"},
    "sessions": {"endpoint"},
    "sessions_total": {"endpoint"},
    "sessions_ended_total": {"reason", "endpoint"},
    "tcp_rtt_seconds": {"endpoint"},
    "tcp_retransmits_total": {"endpoint"},
    "session_duration_seconds_bucket": {"le"},
    "bytes_total": {"endpoint", "direction"},
    "dials_total": {"endpoint", "result"},
    "dial_duration_seconds_bucket": {"endpoint", "le"},
    "endpoint_active": {"endpoint"},
    "endpoint_addresses": {"endpoint", "state"},
    "endpoint_transitions_total": {"endpoint", "state"},
    "endpoint_priority": {"endpoint"},
    "endpoint_weight": {"endpoint"},
    "endpoints_refused": set(),
    "foreign_listeners": set(),
    "last_reload_successful": set(),
    "max_sessions": set(),
    "max_open_files": set(),
    "workers_wanted": set(),
    "worker_cpu_seconds_total": {"slot"},
    "worker_resident_memory_bytes": {"slot"},
    "endpoint_certificate_not_after_timestamp_seconds": {"endpoint"},
    "probe_duration_seconds_bucket": {"endpoint", "le"},
    "probes_total": {"endpoint", "result"},
    "refused_total": {"reason"},
    "discovery_total": {"result", "source"},
    "discovery_last_success_timestamp_seconds": set(),
    "endpoints": set(),
    "snapshot_version": set(),
    "reloads_total": {"result"},
    "workers": {"state"},
    "worker_restarts_total": {"reason"},
    "worker_sessions": {"slot"},
    "worker_snapshot_version": {"slot"},
    "worker_loop_lag_seconds": {"slot"},
    "accept_paused_total": {"reason"},
    "endpoint_draining": {"endpoint"},
    "endpoint_removed": {"endpoint"},
    "handed_over_total": set(),
    "log_dropped_total": set(),
}
"""Every metric with its labels."""

OPERATIONS = Path(__file__).parents[3] / "docs" / "operations.md"

MEDIA_TYPE = "application/openmetrics-text"
OPENMETRICS = f"{MEDIA_TYPE}; version=1.0.0"

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def page(view: GatewayView) -> bytes:
    """The page in Prometheus's text format."""
    return b"".join(metrics.render(view)[0])


def view(endpoints: int = 2) -> GatewayView:
    """Two endpoints, one slot whose old worker drains, one slot in backoff."""
    report = Report(
        snapshot_version=7,
        sessions=3,
        loop_lag_s=0.002,
        rss_bytes=1000,
        cpu_s=2.5,
        ended={"client": 4, "dial-failed": 2},
        refused={"dial-failed": 2},
        session_buckets=(0, 1, 3),
        session_seconds=0.5,
        accept_paused={"limit": 1},
        endpoints={
            A: EndpointReport(
                sessions=3,
                sessions_total=7,
                bytes_in=10,
                bytes_out=20,
                dials={"connected": 7, "refused": 1},
                dial_buckets=(5, 2),
                dial_seconds=0.0008,
                ended={"client": 3},
                rtt_weight=2.0,
                rtt_weighted_s=0.004,
                retransmits=5,
            )
        },
    )
    totals = Totals()
    totals.report(WorkerId(0, 2), report)
    old = dataclasses.replace(report, sessions=1, endpoints={})
    totals.report(WorkerId(0, 1), old)
    more = tuple(EndpointView(endpoint=f"e{i}.test:1") for i in range(endpoints - 2))
    return GatewayView(
        version="1.0.0",
        compiled=False,
        pid=os.getpid(),
        started_at=0.0,
        uptime_s=1.0,
        started=True,
        draining=False,
        slots=2,
        listen=(),
        snapshot_version=7,
        discovery=DiscoveryView(
            last_success_at=1767225600.25,
            results={"success": 3},
            by_source={"srv": {"success": 3}, "members": {"failure": 1}},
            refused={"bad.test:1": "certificate", "loop.test:1": "our own address"},
        ),
        reload=ReloadView(last_result="complete", results={"complete": 2}),
        endpoints=(
            EndpointView(
                endpoint=A,
                priority=10,
                weight=5,
                certificate_not_after=1798761600.0,
                health=HealthView(
                    active=True,
                    since=0.0,
                    probes={"passed": 9},
                    probe_buckets=(0, 8, 1),
                    probe_seconds=0.002,
                    transitions={"inactive": 1, "active": 1},
                ),
                address_views={
                    "10.0.0.1": HealthView(active=True, since=0.0),
                    "10.0.0.2": HealthView(active=False, since=0.0),
                },
            ),
            EndpointView(endpoint=B, state=EndpointState.INACTIVE),
            *more,
        ),
        workers=(
            WorkerView(
                slot=0,
                gen=1,
                pid=1,
                state="draining",
                snapshot_version=6,
                report=old,
                sessions=old.sessions,
            ),
            WorkerView(
                slot=0,
                gen=2,
                pid=2,
                state="ready",
                snapshot_version=7,
                report=report,
                sessions=report.sessions,
            ),
            WorkerView(slot=1, gen=5, pid=None, state="backoff"),
        ),
        sums=totals.sums(),
        worker_restarts={"exit": 4},
        foreign_listeners=({"address": "127.0.0.1:1", "inode": 7, "uid": 0},),
        limits={"workers": 2, "max_sessions": 100, "open_files": 1024},
    )


def samples(text: bytes) -> Samples:
    found: Samples = {}
    for family in parse(text.decode()):
        for sample in family.samples:
            found[sample.name, frozenset(sample.labels.items())] = sample.value
    return found


def value(of: Samples, name: str, **labels: str) -> float:
    return of["etcd_gateway_" + name, frozenset(labels.items())]


def test_every_metric_of_the_contract_is_there_with_its_labels() -> None:
    """Names and label names are the contract's, and there are no others."""
    found: dict[str, set[str]] = {}
    for name, pairs in samples(page(view())):
        found.setdefault(name, set()).update(key for key, _ in pairs)
    ours = {
        name.removeprefix("etcd_gateway_"): labels
        for name, labels in found.items()
        if name.startswith("etcd_gateway_") and not name.endswith(("_created", "_sum", "_count"))
    }
    assert ours == CONTRACT
    assert "process_cpu_seconds_total" in found
    assert "process_open_fds" in found


def test_what_is_said_of_the_process_is_said_of_the_master() -> None:
    """Also by the process that answers during an upgrade; else counters would go back there."""
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as master:
        ours, its = (
            samples(page(dataclasses.replace(view(), pid=pid))) for pid in (os.getpid(), master.pid)
        )
    started = ("process_start_time_seconds", frozenset[tuple[str, str]]())
    assert its[started] > ours[started]


def test_every_metric_is_documented() -> None:
    """The page of operations has a row for each of them."""
    rows = re.findall(r"^\| `etcd_gateway_.*$", OPERATIONS.read_text(), re.MULTILINE)
    named = set(re.findall(r"`etcd_gateway_(\w+)", "\n".join(rows)))
    assert {name.removesuffix("_bucket") for name in CONTRACT} - named == set()


def test_every_value_of_a_label_is_documented() -> None:
    """So is what may be counted some day: each is there from the start, as 0."""
    kinds = {"result", "reason", "state", "direction", "source"}
    given = {text for _, pairs in samples(page(view())) for key, text in pairs if key in kinds}
    assert given - set(re.findall("`([a-z-]+)`", OPERATIONS.read_text())) == set()
    assert value(samples(page(view())), "probes_total", endpoint=A, result="undecided") == 0


def test_the_values_are_the_views() -> None:
    """Gauges, counters and cumulative histogram buckets."""
    got = samples(page(view()))
    assert value(got, "sessions", endpoint=A) == 3
    assert value(got, "sessions_total", endpoint=A) == 7
    assert value(got, "bytes_total", endpoint=A, direction="in") == 10
    assert value(got, "bytes_total", endpoint=A, direction="out") == 20
    assert value(got, "dials_total", endpoint=A, result="refused") == 1
    assert value(got, "dials_total", endpoint=B, result="timeout") == 0
    assert value(got, "dial_duration_seconds_bucket", endpoint=A, le="0.0001") == 5
    assert value(got, "dial_duration_seconds_bucket", endpoint=A, le="0.00025") == 7
    assert value(got, "dial_duration_seconds_count", endpoint=A) == 7
    assert value(got, "dial_duration_seconds_sum", endpoint=A) == pytest.approx(0.0008, abs=1e-6)
    assert value(got, "session_duration_seconds_bucket", le="0.01") == 2
    assert value(got, "session_duration_seconds_count") == 8
    assert value(got, "sessions_ended_total", endpoint=A, reason="client") == 3
    assert value(got, "sessions_ended_total", endpoint=B, reason="client") == 0
    assert value(got, "sessions_ended_total", endpoint="", reason="client") == 5
    assert value(got, "sessions_ended_total", endpoint="", reason="dial-failed") == 4
    assert value(got, "sessions_ended_total", endpoint="", reason="drained") == 0
    assert value(got, "tcp_rtt_seconds", endpoint=A) == pytest.approx(0.002)
    assert ("etcd_gateway_tcp_rtt_seconds", frozenset({("endpoint", B)})) not in got
    assert value(got, "tcp_retransmits_total", endpoint=A) == 5
    assert value(got, "tcp_retransmits_total", endpoint=B) == 0
    assert value(got, "refused_total", reason="dial-failed") == 4
    assert value(got, "refused_total", reason="no-endpoint") == 0
    assert value(got, "endpoint_active", endpoint=A) == 1
    assert value(got, "endpoint_active", endpoint=B) == 0
    for state in ("active", "inactive"):
        assert value(got, "endpoint_addresses", endpoint=A, state=state) == 1
    assert value(got, "endpoint_transitions_total", endpoint=A, state="inactive") == 1
    assert value(got, "probes_total", endpoint=A, result="passed") == 9
    assert value(got, "probes_total", endpoint=B, result="failed") == 0
    assert value(got, "discovery_total", result="success", source="srv") == 3
    assert value(got, "discovery_total", result="failure", source="srv") == 0
    assert value(got, "discovery_total", result="failure", source="members") == 1
    assert value(got, "discovery_last_success_timestamp_seconds") == 1767225600.25
    assert value(got, "reloads_total", result="complete") == 2
    assert value(got, "reloads_total", result="failed") == 0
    assert value(got, "workers", state="draining") == 1
    assert value(got, "workers", state="starting") == 0
    assert value(got, "worker_restarts_total", reason="exit") == 4
    assert value(got, "accept_paused_total", reason="limit") == 2
    assert value(got, "accept_paused_total", reason="descriptors") == 0
    assert value(got, "build_info", version="1.0.0") == 1
    assert value(got, "endpoint_priority", endpoint=A) == 10
    assert value(got, "endpoint_weight", endpoint=A) == 5
    assert value(got, "endpoints_refused") == 2
    assert value(got, "foreign_listeners") == 1
    assert value(got, "endpoint_certificate_not_after_timestamp_seconds", endpoint=A) == 1798761600
    assert f'certificate_not_after_timestamp_seconds{{endpoint="{B}"}}' not in page(view()).decode()
    assert value(got, "probe_duration_seconds_bucket", endpoint=A, le="0.00025") == 8
    assert value(got, "probe_duration_seconds_count", endpoint=A) == 9
    assert value(got, "probe_duration_seconds_count", endpoint=B) == 0
    assert value(got, "max_sessions") == 100
    assert value(got, "max_open_files") == 1024
    assert value(got, "workers_wanted") == 2


def test_who_is_to_be_inactive_is_told_from_who_fails() -> None:
    """The rules leave out what is under maintenance, and what is not found any more."""
    states = {f"{state}:1": EndpointState(state) for state in ("active", "draining", "removed")}
    endpoints = tuple(EndpointView(endpoint=name, state=state) for name, state in states.items())
    got = samples(page(dataclasses.replace(view(), endpoints=endpoints)))
    for name in states:
        for state in ("active", "draining", "removed"):
            expected = int(name == f"{state}:1")
            assert value(got, f"endpoint_{state}", endpoint=name) == expected


@pytest.mark.parametrize(("refused", "expected"), [(False, 1), (True, 0)])
def test_a_refused_configuration_shows(refused: bool, expected: int) -> None:
    """How the last reload ended does not tell: an upgrade may have read the configuration since."""
    reload = ReloadView(last_result="failed", refused=refused)
    changed = dataclasses.replace(view(), reload=reload)
    assert value(samples(page(changed)), "last_reload_successful") == expected


def test_a_slot_with_two_generations_has_one_series() -> None:
    """Sessions of the draining worker count, version and lag are the newest worker's."""
    got = samples(page(view()))
    assert value(got, "worker_sessions", slot="0") == 4
    assert value(got, "worker_snapshot_version", slot="0") == 7
    assert value(got, "worker_loop_lag_seconds", slot="0") == 0.002
    assert value(got, "worker_resident_memory_bytes", slot="0") == 2000
    assert value(got, "worker_cpu_seconds_total", slot="0") == 5
    assert value(got, "worker_sessions", slot="1") == 0
    assert value(got, "worker_loop_lag_seconds", slot="1") == 0


def test_an_endpoint_that_is_not_in_the_view_has_no_series() -> None:
    """The labels of what is gone disappear, whatever the totals remember."""
    without = dataclasses.replace(view(), endpoints=(EndpointView(endpoint=B),))
    assert A.encode() not in page(without)


def test_what_is_unknown_has_no_sample() -> None:
    """Before the first resolution there is no instant of the last one."""
    new = dataclasses.replace(view(), discovery=DiscoveryView(), endpoints=())
    names = {name for name, _ in samples(page(new))}
    assert "etcd_gateway_discovery_last_success_timestamp_seconds" not in names


def test_openmetrics_on_request() -> None:
    """The content type follows the Accept header, and the strict parser agrees."""
    parts, content_type = metrics.render(view(), OPENMETRICS)
    text = b"".join(parts)
    assert content_type.startswith("application/openmetrics-text; version=1.0.0")
    families = {family.name for family in parse_openmetrics(text.decode())}  # type: ignore[no-untyped-call]
    assert {"etcd_gateway_sessions_ended", "etcd_gateway_dial_duration_seconds"} <= families
    assert metrics.render(view(), "text/plain")[1].startswith("text/plain; version=0.0.4")


@pytest.mark.parametrize(
    "accept",
    [
        f"{MEDIA_TYPE};version=x",
        f'{MEDIA_TYPE};version=1.0.0" x',
        f"{MEDIA_TYPE};version=2.0.17",
        f"{MEDIA_TYPE};version=0.0.1",
        f"{MEDIA_TYPE};q=0",
        f"{MEDIA_TYPE};q=nan",
        f"{MEDIA_TYPE};q=lots",
        f"text/plain;version=0.0.4;q=0.9,{MEDIA_TYPE};q=0.1",
        "text/plain;version=1.0.0;escaping=allow-utf-8",
        "text/plain;version=x",
        "bogus;;=,=",
    ],
)
def test_whatever_a_scraper_accepts_it_gets_one_of_two_formats(accept: str) -> None:
    """A header that cannot be read gets the text; none makes a format, or a page, of its own."""
    parts, content_type = metrics.render(view(), accept)
    assert content_type == "text/plain; version=0.0.4; charset=utf-8"
    assert b"etcd_gateway_build_info" in b"".join(parts)


@pytest.mark.parametrize(
    "accept",
    [
        (
            f"{MEDIA_TYPE};version=1.0.0;escaping=allow-utf-8;q=0.5,{MEDIA_TYPE};version=0.0.1;q=0.4,"
            "text/plain;version=0.0.4;q=0.2,*/*;q=0.1"
        ),
        f'text/plain , {MEDIA_TYPE.upper()} ; version="1.0.0"',
        MEDIA_TYPE,
    ],
)
def test_prometheus_gets_openmetrics(accept: str) -> None:
    """What Prometheus asks for, and other spellings of the same."""
    _, content_type = metrics.render(view(), accept)
    assert content_type == metrics.render(view(), OPENMETRICS)[1]
    assert content_type.startswith("application/openmetrics-text; version=1.0.0")


@pytest.mark.slow
@pytest.mark.parametrize("accept", ["", OPENMETRICS])
def test_many_endpoints_come_in_small_pieces_and_still_as_one_family(accept: str) -> None:
    """One HELP and TYPE per family, every endpoint once, each piece a small one."""
    parts, _ = metrics.render(view(3 * metrics.ENDPOINTS_PER_PART), accept)
    pieces = list(parts)
    text = b"".join(pieces)
    assert max(piece.count(b"\n") for piece in pieces) <= 20 * metrics.ENDPOINTS_PER_PART
    assert text.count(b"# TYPE etcd_gateway_endpoint_active ") == 1
    assert text.count(b"etcd_gateway_endpoint_active{") == 3 * metrics.ENDPOINTS_PER_PART
    read: Callable[[str], Iterable[Metric]] = parse_openmetrics if accept else parse
    families = list(read(text.decode()))
    assert len({(family.name, family.type) for family in families}) == len(families)
    assert not any(math.isnan(s.value) for family in families for s in family.samples)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool (Debian: prometheus)")
def test_promtool_accepts_the_page() -> None:
    """``promtool check metrics`` finds neither an error nor something to improve."""
    checked = subprocess.run(
        ["promtool", "check", "metrics"],
        input=page(view()),
        capture_output=True,
        timeout=60,
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")
