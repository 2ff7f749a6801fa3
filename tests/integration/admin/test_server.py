"""The admin address of a real process: what it answers, and what hostile clients can not do."""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import json
import os
import select
import shutil
import signal
import socket
import stat
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from supervisor.admin import connection
from supervisor.admin.sockets import AdminError, AdminSocket
from supervisor.cli import admin_client
from tests.admin_double import NAMES, AdminDouble
from tests.gateway import running
from tests.support import PATIENCE, wait_until


@pytest.fixture
def double() -> Iterator[AdminDouble]:
    with AdminDouble() as process:
        yield process


def connect(address: str) -> socket.socket:
    if address.startswith("unix:"):
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(address.removeprefix("unix:"))
        return sock
    host, _, port = address.rpartition(":")
    return socket.create_connection((host.strip("[]"), int(port)), 10)


def exchange(address: str, request: bytes) -> bytes:
    """Send and read to the end of the stream."""
    with connect(address) as sock:
        sock.settimeout(60)
        sock.sendall(request)
        return read_all(sock)


def read_all(sock: socket.socket) -> bytes:
    answer = b""
    while data := sock.recv(65536):
        answer += data
    return answer


def get(address: str, path: str, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
    host, _, port = address.rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=20 * PATIENCE)
    connection.request(method, path)
    response = connection.getresponse()
    body = response.read()
    connection.close()
    return response.status, dict(response.headers), body


def test_status_is_the_document(double: AdminDouble) -> None:
    """/status is JSON and follows what happens."""
    double.tell(f"traffic {NAMES[0]} 12 1000")
    code, headers, body = get(double.address, "/status")
    document = json.loads(body)
    assert (code, headers["Content-Type"]) == (200, "application/json; charset=utf-8")
    assert document["state"] == "ready"
    assert document["endpoints"][0]["sessions"] == 12
    assert document["totals"]["bytes_out"] == 3000


