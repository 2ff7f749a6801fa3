"""Health and failover of a real gateway: members that die, lie, hang and flap."""

from __future__ import annotations

import contextlib
import datetime
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from supervisor.cli.admin_client import fetch_status
from supervisor.core.health.damping import STABLE_S
from tests import servers
from tests.clients import many, read_line
from tests.gateway import Gateway, all_know, running
from tests.servers import Server, serving
from tests.support import free_port, wait_until
from tests.unit.health.test_probe import server_context

HTTP = ("--health-check=http", "--health-interval=200ms", "--health-timeout=1s")


class Member:
    """An endpoint that answers sessions with its name and health probes as it is told."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.healthy = True
        self.sessions = 0
        self.probes = 0

    def __call__(self, conn: socket.socket) -> None:
        first = conn.recv(65536)
        if first.startswith(b"GET "):
            self.probes += 1
            status = "200 OK" if self.healthy else "503 Service Unavailable"
            conn.sendall(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode())
        elif first:
            self.sessions += 1
            conn.sendall(f"{self.name}\n".encode())


@contextlib.contextmanager
def members(count: int) -> Iterator[tuple[list[Member], list[Server]]]:
    team = [Member(f"m{i}") for i in range(count)]
    with contextlib.ExitStack() as stack:
        yield team, [stack.enter_context(serving(member)) for member in team]


def names(parts: list[Server]) -> list[str]:
    return [f"127.0.0.1:{server.port}" for server in parts]


def sessions(gateway: Gateway, count: int) -> list[str]:
    """Who answered ``count`` sessions, all open at once; an empty name is one that was lost."""
    with many(gateway.address, count) as clients:
        for client in clients:
            client.sendall(b"?")
        return [read_line(client) for client in clients]


def test_a_lying_member_is_found_and_avoided_by_all_workers() -> None:
    """It accepts but is not healthy: no worker of eight sends it a session, until it is well."""
    with members(3) as (team, parts):
        with running(*HTTP, endpoints=names(parts), workers=8) as gateway:
            assert len(set(sessions(gateway, 24))) == 3
            team[0].healthy = False
            line = gateway.wait_line("deactivated endpoint")
            assert line["endpoint"] == names(parts)[0]
            assert line["error"] == "HTTP status 503"
            wait_until(lambda: "m0" not in sessions(gateway, 100), what="all workers know")
            before = team[0].sessions
            assert set(sessions(gateway, 40)) == {"m1", "m2"}
            assert team[0].sessions == before
            team[0].healthy = True
            assert gateway.wait_line("activated")["endpoint"] == names(parts)[0]
            wait_until(lambda: "m0" in sessions(gateway, 24), what="all workers use it again")


def test_all_unhealthy_is_better_than_refused() -> None:
    """With no active endpoint sessions are tried all the same, and they work."""
    with members(2) as (team, parts):
        for member in team:
            member.healthy = False
        with running(*HTTP, endpoints=names(parts)) as gateway:
            gateway.wait_line("deactivated endpoint", count=2)
            wait_until(lambda: set(sessions(gateway, 8)) == {"m0", "m1"}, what="all workers know")


def test_probes_do_not_grow_with_workers_and_end_orderly() -> None:
    """Eight workers, one probe per interval; no probe ends in a reset."""
    with serving(servers.answer("200 OK")) as server:
        began = time.monotonic()
        with running(*HTTP, endpoints=[f"127.0.0.1:{server.port}"], workers=8):
            wait_until(lambda: server.accepted >= 12, 20)
            counted, took_s = server.accepted, time.monotonic() - began
        assert counted <= took_s / (0.2 * 0.9) + 3
        wait_until(lambda: len(server.ends) == server.accepted)
        assert set(server.ends) == {"eof"}


def test_tls_members_see_whole_handshakes(tmp_path: Path) -> None:
    """An https:// endpoint is probed by TLS without being asked to, and never half a handshake."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = server_context(authority, "127.0.0.1")
    with serving(servers.silent, context) as server:
        with running(
            "--health-interval=100ms",
            f"--trusted-ca-file={tmp_path / 'ca.pem'}",
            endpoints=[f"https://127.0.0.1:{server.port}"],
        ) as gateway:
            wait_until(lambda: server.accepted >= 5)
            assert gateway.lines("deactivated endpoint") == []
        wait_until(lambda: len(server.ends) == server.accepted)
        assert set(server.ends) == {"eof"}


def test_sessions_of_an_inactive_endpoint_are_closed_if_asked_for() -> None:
    """With --on-inactive=close its sessions end, and the access log says why; the others stay."""
    with members(2) as (team, parts):
        flags = (*HTTP, "--on-inactive=close", "--access-log")
        with running(*flags, endpoints=names(parts)) as gateway:
            with many(gateway.address, 6) as clients:
                hit = turn_first_inactive(gateway, team, clients)
                for client in hit:
                    with contextlib.suppress(ConnectionResetError):
                        assert client.recv(1) == b""
                wait_until(lambda: len(gateway.lines("session")) >= len(hit))
                assert {line["end"] for line in gateway.lines("session")} == {"inactive"}
                assert len(gateway.lines("session")) == len(hit)


