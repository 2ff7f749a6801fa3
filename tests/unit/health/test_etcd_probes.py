"""Probes of kind etcd against a server that answers as a member does."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import trustme

from supervisor.core.config import Config
from supervisor.core.health.health_view import HealthView
from supervisor.core.health.probing import plan
from supervisor.health.etcd_inquiry import EtcdMemory
from supervisor.health.probe import Probe
from supervisor.system.tls_contexts import TlsContexts
from tests.servers import serving
from tests.support import eventually
from tests.unit.health.test_prober import QUICK, SLOW, found, play, staged

ETCD = replace(QUICK, health_check="etcd", health_timeout_s=20.0)


class EtcdDouble:
    """A script of a server: answers requests until the client leaves."""

    def __init__(
        self, *, alarms: tuple[str, ...] = (), leader: str = "7", cluster_id: str = "7"
    ) -> None:
        self.alarms, self.leader, self.cluster_id = alarms, leader, cluster_id
        self.requests: list[str] = []
        self.first_bytes: list[int] = []

    def __call__(self, conn: socket.socket) -> None:
        conn.settimeout(60)
        data = b""
        while chunk := conn.recv(65536):
            if not data and not isinstance(conn, ssl.SSLSocket):
                self.first_bytes.append(chunk[0])
                if chunk[0] == 22:  # a TLS handshake: etcd closes, and logs nothing
                    conn.shutdown(socket.SHUT_WR)
                    return
            data += chunk
            head, end, rest = data.partition(b"\r\n\r\n")
            if not end or len(rest) < (b"Content-Length" in head and int(head.split(b": ")[-1])):
                continue
            data = b""
            path = head.split()[1].decode()
            self.requests.append(path)
            conn.sendall(self.answer(path))

    def answer(self, path: str) -> bytes:
        if path == "/v3/maintenance/status":
            errors = [f"memberID:7 alarm:{alarm} " for alarm in self.alarms]
            header = {"cluster_id": self.cluster_id}
            said = {"header": header, "version": "3.4.23", "leader": self.leader, "errors": errors}
        elif path == "/v3/kv/range":
            said = {"header": {}}
        else:
            return b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\nnone"
        body = json.dumps(said).encode()
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body


def test_what_a_member_speaks_is_found_out_once() -> None:
    """The first probe begins with a handshake; those after it do not, until a connection fails."""
    double = EtcdDouble()

    async def scene() -> None:
        async with staged(ETCD) as stage:
            name = f"e{server.port}:1"
            stage.prober.set_endpoints(found(server.port))
            await eventually(lambda: stage.view(name).probes.get("passed", 0) >= 3)
            assert stage.view(name).etcd_version == "3.4.23"
            assert stage.log.lines == []

    with serving(double) as server:
        play(scene)
    assert double.first_bytes.count(22) == 1
    assert double.first_bytes[0] == 22
    assert double.requests[:5] == [
        "/v3/maintenance/status",
        "/readyz?exclude=linearizable_read",
        "/v3/kv/range",
        "/v3/maintenance/status",
        "/v3/kv/range",
    ]


def test_a_server_that_keeps_nothing_open_is_asked_again_and_again() -> None:
    """One of HTTP/1.0 that waits for the end of a line when it gets a handshake, and knows only
    /health."""

    class Simple(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path, body = self.path, b'{"health":"true","reason":""}'
            self.send_response(200 if path == "/health" else 404)
            self.end_headers()
            self.wfile.write(body if path == "/health" else b"")

        def log_message(self, *_: object) -> None: ...

    async def scene() -> None:
        async with staged(replace(ETCD, health_timeout_s=5.0)) as stage:
            name = f"e{port}:1"
            stage.prober.set_endpoints(found(port))
            await eventually(lambda: stage.view(name).probes.get("passed", 0) >= 3)
            assert stage.changes == []

    with ThreadingHTTPServer(("127.0.0.1", 0), Simple) as server:
        port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            play(scene)
        finally:
            server.shutdown()
            thread.join(60)


@pytest.mark.slow
def test_a_silent_answer_to_a_handshake_leaves_time_for_the_question(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One without TLS that waits for the end of a line is asked within a short timeout, too."""
    monkeypatch.setattr("supervisor.system.connections.LINGER_S", 60.0)  # longer than the timeout
    requests: list[bytes] = []

    def line_by_line(conn: socket.socket) -> None:
        data = conn.recv(65536)
        if data[:1] == b"\x16":
            return
        requests.append(data)
        body = b'{"header":{},"version":"3.4.23","leader":"7"}'
        while data:
            conn.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            data = conn.recv(65536)

    async def scene() -> None:
        how = plan(ETCD, found(server.port)[0])
        probe = Probe("127.0.0.1", server.port, how, TlsContexts())
        result = await probe.run(4.0)
        await probe.leave()
        probe.close()
        assert result.verdict == "passed", result

    with serving(line_by_line) as server:
        play(scene)
    assert requests