def test_metrics_follow_the_accept_header(double: AdminDouble) -> None:
    """Text by default, OpenMetrics when asked, both about the same endpoints."""
    code, headers, body = get(double.address, "/metrics")
    assert (code, headers["Content-Type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    assert f'etcd_gateway_endpoint_active{{endpoint="{NAMES[0]}"}} 1.0'.encode() in body
    request = (
        b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nAccept: application/openmetrics-text\r\n\r\n"
    )
    answer = exchange(double.address, request)
    assert b"Content-Type: application/openmetrics-text" in answer
    assert answer.endswith(b"# EOF\n")


def test_the_three_probes(double: AdminDouble) -> None:
    """/livez does not care for endpoints, /readyz and /health do and say why."""
    assert get(double.address, "/livez")[::2] == (200, b"ok\n")
    assert get(double.address, "/readyz")[::2] == (200, b"ok\n")
    assert get(double.address, "/health")[2] == b'{"health":"true","reason":""}'
    for name in NAMES:
        double.tell(f"endpoint {name} inactive")
    double.tell("worker 1 backoff")
    wait_until(lambda: get(double.address, "/readyz")[0] == 503, what="not ready")
    why = "no endpoint is active; no live worker in slot 1"
    assert get(double.address, "/livez")[::2] == (200, b"ok\n")
    assert get(double.address, "/readyz")[2] == f"not ready: {why}\n".encode()
    code, _, body = get(double.address, "/health")
    assert (code, body) == (503, b'{"health":"false","reason":"' + why.encode() + b'"}\n')
    double.tell("drain")
    wait_until(lambda: b"draining" in get(double.address, "/readyz")[2], what="draining")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_only_get_and_head_are_served(double: AdminDouble, method: str) -> None:
    """Anything else is 405 with Allow, on every path."""
    for path in ("/status", "/", "/nowhere"):
        code, headers, _ = get(double.address, path, method)
        assert (code, headers["Allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize("method", ["FOO", "get", "Get", "PLAY", "X-Y!", "PRI"])
def test_a_method_that_nobody_knows_is_405_too(double: AdminDouble, method: str) -> None:
    """Whether a method is known to a library or not; methods have their case (RFC 9110)."""
    line = f"{method} /status HTTP/1.1\r\n".encode()
    for before in (b"", b"\r\n"):
        answer = exchange(double.address, before + line + b"Host: localhost\r\n\r\n")
        head, _, body = answer.partition(b"\r\n\r\n")
        lines = head.split(b"\r\n")
        assert lines[0].split()[1] == b"405"
        assert {b"Allow: GET, HEAD", b"Server: etcd-gateway"} <= set(lines)
        assert body == b"only GET and HEAD are served here\n"


def test_a_client_with_a_body_reads_the_answer(double: AdminDouble) -> None:
    """However much it sends: a reset in the middle would hide why it is refused."""
    body = b"x" * 20_000_000
    request = b"POST /status HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body)
    assert exchange(double.address, request + body).split()[1] == b"405"


@pytest.mark.parametrize("path", ["/", "/status", "/metrics", "/livez", "/health", "/nowhere"])
def test_head_is_get_without_the_body(double: AdminDouble, path: str) -> None:
    """Same code, same type, a length where GET has one, and not a byte of the body (RFC 9110)."""
    wanted, headers, _ = get(double.address, path)
    request = f"HEAD {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    head, _, body = exchange(double.address, request).partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert int(lines[0].split()[1]) == wanted
    assert body == b""
    assert f"Content-Type: {headers['Content-Type']}" in lines
    assert any(line.startswith("Content-Length: ") for line in lines)


@pytest.mark.parametrize("path", ["/", "/status", "/metrics", "/livez", "/nowhere"])
def test_a_foreign_host_gets_nothing(double: AdminDouble, path: str) -> None:
    """421 with what was expected, on every path: a rebound name must not read the status."""
    for host in (b"evil.example", b"evil.example:80", b"localhost.evil.example"):
        request = b"GET " + path.encode() + b" HTTP/1.1\r\nHost: " + host + b"\r\n\r\n"
        answer = exchange(double.address, request)
        assert answer.startswith(b"HTTP/1.1 421 Misdirected Request\r\n")
        assert b"--admin-host" in answer
        assert NAMES[0].encode() not in answer


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (b"GET /livez HTTP/1.0\r\n\r\n", b"200"),
        (b"GET /livez HTTP/1.0\r\nHost: evil.example\r\n\r\n", b"421"),
        (b"GET /livez HTTP/1.1\r\n\r\n", b"400"),
        (b"GET /livez HTTP/1.1\r\nHost: 10.0.0.1\r\nHost: evil.example\r\n\r\n", b"400"),
        (b"GET http://evil.example/livez HTTP/1.1\r\nHost: 10.0.0.1\r\n\r\n", b"421"),
        (b"GET http://10.0.0.1:1/livez HTTP/1.1\r\nHost: 10.0.0.1:1\r\n\r\n", b"200"),
        (b"GET /livez HTTP/1.1\r\nHost: [::1]:9379\r\n\r\n", b"200"),
        (b"GET /livez HTTP/1.1\r\nhost: LOCALHOST.:1\r\n\r\n", b"200"),
        (b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n", b"405"),
        (b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n", b"405"),
    ],
)
def test_hosts_in_every_form(double: AdminDouble, request_: bytes, code: bytes) -> None:
    """Old clients send none, proxies put it into the target, and two of them are an error."""
    assert exchange(double.address, request_).split()[1] == code


@pytest.mark.parametrize(
    "request_",
    [
        b"GET /livez HTTP/1.1\r\nHost: localhost\r\n" + b"X: a\r\n" * 80 + b"\r\n",
        b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET * HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"hello world\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
)
def test_what_is_no_http_learns_no_versions(double: AdminDouble, request_: bytes) -> None:
    """The answer names the gateway and not its libraries, and no browser takes it for a page."""
    head, _, _ = exchange(double.address, request_).partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert lines[0].split()[1] == b"400"
    assert {b"Server: etcd-gateway", b"X-Content-Type-Options: nosniff"} <= set(lines)


def test_a_unix_socket_may_be_asked_under_any_name(tmp_path: Path) -> None:
    """No web page reaches it."""
    with AdminDouble(f"unix:{tmp_path / 'admin.sock'}") as double:
        for headers in (b"Host: evil.example\r\n", b"Host: \r\n"):
            answer = exchange(double.address, b"GET /livez HTTP/1.1\r\n" + headers + b"\r\n")
            assert answer.split()[1] == b"200"


def test_an_unknown_path_says_what_there_is(double: AdminDouble) -> None:
    """404 with the list of paths."""
    code, _, body = get(double.address, "/nowhere")
    assert code == 404
    assert b"/metrics" in body


def test_the_page_loads_nothing_from_elsewhere_and_its_policy_says_so(double: AdminDouble) -> None:
    """A strict Content-Security-Policy, no address of another host in the page."""
    code, headers, body = get(double.address, "/")
    assert (code, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    policy = headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Server"] == "etcd-gateway"
    assert b"//" not in body.replace(b"http://www.w3.org/2000/svg", b"")
    assert b" style=" not in body
    assert b" onclick=" not in body


def test_unix_sockets_are_private_replaced_if_stale_and_removed_at_exit(tmp_path: Path) -> None:
    """Mode 0660; what a killed process left is replaced; a clean exit leaves nothing."""
    path = tmp_path / "admin.sock"
    killed = AdminDouble(f"unix:{path}")
    killed.process.kill()
    with killed:
        pass
    assert path.is_socket()
    with AdminDouble(f"unix:{path}", "127.0.0.1:0") as double:
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        assert admin_client.fetch_status([f"unix:{path}"])["state"] == "ready"
        assert admin_client.fetch_status([double.addresses[1]])["state"] == "ready"
    assert not path.exists()


NOBODY = "nobody finds the socket of an admin address any more"
OPEN = "admin address is open"


def test_a_socket_whose_file_is_gone_is_made_anew(tmp_path: Path) -> None:
    """Said in the log, as often as it happens, and also after its folder was gone for a while."""
    folder = tmp_path / "run"
    folder.mkdir()
    path = folder / "admin.sock"
    admin = f"unix:{path}"
    with running(f"--admin-addr={admin}", endpoints=["127.0.0.1:9"], workers=1) as gateway:
        gateway.wait_line(OPEN)
        for count in (1, 2):
            path.unlink()
            assert gateway.wait_line(NOBODY, count=count)["admin"] == admin
            assert gateway.wait_line(OPEN, count=count + 1)["admin"] == [admin]
            assert admin_client.fetch_status([admin])["pid"] == gateway.pid
            assert stat.S_IMODE(path.stat().st_mode) == 0o660
        shutil.rmtree(folder)
        line = gateway.wait_line("admin address is not available, trying again")
        assert f"there is no directory {folder}" in line["error"]
        folder.mkdir()
        gateway.wait_line(OPEN, 30, count=4)
        assert admin_client.fetch_status([admin])["pid"] == gateway.pid
        gateway.signal(signal.SIGUSR2)
        gateway.wait_line(OPEN, 30, count=5)
        assert admin_client.fetch_status([admin])["pid"] == gateway.pid
        assert gateway.stop() == 0
        assert not path.exists()


@pytest.mark.parametrize("replaced", [False, True])
def test_another_programs_socket_stays_in_its_place(tmp_path: Path, replaced: bool) -> None:
    """Until that program is gone; also for the next image, which gets a socket of this address."""
    path = tmp_path / "admin.sock"
    admin = f"unix:{path}"
    with running(f"--admin-addr={admin}", endpoints=["127.0.0.1:9"], workers=1) as gateway:
        gateway.wait_line(OPEN)
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(tmp_path / "other"))
            (tmp_path / "other").rename(path)
            if replaced:
                gateway.signal(signal.SIGUSR2)
            else:
                gateway.wait_line(NOBODY)
            line = gateway.wait_line("admin address is not available, trying again", 30)
            assert "Address already in use" in line["error"]
        gateway.wait_line(OPEN, 30, count=2)
        assert admin_client.fetch_status([admin])["pid"] == gateway.pid
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(tmp_path / "other"))
            (tmp_path / "other").rename(path)
            gateway.stop()
            assert path.exists()


def test_two_that_bind_at_once_do_not_both_succeed(tmp_path: Path) -> None:
    """Whoever looks whether a file is left over, and binds, holds its lock."""
    path = tmp_path / "admin.sock"
    with (tmp_path / "admin.sock.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(
            AdminError, match=r"unix:.*another process is just about to listen there"
        ):
            AdminSocket(f"unix:{path}")
        assert not path.exists()
    AdminSocket(f"unix:{path}").close()
    assert not list(tmp_path.iterdir())


def test_a_socket_in_use_or_a_file_is_left_alone(tmp_path: Path) -> None:
    """Neither a running gateway's socket nor somebody's file is replaced."""
    path = tmp_path / "admin.sock"
    first = AdminSocket(f"unix:{path}")
    with pytest.raises(AdminError, match=r"unix:.*Address already in use"):
        AdminSocket(f"unix:{path}")
    (tmp_path / "file").write_text("kept")
    with pytest.raises(AdminError, match="is not a socket"):
        AdminSocket(f"unix:{tmp_path / 'file'}")
    assert (tmp_path / "file").read_text() == "kept"
    path.unlink()
    second = AdminSocket(f"unix:{path}")
    first.close()
    assert path.exists(), "the first removed the second's file"
    second.close()
    assert not path.exists()


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("127.0.0.1:{taken}", "Address already in use"),
        ("gateway.example.com:80", "is no IP address"),
        ("192.0.2.1:0", "Cannot assign requested address"),
        ("unix:/nonexistent/admin.sock", "there is no directory /nonexistent"),
    ],
)
def test_an_address_that_cannot_be_served_is_named(address: str, why: str) -> None:
    """The error has the address and the reason; nothing is left open."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = address.format(taken=taken.getsockname()[1])
        with pytest.raises(AdminError, match=why) as caught:
            AdminSocket(address)
    assert address in str(caught.value)


def test_an_empty_host_serves_all_interfaces() -> None:
    """``:port`` is reached over IPv4, and over IPv6 where the host has it."""
    with AdminDouble(":0", "localhost:0") as double:
        port = double.address.rpartition(":")[2]
        assert get(f"127.0.0.1:{port}", "/livez")[0] == 200
        assert double.addresses[1].startswith("127.0.0.1:")


def test_a_silent_client_is_cut_and_the_others_are_served(double: AdminDouble) -> None:
    """More connections than the limit that say nothing: every real request is answered."""
    silent = [connect(double.address) for _ in range(connection.MAX_CONNECTIONS + 20)]
    for _ in range(5):
        assert get(double.address, "/livez")[0] == 200
    for sock in silent[:20]:
        sock.settimeout(60)
        assert sock.recv(1) == b""
    for sock in silent:
        sock.close()


def test_a_burst_of_clients_is_answered(double: AdminDouble) -> None:
    """All of them have connected before the first one asks."""
    clients = [connect(double.address) for _ in range(200)]
    for path in (b"/livez", b"/status"):
        for sock in clients:
            sock.settimeout(60)
            sock.sendall(b"GET " + path + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")
        for sock in clients:
            assert read_all(sock).startswith(b"HTTP/1.1 200 OK\r\n")
            sock.close()
        clients = [connect(double.address) for _ in range(200)]
    for sock in clients:
        sock.close()


def test_a_burst_of_scrapes_is_answered(double: AdminDouble) -> None:
    """All of them ask before the first answer is made: none of them counts as unread."""
    double.tell("many 200")
    clients = [connect(double.address) for _ in range(2 * connection.MAX_ANSWERS)]
    assert get(double.address, "/livez")[0] == 200  # it has accepted all of them
    double.process.send_signal(signal.SIGSTOP)
    for sock in clients:
        sock.settimeout(60)
        sock.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
    double.process.send_signal(signal.SIGCONT)
    with ThreadPoolExecutor(len(clients)) as readers:
        answers = list(readers.map(read_all, clients))
    for sock in clients:
        sock.close()
    assert all(answer.startswith(b"HTTP/1.1 200 OK\r\n") for answer in answers)


SURPLUS = 6


def count_answered(socks: Sequence[socket.socket]) -> int:
    """How many of these connections have something to read."""
    poll = select.poll()
    for sock in socks:
        poll.register(sock, select.POLLIN)
    return len(poll.poll(0))


def test_answers_that_nobody_reads_are_bounded(double: AdminDouble) -> None:
    """The oldest of them are dropped, and who reads gets the whole."""
    double.tell("many 200")
    double.tell("life 120")  # so many answers take a busy machine longer than ten seconds
    descriptors = Path(f"/proc/{double.process.pid}/fd")
    before = len(list(descriptors.iterdir()))
    with contextlib.ExitStack() as clients:
        lazy = []
        for _ in range(connection.MAX_ANSWERS + SURPLUS):
            sock = clients.enter_context(socket.socket())
            sock.settimeout(60)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            host, _, port = double.address.rpartition(":")
            sock.connect((host, int(port)))
            lazy.append(sock)
        for sock in lazy:
            sock.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
        # Else an answer that is read, but not at once, could be the oldest when the last begins.
        wait_until(lambda: count_answered(lazy) == len(lazy), 60, "all answers have begun")
        code, headers, body = get(double.address, "/metrics")
        assert (code, int(headers["Content-Length"])) == (200, len(body))
        assert len(list(descriptors.iterdir())) - before <= connection.MAX_ANSWERS


def test_the_kernel_does_not_keep_an_answer_that_nobody_reads(double: AdminDouble) -> None:
    """It has all of it, and the connection is closed on our side."""
    double.tell("many 200")
    double.tell("life 1")
    with socket.socket() as lazy:
        lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        host, _, port = double.address.rpartition(":")
        lazy.connect((host, int(port)))
        lazy.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
        other_side = f":{int(port):04X} 0100007F:{lazy.getsockname()[1]:04X} "

        def waiting_bytes() -> int:
            for line in Path("/proc/net/tcp").read_text().splitlines():
                if other_side in line:
                    return int(line.split()[4].partition(":")[0], 16)
            return 0

        wait_until(waiting_bytes, what="the kernel has bytes that are not taken")
        wait_until(lambda: not waiting_bytes(), what="they are gone")
        with pytest.raises(ConnectionResetError):
            read_all(lazy)


def test_slow_headers_end_with_the_connections_life(double: AdminDouble) -> None:
    """A byte now and then does not prolong it."""
    with connect(double.address) as sock:
        sock.settimeout(2 * connection.CONNECTION_LIFE_S)
        sock.sendall(b"GET /status HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")

        def is_cut() -> bool:
            try:
                sock.sendall(b"a")
            except OSError:
                return True
            return False

        wait_until(is_cut, 2 * connection.CONNECTION_LIFE_S, "slow client is cut")
    assert get(double.address, "/livez")[0] == 200


@pytest.mark.parametrize(
    ("request_bytes", "code"),
    [
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 100_000 + b"\r\n\r\n", b" 400 "),
        (b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", b" 400 "),
        (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 1000 + b"\r\n", b" 400 "),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200), b" 400 "),
        (b"GET /livez HTTP/1.0\r\n\r\n", b" 200 "),
        (b"GET /metrics HTTP/1.0\r\n\r\n", b" 200 "),
    ],
)
def test_what_is_too_large_or_no_http_is_refused(
    double: AdminDouble, request_bytes: bytes, code: bytes
) -> None:
    """Limits on line, header and number of headers; old clients are fine."""
    with connect(double.address) as sock:
        sock.settimeout(60)
        try:
            sock.sendall(request_bytes)
            answer = read_all(sock)
        except ConnectionError:  # it hung up while we were still sending: refused as well
            answer = b" 400 "
        assert code in answer.partition(b"\r\n")[0]
    assert get(double.address, "/livez")[0] == 200


def test_one_request_per_connection(double: AdminDouble) -> None:
    """Pipelined requests do not pile up: the first is answered, then the connection ends."""
    answer = exchange(double.address, b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n" * 50)
    assert answer.count(b"HTTP/1.1 200") == 1


def test_a_client_that_half_closes_gets_its_answer(double: AdminDouble) -> None:
    """End of stream after the request is not a hang-up."""
    with connect(double.address) as sock:
        sock.settimeout(60)
        sock.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        sock.shutdown(socket.SHUT_WR)
        assert read_all(sock).endswith(b"ok\n")


def test_a_thousand_scrapes_start_no_thread_and_leak_no_descriptor(double: AdminDouble) -> None:
    """After many requests the process has one thread and the descriptors it began with."""
    process = Path(f"/proc/{double.process.pid}")

    def descriptors() -> int:
        return len(list((process / "fd").iterdir()))

    before = descriptors()
    for _ in range(250):
        for path in ("/metrics", "/status", "/", "/health"):
            assert get(double.address, path)[0] == 200
    wait_until(lambda: descriptors() == before, what="descriptors as before")
    assert len(list((process / "task").iterdir())) == 1


def test_a_reload_shows(double: AdminDouble) -> None:
    """The instant, the result and the error are in the document."""
    double.tell("reload failed")
    os.kill(double.process.pid, signal.SIGHUP)
    wait_until(
        lambda: json.loads(get(double.address, "/status")[2])["reload"]["last_result"] == "failed",
        what="reload in the document",
    )


def test_secrets_of_tls_are_written_nowhere(tmp_path: Path) -> None:
    """And the admin address is served also where they could not be: a library makes a context."""
    admin = f"unix:{tmp_path / 'admin'}"
    kept, lost = tmp_path / "keys", tmp_path / "gone" / "keys"
    for path in (kept, lost):
        prefix = ["env", f"SSLKEYLOGFILE={path}"]
        with running(f"--admin-addr={admin}", endpoints=["127.0.0.1:1"], prefix=prefix) as gateway:
            gateway.wait_line("admin address is open")
    assert not kept.exists()