def test_sessions_of_an_inactive_endpoint_are_kept_by_default() -> None:
    """Inactive means no new sessions; those that work go on."""
    with members(2) as (team, parts):
        admin = f"127.0.0.1:{free_port()}"
        flags = (*HTTP, "--close-spread=0s", f"--admin-addr={admin}")
        with running(*flags, endpoints=names(parts)) as gateway:
            gateway.wait_line("admin address is open")
            version = fetch_status([admin])["snapshot_version"]
            with many(gateway.address, 6) as clients:
                hit = turn_first_inactive(gateway, team, clients)
                wait_until(lambda: all_know(admin, version), what="the workers know")
                for client in hit:
                    client.setblocking(False)
                    with pytest.raises(BlockingIOError):
                        client.recv(1)


def turn_first_inactive(
    gateway: Gateway, team: list[Member], clients: list[socket.socket]
) -> list[socket.socket]:
    """Make ``m0`` unhealthy and wait until the gateway knows; the clients that it serves."""
    for client in clients:
        client.sendall(b"?")
    who = [read_line(client) for client in clients]
    team[0].healthy = False
    gateway.wait_line("deactivated endpoint")
    hit = [client for client, name in zip(clients, who, strict=True) if name == "m0"]
    assert hit
    return hit


def seconds_between(earlier: dict[str, Any], later: dict[str, Any]) -> float:
    """From one line of the log to another."""
    first, last = (datetime.datetime.fromisoformat(line["ts"]) for line in (earlier, later))
    return (last - first).total_seconds()


def test_flapping_is_damped() -> None:
    """A member that goes up and down ends up held, for a time that the log tells.

    An upgrade does not make it forgotten.
    """
    with members(2) as (team, parts):
        flags = ("--health-check=http", "--health-interval=50ms", "--retry-delay=50ms")
        with running(*flags, endpoints=names(parts)) as gateway:
            for count in range(1, 6):
                team[0].healthy = False
                gateway.wait_line("deactivated endpoint", count=count)
                team[0].healthy = True
                gateway.wait_line("activated", count=count)
            last = gateway.lines("deactivated endpoint")[-1]
            assert last["flaps"] == 4
            assert last["hold_s"] > 0
            gateway.signal(signal.SIGUSR2)
            gateway.wait_line("ready to proxy client requests", count=2)
            team[0].healthy = False
            gateway.wait_line("deactivated endpoint", count=6)
            last = gateway.lines("deactivated endpoint")[-1]
            if seconds_between(gateway.lines("activated")[-1], last) < STABLE_S:
                assert last["flaps"] == 5
                assert last["hold_s"] > 0


def test_one_workers_failed_dial_is_enough_for_eight() -> None:
    """Probes are an hour apart, so a dial finds the death; then no other worker dials the dead."""
    with members(2) as (_, parts), contextlib.ExitStack() as late:
        server = late.enter_context(serving(Member("dead")))
        dead = names([server])[0]
        admin = f"127.0.0.1:{free_port()}"
        flags = ("--health-check=http", "--health-interval=1h", f"--admin-addr={admin}")
        with running(*flags, endpoints=[*names(parts), dead], workers=8) as gateway:
            gateway.wait_line("admin address is open")
            wait_until(lambda: server.accepted == 1 and server.open == 0, what="the first probe")
            assert "dead" in sessions(gateway, 24)
            before = fetch_status([admin])["snapshot_version"]
            server.close()
            served = 24
            while not gateway.lines("deactivated endpoint"):
                assert "" not in sessions(gateway, 1)
                served += 1
            wait_until(lambda: all_know(admin, before), what="all workers know")
            assert "" not in sessions(gateway, 80)
            wait_until(lambda: fetch_status([admin])["totals"]["sessions_total"] >= served + 80)
            rows = {row["endpoint"]: row for row in fetch_status([admin])["endpoints"]}
            # On a slow machine a few sessions are dialed before the news is round; never by all.
            assert 1 <= rows[dead]["dial_failures"] < 8
            assert rows[dead]["state"] == "inactive"


def test_fifty_endpoints_half_of_them_dead() -> None:
    """Eight workers, 25 members, 25 addresses where nobody listens: every session is served."""
    with members(25) as (_, parts):
        dead = [f"127.0.0.1:{free_port()}" for _ in range(25)]
        mixed = [name for pair in zip(names(parts), dead, strict=True) for name in pair]
        with running(endpoints=mixed, workers=8) as gateway:
            assert "" not in sessions(gateway, 100)
            gateway.wait_line("deactivated endpoint", count=25)
            assert len(set(sessions(gateway, 100))) >= 20


def test_checks_off_still_hides_a_death() -> None:
    """Without checks a failed dial deactivates, and a quick probe brings it back."""
    with members(1) as (_, parts):
        port = free_port()
        endpoints = [*names(parts), f"127.0.0.1:{port}"]
        with running("--health-check=off", endpoints=endpoints) as gateway:
            assert sessions(gateway, 4) == ["m0"] * 4
            gateway.wait_line("deactivated endpoint")
            late = Member("late")
            with serving(late, port=port):
                gateway.wait_line("activated")
                wait_until(lambda: "late" in sessions(gateway, 4))