def test_an_endpoint_that_is_known_to_speak_tls_must() -> None:
    """Whoever named it with https:// does not want it asked without."""
    double = EtcdDouble()

    async def scene() -> None:
        async with staged(ETCD) as stage:
            name = f"e{server.port}:1"
            stage.prober.set_endpoints(found(server.port, tls=True))
            await eventually(lambda: stage.changes == [(name, False)])

    with serving(double) as server:
        play(scene)
    assert set(double.first_bytes) == {22}
    assert double.requests == []


def test_tls_is_found_out_and_verified() -> None:
    """At a port that nobody said anything of; a certificate that is wrong is no plain text."""
    authority, other = trustme.CA(), trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("member.example").configure_cert(context)
    double = EtcdDouble()

    async def scene(ca: trustme.CA, state: str) -> None:
        with ca.cert_pem.tempfile() as file:
            async with staged(replace(ETCD, trusted_ca_file=file)) as stage:
                (one,) = found(server.port)
                stage.prober.set_endpoints([replace(one, host="member.example")])
                await eventually(lambda: sum(stage.view(one.name).probes.values()) >= 3)
                assert stage.view(one.name).state == state
                error = stage.view(one.name).last_error or ""
                assert error.startswith("TLS: certificate: ") == (state == "inactive")

    with serving(double, context) as server:
        play(lambda: scene(authority, "active"))
        play(lambda: scene(other, "inactive"))
    assert double.first_bytes == []


def test_a_failed_connection_forgets_what_was_learned() -> None:
    """Another process may be there, which speaks TLS or serves more; its version stays shown."""
    double = EtcdDouble()
    memory = EtcdMemory()

    async def scene(port: int, times: int) -> None:
        for _ in range(times):
            how = plan(ETCD, found(port)[0])
            probe = Probe("127.0.0.1", port, how, TlsContexts(), memory=memory)
            await probe.run(5)
            await probe.leave()
            probe.close()

    with serving(double) as server:
        play(lambda: scene(server.port, 1))
        assert (memory.secure, memory.known.has_readyz) == (False, False)
    play(lambda: scene(server.port, 1))
    assert (memory.secure, memory.known.has_readyz) == (None, True)
    assert memory.known.version == "3.4.23"


