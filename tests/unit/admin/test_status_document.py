"""The status document: the contract's keys, and one word for the state of the whole."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from gateway.core.endpoint import RETIRED, EndpointState
from gateway.core.messages import EndpointReport, Report
from supervisor.core.admin.document import document, log_lines
from supervisor.core.admin.readiness import GatewayState, gateway_state, summary_of, unreadiness
from supervisor.core.admin.sums import EndpointSum, Sums
from supervisor.core.admin.totals import Totals
from supervisor.core.admin.views import (
    DiscoveryView,
    EndpointView,
    GatewayView,
    MemberSyncView,
    ReloadView,
    WorkerStatus,
    WorkerView,
    endpoint_view,
)
from supervisor.core.discovery.endpoints import Discovered
from supervisor.core.health.health_view import UNWATCHED, HealthView
from supervisor.core.roster_member import Member
from supervisor.core.workers.worker_id import WorkerId

NAME = "infra0.example.com:2379"


def view() -> GatewayView:
    """A gateway with one endpoint and one worker that has a session."""
    report = Report(
        snapshot_version=7,
        sessions=5,
        loop_lag_s=0.0004,
        rss_bytes=1,
        refused={"no-endpoint": 1, "dial-failed": 2},
        endpoints={
            NAME: EndpointReport(
                sessions=5,
                sessions_total=99,
                bytes_in=1,
                bytes_out=2,
                dials={"connected": 99, "refused": 2, "timeout": 1, "local": 7, "abandoned": 8},
            )
        },
    )
    totals = Totals()
    totals.report(WorkerId(0, 1), report)
    return GatewayView(
        version="1.0.0",
        compiled=False,
        pid=4711,
        started_at=1767225600.0,
        uptime_s=12.5,
        started=True,
        draining=False,
        slots=1,
        listen=("127.0.0.1:23790",),
        snapshot_version=7,
        discovery=DiscoveryView(
            srv="example.com", last_success_at=1767225600.25, next_refresh_s=42
        ),
        reload=ReloadView(),
        endpoints=(
            EndpointView(
                endpoint=NAME,
                addresses=("10.0.1.10",),
                health=HealthView(active=True, since=1767225600.0),
            ),
        ),
        workers=(
            WorkerView(
                slot=0,
                gen=1,
                pid=4712,
                state="ready",
                snapshot_version=7,
                heartbeat_age_s=0.3,
                report=report,
                sessions=report.sessions,
                sessions_total=99,
            ),
        ),
        sums=totals.sums(),
        events=({"msg": "worker ready", "slot": 0},),
    )


def keys_of(value: Any) -> set[str]:
    """Every key in a document, but names of others: of endpoints, reasons and flags."""
    if isinstance(value, Mapping):
        return set(value).union(*map(keys_of, value.values()))
    return set().union(*map(keys_of, value)) if isinstance(value, list | tuple) else set()


def test_every_key_is_on_the_page() -> None:
    """Who writes a script learns what a key means without reading the code."""
    whole = document(
        dataclasses.replace(
            view(),
            discovery=DiscoveryView(member_sync=MemberSyncView(members=(("m0", NAME),))),
            foreign_listeners=({"address": "127.0.0.1:1", "inode": 1, "uid": 0},),
            limits={"workers": 1, "max_sessions": 0, "open_files": 1024},
        )
    )
    del whole["events"], whole["ended"]
    for endpoint in whole["endpoints"]:
        assert keys_of(endpoint["address_states"].popitem()[1]) == {
            "state", "sessions", "last_error"
        }  # fmt: skip
    page = (Path(__file__).parents[3] / "docs/operations.md").read_text()
    section = page.partition("## The status document")[2].partition("\n## ")[0]
    named = {word for code in re.findall("`([^`]+)`", section) for word in re.findall(r"\w+", code)}
    assert keys_of(whole) - named == set()


def test_member_sync_is_shown() -> None:
    """Which list endpoints follow, when a member answered last, and what went wrong."""
    synced = MemberSyncView(
        interval_s=30.0,
        last_success_at=1767225600.25,
        last_error="timeout",
        last_asked=NAME,
        next_ask_s=1.23456,
        cluster_id="abc",
        confirmed=True,
        members=(("m0", NAME),),
        left_out={"m1": "is a learner"},
        results={"success": 2},
    )
    view_of_it = dataclasses.replace(view(), discovery=DiscoveryView(member_sync=synced))
    assert document(view_of_it)["discovery"]["member_sync"] == {
        "interval_s": 30.0,
        "last_success_at": "2026-01-01T00:00:00.250Z",
        "last_error": "timeout",
        "last_asked": NAME,
        "next_ask_s": 1.235,
        "cluster_id": "abc",
        "confirmed": True,
        "members": [{"name": "m0", "endpoint": NAME}],
        "left_out": {"m1": "is a learner"},
        "results": {"success": 2},
    }


def test_the_document_has_the_contracts_keys_and_values() -> None:
    """Every key of the contract is there, with its meaning, and ours come after them."""
    written = json.loads(json.dumps(document(view())))
    assert list(written)[:12] == [
        "version", "compiled", "pid", "started_at", "uptime_s", "state", "listen",
        "snapshot_version", "discovery", "reload", "endpoints", "workers",
    ]  # fmt: skip
    assert written["started_at"] == "2026-01-01T00:00:00.000Z"
    assert written["state"] == "ready"
    assert written["discovery"] == {
        "srv": "example.com",
        "last_success_at": "2026-01-01T00:00:00.250Z",
        "last_error": None,
        "next_refresh_s": 42,
        "results": {},
        "by_source": {},
        "member_sync": None,
        "refused": {},
    }
    assert written["reload"] == {
        "number": 0,
        "under_way": False,
        "refused": False,
        "last_at": None,
        "last_result": None,
        "last_error": None,
        "needs_restart": [],
    }
    assert written["endpoints"] == [
        {
            "endpoint": NAME,
            "source": "flag",
            "addresses": ["10.0.1.10"],
            "address_states": {"10.0.1.10": {"state": "active", "sessions": 5, "last_error": None}},
            "priority": 0,
            "weight": 0,
            "state": "active",
            "sessions": 5,
            "sessions_total": 99,
            "bytes_in": 1,
            "bytes_out": 2,
            "dial_failures": 3,
            "probe_failures": 0,
            "last_error": None,
            "last_error_at": None,
            "since": "2026-01-01T00:00:00.000Z",
            "hold_s": 0.0,
            "kept": False,
            "degraded": None,
            "etcd_version": None,
            "certificate_not_after": None,
        }
    ]
    assert written["workers"] == [
        {
            "slot": 0,
            "gen": 1,
            "pid": 4712,
            "state": "ready",
            "hangs": False,
            "snapshot_version": 7,
            "sessions": 5,
            "sessions_total": 99,
            "heartbeat_age_s": 0.3,
            "loop_lag_s": 0.0004,
            "rss_bytes": 1,
            "cpu_s": 0.0,
        }
    ]
    assert written["totals"] == {
        "sessions": 5,
        "sessions_total": 99,
        "bytes_in": 1,
        "bytes_out": 2,
        "refused": 3,
    }
    assert written["events"] == [{"msg": "worker ready", "slot": 0}]


def test_what_is_not_known_yet_is_null() -> None:
    """Before the first report, heartbeat and resolution there are no made-up values."""
    bare = dataclasses.replace(
        view(),
        discovery=DiscoveryView(),
        endpoints=(EndpointView(endpoint="new.test:1"),),
        workers=(WorkerView(slot=0, gen=0, pid=None, state=WorkerStatus.BACKOFF),),
    )
    written = document(bare)
    assert written["discovery"]["next_refresh_s"] is None
    assert written["endpoints"][0]["sessions_total"] == 0
    assert written["endpoints"][0]["since"] is None
    assert written["workers"][0]["state"] == "backoff"
    assert written["workers"][0]["pid"] is None
    assert written["workers"][0]["heartbeat_age_s"] is None


def test_host_configuration_and_the_drains_deadline() -> None:
    """Whose status it is, what it runs with, and how long its sessions still have."""
    said = {"workers": {"value": "4", "source": "variable"}}
    written = document(
        dataclasses.replace(
            view(), host="gw1", pid_namespace=7, configuration=said, drain_deadline_s=23.98765
        )
    )
    assert (written["host"], written["configuration"]) == ("gw1", said)
    assert written["pid_namespace"] == 7
    assert written["drain_deadline_s"] == 23.988
    assert document(view())["drain_deadline_s"] is None


def test_the_log_gets_it_in_lines_of_bounded_length() -> None:
    """USR1: the whole without its lists, then a line for each worker and endpoint, no events."""
    lines = list(log_lines(view()))
    assert [msg for msg, _ in lines] == ["status", "status worker", "status endpoint"]
    assert lines[0][1]["totals"]["sessions"] == 5
    assert not {"events", "workers", "endpoints", "configuration"} & lines[0][1].keys()
    assert lines[2][1]["endpoint"] == NAME


@pytest.mark.parametrize(
    ("change", "state", "reasons"),
    [
        ({}, GatewayState.READY, ()),
        ({"started": False}, GatewayState.STARTING, ("starting",)),
        ({"draining": True}, GatewayState.DRAINING, ("draining",)),
        ({"endpoints": ()}, GatewayState.DEGRADED, ("no endpoint is active",)),
        (
            {
                "endpoints": (
                    EndpointView(
                        endpoint="a:1", health=dataclasses.replace(UNWATCHED, cut_off="no route")
                    ),
                    EndpointView(endpoint="b:1", state=EndpointState.INACTIVE),
                )
            },
            GatewayState.DEGRADED,
            ("this host cannot dial any endpoint: no route",),
        ),
        (
            {
                "endpoints": (
                    EndpointView(
                        endpoint="a:1", health=dataclasses.replace(UNWATCHED, cut_off="x")
                    ),
                    EndpointView(endpoint="b:1"),
                )
            },
            GatewayState.READY,
            (),
        ),
        ({"slots": 3}, GatewayState.DEGRADED, ("no live worker in slot 1, 2",)),
        (
            {
                "draining": True,
                "started": False,
                "workers": (),
                "endpoints": (EndpointView(endpoint=NAME, state=EndpointState.INACTIVE),),
            },
            GatewayState.DRAINING,
            ("draining",),
        ),
        (
            {"started": False, "workers": ()},
            GatewayState.STARTING,
            ("starting", "no live worker in slot 0"),
        ),
    ],
)
def test_the_state_of_the_whole(
    change: dict[str, object], state: GatewayState, reasons: tuple[str, ...]
) -> None:
    """Draining, then starting, then degraded with reasons, else ready."""
    changed = dataclasses.replace(view(), **change)  # type: ignore[arg-type]
    assert gateway_state(changed) is state
    assert unreadiness(changed) == reasons


def test_each_of_several_addresses_has_its_state() -> None:
    """Its sessions, state and error; those of one that gets no new sessions are in its state."""
    health = {
        "10.0.1.10": HealthView(active=True, since=1.0),
        "10.0.1.11": HealthView(active=False, since=1.0, last_error="refused"),
    }
    several = EndpointView(endpoint=NAME, addresses=(*health, "10.0.1.12"), address_views=health)
    whole = dataclasses.replace(
        view(),
        endpoints=(several,),
        sums=Sums(endpoints={NAME: EndpointSum(sessions=3, addresses={"10.0.1.10": 3})}),
    )
    (written,) = document(whole)["endpoints"]
    assert written["addresses"] == [*health, "10.0.1.12"]
    assert written["address_states"] == {
        "10.0.1.10": {"state": "active", "sessions": 3, "last_error": None},
        "10.0.1.11": {"state": "inactive", "sessions": 0, "last_error": "refused"},
        "10.0.1.12": {"state": "active", "sessions": 0, "last_error": None},
    }
    for state in RETIRED:
        retired = dataclasses.replace(several, state=state)
        (written,) = document(dataclasses.replace(whole, endpoints=(retired,)))["endpoints"]
        assert {each["state"] for each in written["address_states"].values()} == {state.value}


def test_the_summary_for_the_service_manager() -> None:
    """Removed endpoints do not count, those in maintenance do, as for `status`; one is not two."""

    def summary(view: GatewayView) -> str:
        states = [each.state for each in view.endpoints]
        return summary_of(states, view.workers, view.sums.sessions, foreign_listeners=False)

    assert summary(view()) == "1/1 endpoints active, 1 worker, 5 sessions"
    more = dataclasses.replace(
        view(),
        endpoints=(
            EndpointView(endpoint="a:1"),
            EndpointView(endpoint="b:1", state=EndpointState.INACTIVE),
            EndpointView(endpoint="c:1", state=EndpointState.REMOVED),
            EndpointView(endpoint="d:1", state=EndpointState.DRAINING),
        ),
        workers=(
            WorkerView(slot=0, gen=1, pid=1, state="ready"),
            WorkerView(slot=1, gen=1, pid=2, state="ready"),
            WorkerView(slot=0, gen=0, pid=3, state="draining"),
        ),
    )
    assert summary(more) == "1/3 endpoints active, 2 workers, 5 sessions"


def test_an_endpoint_is_what_roster_and_prober_know_of_it() -> None:
    """Identity and state from the one, the record from the other; before the first probe, none."""
    member = Member(Discovered(NAME, "infra0.example.com", 2379, ("10.0.1.10",), 5, 7))
    bare = endpoint_view(member, None)
    assert (bare.endpoint, bare.priority, bare.weight) == (NAME, 5, 7)
    assert bare.health is UNWATCHED
    health = HealthView(active=True, since=9.0, last_error="reset", probes={"passed": 3})
    known = endpoint_view(member, health)
    assert (known.addresses, known.state) == (("10.0.1.10",), EndpointState.ACTIVE)
    assert known.health is health
    drains = endpoint_view(dataclasses.replace(member, draining_at=1.0), health, retired_since=12.0)
    listed = document(dataclasses.replace(view(), endpoints=(known, drains)))["endpoints"]
    assert [each["since"] for each in listed] == [
        "1970-01-01T00:00:09.000Z",
        "1970-01-01T00:00:12.000Z",
    ]
