"""DNS and health together: who left, who fails, and who gets the sessions then."""

from __future__ import annotations

import contextlib
import signal
import socket
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from supervisor.cli.admin_client import fetch_status
from tests.clients import connect, read_line
from tests.dns import NameServer
from tests.gateway import Gateway, all_know, running
from tests.integration.health.test_verdicts import Member
from tests.servers import Server, serving
from tests.support import free_port, wait_until

PLAIN = "_etcd-client._tcp.example.test"


class Patient(Member):
    """Its sessions may be silent for long."""

    def __call__(self, conn: socket.socket) -> None:
        conn.settimeout(60)
        super().__call__(conn)


class Zone:
    """Members behind SRV records, and a gateway that follows them."""

    def __init__(self, ns: NameServer, team: list[Patient], parts: list[Server]) -> None:
        self.ns, self.team, self.parts = ns, team, parts
        self.admin = f"127.0.0.1:{free_port()}"

    def publish(self, *weighted: tuple[int, int]) -> None:
        """The member's number and its weight, for each that is in DNS from now on."""
        texts = [f"0 {weight} {self.parts[n].port} host.example.test." for n, weight in weighted]
        self.ns.set(PLAIN, "SRV", *texts, ttl=300)

    def flags(self, *more: str) -> tuple[str, ...]:
        return (
            "--discovery-srv=example.test", "--insecure-discovery", "--access-log",
            f"--nameserver={self.ns.address}", f"--admin-addr={self.admin}",
            "--health-check=http", "--health-interval=100ms", *more,
        )  # fmt: skip

    def name(self, n: int) -> str:
        return f"host.example.test:{self.parts[n].port}"

    def rows(self) -> dict[str, dict[str, Any]]:
        return {row["endpoint"]: row for row in fetch_status([self.admin])["endpoints"]}

    def version(self) -> int:
        return int(fetch_status([self.admin])["snapshot_version"])

    def state(self, n: int) -> str | None:
        row = self.rows().get(self.name(n))
        return None if row is None else str(row["state"])


@pytest.fixture
def zone() -> Iterator[Zone]:
    team = [Patient(f"m{n}") for n in range(4)]
    with contextlib.ExitStack() as stack:
        ns = stack.enter_context(NameServer())
        ns.set("host.example.test", "A", "127.0.0.1")
        yield Zone(ns, team, [stack.enter_context(serving(member)) for member in team])


def long_sessions(
    gateway: Gateway, stack: contextlib.ExitStack, count: int
) -> list[tuple[socket.socket, str]]:
    """Sessions that stay, begun one after another, and who serves each."""
    begun = []
    for _ in range(count):
        client = stack.enter_context(connect(gateway.address))
        client.sendall(b"?")
        begun.append((client, read_line(client)))
    return begun


def test_absent_and_failing_goes_soon_absent_and_healthy_is_drained(zone: Zone) -> None:
    """Of four members one stays, one stays but fails, one leaves, one leaves and fails."""
    zone.publish((0, 1), (1, 1), (2, 1), (3, 1))
    with running(*zone.flags("--removal-grace=1h"), workers=4) as gateway:
        gateway.wait_line("admin address is open")
        zone.team[1].healthy = zone.team[3].healthy = False
        gateway.wait_line("deactivated endpoint", count=2)
        wait_until(lambda: served_by(gateway) == {"m0", "m2"}, what="all workers know")
        wait_until(lambda: zone.rows()[zone.name(3)]["sessions"] == 0, what="its clients left")
        with contextlib.ExitStack() as stack:
            clients = begin(gateway, stack, "m2")
            zone.publish((0, 1), (1, 1))
            gateway.signal(signal.SIGHUP)
            wait_until(lambda: zone.state(2) == "removed")
            assert [zone.state(n) for n in range(2)] == ["active", "inactive"]
            wait_until(lambda: served_by(gateway) == {"m0"}, what="all workers know")
            wait_until(lambda: zone.rows()[zone.name(2)]["sessions"] == len(clients))
            zone.team[2].healthy = False  # its sessions still have their grace
            gateway.wait_line("deactivated endpoint", count=3)
            assert set(ends(gateway)) <= {"client"}
            for client in clients:
                client.close()
            wait_until(lambda: zone.state(2) is None, what="failing, and the last session ended")
            before = zone.team[1].probes
            wait_until(lambda: zone.team[1].probes > before, what="present and failing: probed")
            zone.team[1].healthy = True
            wait_until(lambda: zone.state(1) == "active")
            wait_until(lambda: "m1" in {who for _, who in long_sessions(gateway, stack, 1)})
            wait_until(lambda: zone.state(3) is None, what="absent and failing: gone soon")


def served_by(gateway: Gateway) -> set[str]:
    """Who serves, of enough short sessions for every worker to have its say."""
    with contextlib.ExitStack() as stack:
        return {who for _, who in long_sessions(gateway, stack, 60)}


def begin(gateway: Gateway, stack: contextlib.ExitStack, name: str) -> list[socket.socket]:
    """Sessions that stay with this member, however many others it takes."""
    begun = long_sessions(gateway, stack, 8)
    assert {who for _, who in begun} <= {"m0", "m2"}
    return [client for client, who in begun if who == name]


def ends(gateway: Gateway) -> Counter[str]:
    return Counter(line["end"] for line in gateway.lines("session"))


def test_least_sessions_with_weights_health_and_dns(zone: Zone) -> None:
    """Four workers: shares by weight; one that was away catches up; so does a newcomer."""
    zone.publish((0, 1), (1, 3))
    flags = zone.flags("--balance=least-sessions", "--on-inactive=close")
    with running(*flags, workers=4) as gateway, contextlib.ExitStack() as stack:
        gateway.wait_line("admin address is open")
        begun = long_sessions(gateway, stack, 80)
        count = Counter(who for _, who in begun)
        assert 16 <= count["m0"] <= 24, count
        zone.team[1].healthy = False
        wait_until(lambda: ends(gateway) == {"inactive": count["m1"]}, what="its sessions end")
        assert {who for _, who in long_sessions(gateway, stack, 20)} == {"m0"}
        before = zone.version()
        zone.team[1].healthy = True
        wait_until(lambda: zone.state(1) == "active")
        wait_until(lambda: all_know(zone.admin, before), what="all workers know")
        back = Counter(who for _, who in long_sessions(gateway, stack, 40))
        assert back["m1"] >= 32, back
        before = zone.version()
        zone.publish((0, 1), (1, 3), (2, 2))
        gateway.signal(signal.SIGHUP)
        wait_until(lambda: zone.state(2) == "active")
        wait_until(lambda: all_know(zone.admin, before), what="all workers know")
        new = Counter(who for _, who in long_sessions(gateway, stack, 20))
        print(count, back, new, {k: v["sessions"] for k, v in zone.rows().items()})
        assert new["m2"] >= 14, new