def test_a_member_without_space_is_degraded() -> None:
    """It is said once, shown with its reason, and said when it is over."""
    double = EtcdDouble(alarms=("NOSPACE",))

    async def scene() -> None:
        async with staged(ETCD) as stage:
            name = f"e{server.port}:1"
            stage.prober.set_endpoints(found(server.port))
            await eventually(lambda: stage.view(name).degraded == "NOSPACE")
            await eventually(lambda: stage.view(name).probes.get("passed", 0) >= 3)
            assert (stage.view(name).state, stage.view(name).last_error) == ("active", "NOSPACE")
            assert stage.log.said("endpoint degraded") == [{"endpoint": name, "reason": "NOSPACE"}]
            double.alarms = ()
            await eventually(lambda: stage.view(name).degraded is None)
            assert stage.log.said("endpoint no longer degraded") == [{"endpoint": name}]
            double.alarms = ("NOSPACE",)
            await eventually(lambda: stage.view(name).degraded == "NOSPACE")
            stage.prober.reconfigure(replace(ETCD, health_interval_s=0.2))
            view = stage.view(name)
            assert (view.degraded, view.etcd_version) == ("NOSPACE", "3.4.23")
            stage.prober.reconfigure(replace(QUICK, health_check="tcp"))
            view = stage.view(name)
            assert (view.degraded, view.etcd_version) == (None, None)
            assert len(stage.log.said("endpoint no longer degraded")) == 1
            assert stage.changes == []

    with serving(double) as server:
        play(scene)


def test_a_member_of_another_cluster_is_degraded() -> None:
    """Its clients see other keys; a cluster that takes the place of another one is as good."""
    ours, other = EtcdDouble(cluster_id="2748"), EtcdDouble(cluster_id="3567")

    async def scene(ports: list[int]) -> None:
        reason = "is a member of cluster def, and most endpoints are of abc"
        async with staged(ETCD) as stage:
            all_of_them = found(*ports)
            odd_one = all_of_them[-1].name
            stage.prober.set_endpoints(all_of_them)
            await eventually(lambda: stage.view(odd_one).degraded == reason)
            await eventually(lambda: stage.view(all_of_them[0].name).degraded is None)
            assert {"endpoint": odd_one, "reason": reason} in stage.log.said("endpoint degraded")
            leaving = [each.name for each in all_of_them[:-1]]
            stage.prober.set_endpoints(all_of_them, retired=leaving)
            await eventually(lambda: stage.view(odd_one).degraded is None)
            assert stage.changes == []

    with serving(ours) as one, serving(ours) as two, serving(other) as three:
        play(lambda: scene([one.port, two.port, three.port]))


def test_what_members_say_counts_for_each_of_them() -> None:
    """--health-min-active is about a host that is cut off, and that one hears no answers."""
    double = EtcdDouble(leader="0")

    async def scene(ports: list[int]) -> None:
        config: Config = replace(ETCD, health_min_active=50, health_timeout_s=0.5)
        async with staged(config) as stage:
            stage.prober.set_endpoints(found(*ports))
            await eventually(lambda: len(stage.changes) == 3)
            for port in ports:
                view = stage.view(f"e{port}:1")
                assert (view.active, view.kept) == (False, False)
                assert view.last_error == "RAFT NO LEADER"

    with serving(double) as one, serving(double) as two, serving(double) as three:
        play(lambda: scene([one.port, two.port, three.port]))


def test_the_next_master_knows_what_was_known() -> None:
    """Until its own probes say otherwise."""

    async def scene() -> None:
        async with staged(replace(SLOW, health_check="etcd")) as stage:
            stage.prober.set_endpoints(found(1))
            known = HealthView(active=True, since=1.0, degraded="NOSPACE", etcd_version="3.5.1")
            stage.prober.remember({"e1:1": known})
            view = stage.view("e1:1")
            assert (view.degraded, view.etcd_version) == ("NOSPACE", "3.5.1")

    play(scene)


def test_with_other_files_inactive_ones_are_probed_soon() -> None:
    """They may have been refused for the files before; those without TLS were not."""

    async def scene(kind: str, probes: int) -> None:
        async with staged(replace(SLOW, health_check=kind, health_min_active=0)) as stage:
            stage.prober.set_endpoints(found(1))
            await eventually(lambda: not stage.view("e1:1").active)
            stage.prober.look_again()
            await eventually(lambda: stage.view("e1:1").probes["failed"] >= probes)
            assert stage.view("e1:1").probes["failed"] == probes

    play(lambda: scene("tls", 2))
    play(lambda: scene("tcp", 1))
