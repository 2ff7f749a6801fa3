"""One probe against real servers, good and bad; and nobody is left with a reset."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import trustme

from supervisor.core.health.probing import Plan, ProbeKind, Result, Verdict
from supervisor.health.probe import Probe, files_of
from supervisor.system import tls_sessions
from supervisor.system.tls_contexts import TlsContexts
from supervisor.system.tls_sessions import TlsSessions
from tests import servers
from tests.clients import black_hole
from tests.servers import Server, serving
from tests.support import free_port, wait_until, watch_nothing

PASSED = Result(Verdict.PASSED)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def files(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ca.pem, client.pem and client.key in a directory."""
    directory = tmp_path_factory.mktemp("tls")
    authority.cert_pem.write_to_path(directory / "ca.pem")
    client = authority.issue_cert("client@example.com")
    client.cert_chain_pems[0].write_to_path(directory / "client.pem")
    client.private_key_pem.write_to_path(directory / "client.key")
    return directory


@pytest.fixture(params=["TLSv1_2", "TLSv1_3"])
def version(request: pytest.FixtureRequest) -> ssl.TLSVersion:
    return ssl.TLSVersion[request.param]


def server_context(
    authority: trustme.CA,
    *names: str,
    mutual: bool = False,
    version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = context.maximum_version = version
    authority.issue_cert(*names).configure_cert(context)
    if mutual:
        authority.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def tls_plan(files: Path, name: str = "etcd.example", kind: ProbeKind = ProbeKind.TLS) -> Plan:
    return Plan(kind=kind, server_name=name, ca_file=str(files / "ca.pem"))


def with_client(how: Plan, files: Path) -> Plan:
    return replace(how, cert_file=str(files / "client.pem"), key_file=str(files / "client.key"))


PLAIN = Plan(kind=ProbeKind.TCP, server_name="127.0.0.1")
HTTP = Plan(kind=ProbeKind.HTTP, server_name="127.0.0.1")


def probed(
    port: int,
    how: Plan,
    *,
    address: str = "127.0.0.1",
    timeout_s: float = 5.0,
    contexts: TlsContexts | None = None,
    sessions: TlsSessions | None = None,
) -> Result:
    async def probe() -> Result:
        one = Probe(address, port, how, contexts or TlsContexts(), sessions)
        try:
            result = await one.run(timeout_s)
            await one.leave()
        finally:
            one.close()
        return result

    return asyncio.run(probe())


def ended(server: Server, *ends: str) -> None:
    wait_until(lambda: server.ends == list(ends), what=f"{server.ends} became {ends}")


@pytest.fixture
def deaf_port() -> Iterator[int]:
    """Listens, but nobody accepts: the kernel completes handshakes, and that is all."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock.getsockname()[1]


def answer_without_end(conn: socket.socket) -> None:
    conn.recv(65536)
    while True:
        conn.sendall(b"HTTP/1.1 100 Continue\r\n\r\n" * 1000)


def test_an_answer_without_end_is_cut() -> None:
    """Bytes that are always there already do not keep the master from everything else."""
    with serving(answer_without_end) as server:
        result = probed(server.port, HTTP, timeout_s=0.5)
    assert result == Result(Verdict.FAILED, "timeout: no answer within 0.5 s")


def test_tcp_is_seen_by_nobody() -> None:
    """A TCP probe asks the kernel: the program on the other side never accepts a connection."""
    with serving(servers.greet) as server:
        for _ in range(50):
            assert probed(server.port, PLAIN) == PASSED
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.recv(1)
            # The ACK that is held back for the reset goes out by itself after 40 ms without CPU.
            assert server.accepted <= 6, "this client's, and what the kernel was late for"


def test_deaf_server_is_left(deaf_port: int) -> None:
    """A server that accepts and does nothing passes by TCP, and does not keep us for ever."""
    assert probed(deaf_port, PLAIN) == PASSED


def test_refused() -> None:
    """Nobody listens."""
    assert probed(free_port(), PLAIN) == Result(Verdict.FAILED, "connection refused")


def test_ipv6() -> None:
    """Addresses of both families are probed."""
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as sock:
        assert probed(sock.getsockname()[1], PLAIN, address="::1") == PASSED


@pytest.mark.parametrize("kind", list(ProbeKind))
def test_black_hole(kind: ProbeKind, files: Path) -> None:
    """SYNs into nothing end at the timeout, whatever the kind."""
    with black_hole() as (_, port):
        result = probed(port, tls_plan(files, kind=kind), timeout_s=0.2)
    expected = Result(Verdict.FAILED, "timeout: no connect within 0.2 s", unanswered=True)
    assert result == expected


@pytest.mark.parametrize("kind", [ProbeKind.TLS, ProbeKind.HTTP, ProbeKind.HTTPS])
def test_accept_and_hang(kind: ProbeKind, files: Path, deaf_port: int) -> None:
    """A zombie that accepts and says nothing is found by every kind that listens to answers."""
    result = probed(deaf_port, tls_plan(files, kind=kind), timeout_s=0.2)
    assert result == Result(Verdict.FAILED, "timeout: no answer within 0.2 s")


def test_http_passes() -> None:
    """200 with etcd's body is healthy, and the connection ends orderly."""
    with serving(servers.answer("200 OK", b'{"health":"true","reason":""}')) as server:
        assert probed(server.port, HTTP) == PASSED
        ended(server, "eof")


def test_http_answer_without_length() -> None:
    """An answer that ends with the connection counts too."""
    with serving(servers.answer("200 OK", b'{"health":"false"}', framed=False)) as server:
        assert probed(server.port, HTTP) == Result(Verdict.FAILED, 'health is "false"')


def test_http_page_of_any_length() -> None:
    """200 is healthy, however long the page is that comes with it, as the metrics of etcd."""
    with serving(servers.answer("200 OK", b"# HELP " * 100_000)) as server:
        assert probed(server.port, replace(HTTP, path="/metrics")) == PASSED
    with serving(servers.answer("404 Not Found", bytes(100_000))) as server:
        assert probed(server.port, HTTP) == Result(Verdict.FAILED, "HTTP status 404")


def test_http_503() -> None:
    """Any status but 200 is a failure."""
    with serving(servers.answer("503 Service Unavailable")) as server:
        assert probed(server.port, HTTP) == Result(Verdict.FAILED, "HTTP status 503")
        ended(server, "eof")


def test_http_says_unhealthy() -> None:
    """200 with a body that says false is a failure, with etcd's reason."""
    body = b'{"health":"false","reason":"RAFT NO LEADER"}'
    with serving(servers.answer("200 OK", body)) as server:
        result = probed(server.port, HTTP)
    assert result == Result(Verdict.FAILED, 'health is "false" (RAFT NO LEADER)')


def test_http_sends_path_and_host() -> None:
    """The request asks for the configured path, query included, and names the host."""
    heard: list[bytes] = []

    def listen(conn: socket.socket) -> None:
        heard.append(conn.recv(65536))
        conn.sendall(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    how = replace(HTTP, path="/health?serializable=true", server_name="::1")
    with serving(listen) as server:
        assert probed(server.port, how) == PASSED
    request = heard[0].lower()
    assert request.startswith(b"get /health?serializable=true http/1.1\r\n")
    assert f"host: [::1]:{server.port}\r\n".encode() in request


@pytest.mark.parametrize(
    ("said", "error"),
    [
        (b"220 hello\r\n\r\n", "no HTTP: illegal status line: '220 hello'"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort", "server closed the connection"),
        (b"", "server closed the connection"),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", "no HTTP"),
    ],
)
def test_http_nonsense(said: bytes, error: str) -> None:
    """What is not an HTTP answer, or is cut, is a failure."""

    def say(conn: socket.socket) -> None:
        conn.recv(65536)
        conn.sendall(said)
        conn.shutdown(socket.SHUT_WR)

    with serving(say) as server:
        result = probed(server.port, HTTP)
    assert result.verdict is Verdict.FAILED
    assert error in result.error


@pytest.mark.parametrize("kind", [ProbeKind.HTTP, ProbeKind.ETCD])
def test_a_failure_at_another_port_names_it(kind: ProbeKind) -> None:
    """Clients can dial the endpoint: its operator would look for the fault in the wrong place."""
    with serving(servers.silent) as server:
        port = free_port()
        result = probed(server.port, replace(HTTP, kind=kind, port=port))
    assert result == Result(Verdict.FAILED, f"health port {port}: connection refused")


def test_tls_passes_and_leaves_orderly(
    authority: trustme.CA, files: Path, version: ssl.TLSVersion
) -> None:
    """A TLS probe is a full handshake and a goodbye: no reset although tickets are under way."""
    with serving(
        servers.silent, server_context(authority, "etcd.example", version=version)
    ) as server:
        for _ in range(20):
            assert probed(server.port, tls_plan(files)) == PASSED
        ended(server, *["eof"] * 20)


def test_tls_for_an_ip(authority: trustme.CA, files: Path) -> None:
    """A static endpoint given by address is verified for its IP."""
    with serving(servers.silent, server_context(authority, "127.0.0.1")) as server:
        assert probed(server.port, tls_plan(files, "127.0.0.1")) == PASSED
        result = probed(server.port, tls_plan(files, "127.0.0.2"))
    assert result.verdict is Verdict.FAILED
    assert "127.0.0.2" in result.error


def test_tls_wrong_name(authority: trustme.CA, files: Path) -> None:
    """A certificate for another name fails, unless it need not be verified."""
    with serving(servers.silent, server_context(authority, "other.example")) as server:
        result = probed(server.port, tls_plan(files))
        assert result.verdict is Verdict.FAILED
        assert result.error.startswith("TLS: certificate: Hostname mismatch")
        assert probed(server.port, replace(tls_plan(files), verify=False)) == PASSED


def test_tls_wrong_authority(files: Path) -> None:
    """A certificate of an unknown authority fails."""
    with serving(servers.silent, server_context(trustme.CA(), "etcd.example")) as server:
        result = probed(server.port, tls_plan(files))
    assert result.error.startswith("TLS: certificate: ")
    assert result.verdict is Verdict.FAILED


def test_tls_to_plaintext(files: Path) -> None:
    """A server that does not speak TLS fails, whether it answers or hangs up."""
    with serving(servers.greet) as server:
        result = probed(server.port, tls_plan(files))
        assert result == Result(Verdict.FAILED, "TLS: does not speak TLS (wrong version number)")
    with serving(lambda conn: conn.shutdown(socket.SHUT_WR)) as server:
        result = probed(server.port, tls_plan(files))
        assert result.error == "closed the connection"


def test_mutual_tls_with_certificate(
    authority: trustme.CA, files: Path, version: ssl.TLSVersion
) -> None:
    """The client certificate is presented, and https asks through it."""
    context = server_context(authority, "etcd.example", mutual=True, version=version)
    with serving(servers.answer("200 OK", b'{"health":"true"}'), context) as server:
        how = with_client(tls_plan(files, kind=ProbeKind.HTTPS), files)
        assert probed(server.port, how) == PASSED
        ended(server, "eof")


def test_mutual_tls_without_certificate(
    authority: trustme.CA, files: Path, version: ssl.TLSVersion
) -> None:
    """A server that demands a certificate is alive for tls, and unusable for https."""
    context = server_context(authority, "etcd.example", mutual=True, version=version)
    with serving(servers.answer("200 OK"), context) as server:
        assert probed(server.port, tls_plan(files)) == PASSED
        result = probed(server.port, tls_plan(files, kind=ProbeKind.HTTPS))
        assert result.verdict is Verdict.FAILED


def test_https(authority: trustme.CA, files: Path) -> None:
    """https is the same question inside TLS, also when the answer ends with the connection."""
    context = server_context(authority, "etcd.example")
    with serving(servers.answer("200 OK", b'{"health":"true"}'), context) as server:
        assert probed(server.port, tls_plan(files, kind=ProbeKind.HTTPS)) == PASSED
        ended(server, "eof")
    cut = servers.answer("200 OK", b'{"health":"false"}', framed=False)
    with serving(cut, server_context(authority, "etcd.example")) as server:
        result = probed(server.port, tls_plan(files, kind=ProbeKind.HTTPS))
    assert result == Result(Verdict.FAILED, 'health is "false"')


def test_https_cut(authority: trustme.CA, files: Path) -> None:
    """An answer that is cut, without TLS's own end, is a failure."""

    def cut(conn: socket.socket) -> None:
        conn.recv(65536)
        conn.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort")
        socket.socket.shutdown(conn, socket.SHUT_WR)

    with serving(cut, server_context(authority, "etcd.example")) as server:
        result = probed(server.port, tls_plan(files, kind=ProbeKind.HTTPS))
    assert result.error.startswith("the server closed the connection ")


def test_unreadable_files_are_our_own_fault(files: Path, deaf_port: int, tmp_path: Path) -> None:
    """A CA, certificate or key that cannot be loaded is no evidence against an endpoint."""
    (tmp_path / "junk.pem").write_text("junk")
    for how in (
        replace(tls_plan(files), ca_file=str(tmp_path / "absent.pem")),
        replace(tls_plan(files), ca_file=str(tmp_path / "junk.pem")),
        replace(tls_plan(files), cert_file=str(files / "client.pem"), key_file="/absent"),
    ):
        result = probed(deaf_port, how)
        assert result.verdict is Verdict.UNDECIDED
        assert result.error.startswith("cannot load")


def test_rotated_files_are_read_again(files: Path, tmp_path: Path) -> None:
    """A CA file that was replaced counts from the next probe on, without a reload."""
    mine = tmp_path / "ca.pem"
    mine.write_bytes((files / "ca.pem").read_bytes())
    other = trustme.CA()
    contexts = TlsContexts()
    how = replace(tls_plan(files), ca_file=str(mine))
    with serving(servers.silent, server_context(other, "etcd.example")) as server:
        assert probed(server.port, how, contexts=contexts).verdict is Verdict.FAILED
        other.cert_pem.write_to_path(tmp_path / "new.pem")
        (tmp_path / "new.pem").replace(mine)
        assert probed(server.port, how, contexts=contexts) == PASSED
        assert contexts.get(files_of(how)) is contexts.get(files_of(how))


def test_no_descriptor_is_our_own_fault(deaf_port: int) -> None:
    """Out of descriptors is no evidence against an endpoint."""

    async def probe() -> Result:
        one = Probe("127.0.0.1", deaf_port, PLAIN, TlsContexts())
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        try:
            return await one.run(5)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            one.close()

    assert asyncio.run(probe()).verdict is Verdict.UNDECIDED


@pytest.mark.parametrize("kind", [ProbeKind.TLS, ProbeKind.HTTP, ProbeKind.ETCD])
def test_an_answer_that_cannot_be_waited_for_is_our_own_fault(kind: ProbeKind) -> None:
    """The kernel's limit of watches is reached after the connect: no evidence either."""

    async def probe(port: int) -> Result:
        one = Probe("127.0.0.1", port, Plan(kind=kind, server_name="localhost"), TlsContexts())
        with pytest.MonkeyPatch.context() as full:
            full.setattr(asyncio.get_running_loop(), "_add_reader", watch_nothing)
            try:
                return await one.run(5)
            finally:
                one.close()

    with serving(servers.silent) as server:
        result = asyncio.run(probe(server.port))
        wait_until(lambda: server.accepted == 1, what="the probe was accepted")
    assert result.verdict is Verdict.UNDECIDED
    assert "no space left on device" in result.error


class Resumptions:
    """A TLS server that notes which handshakes were resumed."""

    def __init__(self, authority: trustme.CA, version: ssl.TLSVersion) -> None:
        self.context = server_context(authority, "etcd.example", version=version)
        self.resumed: list[bool] = []

    def __call__(self, conn: socket.socket) -> None:
        assert isinstance(conn, ssl.SSLSocket)
        self.resumed.append(bool(conn.session_reused))


def test_handshakes_are_resumed(
    authority: trustme.CA, files: Path, tmp_path: Path, version: ssl.TLSVersion
) -> None:
    """The first handshake is a full one, the others cost no signature until the CA file changes."""
    mine = tmp_path / "ca.pem"
    mine.write_bytes((files / "ca.pem").read_bytes())
    how = replace(tls_plan(files), ca_file=str(mine))
    contexts, sessions, script = TlsContexts(), TlsSessions(), Resumptions(authority, version)
    with serving(script, script.context) as server:
        for _ in range(3):
            assert probed(server.port, how, contexts=contexts, sessions=sessions) == PASSED
        (tmp_path / "new.pem").write_bytes((files / "ca.pem").read_bytes())
        (tmp_path / "new.pem").replace(mine)
        for _ in range(2):
            assert probed(server.port, how, contexts=contexts, sessions=sessions) == PASSED
        ended(server, *["eof"] * 5)
    assert script.resumed == [False, True, True, False, True]


def test_a_full_handshake_comes_in_time(
    authority: trustme.CA, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session that is old enough is not resumed: a certificate that expired must be seen."""
    contexts, sessions = TlsContexts(), TlsSessions()
    script = Resumptions(authority, ssl.TLSVersion.TLSv1_3)
    with serving(script, script.context) as server:
        for _ in range(2):
            probed(server.port, tls_plan(files), contexts=contexts, sessions=sessions)
        monkeypatch.setattr(tls_sessions, "FULL_HANDSHAKE_S", 0.0)
        probed(server.port, tls_plan(files), contexts=contexts, sessions=sessions)
    assert script.resumed == [False, True, False]


def test_a_session_that_cannot_be_resumed_is_no_evidence(
    authority: trustme.CA, files: Path
) -> None:
    """An endpoint that fails a resumed handshake is asked again, in full."""
    contexts, sessions = TlsContexts(), TlsSessions()
    script = Resumptions(authority, ssl.TLSVersion.TLSv1_3)
    with serving(script, script.context) as server:
        probed(server.port, tls_plan(files), contexts=contexts, sessions=sessions)
        port = server.port
    with serving(servers.greet, port=port) as server:
        result = probed(port, tls_plan(files), contexts=contexts, sessions=sessions)
        assert result.verdict is Verdict.UNDECIDED
        assert result.error.startswith("cannot resume TLS: ")
        result = probed(port, tls_plan(files), contexts=contexts, sessions=sessions)
        assert result.verdict is Verdict.FAILED


def test_a_certificate_that_is_not_accepted_fails_each_probe(
    authority: trustme.CA, files: Path, tmp_path: Path, version: ssl.TLSVersion
) -> None:
    """With TLS 1.3 a handshake is over before the endpoint refuses: that leaves no session."""
    unknown = trustme.CA().issue_cert("client@example.com")
    unknown.cert_chain_pems[0].write_to_path(tmp_path / "client.pem")
    unknown.private_key_pem.write_to_path(tmp_path / "client.key")
    how = with_client(tls_plan(files, kind=ProbeKind.HTTPS), tmp_path)
    contexts, sessions = TlsContexts(), TlsSessions()
    context = server_context(authority, "etcd.example", mutual=True, version=version)

    def refuse(conn: socket.socket) -> None:
        with contextlib.suppress(ssl.SSLError):
            context.wrap_socket(conn.dup(), server_side=True)
        while conn.recv(65536):  # a close with unread bytes would take the alert along
            pass

    with serving(refuse) as server:
        for _ in range(2):
            result = probed(server.port, how, contexts=contexts, sessions=sessions)
            assert result.verdict is Verdict.FAILED, result
            assert "does not accept --health-cert-file" in result.error


def test_a_tcp_probe_of_a_unix_socket_is_not_seen(tmp_path: Path) -> None:
    """It passes while a process has the socket, and the program accepts nobody."""
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as server:
        assert probed(0, PLAIN, address=f"unix:{path}").verdict is Verdict.FAILED
        server.bind(path)
        server.listen()
        server.setblocking(False)
        assert probed(0, PLAIN, address=f"unix:{path}") == PASSED
        with pytest.raises(BlockingIOError):
            server.accept()
    left = probed(0, PLAIN, address=f"unix:{path}")
    assert left == Result(Verdict.FAILED, "connection refused")


def test_a_tcp_probe_of_an_abstract_name() -> None:
    """It connects and leaves: each type of socket has names of its own, so nothing else tells."""
    name = f"etcd-gateway-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"\0{name}")
        server.listen()
        assert probed(0, PLAIN, address=f"unix:@{name}") == PASSED
        with server.accept()[0] as conn:
            assert conn.recv(1) == b""
    assert probed(0, PLAIN, address=f"unix:@{name}").verdict is Verdict.FAILED


def test_http_over_a_unix_socket(tmp_path: Path) -> None:
    """The Host has no port."""
    path = str(tmp_path / "s")
    heard: list[bytes] = []

    def serve() -> None:
        with server.accept()[0] as conn:
            heard.append(conn.recv(4096))
            conn.sendall(b'HTTP/1.1 200 OK\r\ncontent-length: 17\r\n\r\n{"health":"true"}')
            conn.recv(1)

    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        how = Plan(kind=ProbeKind.HTTP, server_name="localhost")
        assert probed(0, how, address=f"unix:{path}") == PASSED
        thread.join(60)
    assert b"\r\nhost: localhost\r\n" in heard[0].lower()


def test_tls_over_a_unix_socket(files: Path, authority: trustme.CA, tmp_path: Path) -> None:
    """The certificate has to be valid for localhost."""
    path = str(tmp_path / "s")

    def serve() -> None:
        for name in ("localhost", "etcd.example"):
            context = server_context(authority, name)
            with contextlib.suppress(OSError), server.accept()[0] as conn:
                with context.wrap_socket(conn, server_side=True) as secure:
                    secure.recv(1)

    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        how = tls_plan(files, "localhost")
        assert probed(0, how, address=f"unix:{path}") == PASSED
        assert "not valid for" in probed(0, how, address=f"unix:{path}").error
        thread.join(60)


def test_a_full_queue_fails_a_probe_that_has_to_connect(tmp_path: Path) -> None:
    """At once: nobody would tell when there is room."""
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind(path)
        server.listen(0)
        client.connect(path)
        how = Plan(kind=ProbeKind.HTTP, server_name="localhost")
        found = probed(0, how, address=f"unix:{path}")
        assert found == Result(Verdict.FAILED, "the socket's queue is full")
