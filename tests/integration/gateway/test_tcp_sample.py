"""Round trips and retransmissions of the connections to endpoints, sampled at a fixed cost."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families as parse

from gateway.core.counters import EndpointCounters
from gateway.sessions.tcp_sample import MOST, TcpSample
from tests.clients import connect, talk
from tests.gateway import Gateway
from tests.integration.admin.test_server import exchange
from tests.plane import Backend, BlackHole, Plane
from tests.servers import serving
from tests.support import wait_until
from tests.wires import hosts, inside, ip, prefix

NEAR, FAR = "10.77.1.1", "10.77.1.2"


def count(plane: Plane) -> EndpointCounters:
    (counters,) = plane.count().endpoints.values()
    return counters


def test_a_session_that_moved_bytes_is_sampled() -> None:
    """The round trip on loopback is short and not nothing; a session that is quiet adds none."""
    with Backend() as backend, Plane(backend.endpoint) as plane:
        with plane.connect() as client, backend.accept() as server:
            client.sendall(b"x")
            assert server.recv(1) == b"x"
            trips = count(plane).round_trips
            assert trips.weight >= 1
            assert 0 < trips.weighted_s / trips.weight < 0.5
            before = trips.weight
            assert count(plane).round_trips.weight < before


class Quiet:
    """A session without a connection, which counts how often it was asked for one."""

    over = False

    def __init__(self) -> None:
        self.counters: EndpointCounters | None = None
        self.asked = 0

    @property
    def endpoint_fd(self) -> int:
        self.asked += 1
        return -1


def test_the_cost_does_not_grow_with_the_sessions() -> None:
    """Of many sessions that moved bytes a few are asked after, and all of them in the end."""
    sessions = [Quiet() for _ in range(10 * MOST - 3)]
    sample = TcpSample()
    for _ in range(10):
        before = sum(each.asked for each in sessions)
        sample.take(sessions)
        assert sum(each.asked for each in sessions) - before <= MOST
    assert [each.asked for each in sessions] == [1] * len(sessions)


class Connecting:
    """A session whose packets nobody acknowledges, which counts how often it was asked."""

    over = False

    def __init__(self, fd: int) -> None:
        self.counters: EndpointCounters | None = EndpointCounters()
        self.asked = 0
        self._fd = fd

    @property
    def endpoint_fd(self) -> int:
        self.asked += 1
        return self._fd


def test_who_waits_and_sends_is_asked_once() -> None:
    """It would outweigh the others, and take their places, by one more in each report."""
    with BlackHole() as hole, socket.socket() as sock:
        sock.setblocking(False)
        sock.connect_ex(hole.sock.getsockname())
        session, sample = Connecting(sock.fileno()), TcpSample()
        for count in range(1, 6):
            sample.take([session])
            assert session.asked == count
        sample.take([])
        assert session.asked == 6


def metric(admin: str, name: str) -> float | None:
    text = exchange(admin, b"GET /metrics HTTP/1.0\r\n\r\n").partition(b"\r\n\r\n")[2].decode()
    found = [
        sample.value
        for family in parse(text)
        for sample in family.samples
        if sample.name == f"etcd_gateway_{name}"
    ]
    return found[0] if found else None


def test_what_is_lost_on_the_way_to_an_endpoint_is_counted(tmp_path: Path) -> None:
    """Segments that are sent again show while they are, with no further byte of the client."""
    admin = f"unix:{tmp_path}/admin.sock"
    with contextlib.ExitStack() as stack:
        near, far = stack.enter_context(hosts(NEAR, FAR))
        listener = inside(far, lambda: socket.create_server((FAR, 0)))
        port = listener.getsockname()[1]
        stack.enter_context(serving(lambda conn: conn.sendall(conn.recv(1)), listener=listener))
        flags = [f"--endpoints={FAR}:{port}", f"--admin-addr={admin}", "--drain-timeout=0s"]
        gateway = stack.enter_context(Gateway(*flags, prefix=prefix(near)))
        gateway.wait_ready()
        client = stack.enter_context(inside(near, lambda: connect(gateway.address)))
        talk(client, b"?")
        wait_until(lambda: metric(admin, "tcp_rtt_seconds"), what="a round trip")
        assert metric(admin, "tcp_retransmits_total") == 0
        ip("-n", far, "addr", "del", f"{FAR}/24", "dev", "eth0")  # received, but nobody's
        client.sendall(b"?")
        wait_until(lambda: (metric(admin, "tcp_retransmits_total") or 0) >= 3, 20, "losses")
